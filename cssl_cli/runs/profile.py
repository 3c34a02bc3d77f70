"""Where the time of a training step goes, part by part, and how that compares with what the machine can do."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from cssl_cli.data import Dataset
from cssl_cli.host.files import require_creatable
from cssl_cli.host.progress import Reporter
from cssl_cli.nn.flops import count_flops
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device, choose_precision
from cssl_cli.runs.environment import environment
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.machine import copy_rate, matrix_rate, synchronize
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.runs.trainer import make_trainer
from cssl_cli.train.allocator import keep_freed_memory
from cssl_cli.train.loop import Trainer

PROFILE, STEP_TRACE = "profile.json", "trace.json.gz"
WARM_UP_STEPS = 5  # the first one compiles
ROUNDS = 3  # of timing; the whole step and its parts take turns
SECONDS = 1.0  # approximate length of a round
MOST_STEPS = 50  # in a round
TRACED_STEPS = 3
PARTS = ("batch", "augmentation", "forward", "loss", "backward", "optimizer")


def profile(
    recipe: Recipe,
    *,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    dataset: Dataset | None = None,
    data_root: str | None = None,
) -> tuple[RunDir, dict[str, Any]]:
    """Time a few steps of a recipe from its initial weights, then discard them.

    Writes profile.json and a trace of single operations into a new directory under `out`/profiles, and returns that
    directory and the profile: `seconds` of a whole step as in training; the `parts`, each in seconds with the device
    synchronized after it; `flops` of a step; and the machine's rates of copies and of matrix products in the precision
    of training, in float32 and in float64, which `cssl analyze` uses. A part is None if compiled code does not separate
    it: the loss is then in `forward`. For a captured step, the parts are those of the plain step.
    """
    device = choose_device(device_name)
    require_creatable(out, "Choose another folder with --out DIR.")
    rates = _machine_rates(device, choose_precision(recipe.train.precision, device))
    dataset = dataset or prepare_data(recipe, reporter, data_root=data_root, own=[out])
    trainer = make_trainer(recipe, dataset, device, notice=reporter.say)
    compiled_as_asked = trainer.training_step.compiled
    trainer.plan = replace(trainer.plan, num_steps=2**40)  # the profile ends by itself
    trainer.method.train()
    steps = _endless(trainer)
    for done in range(WARM_UP_STEPS):
        reporter.advance("warm up", done, WARM_UP_STEPS)
        next(steps)
        if done == 0 and device.type == "cpu":
            keep_freed_memory()  # as in training
    reporter.advance("warm up", WARM_UP_STEPS, WARM_UP_STEPS)
    num_steps = max(1, min(MOST_STEPS, round(SECONDS / _seconds_per_step(steps, 2, device))))
    whole, parts = [], []
    for done in range(ROUNDS):
        reporter.advance("time", done, ROUNDS)
        whole.append(_seconds_per_step(steps, num_steps, device))
        parts.append(_seconds_of_parts(trainer, num_steps))
    reporter.advance("time", ROUNDS, ROUNDS)
    run = RunDir.at(out / "profiles", name=recipe.name, fingerprint=recipe.fingerprint)
    run.create(recipe.to_yaml())
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    with run.locked():  # another profile of this recipe would take the trace for a leftover
        _write_trace(run, steps, device)
        content = {
            "recipe": recipe.name,
            "fingerprint": recipe.fingerprint,
            **environment(device, trainer.precision, compiled=trainer.training_step.compiled),
            "compiling_failed": compiled_as_asked and not trainer.training_step.compiled,
            "batch_size": recipe.train.batch_size,
            "num_steps": ROUNDS * num_steps,
            "seconds": statistics.median(whole),
            "parts": {part: _median([found[part] for found in parts]) for part in PARTS},
            "flops": _step_flops(trainer),
            **rates,
            "device_memory_mb": memory,
        }
        run.write_json(PROFILE, content)
    return run, content


def _machine_rates(device: torch.device, precision: torch.dtype) -> dict[str, float]:
    """Measured before the trainer takes up memory."""
    of_products = {dtype: matrix_rate(device, dtype) for dtype in {precision, torch.float32, torch.float64}}
    rates = {
        "matrix_rate": of_products[precision],
        "matrix_rate_float32": of_products[torch.float32],
        "matrix_rate_float64": of_products[torch.float64],
        "copy_rate": copy_rate(device),
    }
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return rates


def _endless(trainer: Trainer) -> Iterator[None]:
    for _ in trainer.run():
        yield


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def _seconds_per_step(steps: Iterator[None], num_steps: int, device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    for _ in itertools.islice(steps, num_steps):
        pass
    synchronize(device)
    return (time.perf_counter() - began) / num_steps


# ---------------------------------------------------------------------- part by part
class _Clock:
    """Adds up the seconds of named parts, synchronizing the device before and after each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] += self.now() - began

    def now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


def _seconds_of_parts(trainer: Trainer, num_steps: int) -> dict[str, float | None]:
    """Seconds per step of each part, over further steps from the trainer's current weights."""
    clock, step = _Clock(trainer.device), trainer.training_step
    generator = torch.Generator().manual_seed(0)
    orders = (torch.randperm(trainer.plan.num_images, generator=generator) for _ in range(num_steps))
    batches = trainer.images.batches(order[: trainer.plan.batch_size] for order in orders)
    for _ in range(num_steps):
        with clock.part("batch"):
            batch = next(batches)
            theta = trainer.draw_theta(len(batch))
        with clock.part("augmentation"):
            views = step.views(batch, theta)
        terms = _timed_forward(trainer, clock, *views)
        with clock.part("backward"):
            step.backward(terms)
        with clock.part("optimizer"):
            step.update(trainer.current_learning_rate())
    seconds: dict[str, float | None] = {part: spent / num_steps for part, spent in clock.seconds.items()}
    return seconds | ({"loss": None} if step.compiled is True else {})


def _timed_forward(trainer: Trainer, clock: _Clock, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
    """A forward pass in which time in the method's networks counts as `forward`, the rest as `loss`."""
    step = trainer.training_step
    if step.compiled is True:
        with clock.part("forward"):
            return step.forward(view_1, view_2)
    before = clock.seconds["forward"]
    with _watched(list(trainer.method.children()), clock):
        began = clock.now()
        terms = step.forward(view_1, view_2)
        clock.seconds["loss"] += clock.now() - began - (clock.seconds["forward"] - before)
    return terms


@contextmanager
def _watched(networks: list[nn.Module], clock: _Clock) -> Iterator[None]:
    """Add the time of each call of the networks to `forward`."""
    began: list[float] = []

    def before(*_: object) -> None:
        began.append(clock.now())

    def after(*_: object) -> None:
        clock.seconds["forward"] += clock.now() - began.pop()

    handles = [
        handle
        for network in networks
        for handle in (network.register_forward_pre_hook(before), network.register_forward_hook(after))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------- operations and trace
def _step_flops(trainer: Trainer) -> int:
    """Operations of a step's forward and backward passes, uncompiled."""
    batch = next(trainer.images.batches([torch.arange(trainer.plan.batch_size)]))
    step = trainer.training_step
    step.run_uncompiled()
    views = step.views(batch, trainer.draw_theta(len(batch)))
    return count_flops(lambda: step.backward(step.forward(*views)))


def _write_trace(run: RunDir, steps: Iterator[None], device: torch.device) -> None:
    """Write a trace of a few steps, for chrome://tracing or Perfetto."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as traced:
        for _ in itertools.islice(steps, TRACED_STEPS):
            pass
        synchronize(device)
    with run.replacing(STEP_TRACE) as path:
        compressed = path.with_name(f"{path.name}.gz")  # the name decides whether it is compressed
        try:
            traced.export_chrome_trace(str(compressed))
            compressed.replace(path)
        finally:
            compressed.unlink(missing_ok=True)
