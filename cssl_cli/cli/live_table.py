"""Progress of a sweep with several members at a time, on stderr: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cssl_cli.cli.quiet import is_quiet
from cssl_cli.errors import escaped
from cssl_cli.host.progress import MemberProgress, Notices, SweepProgress, TaskProgress, clock
from cssl_cli.report.console import make_console

LINE_INTERVAL = 30.0  # seconds between plain lines about the whole sweep
BAR_WIDTH = 12
HEIGHT_LEFT = 3  # lines of the terminal that the table leaves free


class SweepDisplay(Notices):
    """Displays the progress of a sweep. A context manager, so that an error leaves no table behind."""

    def __init__(self) -> None:
        super().__init__()
        self.console = make_console(sys.stderr)
        self.quiet = is_quiet()
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet
        self.live = Live(console=self.console, transient=True, auto_refresh=False)
        self.last_line = time.monotonic()

    def __enter__(self) -> SweepDisplay:
        if self.is_live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def say(self, message: str) -> None:
        if not self.quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """`say`, also where it keeps quiet."""
        self.console.print(message, soft_wrap=not self.is_live)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Nothing: members report their tasks through `show`."""

    def show(self, progress: SweepProgress) -> None:
        now = time.monotonic()
        if self.is_live:
            self.live.update(draw(progress, self.console), refresh=True)
        elif progress.running and now - self.last_line >= LINE_INTERVAL:
            self.last_line = now
            self.say(f"{in_words(progress)}: {', '.join(_plain(member) for member in progress.running)}")


def draw(progress: SweepProgress, console: Console) -> Group:
    """One line per running member, as many as fit in the terminal, and one for the whole sweep."""
    room = max(console.height - HEIGHT_LEFT, 1)
    shown, hidden = progress.running[:room], progress.running[room:]
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(console.width // 3, 12))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(console.width // 4, 10))
    grid.add_column(width=BAR_WIDTH)
    grid.add_column(no_wrap=True, justify="right", min_width=4)
    grid.add_column(no_wrap=True, justify="right", min_width=5)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for member in shown:
        task = member.task
        bar = ProgressBar(total=max(task.total, 1), completed=task.done, width=BAR_WIDTH)
        grid.add_row(
            Text(escaped(member.name)),
            Text(task.name),
            bar,
            _percent(task),
            clock(member.seconds),
            Text(task.detail, style="dim"),
        )
    more = f"and {len(hidden)} more; " if hidden else ""
    return Group(grid, Text(more + in_words(progress), style="bold", no_wrap=True, overflow="ellipsis"))


def in_words(progress: SweepProgress) -> str:
    """The progress of the sweep on one line."""
    parts = [f"{progress.finished} done", f"{len(progress.running)} running", f"{progress.waiting} waiting"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.stopping:
        parts.append("stopping")
    elif progress.seconds_left is not None:
        parts.append(f"about {clock(progress.seconds_left)} left")
    return ", ".join(parts)


def _percent(task: TaskProgress) -> str:
    return f"{task.done / task.total:.0%}" if task.total else ""


def _plain(member: MemberProgress) -> str:
    return f"{member.name} {member.task.name} {_percent(member.task)}".rstrip()
