"""How far a run is, by its files alone: also over a shared folder, from a machine that knows none of its processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from cssl_cli.errors import DamagedError, escaped
from cssl_cli.runs.run_dir import CHECKPOINT, EPOCH_KNN, LOCK, METRICS, STATUS, TRACE, RunDir

Record = Mapping[str, Any]
RECENT = 5  # epochs that say how long the others take
QUIET = 120.0  # seconds without a record that are worth a word, unless epochs take long
ENDED = ("finished", "failed", "interrupted")


@dataclass(frozen=True)
class RunProgress:
    """A run as its files say it is.

    state: that of the status, `new` before it has begun, `unknown` if the status is damaged. age: seconds since a file
    of it was written. holder: who took the lock last, as it wrote itself down. problems: sentences on files that cannot
    be read. stopped: where successive halving stopped it (`runs.stored.Stopped`).
    """

    path: Path
    state: str
    num_steps: int | None
    metrics: list[Record]
    knn: list[Record]
    trace: list[Record]
    age: float
    holder: str | None
    failure: str | None
    problems: tuple[str, ...]
    stopped: Record | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def step(self) -> int:
        """The last step that a record is of."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def epoch(self) -> int:
        return self.metrics[-1]["epoch"] if self.metrics else 0

    @property
    def num_epochs(self) -> int | None:
        """None before the first epoch has ended: only then is it known how many steps it has."""
        if not self.metrics or not self.num_steps or not self.epoch:
            return None
        return ceil(self.num_steps * self.metrics[0]["epoch"] / max(self.metrics[0]["step"], 1))

    @property
    def seconds_left(self) -> float | None:
        """Of training, as fast as in the latest epochs; None if it cannot be told."""
        if self.state != "running" or not self.num_steps or not self.metrics or self.quiet:
            return None
        recent = self.metrics[-RECENT:]
        before = self.metrics[-RECENT - 1]["step"] if len(self.metrics) > RECENT else 0
        steps = self.step - before
        if steps <= 0:
            return None
        seconds = sum(record["seconds"] for record in recent) / steps * (self.num_steps - self.step)
        return max(seconds - self.age, 0.0)

    @property
    def quiet(self) -> bool:
        """Whether a running run has written nothing for longer than its epochs take."""
        epoch = max((record["seconds"] for record in self.metrics[-RECENT:]), default=0.0)
        return self.state == "running" and self.age > max(QUIET, 3 * epoch)

    @property
    def accuracies(self) -> list[tuple[int, float]]:
        """Epochs and k-NN accuracies: of knn.jsonl, or else the quick ones of trace.jsonl."""
        return series(self.knn, "knn") or series(self.trace, "knn")

    def content(self) -> dict[str, Any]:
        """The same as JSON types, without the records."""
        best = max(self.accuracies, key=lambda entry: entry[1], default=None)
        return {
            "run": str(self.path),
            "state": self.state,
            "step": self.step,
            "num_steps": self.num_steps,
            "epoch": self.epoch,
            "num_epochs": self.num_epochs,
            "seconds_left": self.seconds_left,
            "seconds_since_written": self.age,
            "quiet": self.quiet,
            "holder": self.holder,
            "last_epoch": self.metrics[-1] if self.metrics else None,
            "knn": self.accuracies[-1][1] if self.accuracies else None,
            "best_knn": None if best is None else {"epoch": best[0], "knn": best[1]},
            "failure": self.failure,
            "stopped": self.stopped,
            "problems": list(self.problems),
        }


def series(records: list[Record], name: str) -> list[tuple[int, float]]:
    """Epochs and numbers of a name, where there is a number."""
    found = [(record["epoch"], record.get("terms", record).get(name, record.get(name))) for record in records]
    return [(epoch, float(value)) for epoch, value in found if isinstance(value, int | float)]


class Follower:
    """Reads a run directory again and again, and of its files only those that changed."""

    def __init__(self, path: Path) -> None:
        self.run = RunDir(path)
        self.known: dict[str, tuple[Any, Any, str | None]] = {}
        self.seen: tuple[Any, ...] = ()
        self.written = 0.0  # on this machine's monotonic clock: clocks of machines differ

    def look(self) -> RunProgress:
        """How far the run is now; never raises for what a file holds."""
        self._date()
        status = self._read(STATUS, self.run.status, {"state": "unknown"})
        metrics, knn, trace = (
            self._read(name, partial(self.run.read_records, name), []) for name in (METRICS, EPOCH_KNN, TRACE)
        )
        return RunProgress(
            path=self.run.path,
            state=status["state"],
            num_steps=status.get("num_steps"),
            metrics=metrics,
            knn=knn,
            trace=trace,
            age=max(time.monotonic() - self.written, 0.0),
            holder=self._read(LOCK, self._holder, None),
            failure=status.get("error"),
            problems=tuple(problem for _, _, problem in self.known.values() if problem is not None),
            stopped=status.get("stopped") if status["state"] == "interrupted" else None,
        )

    def _read(self, name: str, read: Callable[[], Any], default: Any) -> Any:
        """What a file holds; if it cannot be read, what it held before."""
        signature = self._signature(name)
        before, content, problem = self.known.get(name, (..., default, None))
        if signature != before or problem is not None:
            try:
                content, problem = read(), None
            except DamagedError as error:
                problem = f"{name}: {error.what}"
            self.known[name] = (signature, content, problem)
        return content

    def _holder(self) -> str | None:
        text = (self.run.read_unverified(LOCK) or b"")[:200].decode(errors="replace").strip()
        return escaped(text) or None

    def _date(self) -> None:
        """When a file was last written: by its date at the first look, later by when it was seen to change."""
        signatures = tuple(map(self._signature, (METRICS, EPOCH_KNN, TRACE, STATUS, CHECKPOINT)))
        if signatures == self.seen:
            return
        age = 0.0
        if not self.seen:
            dates = [signature[0] / 1e9 for signature in signatures if signature is not None]
            age = max(time.time() - max(dates), 0.0) if dates else 0.0
        self.seen, self.written = signatures, time.monotonic() - age

    def _signature(self, name: str) -> tuple[int, int, int] | None:
        try:
            found = self.run.file(name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
