"""Files with their size and times, by which a cache knows whether they are those that it read.

The time of change cannot be set by hand, so an edited file has another stamp even if its size and modification time are
unchanged.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cssl_cli.errors import InputError

_CLOCK_STEP = 0.02  # seconds; file times are at least this fine on Linux and macOS file systems


@dataclass(frozen=True)
class StampedFile:
    path: Path
    stamp: tuple[int, int, int]  # bytes, time of modification, time of change (ns)


def stamped(path: Path, stat: os.stat_result | None = None) -> StampedFile:
    """The file as it is now; its `stat` may be given. Raises OSError if it cannot be looked up."""
    return StampedFile(path, _stamp(stat or path.stat()))


def update_with(digest: hashlib._Hash, files: Iterable[StampedFile]) -> None:
    """Adds paths and stamps to a digest."""
    for file in files:
        digest.update(os.fsencode(file.path) + b"\0" + repr(file.stamp).encode())


def let_the_clock_move(files: Sequence[StampedFile]) -> None:
    """Waits until an edit would get a new time stamp: one within the same clock tick would go unnoticed."""
    newest = max((file.stamp[2] for file in files), default=0) / 1e9
    age = time.time() - newest
    if 0 <= age < _CLOCK_STEP:
        time.sleep(_CLOCK_STEP - age)


def check_unchanged(files: Sequence[StampedFile], kind: str = "image") -> None:
    """`InputError` naming the first file that is not as it was."""
    for file in files:
        try:
            unchanged = _stamp(file.path.stat()) == file.stamp
        except OSError:
            unchanged = False
        if not unchanged:
            raise InputError(
                f"this {kind} was changed while it was being read",
                where=str(file.path),
                remedy="Run the command again once it is complete.",
            )


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
