"""A finished run, opened: its recipe, its encoder, and the untrained encoder it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.pipeline.pretrain import check_images, check_recipe
from cssl_cli.pipeline.setup import images_of_run, initial_method
from cssl_cli.progress import Reporter
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.run_dir import ENCODER, METRICS, PROJECTOR, RECIPE, RunDir


def open_finished(path: Path, recipe: Recipe | None = None) -> tuple[RunDir, Recipe]:
    """The run at `path` and its recipe, or `recipe` in its place, which says how to measure.

    `InputError` unless the run is finished and the recipe is one that it could have run with.
    """
    run = RunDir.open(path)
    recipe = recipe or load_recipe(str(run.file(RECIPE)))
    check_recipe(run, recipe)
    if not run.finished:
        status, metrics = run.status(), run.read_records(METRICS)
        state = "still running" if run.in_use() else {"running": "killed"}.get(status["state"], status["state"])
        step = max([status.get("step", 0), *(record["step"] for record in metrics)])
        what = f"pretraining has not finished ({state}, step {step} of {status.get('num_steps', 'unknown')})"
        raise InputError(
            f"{ENCODER} is missing" if state == "finished" else what,
            where=str(path),
            remedy=f"Finish it with: cssl pretrain {run.file(RECIPE)} --out {path.resolve().parent}",
        )
    return run, recipe


def finished_run_data(
    run: RunDir, recipe: Recipe, dataset: Dataset | None, reporter: Reporter, data_root: str | None
) -> Dataset:
    """The recipe's images (or `dataset`, when the caller has loaded it); `InputError` unless the run saw the same.

    `data_root` is where they lie now, in place of the recipe's data.root.
    """
    if dataset is None:
        own = [run.path, run.path.absolute().parent]
        dataset = images_of_run(run, recipe, reporter, data_root=data_root, own=own)
    check_images(run, recipe, dataset, data_root)
    return dataset


def trained_encoder(run: RunDir, recipe: Recipe) -> nn.Module:
    encoder = initial_method(recipe).encoder
    try:
        encoder.load_state_dict(run.load_weights(ENCODER))
    except RuntimeError as error:
        raise InputError(
            "the saved encoder does not fit the recipe", where=str(run.path), remedy="Train again with --restart."
        ) from error
    return encoder


def trained_projector(run: RunDir, recipe: Recipe) -> nn.Module:
    projector = initial_method(recipe).projector
    try:
        projector.load_state_dict(run.load_weights(PROJECTOR))
    except RuntimeError as error:
        raise InputError(
            "the saved projector does not fit the recipe", where=str(run.path), remedy="Train again with --restart."
        ) from error
    return projector


def untrained_encoder(recipe: Recipe) -> nn.Module:
    """The encoder exactly as a run of the recipe starts: initial weights, batch norm that has seen nothing yet.

    In eval mode its batch norms pass their input on unchanged. With statistics estimated on the images it would be the
    weaker baseline (docs/results.md).
    """
    return initial_method(recipe).encoder


def counter(reporter: Reporter, task: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        reporter.advance(task, done, total)

    return advance
