"""A finished run, opened: its recipe, its encoder, and the untrained encoder it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cssl_cli.augment import normalize
from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.pipeline.pretrain import check_images, check_recipe
from cssl_cli.pipeline.setup import EVALUATION_BATCH, initial_method, prepare_data
from cssl_cli.progress import Reporter
from cssl_cli.randomness import stream
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.run_dir import ENCODER, RECIPE, RunDir

FORMAT = 1  # of probe.json and analysis.json
CALIBRATION_IMAGES = 2048


def open_finished(path: Path) -> tuple[RunDir, Recipe]:
    """The run at `path` and its recipe; `InputError` unless it is finished and its recipe is the one it ran with."""
    run = RunDir.open(path)
    recipe = load_recipe(str(run.file(RECIPE)))
    check_recipe(run, recipe)
    if not run.finished:
        status, metrics = run.status(), run.read_metrics()
        state = "still running" if run.in_use() else {"running": "killed"}.get(status["state"], status["state"])
        step = max([status.get("step", 0), *(record["step"] for record in metrics)])
        what = f"pretraining has not finished ({state}, step {step} of {status.get('num_steps', 'unknown')})"
        raise InputError(
            f"{ENCODER} is missing" if state == "finished" else what,
            where=str(path),
            remedy=f"Finish it with: cssl pretrain {run.file(RECIPE)} --out {path.resolve().parent}",
        )
    return run, recipe


def finished_run_data(run: RunDir, recipe: Recipe, dataset: Dataset | None, reporter: Reporter) -> Dataset:
    """The recipe's images (or `dataset`, when the caller has loaded it); `InputError` unless the run saw the same."""
    dataset = dataset or prepare_data(recipe, reporter)
    check_images(run, dataset)
    return dataset


def trained_encoder(run: RunDir, recipe: Recipe) -> nn.Module:
    encoder = initial_method(recipe).encoder
    try:
        encoder.load_state_dict(run.load_encoder())
    except RuntimeError as error:
        raise InputError(
            "the saved encoder does not fit the recipe", where=str(run.path), remedy="Train again with --restart."
        ) from error
    return encoder


def untrained_encoder(recipe: Recipe, dataset: Dataset) -> nn.Module:
    """The encoder a run starts from, with batch-norm statistics estimated on training images.

    Only the weights are untrained: without its statistics an encoder in eval mode would be a weaker baseline.
    """
    encoder = initial_method(recipe).encoder.train()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches, which are therefore of one size
    images = dataset.pretrain.images
    chosen = torch.randperm(len(images), generator=stream(recipe.seed, "calibration"))[:CALIBRATION_IMAGES]
    num_batches = -(-len(chosen) // EVALUATION_BATCH)
    size = len(chosen) // num_batches
    with torch.inference_mode():
        for batch in chosen[: num_batches * size].split(size):
            # In ascending order, since images may lie in a memory map; a batch's statistics know no order.
            views = images[batch.sort().values].float() / 255
            encoder(normalize(views, dataset.mean, dataset.std))
    return encoder


def counter(reporter: Reporter, task: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        reporter.advance(task, done, total)

    return advance
