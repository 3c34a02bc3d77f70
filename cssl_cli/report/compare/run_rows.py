"""Runs outside a sweep, as rows of a table: runs that differ only in their seed form one row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.report.compare.prediction import chosen_in_words
from cssl_cli.report.compare.rows import Row, rows_of
from cssl_cli.runs.run_dir import RECIPE, RunDir, find_runs
from cssl_cli.sweep.ranking import ranked_beside
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Member


def ranked_of_runs(analyses: Mapping[Path, dict[str, Any]]) -> dict[Path, Mapping[str, Any]]:
    """What the sweeps that runs are of found of their augmentations before training, of those that were ranked."""
    return ranked_beside({path: found.get("content_key") for path, found in analyses.items()}, cache(_recipe_of))


def rows_of_runs(
    analyses: Mapping[Path, dict[str, Any]],
    probes: Mapping[Path, dict[str, Any] | None],
    ranked: Mapping[Path, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """The rows of runs, from their recipes on disk, analyses and probe.json, and what is `ranked` before training.

    Runs whose recipes differ only in the seed (and name, and settings that do not affect the encoder) are replicates of
    one row. Its name is that of the first one's recipe without the seed or, if two rows would share it, the
    directory's.
    """
    recipes = {path: _recipe_of(path) for path in analyses}
    names: dict[str, str] = {}
    for path, recipe in recipes.items():
        name = re.sub(rf"-seed{recipe.seed}$", "", recipe.name)
        names.setdefault(_but_for_the_seed(recipe), path.name if name in names.values() else name)
    return rows_of(
        [
            MemberResult(
                Member(recipe.name, names[_but_for_the_seed(recipe)], {}, recipe.seed, recipe, recipe.fingerprint),
                path,
                probes[path],
                analyses[path],
                None,
                ranked=(ranked or {}).get(path),
            )
            for path, recipe in recipes.items()
        ]
    )


def _recipe_of(run: Path) -> Recipe:
    return load_recipe(str(RunDir(run).file(RECIPE)))


def _but_for_the_seed(recipe: Recipe) -> str:
    return recipe.model_copy(update={"seed": 0}).fingerprint


def how_chosen_among(paths: Iterable[Path]) -> str | None:
    """What is to be said if successive halving has stopped other runs in the folders of these; None if it has not."""
    folders = {path.resolve().parent for path in paths}
    states = [_is_stopped(RunDir(run)) for folder in sorted(folders) for run in find_runs(folder)]
    return chosen_in_words(sum(states), len(states), "runs in the same folder") if any(states) else None


def _is_stopped(run: RunDir) -> bool:
    with suppress(CsslError):
        return not run.finished and bool(run.status().get("stopped"))
    return False
