"""Disks that fill up at random moments, then have room again: a sentence, nothing lost, and the result all the same.

A small tmpfs is the disk, which takes the right to mount. Without it, and in some cases with it, the size of files is
limited instead, which fails in the same places.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from . import command
from .command import Ended, Hang, described
from .compare import files_in, leftovers
from .findings import Fault, Outcome
from .material import Scenario, own_cache, shared

PLENTY = 64 * 2**20  # bytes
PAGE = 4096
MOST, MOST_OF_A_SWEEP = 2**18, 3 * 2**19  # bytes that a command writes, about
LIMITED_EVERY = 6  # so many cases: files limited in size rather than the disk


class Disks:
    """See the module."""

    name, cases, batch, limit, memory = "disks", 90, 4, 300.0, None

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material, self.scenarios = found.folder, found.scenarios
        self.can_mount = can_mount(folder)
        if not self.can_mount:
            print("disks: no right to mount a tmpfs; the size of files is limited instead", flush=True)

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        scenario = chance.choices(self.scenarios, [scenario.weight for scenario in self.scenarios])[0]
        case = folder / "case"
        case.mkdir()
        if self.can_mount and number % LIMITED_EVERY:
            with tmpfs(case):
                return self._on_a_small_disk(scenario, case, chance)
        return self._with_small_files(scenario, case, chance)

    def _on_a_small_disk(self, scenario: Scenario, case: Path, chance: random.Random) -> Outcome:
        scenario.lay_out(self.material, case)
        # About as many bytes as the command writes; a little more than it takes to succeed.
        room = chance.randrange(0, (MOST_OF_A_SWEEP if "sweep" in scenario.name else MOST) // PAGE + 1) * PAGE
        resize(case, used(case) + room)
        return self._trial(scenario, case, own_cache(case), f"{room:,} bytes of room", lambda: resize(case, PLENTY))

    def _with_small_files(self, scenario: Scenario, case: Path, chance: random.Random) -> Outcome:
        scenario.lay_out(self.material, case)
        size = int(10 ** chance.uniform(3.7, 5.5))  # its messages are to fit
        start = replace(own_cache(case), largest_file=size)
        return self._trial(scenario, case, start, f"files of {size:,} bytes at most", lambda: None)

    def _trial(self, scenario: Scenario, case: Path, start: command.Start, what: str, free: object) -> Outcome:
        assert callable(free)
        outcome = Outcome()

        def wrong(kind: str, signature: str, detail: str) -> Outcome:
            files = {"story.txt": f"{scenario.name}: {what}\n{detail}".encode()}
            outcome.faults.append(Fault(kind, f"{scenario.name}: {signature}", f"{what}\n{detail}", files))
            return outcome

        try:
            ended = command.run(case, *scenario.arguments, start=start)
            outcome.counts["fits" if ended.code == 0 else "refused"] += 1
            _check_refusal(scenario, case, ended, wrong)
            free()
            again = command.run(case, *scenario.arguments, start=own_cache(case))
        except Hang as hang:
            return wrong("hang", "no end", str(hang))
        told = described(list(scenario.arguments), again)
        if again.traceback:
            return wrong("traceback", "with room again", told)
        if again.code != 0:
            return wrong("lost", f"with room again it ends with {again.code}", told)
        differences = scenario.reference.differences(case / "runs")
        if differences:
            wrong("different", f"with room again: {files_in(differences)}", "\n".join([*differences[:20], told]))
        left = leftovers(case)
        if left:
            wrong("leftover", "with room again", "\n".join(left))
        return outcome


def _check_refusal(scenario: Scenario, case: Path, ended: Ended, wrong: object) -> None:
    assert callable(wrong)
    told = described(list(scenario.arguments), ended)
    if ended.traceback:
        wrong("traceback", ended.traceback.strip().splitlines()[-1].split(":")[0][:80], told)
    elif ended.code not in (0, 1, 2):
        wrong("exit code", str(ended.code), told)
    elif ended.code and not ended.stderr.strip():
        wrong("message", "nothing is said", told)
    left = leftovers(case)
    if left:
        wrong("leftover", "on the full disk", "\n".join(left))


# ---------------------------------------------------------------------------------------------------------------- tmpfs
def can_mount(folder: Path) -> bool:
    place = folder / "may-mount"
    place.mkdir()
    try:
        with tmpfs(place):
            return os.path.ismount(place)
    except (OSError, subprocess.SubprocessError):
        return False


@contextmanager
def tmpfs(place: Path) -> Iterator[None]:
    """A disk of its own at `place`."""
    _mount("-t", "tmpfs", "-o", f"size={PLENTY}", "cssl-soak", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def resize(place: Path, size: int) -> None:
    _mount("-o", f"remount,size={max(size, PAGE)}", str(place))


def used(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
