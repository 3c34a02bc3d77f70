"""The cases of a part, in forked processes: one that hangs or dies is a fault of its case and costs no other."""

from __future__ import annotations

import json
import os
import random
import resource
import selectors
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .findings import Fault, Outcome, Tally, signature_of


class Part(Protocol):
    """One kind of campaign: `cases` of them at scale 1, `batch` of them in one process, each within `limit` seconds.

    memory: bytes beyond those at the start that the process of a batch may map; None: as many as there are.
    """

    name: str
    cases: int
    batch: int
    limit: float
    memory: int | None

    def prepare(self, folder: Path) -> None:
        """What all cases share, made once in `folder`."""

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        """One case, with its own generator and an empty folder."""


def run_part(
    part: Part,
    *,
    seed: int,
    numbers: Iterable[int],
    slots: int,
    folder: Path,
    failures: Path,
    tell: Callable[[str], None],
) -> Tally:
    """Run the cases of these numbers, `slots` processes at a time."""
    tally = Tally(part.name, seed, failures)
    begun = time.monotonic()
    part.prepare(folder)
    tell(f"{part.name}: prepared in {time.monotonic() - begun:.0f} s")
    waiting = deque(numbers)
    total, told = len(waiting), begun
    with selectors.DefaultSelector() as selector:
        batches: list[_Batch] = []
        while waiting or batches:
            while waiting and len(batches) < slots:
                taken = [waiting.popleft() for _ in range(min(part.batch, len(waiting)))]
                batch = _Batch(part, seed, taken, folder)
                batches.append(batch)
                selector.register(batch.pipe, selectors.EVENT_READ, batch)
            for key, _ in selector.select(0.2):
                key.data.listen()
            for batch in list(batches):
                batch.watch()
                for number, outcome in batch.results():
                    tally.add(number, outcome)
                if batch.over:
                    selector.unregister(batch.pipe)
                    batch.close()
                    batches.remove(batch)
                    waiting.extendleft(reversed(batch.left))
            if time.monotonic() - told > 15:
                told = time.monotonic()
                tell(f"{part.name}: {tally.cases} of {total} cases, {tally.num_faults} faults")
    tally.seconds = time.monotonic() - begun
    tally.save()
    return tally


def chance_of(seed: int, part: str, number: int) -> random.Random:
    """The generator of a case."""
    return random.Random(f"{seed}/{part}/{number}")


@dataclass
class _Batch:
    """Cases in one forked process, which tells of each as it begins and ends."""

    part: Part
    seed: int
    left: list[int]
    folder: Path
    over: bool = False
    at_work: int | None = None
    text: bytes = b""
    done: list[tuple[int, Outcome]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pipe, to_parent = os.pipe()
        self.since = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _run_batch(self.part, self.seed, self.left, self.folder, to_parent)
        os.close(to_parent)

    def listen(self) -> None:
        data = os.read(self.pipe, 1 << 20)
        if not data:
            self._ended()
            return
        *lines, self.text = (self.text + data).split(b"\n")
        for line in lines:
            number, content = json.loads(line)
            self.since = time.monotonic()
            if content is None:
                self.at_work = number
            else:
                self.at_work = None
                self.left.remove(number)
                self.done.append((number, Outcome.from_json(content)))

    def watch(self) -> None:
        """End a process whose case takes too long."""
        if not self.over and time.monotonic() - self.since > self.part.limit:
            os.killpg(self.pid, signal.SIGKILL)
            self._ended(f"no end within {self.part.limit:.0f} s")

    def results(self) -> list[tuple[int, Outcome]]:
        found, self.done = self.done, []
        return found

    def close(self) -> None:
        os.close(self.pipe)

    def _ended(self, hang: str | None = None) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.over = True
        lost = self.at_work if self.at_work is not None else (self.left[0] if self.left else None)
        if lost is None:
            return
        self.left.remove(lost)
        end = os.waitstatus_to_exitcode(status)
        fault = Fault("hang", hang, hang) if hang else Fault("death", f"the process ended with {end}", "")
        self.done.append((lost, Outcome(faults=[fault])))


def _run_batch(part: Part, seed: int, numbers: list[int], folder: Path, pipe: int) -> None:
    """In the child: never returns."""
    os.setsid()
    if part.memory is not None:
        limit = _mapped() + part.memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def send(number: int, outcome: Outcome | None) -> None:
        data = json.dumps([number, None if outcome is None else outcome.to_json()]).encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]

    for number in list(numbers):
        send(number, None)
        own = folder / f"case-{number}"
        own.mkdir()
        try:
            outcome = part.run(number, chance_of(seed, part.name, number), own)
        except Exception as error:  # of the harness itself: told like a fault, so that it cannot pass for success
            text = traceback.format_exc()
            outcome = Outcome(faults=[Fault("harness", signature_of(error), text)])
        _remove(own)
        send(number, outcome)
    os._exit(0)


def _mapped() -> int:
    """Bytes of address space that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 2**20
    return pages * resource.getpagesize()


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
