"""A finished run, opened: its recipe, its encoder, and the untrained encoder it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cssl_cli.augment import normalize
from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.pipeline.pretrain import check_recipe
from cssl_cli.pipeline.setup import EVALUATION_BATCH, initial_method
from cssl_cli.progress import Reporter
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.run_dir import RECIPE, RunDir

FORMAT = 1  # of probe.json and analysis.json
CALIBRATION_IMAGES = 2048


def open_finished(path: Path) -> tuple[RunDir, Recipe]:
    """The run at `path` and its recipe; `InputError` unless it is finished and its recipe is the one it ran with."""
    run = RunDir.open(path)
    recipe = load_recipe(str(run.file(RECIPE)))
    check_recipe(run, recipe)
    if not run.finished:
        status = run.status()
        done = f"at step {status['step']} of {status['num_steps']}" if "step" in status else "not begun"
        raise InputError(
            f"pretraining has not finished ({status['state']}, {done})",
            where=str(path),
            remedy=f"Finish it with: cssl pretrain {run.file(RECIPE)} --out {path.parent}",
        )
    return run, recipe


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
        norm.momentum = None  # a plain average over the batches
    with torch.inference_mode():
        for batch in dataset.pretrain.images[:CALIBRATION_IMAGES].split(EVALUATION_BATCH):
            encoder(normalize(batch.float() / 255, dataset.mean, dataset.std))
    return encoder


def counter(reporter: Reporter, task: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        reporter.advance(task, done, total)

    return advance
