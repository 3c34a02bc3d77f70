"""Messages between a sweep and its workers: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from cssl_cli.host.progress import TaskProgress

THREADS = "OMP_NUM_THREADS"  # environment variable that sets a worker's share of the cores
COMPILING = "TORCHINDUCTOR_COMPILE_THREADS"  # the same for compiling a training step


@dataclass(frozen=True)
class Task:
    """A member to complete, sent to a worker.

    `recipe` is the recipe's mapping, named as its run; `home` the folder of the run directories; `log` the file for
    messages. Without a `device`, or on "cuda", worker number `slot` gets its share of the GPUs. `data_root` replaces
    the recipe's data.root; `track` names the trackers that mirror the run. `until` is an epoch to train up to, and no
    further.
    """

    recipe: dict[str, Any]
    home: str
    log: str
    device: str | None
    slot: int
    probe: bool
    analysis: bool
    heading: str
    data_root: str | None = None
    until: int | None = None
    track: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RankTask:
    """Sets of augmentations to rank (ranking.py), each its recipe's mapping and its rows; the rest as in `Task`."""

    sets: list[tuple[dict[str, Any], list[str]]]
    num_images: int
    seed: int
    home: str
    log: str
    device: str | None
    heading: str
    data_root: str | None = None
    slot: int = 0


@dataclass(frozen=True)
class Notice:
    """A sentence about something that members share, sent by a worker."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The end of a member, sent by a worker: complete without an `error`, else where it failed and what to do."""

    error: str | None = None
    in_use: bool = False
    """another process is working on the run"""
    stopped: int | None = None
    """the signal that stopped it"""
    hopeless: bool = False
    """the recipe or the input is wrong: retrying cannot help"""
    retire: bool = False
    """the worker ends: it cannot be trusted after such an error"""


Message = Task | RankTask | TaskProgress | Notice | Ended
"""Workers report their member's progress as a `TaskProgress`."""
_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Task, RankTask, TaskProgress, Notice, Ended)
}


def encode(message: Message) -> bytes:
    """The message as one line."""
    return json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line made by `encode`."""
    content = json.loads(line)
    return _KINDS[content.pop("kind")](**content)


class Lines:
    """Splits the output of a pipe into lines."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        yield from lines
