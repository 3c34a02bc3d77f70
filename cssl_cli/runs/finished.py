"""Opening a finished run: its recipe, its encoder, and the untrained encoder to compare with."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cssl_cli.data import Dataset
from cssl_cli.errors import DamagedError, InputError, shown_command
from cssl_cli.host.progress import Reporter, warn
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs.images import images_of_run
from cssl_cli.runs.pretrain import check_images, check_recipe
from cssl_cli.runs.run_dir import ENCODER, METRICS, PROJECTOR, RECIPE, RunDir
from cssl_cli.runs.setup import initial_method

Part = Literal["encoder", "projector"]
WEIGHTS: Mapping[Part, str] = {"encoder": ENCODER, "projector": PROJECTOR}


def open_finished(path: Path, reporter: Reporter, recipe: Recipe | None = None) -> tuple[RunDir, Recipe]:
    """The run at `path`, and its recipe or `recipe` in its place, which says how to measure.

    `InputError` unless the run is finished and could have run with that recipe. If recipe.yaml was edited without
    changing its fingerprint, it is used, with a notice.
    """
    run = RunDir.open(path)
    changed = _change_of_recipe(run)
    recipe = recipe or load_recipe(str(run.file(RECIPE)))
    check_recipe(run, recipe)
    if changed is not None:
        warn(reporter, f"{changed}, or was edited; measured with the settings as they stand (its fingerprint fits)")
    if not run.finished:
        status, metrics = run.status(), run.read_records(METRICS)
        state = "still running" if run.in_use() else {"running": "killed"}.get(status["state"], status["state"])
        step = max([status.get("step", 0), *(record["step"] for record in metrics)])
        what = f"pretraining has not finished ({state}, step {step} of {status.get('num_steps', 'unknown')})"
        raise InputError(
            f"{ENCODER} is missing" if state == "finished" else what,
            where=str(path),
            remedy=_how_to_finish(run, recipe),
        )
    if run.environment() is not None and not run.has_checksums:
        warn(reporter, f"{path} was begun by a version that wrote no checksums: damage to its files may go unnoticed")
    return run, recipe


def _how_to_finish(run: RunDir, recipe: Recipe) -> str:
    folder = run.path.resolve().parent
    place = RunDir.at(folder, name=recipe.name, fingerprint=recipe.fingerprint).path
    if place.name == run.path.resolve().name:
        return f"Finish it with: {shown_command('cssl', 'pretrain', run.file(RECIPE), '--out', folder)}"
    if place.exists():
        return f"It has the recipe of {place}: copy that run again, or measure it instead."
    command = shown_command("cssl", "pretrain", place / RECIPE, "--out", folder)
    return f"Rename its folder to {place.name}, where it is looked for, and finish it with: {command}"


def _change_of_recipe(run: RunDir) -> str | None:
    """What is wrong with recipe.yaml by its checksum; `DamagedError` if it is not a readable file."""
    text = run.read_unverified(RECIPE)
    try:
        run.verify(RECIPE, io.BytesIO(text or b""))
    except DamagedError as error:
        return f"{error.where}: {error.what}"
    return None


def stored_result(run: RunDir, name: str, settings: Mapping[str, Any], reporter: Reporter) -> dict[str, Any] | None:
    """A result already measured with these settings; a damaged file is reported."""
    found = None
    try:
        found = run.read_result(name, settings)
        run.latest_result(name)  # with any settings: it is about to be replaced
    except DamagedError as error:
        reporter.say(f"{error.where}: {error.what}; it is made again")
    return found


def finished_run_data(
    run: RunDir, recipe: Recipe, dataset: Dataset | None, reporter: Reporter, data_root: str | None
) -> Dataset:
    """The recipe's images, or `dataset` if already loaded; `InputError` unless the run was trained on the same images.

    `data_root` is where they are now, in place of the recipe's data.root.
    """
    if dataset is None:
        own = [run.path, run.path.absolute().parent]
        dataset = images_of_run(run, recipe, reporter, data_root=data_root, own=own)
    check_images(run, recipe, dataset, data_root)
    return dataset


def trained_part(run: RunDir, recipe: Recipe, part: Part) -> nn.Module:
    """The run's trained encoder or projector; raises `DamagedError` as `load_weights` does."""
    weights = run.load_weights(WEIGHTS[part], fingerprint=recipe.fingerprint)
    channels = len(run.facts_of_weights(WEIGHTS[part]).get("mean", "RGB"))  # early versions did not write it
    module: nn.Module = getattr(initial_method(recipe, channels=channels), part)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"the saved {part} does not fit the recipe", where=str(run.path), remedy="Train again with --restart."
        ) from error
    return module


def projector_reason(run: RunDir) -> str | None:
    """Why the run has no projector; None if it has one."""
    imported = run.status().get("imported")
    if isinstance(imported, Mapping) and imported.get("projector") is None:
        return f"the encoder was imported from {imported.get('file')}, and no projector of the recipe's layers with it"
    return None


def untrained_encoder(recipe: Recipe, channels: int) -> nn.Module:
    """The encoder as a run of the recipe starts: with initial weights and batch norms that have seen no data.

    For images of so many `channels`.
    In eval mode these batch norms leave their input unchanged. Statistics estimated on the images would make a weaker
    baseline (docs/results.md).
    """
    return initial_method(recipe, channels=channels).encoder


def counter(reporter: Reporter, task: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        reporter.advance(task, done, total)

    return advance
