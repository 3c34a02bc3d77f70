"""Overrides of how a finished run is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RECIPE, RunDir


def recipe_with(overrides: Sequence[str], path: Path) -> Recipe | None:
    """The recipe of the run at `path` with changed measurement settings; None without overrides.

    Raises InputError for what would change the encoder.
    """
    if not overrides:
        return None
    from cssl_cli.recipe import load_recipe

    file = str(RunDir.open(path).file(RECIPE))
    recipe = load_recipe(file, overrides)
    if recipe.fingerprint != load_recipe(file).fingerprint:
        moved = any(text.startswith("data.root=") for text in overrides)
        raise InputError(
            f"{' '.join(overrides)} would change the encoder of a finished run",
            where=str(path),
            remedy="Where the same images lie elsewhere now, give that folder with --data-root DIR."
            if moved
            else "Override fields of analyze or probe, such as analyze.bootstrap=1000, or pretrain another run.",
        )
    return recipe


def recipe_elsewhere(data: str, overrides: Sequence[str], path: Path) -> tuple[Recipe, Recipe]:
    """The recipe of the run at `path` with changed measurement settings, and the same on other images.

    `data` names a data set or a recipe with the images. Overrides of the data block are about these, the others about
    the measurement. Raises InputError for what would change the encoder.
    """
    from cssl_cli.recipe.load import load_recipe, with_other_data

    file = str(RunDir.open(path).file(RECIPE))
    of_data = [text for text in overrides if re.match(r"~?data(\.|=|$)", text)]
    own = recipe_with([text for text in overrides if text not in of_data], path) or load_recipe(file)
    return own, own.model_copy(update={"data": with_other_data(file, data, of_data).data})
