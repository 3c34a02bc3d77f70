"""Training runs that take turns: a few steps of one, a few steps of the next, and so on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import measuring
import torch

from cssl_cli.data import Dataset
from cssl_cli.data.batches import Images
from cssl_cli.nn.flops import count_flops
from cssl_cli.recipe import Recipe
from cssl_cli.runs.setup import initial_method
from cssl_cli.runs.trainer import make_trainer
from cssl_cli.train.allocator import keep_freed_memory

SETTLE_SECONDS = 3.0  # at most, at the beginning of a turn and after it


def cssl_steps(recipe: Recipe, dataset: Dataset, device: torch.device, images: Images | None = None) -> Iterator[None]:
    """Yields once for each training step of this package, executed as in `cssl pretrain`.

    `images`: the source of batches, if not the one that the package would choose for the data set.
    """
    trainer = make_trainer(recipe, dataset, device, notice=print)
    if images is not None:
        trainer.images = images
    for done, _ in enumerate(trainer.run()):
        if done == 0 and device.type == "cpu":
            keep_freed_memory()
        yield


def step_flops(recipe: Recipe, image_size: int, device: torch.device) -> int:
    """Operations of one uncompiled step: both views, forward and backward.

    Augmentation and optimizer contain no matrix products worth counting.
    """
    method = initial_method(recipe).to(device).train()
    views = [torch.randn(recipe.train.batch_size, 3, image_size, image_size, device=device) for _ in range(2)]
    return count_flops(lambda: method(*views)["loss"].backward())


class Contender(Protocol):
    """One that takes turns; `untimed`: the steps at the beginning of a turn that are not timed."""

    untimed: int

    def turn(self) -> float:
        """Seconds per timed step."""


class Training:
    """Training that advances by `num_steps` timed steps in each of its turns.

    A turn begins with at least one and at most `untimed` steps that are not timed; they use up what workers prepared
    during the turns of others.
    """

    def __init__(self, steps: Iterator[None], device: torch.device, *, num_steps: int, untimed: int) -> None:
        self.steps = steps
        self.device = device
        self.num_steps = num_steps
        self.untimed = untimed

    def turn(self) -> float:
        began = time.perf_counter()
        for _ in range(self.untimed):
            next(self.steps)
            if time.perf_counter() - began > SETTLE_SECONDS:
                break
        return measuring.seconds_of(self._advance, self.device) / self.num_steps

    def _advance(self) -> None:
        for _ in range(self.num_steps):
            next(self.steps)


class TrainingOfItsOwn:
    """Training in its own process: settings of the allocator or of torch do not affect the others.

    `make_steps(*arguments)` is called there, at the first turn.
    """

    def __init__(
        self,
        make_steps: Callable[..., Iterator[None]],
        *arguments: Any,
        threads: int,
        device: torch.device,
        num_steps: int,
        untimed: int,
    ) -> None:
        self.key = f"{make_steps.__name__} {arguments}"
        self.making = (make_steps, arguments, threads, device, num_steps, untimed)
        self.untimed = untimed
        self.process = measuring.process_of_its_own()

    def turn(self) -> float:
        return self.process.submit(_turn, self.key, self.making).result()


_TRAININGS: dict[str, Training] = {}  # of this process, which is called for each turn


def _turn(key: str, making: tuple[Any, ...]) -> float:
    if key not in _TRAININGS:
        make_steps, arguments, threads, device, num_steps, untimed = making
        torch.set_num_threads(threads)
        _TRAININGS[key] = Training(make_steps(*arguments), device, num_steps=num_steps, untimed=untimed)
    return _TRAININGS[key].turn()


def compete(contenders: Mapping[str, Contender], *, repetitions: int, rest: bool) -> dict[str, list[float]]:
    """Seconds per step of each contender, taking turns after a warm-up.

    With `rest`, a pause follows each turn, in which its workers refill their queues and leave the cores to the next
    one: as long as its untimed steps.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 1):
        for name, contender in contenders.items():
            spent = contender.turn()
            if rest:
                time.sleep(min(SETTLE_SECONDS, contender.untimed * spent))
            if repetition > 0:
                seconds[name].append(spent)
    return seconds
