"""How long-running work tells of itself, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives sentences and the state of counted tasks; the command line draws them, a library user need not."""

    def say(self, message: str) -> None:
        """A sentence worth a line of its own."""

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """`task` has `done` of its `total`; done = total ends it."""


class Silent:
    """A reporter that keeps quiet."""

    def say(self, message: str) -> None:
        pass

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass
