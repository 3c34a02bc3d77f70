"""Progress reporting, independent of who displays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Reporter(Protocol):
    """Receives sentences and the state of counted tasks; the command line draws them, a library user need not."""

    def say(self, message: str) -> None:
        """A sentence worth a line of its own."""

    def notice(self, message: str) -> None:
        """The same of what several runs share, such as their images: a sentence that was told is not told again."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """`task` has `done` of its `total`; done = total ends it."""


class Notices:
    """The part of a reporter that tells no notice twice."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def say(self, message: str) -> None:
        raise NotImplementedError

    def notice(self, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.say(message)


def warn(reporter: Reporter, message: str) -> None:
    """A sentence that its reader has to do something about: also said where `say` is kept quiet.

    A reporter that keeps quiet has a method of this name; all others say it.
    """
    getattr(reporter, "warn", reporter.say)(message)


@dataclass(frozen=True)
class TaskProgress:
    """How far a counted task is: `done` of its `total`, which is 0 before there is anything to count."""

    name: str
    done: int
    total: int
    detail: str


@dataclass(frozen=True)
class MemberProgress:
    """How far a member of a sweep is in its present `task`, and how many `seconds` it has been at work."""

    name: str
    task: TaskProgress
    seconds: float


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is that runs several members at a time. `seconds_left` is None until it can be estimated."""

    running: tuple[MemberProgress, ...]
    finished: int
    failed: int
    waiting: int
    seconds_left: float | None
    stopping: bool


class SweepReporter(Reporter, Protocol):
    """Receives the state of all members of a sweep, too."""

    def show(self, progress: SweepProgress) -> None:
        """The state as it is now, given several times a second."""


class Silent:
    """A reporter that keeps quiet."""

    def say(self, message: str) -> None:
        pass

    def notice(self, message: str) -> None:
        pass

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def show(self, progress: SweepProgress) -> None:
        pass


def clock(seconds: float) -> str:
    """A time span as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
