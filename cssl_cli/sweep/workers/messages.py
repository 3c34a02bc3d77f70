"""What a sweep and its workers say to each other: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cssl_cli.host.progress import TaskProgress

THREADS = "OMP_NUM_THREADS"  # the environment variable by which a worker has its share of the cores
COMPILING = "TORCHINDUCTOR_COMPILE_THREADS"  # the one for what compiles a training step


@dataclass(frozen=True)
class Task:
    """A member to complete, told to a worker.

    `recipe` is the recipe's mapping, named as its run; `home` the folder of the run directories; `log` where messages
    go. Without a `device`, or on "cuda", worker number `slot` takes its share of the GPUs there are.
    `data_root` is where the images lie, in place of the recipe's data.root.
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


@dataclass(frozen=True)
class Notice:
    """A sentence about what members share, told by a worker."""

    text: str


@dataclass(frozen=True)
class Ended:
    """A member's end, told by a worker: without an `error`, with where and what to do, it is complete."""

    error: str | None = None
    in_use: bool = False
    """another process works on the run"""
    stopped: int | None = None
    """the signal that stopped it"""
    hopeless: bool = False
    """the recipe or the input is wrong: trying again cannot help"""
    retire: bool = False
    """the worker ends: after such an error it is not to be trusted"""


Message = Task | TaskProgress | Notice | Ended
"""A worker tells how far its member is by a `TaskProgress`."""
_KINDS: dict[str, type[Message]] = {kind.__name__.lower(): kind for kind in (Task, TaskProgress, Notice, Ended)}


def encode(message: Message) -> bytes:
    """The message as a line."""
    return json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line that `encode` made."""
    content = json.loads(line)
    return _KINDS[content.pop("kind")](**content)


class Lines:
    """Cuts what comes out of a pipe into lines."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        yield from lines
