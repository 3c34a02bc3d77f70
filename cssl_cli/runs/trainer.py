"""The trainer of a recipe, and the plan it follows."""

from __future__ import annotations

import torch

from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.recipe import Recipe
from cssl_cli.runs.compiling import compiles, keep_compiler_cache
from cssl_cli.runs.device import choose_precision
from cssl_cli.runs.images import place_images
from cssl_cli.runs.setup import initial_method, make_augmentation
from cssl_cli.runs.weights_source import StartingWeights
from cssl_cli.train.loop import Plan, Trainer, make_plan
from cssl_cli.train.step import Compiled, Notice


def plan_of(recipe: Recipe, num_images: int) -> Plan:
    """The steps and epochs that the recipe asks for with this many images."""
    train, optim = recipe.settings("train"), recipe.settings("optim")
    return make_plan(
        num_images=num_images,
        batch_size=train["batch_size"],
        epochs=train["epochs"],
        steps=train["steps"],
        warmup_epochs=optim["warmup_epochs"],
    )


def require_shares(batch_size: int, micro_batch: int | None, size: int) -> None:
    """`InputError` unless a batch can be dealt to so many ranks, in whole micro-batches."""
    if batch_size % size:
        raise InputError(
            f"a batch of {batch_size} images cannot be dealt equally to {size} processes",
            where="train.batch_size",
            remedy=f"Give train.batch_size={-(-batch_size // size) * size}, or another number of processes.",
        )
    own = batch_size // size
    if micro_batch is not None and own % micro_batch:
        raise InputError(
            f"the {own} images of each of {size} processes are no whole micro-batches of {micro_batch}",
            where="train.micro_batch",
            remedy="Give a micro-batch that divides them: where each process has fewer images, perhaps none is needed.",
        )
    if own == 1:
        raise InputError(
            f"a batch of {batch_size} leaves a single image to each of {size} processes",
            where="train.batch_size",
            remedy=f"Give train.batch_size={2 * size} or more, or fewer processes.",
        )


def last_step_of(plan: Plan, until: int | None) -> int:
    """The step that a process stops at, which goes on to the end of the plan, or of the epoch `until`."""
    return plan.num_steps if until is None else min(until * plan.steps_per_epoch, plan.num_steps)


def compiles_with(recipe: Recipe, plan: Plan, device: torch.device, ranks: Ranks = ALONE) -> Compiled:
    """Whether the recipe's step is compiled; `InputError` where it cannot be as the recipe says."""
    compiled = compiles(recipe.train.compile, plan, device, in_parts=recipe.train.micro_batch is not None)
    if compiled == "graph" and not ranks.alone:
        raise InputError(
            f"a graph is captured in one process, and {ranks.size} were started",
            where="train.compile",
            remedy="Give train.compile=true, or leave it out.",
        )
    return compiled


def way_of_computing(trainer: Trainer) -> str:
    """What must be the same on all ranks, or they would not make the same exchanges."""
    compiled = "" if trainer.training_step.compiled else "un"
    return f"{trainer.device.type}, {str(trainer.precision).removeprefix('torch.')}, {compiled}compiled steps"


def make_trainer(
    recipe: Recipe,
    dataset: Dataset,
    device: torch.device,
    *,
    weights: StartingWeights | None = None,
    notice: Notice = lambda _: None,
    ranks: Ranks = ALONE,
) -> Trainer:
    """The trainer of a recipe at its first step; `notice` receives what differs from the request.

    With several `ranks`, that of this one. In an encoder that draws random numbers (dropout), each rank draws others.
    """
    images = dataset.pretrain.images
    plan = plan_of(recipe, len(images))
    compiled = compiles_with(recipe, plan, device, ranks)
    if compiled:
        keep_compiler_cache()
    of_rank = f" of rank {ranks.rank}" if ranks.rank else ""
    return Trainer(
        initial_method(recipe, None if weights is None else weights.encoder, channels=dataset.channels),
        make_augmentation(recipe, dataset),
        place_images(images, device),
        mean=dataset.mean,
        std=dataset.std,
        optim=recipe.settings("optim"),
        plan=plan,
        precision=choose_precision(recipe.train.precision, device),
        device=device,
        order=stream(recipe.seed, "order"),
        augment=stream(recipe.seed, "augment"),
        compiled=compiled,
        notice=notice,
        seed_of_step=lambda step: stream(recipe.seed, f"training step {step}{of_rank}").initial_seed(),
        ranks=ranks,
    )
