"""Training runs that take turns: a few steps of one, a few steps of the next, and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import measuring
import torch

from cssl_cli.data import Dataset
from cssl_cli.pipeline.pretrain import make_trainer
from cssl_cli.recipe import Recipe

SETTLE_SECONDS = 3.0  # at most, at the beginning of a turn and after it


def cssl_steps(recipe: Recipe, dataset: Dataset, device: torch.device) -> Iterator[None]:
    """One item a training step of this package."""
    steps = make_trainer(recipe, dataset, device).run()
    while True:
        torch.backends.cudnn.allow_tf32 = False  # as `choose_device` has it; other contenders differ
        next(steps)
        yield


class Contender:
    """Training that goes on by `num_steps` timed steps whenever it is its turn.

    A turn begins with at least one and at most `untimed` steps without the clock, which use up what workers had
    prepared while the others had their turns.
    """

    def __init__(self, steps: Iterator[None], *, num_steps: int, untimed: int) -> None:
        self.steps = steps
        self.num_steps = num_steps
        self.untimed = untimed

    def turn(self, device: torch.device) -> float:
        """Seconds per step."""
        began = time.perf_counter()
        for _ in range(self.untimed):
            next(self.steps)
            if time.perf_counter() - began > SETTLE_SECONDS:
                break
        return measuring.seconds_of(self._advance, device) / self.num_steps

    def _advance(self) -> None:
        for _ in range(self.num_steps):
            next(self.steps)


def compete(
    contenders: Mapping[str, Contender], *, repetitions: int, device: torch.device, rest: bool
) -> dict[str, list[float]]:
    """Seconds per step of each contender, taking turns after a warm-up.

    With `rest`, each turn is followed by the time in which its workers refill their queues and leave the cores to the
    next: that of so many steps as it has untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 1):
        for name, contender in contenders.items():
            spent = contender.turn(device)
            if rest:
                time.sleep(min(SETTLE_SECONDS, contender.untimed * spent))
            if repetition > 0:
                seconds[name].append(spent)
    return seconds
