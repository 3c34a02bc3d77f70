"""When a run is mirrored: after each record during training, or from its directory at any time later.

A tracker must not cost a run anything. Whatever one raises, during training it costs a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from cssl_cli.errors import CsslError, InputError, RunError, unknown_name
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.tracking.records import Point, Records, Values, read_points, read_records

MOST_SAID = 300  # characters of what a tracker raised
Say = Callable[[str], object]


class Tracker(Protocol):
    """A run in a tracker. Making one replaces what is there of the run, or goes on from it if it is the same."""

    def __init__(self, records: Records, into: str | None, say: Say) -> None: ...

    def log(self, points: Sequence[Point]) -> None:
        """Add the numbers of these steps, which are later than those before."""

    def finish(self, summary: Values, step: int, state: str) -> None:
        """Add what was measured at the end, and close the run: its status is `state`."""


class _Kind(NamedTuple):
    """Where a tracker's class is, and the modules that it needs."""

    module: str
    tracker: str
    needs: tuple[str, ...]


TRACKERS: Mapping[str, _Kind] = {
    "mlflow": _Kind("mlflow", "MLflow", ("mlflow",)),
    "tensorboard": _Kind("tensorboard", "TensorBoard", ("tensorboard",)),
    "trackio": _Kind("trackio", "Trackio", ("trackio",)),
    "wandb": _Kind("wandb", "WandB", ("wandb",)),
}


def require_trackers(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names, each once; `InputError` for one that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS, where=where)
        if not all(map(_is_installed, TRACKERS[name].needs)):
            raise InputError(
                f"{name} is not installed", where=where, remedy=f"Install it: pip install 'cssl-cli[{name}]'"
            )
    return tuple(dict.fromkeys(names))


def _is_installed(module: str) -> bool:
    """Whether Python finds it; a folder of that name, such as trackers leave behind, is no module."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def prepare(names: Sequence[str], runs: Path, say: Say) -> tuple[str, ...]:
    """Make what several processes would otherwise make at the same time; returns the trackers that work."""
    if "mlflow" in names:
        from cssl_cli.tracking.mlflow import open_store

        try:
            open_store(runs, None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            say(_told("mlflow", error))
            return tuple(name for name in names if name != "mlflow")
    return tuple(names)


class Mirror:
    """Mirrors runs, one after another, in one tracker. `into` is where, or the tracker's own default."""

    def __init__(self, name: str, say: Say, into: str | None = None) -> None:
        self.name, self.say, self.into = name, say, into
        self.run: RunDir | None = None
        self.tracker: Tracker | None = None
        self.mirrored: tuple[Point, ...] = ()

    def update(self, run: RunDir) -> None:
        """Mirror what the directory records by now; raises whatever the tracker does."""
        points = read_points(run)
        if not self._follows(run, points):
            self.close()
            self._begin(run)
        assert self.tracker is not None
        self.tracker.log(points[len(self.mirrored) :])
        self.mirrored = points

    def finish(self, run: RunDir) -> None:
        """Mirror all of a run, with what was measured at its end, and close it in the tracker."""
        self.update(run)
        self._end(run)

    def close(self) -> None:
        """Close the run, if one is open, as it is."""
        if self.run is not None:
            self._end(self.run)

    def _follows(self, run: RunDir, points: tuple[Point, ...]) -> bool:
        """Whether the open run is this one and has only come further."""
        same = self.run is not None and self.run.path == run.path
        return same and points[: len(self.mirrored)] == self.mirrored

    def _begin(self, run: RunDir) -> None:
        kind = TRACKERS[self.name]
        tracker = getattr(import_module(f"cssl_cli.tracking.{kind.module}"), kind.tracker)
        self.tracker = tracker(read_records(run), self.into, self.say)
        self.run, self.mirrored = run, ()

    def _end(self, run: RunDir) -> None:
        tracker, self.run, self.tracker = self.tracker, None, None
        assert tracker is not None
        try:
            records = read_records(run)
        except CsslError:
            tracker.finish({}, self.mirrored[-1].step if self.mirrored else 0, "unknown")
            raise
        tracker.finish(records.summary, records.last_step, records.state)


class Mirrors:
    """Mirrors runs in several trackers during training. One that fails is told and left alone from then on.

    A context manager, which closes what is open. `say` takes the sentences.
    """

    def __init__(self, names: Sequence[str], say: Say) -> None:
        self.say = say
        self.working = [Mirror(name, say) for name in names]

    def update(self, run: RunDir) -> None:
        """What training calls when new records are on disk."""
        self._each(lambda mirror: mirror.update(run))

    def finish(self, run: RunDir) -> None:
        """What is called when all of a run is measured."""
        self._each(lambda mirror: mirror.finish(run))

    def close(self) -> None:
        """Close the run that is open, however it ended."""
        self._each(lambda mirror: mirror.close())

    def __enter__(self) -> Mirrors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _each(self, do: Callable[[Mirror], None]) -> None:
        for mirror in list(self.working):
            try:
                do(mirror)
            except KeyboardInterrupt:  # ours, not the tracker's
                raise
            except CsslError as error:  # a damaged file of this run
                self.say(_told(mirror.name, error))
            except BaseException as error:  # of another library: SystemExit and what derives from no Exception, too
                self.working.remove(mirror)
                with suppress(Exception):
                    self.say(_told(mirror.name, error))


def failed(name: str, error: BaseException) -> str:
    """What went wrong with a tracker, on one line."""
    if isinstance(error, CsslError):
        return f"{name}: {str(error).splitlines()[0]}"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{name} failed: {error.strerror}: {error.filename}"
    lines = str(error).strip()[:MOST_SAID].splitlines() or [""]
    return f"{name} failed: {type(error).__name__}{': ' if lines[0] else ''}{lines[0]}"


def _told(name: str, error: BaseException) -> str:
    return f"{failed(name, error)}; the work goes on without. Later: cssl track RUN --to {name}"


def replay(run: RunDir, name: str, into: str | None, say: Say) -> None:
    """Mirror a run from its directory; `RunError` if the tracker fails."""
    try:
        Mirror(name, say, into).finish(run)
    except (CsslError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RunError(failed(name, error), where=str(run.path), remedy="What the run holds is untouched.") from error
