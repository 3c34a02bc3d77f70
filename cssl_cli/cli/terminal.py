"""Progress and messages on stderr: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from cssl_cli.cli.quiet import is_quiet
from cssl_cli.host.progress import Notices, SweepProgress, clock
from cssl_cli.report.console import make_console

LINE_INTERVAL = 5.0  # seconds between plain lines of one task
UNSAID = 2.0  # seconds; a shorter task without a message ends without a line


class _TimeLeft(TimeRemainingColumn):
    """The time left of a task by its speed, or until the time that its field `ends` says: None if it is not known."""

    def render(self, task: Task) -> Text:
        if "ends" not in task.fields:
            return super().render(task)
        ends = task.fields["ends"]
        return Text("" if ends is None else clock(max(ends - time.monotonic(), 0.0)), style="progress.remaining")


class TerminalReporter(Notices):
    """Displays progress and messages. A context manager, so that an error leaves no bar behind."""

    def __init__(self) -> None:
        super().__init__()
        self.console = make_console(sys.stderr)
        self.quiet = is_quiet()
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=8)),
            BarColumn(bar_width=20 if self.console.width >= 100 else 8),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4)),
            _TimeLeft(compact=True, table_column=Column(min_width=5)),
            TextColumn(
                "{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}
        self.started: dict[str, tuple[float, int]] = {}
        self.last_line: dict[str, float] = {}

    def __enter__(self) -> TerminalReporter:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, message: str) -> None:
        if not self.quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """`say`, also where it keeps quiet."""
        self.console.print(message, soft_wrap=not self.live)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        _, last = self.started.get(task, (0.0, done))
        if done < last:  # the same task started over after a failure
            del self.started[task]
            self.last_line.pop(task, None)
            if task in self.tasks:
                self.progress.remove_task(self.tasks.pop(task))
        if self.live:
            self._bar(task, done, total, detail)
        else:
            self._line(task, done, total, detail)

    def show(self, progress: SweepProgress) -> None:
        """A bar of the whole sweep beside those of the member at work; off a terminal, each member is a line anyway."""
        if self.live:
            done = progress.finished + progress.failed
            total = done + len(progress.running) + progress.waiting
            left = progress.seconds_left
            ends = None if left is None else time.monotonic() + left
            self._bar("sweep", done, total, f"member {done + 1:,} of {total:,}", ends=ends)

    def _bar(self, task: str, done: int, total: int, detail: str, **fields: Any) -> None:
        begun, _ = self.started.setdefault(task, (time.monotonic(), done))
        if task not in self.tasks:
            self.tasks[task] = self.progress.add_task(task, total=total, detail=detail, **fields)
        bar = self.tasks[task]
        self.progress.update(bar, completed=done, total=total, **fields)
        if detail:
            self.progress.update(bar, detail=detail)
        if done >= total:
            self.progress.remove_task(self.tasks.pop(task))
            del self.started[task]
            if detail or time.monotonic() - begun > UNSAID:
                self.say(f"{task}: {detail or f'{total:,} done'}")

    def _line(self, task: str, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        begun, first = self.started.setdefault(task, (now, done))
        ended = done >= total
        last = self.last_line.setdefault(task, now)
        if not ended and now - last < LINE_INTERVAL:
            return
        if not ended and task == "pretrain" and not detail:
            return  # a step without numbers is not worth a line
        self.last_line[task] = now
        left = ""
        if ended:
            del self.started[task], self.last_line[task]
            if not detail and now - begun < UNSAID:
                return
        elif done > first:
            left = f"  {clock((now - begun) / (done - first) * (total - done))} left"
        self.say(f"{task}: {done / total:4.0%}{'  ' + detail if detail else ''}{left}")
