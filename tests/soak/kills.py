"""Commands killed at random moments, then run to their end: as if nothing had been, bit by bit, and nothing left over.

Half of the moments are points of time, half are operations on files, just before which the process sends itself the
signal. A signal that can be handled must also save what was done, leave nothing half-written and end the command within
five seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from . import command
from .command import Command, Ended, Hang, described
from .compare import files_in, leftovers
from .findings import Fault, Outcome
from .material import Scenario, own_cache, shared

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)
KILLS = 3  # in a row, before a command is let to its end
ATTEMPTS = 6  # a command may end before it is killed
GRACE = 5.0  # seconds
LEFT = 0.7  # of a command, about, after a kill
STARTING = 6.0  # seconds that an interpreter may take to import everything
OLD = 2 * 3600.0  # seconds
WHOLE_EVERY = 25  # so many cases: a process that imports everything itself


class Kills:
    """See the module."""

    name, cases, batch, limit, memory = "kills", 330, 4, 600.0, None

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material, self.scenarios = found.folder, found.scenarios

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        scenario = chance.choices(self.scenarios, [scenario.weight for scenario in self.scenarios])[0]
        outcome = Outcome(Counter({f"{scenario.name}": 1}))
        case = folder / "case"
        scenario.lay_out(self.material, case)
        whole = number % WHOLE_EVERY == WHOLE_EVERY - 1
        story: list[str] = []

        def wrong(kind: str, what: str, detail: str = "") -> None:
            files = {"story.txt": "\n".join([scenario.name, *story, detail]).encode()}
            outcome.faults.append(Fault(kind, f"{scenario.name}: {what}", detail, files))

        hits = 0
        for attempt in range(ATTEMPTS):
            if hits == KILLS:
                break
            number_of_signal = SIGNALS[number // len(SIGNALS) ** hits % len(SIGNALS)]
            before = Before.of(case)
            start = replace(own_cache(case), whole=whole and attempt == 0)
            try:
                ended, delay = self._kill(scenario, case, number_of_signal, start, chance, story, LEFT**hits)
            except Hang as hang:
                wrong("hang", str(hang).partition(":")[2], story[-1])
                return outcome
            name = signal.Signals(number_of_signal).name
            hit = ended.code == 128 + number_of_signal
            if hit:
                hits += 1
                outcome.counts[name] += 1
            _check_end(scenario, case, number_of_signal, ended, delay, wrong, before)
            if ended.code == 0:
                break
        self._complete(scenario, case, wrong)
        return outcome

    def _kill(
        self,
        scenario: Scenario,
        case: Path,
        number: int,
        start: command.Start,
        chance: random.Random,
        story: list[str],
        share: float,
    ) -> tuple[Ended, float]:
        """One kill: how the command ended, and seconds from the signal to its end (0 where it sent that itself).

        share: of an undisturbed execution, about, that is still to be done.
        """
        by_time = start.whole or chance.random() < 0.5
        group = number == signal.SIGINT and chance.random() < 0.5
        name = signal.Signals(number).name
        if not by_time:
            event = chance.randint(1, max(1, round(share * scenario.events)))
            story.append(f"{name} before operation {event} of {scenario.events}")
            ended = command.run(case, *scenario.arguments, start=replace(start, at_event=(number, event)))
            return ended, 0.0
        moment = chance.uniform(0, share * scenario.seconds + (STARTING if start.whole else 0))
        story.append(f"{name} after {moment:.3f} s{' to its group' if group else ''}{', whole' if start.whole else ''}")
        process = Command(case, *scenario.arguments, start=start)
        process.wait(moment)
        signalled = time.monotonic()
        if process.status is None:
            process.signal(number, group=group)
        if not process.wait(60):
            process.kill_all()
            raise Hang(f"{scenario.name}: it goes on after {name}")
        delay = time.monotonic() - signalled
        deadline = time.monotonic() + 30
        while process.children():
            if time.monotonic() > deadline:
                process.kill_all()
                raise Hang(f"{scenario.name}: a process outlives it after {name}")
            time.sleep(0.02)
        return process.ended(), delay

    def _complete(self, scenario: Scenario, case: Path, wrong: object) -> None:
        assert callable(wrong)
        for name in leftovers(case):  # where several processes write, only what is old is taken for left over
            with suppress(OSError):
                os.utime(case / name, (time.time() - OLD,) * 2)
        try:
            ended = command.run(case, *scenario.arguments, start=own_cache(case))
        except Hang as hang:
            wrong("hang", "the command that goes on does not end", str(hang))
            return
        told = described(list(scenario.arguments), ended)
        if ended.traceback:
            wrong("traceback", "the command that goes on", told)
        elif ended.code != 0:
            wrong("lost", f"the command that goes on ends with {ended.code}", told)
        else:
            differences = scenario.reference.differences(case / "runs")
            if differences:
                wrong("different", files_in(differences), "\n".join([*differences[:30], told]))
        left = leftovers(case)
        if left:
            wrong("leftover", "after the command that goes on", "\n".join(left))


@dataclass(frozen=True)
class Before:
    """What earlier kills left, which a later one has no part in."""

    leftovers: set[str]
    metrics: dict[Path, bytes]

    @classmethod
    def of(cls, case: Path) -> Before:
        return cls(set(leftovers(case)), _all_metrics(case))


def _all_metrics(case: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in case.glob("runs/**/metrics.jsonl")}


def _check_end(
    scenario: Scenario, case: Path, number: int, ended: Ended, delay: float, wrong: object, before: Before
) -> None:
    """What a command that was signalled owes."""
    assert callable(wrong)
    name = signal.Signals(number).name
    told = described(list(scenario.arguments), ended)
    if ended.traceback:
        wrong("traceback", f"after {name}: {ended.traceback.strip().splitlines()[-1][:80]}", told)
    elif ended.code not in (0, 128 + number):
        wrong("exit code", f"{ended.code} after {name}", told)
    if number == signal.SIGKILL:
        return
    if delay > GRACE * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
        wrong("slow", f"{name} ends it late", f"{delay:.1f} s")
    left = sorted(set(leftovers(case)) - before.leftovers)
    if left:
        wrong("leftover", f"after {name}", "\n".join(left))
    for metrics, data in _all_metrics(case).items():
        if data != before.metrics.get(metrics) and not _saved(metrics):
            wrong("lost", f"{name} does not save what was trained", told)


def _saved(metrics: Path) -> bool:
    """Whether the steps that metrics tell of are in a checkpoint or in a finished run."""
    status, records = {}, []
    with suppress(OSError, ValueError):
        status = json.loads((metrics.parent / "status").read_text())
    with suppress(OSError, ValueError):
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
    if not records or status.get("state") == "finished":
        return True
    return (metrics.parent / "checkpoint.pt").exists() and int(status.get("step", 0)) >= int(records[-1]["step"])
