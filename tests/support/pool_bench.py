"""A pool over fake workers (fake_worker.py), and a reporter that keeps what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cssl_cli.host.progress import Notices, SweepProgress
from cssl_cli.recipe import Recipe
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.sweep.workers.pool import Job, Outcome, Pool, PoolSettings

ALL_MISSING = Missing(probe=True, analysis=True)


class Listener(Notices):
    """Keeps what was said, and every state that was shown; `react` is told of each state."""

    def __init__(self, react: Callable[[SweepProgress], None] = lambda progress: None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.shown: list[SweepProgress] = []
        self.react = react

    def say(self, message: str) -> None:
        self.said.append(message)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass

    def show(self, progress: SweepProgress) -> None:
        self.shown.append(progress)
        self.react(progress)


class Bench:
    """A pool over fake workers (fake_worker.py): a member's name says what happens to it."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe

    def job(self, name: str, run: str | None = None) -> Job:
        return Job(name, self.recipe.model_copy(update={"name": name}), self.folder / (run or name))

    def pool(self, workers: int, listener: Listener, **changes: Any) -> Pool:
        settings = {"device": None, "retries": 0, "deadline": math.inf, **changes}
        missing = settings.pop("missing", lambda job: ALL_MISSING)
        return Pool(
            PoolSettings(workers=workers, home=self.folder, logs=self.folder / "logs", **settings), missing, listener
        )

    def run(self, workers: int, *names: str, **changes: Any) -> tuple[dict[str, Outcome], Listener]:
        listener = Listener()
        pool = self.pool(workers, listener, **changes)
        pool.run([self.job(name) for name in names], done_before=0)
        return pool.outcomes, listener

    def calls(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "calls").read_text().splitlines()]
