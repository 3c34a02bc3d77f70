"""One run in several processes, of which one is killed or hangs at a random moment, then run to its end.

The others end within the time that is promised, with exit code 1, and name it; if it had not joined them yet, they say
that they wait for it, and end by the signal that torchrun, or a user, sends them then. What goes on, with any number of
processes, comes to the run of one process.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.started_ranks import environments, recipe_text

from . import command
from .command import Command, Start
from .findings import Fault, Outcome

TRAINED = (
    "method={name: simclr, projector: [16, 8]}",
    "optim={name: adamw, lr: 2e-3}",
    "train.checkpoint_minutes=0.01",
)
SILENCE = 4.0
PROMISED = SILENCE + 40.0  # silence, the farewell to the others, and a step, all on a busy machine
LIMIT = 120.0
FAULTS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)


class Ranks:
    """See the module."""

    name, cases, batch, limit, memory = "ranks", 20, 1, 600.0, None

    def prepare(self, folder: Path) -> None:
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(recipe_text(60))
        whole = folder / "whole"
        whole.mkdir()
        ended = command.run(whole, "pretrain", self.recipe, *TRAINED)
        assert ended.code == 0, ended.stderr
        self.whole, self.seconds = terms_of(whole), ended.seconds

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        fault, size = FAULTS[number % len(FAULTS)], chance.choice([2, 2, 3])
        victim, moment = chance.randrange(size), chance.uniform(0, 3 * self.seconds)
        outcome = Outcome(Counter({f"{fault.name} of rank {min(victim, 1)}": 1}))
        story = f"{size} ranks, {fault.name} of rank {victim} after {moment:.3f} s"

        def wrong(kind: str, what: str, detail: str) -> None:
            outcome.faults.append(Fault(kind, what, f"{story}\n{detail}", {"story.txt": story.encode()}))

        ranks = self.started(folder, "faulty", size)
        ranks[victim].wait(moment)
        hit, began = ranks[victim].status is None, time.monotonic()
        ranks[victim].signal(fault)
        others = [rank for rank in ranks if rank is not ranks[victim]]
        in_time, expected = ended_by(others, began + PROMISED), ({0}, {1})
        if not in_time and any(
            re.search(rf"is waiting .* for ranks? [0-9, ]*\b{victim}\b", one.stderr()) for one in others
        ):
            outcome.counts["waited for"] += 1
            for one in others:
                one.signal(signal.SIGTERM)
            in_time, expected = ended_by(others, time.monotonic() + PROMISED), ({128 + signal.SIGTERM},)
        for one in ranks:
            one.signal(signal.SIGCONT)
            one.kill_all()
        told = "\n".join(f"{one.ended().code}: {one.ended().stderr[-1500:]}" for one in ranks)
        if not in_time:
            wrong("hang", f"others go on after {fault.name}", told)
        if any(one.ended().traceback for one in others):
            wrong("traceback", f"after {fault.name}", told)
        ends = {one.ended().code for one in others}
        if hit and ends not in expected:
            wrong("exit code", f"{sorted(ends)} after {fault.name}", told)
        if hit and victim != 0 and ends == {1} and f"rank {victim} (process {ranks[victim].pid} on" not in told:
            outcome.counts["not named"] += 1  # before it had said its name
        rest = self.started(folder, "faulty", chance.choice([1, 2, 3]))
        if not all(one.wait(LIMIT) for one in rest) or {one.ended().code for one in rest} != {0}:
            told = "\n".join(f"{one.status}: {one.ended().stderr[-1500:]}" for one in rest if one.status is not None)
            wrong("lost", "the command that goes on", told)
            for one in rest:
                one.kill_all()
        elif not close(terms_of(folder / "faulty"), self.whole):
            wrong("different", "the run that went on", "")
        return outcome

    def started(self, folder: Path, name: str, size: int) -> list[Command]:
        """Ranks at work on the run in `folder`/`name`."""
        (folder / name).mkdir(exist_ok=True)
        commands = []
        for rank, environment in enumerate(environments(size, SILENCE)):
            place = folder / name if rank == 0 else folder / f"{name}-{rank}"
            place.mkdir(exist_ok=True)
            words = ("pretrain", self.recipe, *TRAINED, "--out", folder / name / "runs")
            commands.append(Command(place, *words, start=Start(environment=environment)))
        return commands


def ended_by(commands: list[Command], moment: float) -> bool:
    """Whether all have ended by then."""
    return all(one.wait(max(moment - time.monotonic(), 0.1)) for one in commands)


def terms_of(folder: Path) -> list[dict[str, Any]]:
    """What each epoch came to."""
    (metrics,) = folder.glob("runs/*/metrics.jsonl")
    return [{"step": line["step"], **line["terms"]} for line in map(json.loads, metrics.read_text().splitlines())]


def close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Up to rounding, which grows from step to step."""
    return len(found) == len(expected) and all(
        abs(ours[name] - theirs[name]) <= 1e-2 * max(1.0, abs(theirs[name]))
        for ours, theirs in zip(found, expected, strict=True)
        for name in theirs
    )
