"""Members that run at the same time, as the terminal shows them."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.cli.cluster import in_progress
from cssl_cli.cli.live_table import SweepDisplay, draw, in_words
from cssl_cli.cli.terminal import TerminalReporter
from cssl_cli.host.progress import MemberProgress, SweepProgress, TaskProgress
from cssl_cli.report.watch.progress import RunProgress


def progress(count: int = 2, **changes: Any) -> SweepProgress:
    running = tuple(
        MemberProgress(
            f"a-member-with-a-long-name-{number}", TaskProgress("pretrain", 30, 40, "epoch 3/4  loss 1.234"), 65.0
        )
        for number in range(count)
    )
    return SweepProgress(
        running, **{"finished": 3, "failed": 0, "waiting": 5, "seconds_left": 3725.0, "stopping": False, **changes}
    )


def test_the_whole_in_words() -> None:
    assert in_words(progress()) == "3 done, 2 running, 5 waiting, about 1:02:05 left"
    assert in_words(progress(failed=1, seconds_left=None)) == "3 done, 2 running, 5 waiting, 1 failed"
    assert in_words(progress(stopping=True)) == "3 done, 2 running, 5 waiting, stopping"


def test_a_member_elsewhere_by_its_files() -> None:
    def seen(state: str) -> MemberProgress:
        metrics = [{"step": 10 * epoch, "epoch": epoch, "seconds": 30.0} for epoch in (1, 2)]
        facts = {"knn": [], "trace": [], "age": 5.0, "holder": None, "failure": None, "problems": ()}
        return in_progress("one", RunProgress(Path("runs/one"), state, 40, metrics, **facts))

    assert seen("running") == MemberProgress("one", TaskProgress("pretrain", 20, 40, "trained in about 0:55"), 65.0)
    assert seen("interrupted").task.name == "start"
    assert seen("finished") == MemberProgress("one", TaskProgress("measure", 0, 0, ""), 60.0)


def test_one_member_at_a_time_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with TerminalReporter() as reporter:
        reporter.show(progress(1, finished=2, failed=1, waiting=2, seconds_left=125.0))
        reporter.advance("pretrain", 1, 2)
        reporter.progress.refresh()
        drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
        assert "2:05" in drawn
        assert "member 4 of 6" in drawn
        passed = time.monotonic() + 61.0
        monkeypatch.setattr(time, "monotonic", lambda: passed)
        reporter.progress.refresh()
    drawn = sys.stderr.getvalue().removeprefix(drawn)  # type: ignore[attr-defined]
    assert "1:04" in drawn, "the time passes while a member is at work"


@pytest.mark.parametrize(("width", "height"), [(60, 10), (80, 24), (120, 50)])
def test_the_table_fits_the_terminal(width: int, height: int) -> None:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(draw(progress(count=20), console))
    lines = capture.get().splitlines()
    assert len(lines) <= height - 1
    assert all(len(line) <= width for line in lines)
    assert "75%" in lines[0]
    assert "1:05" in lines[0]
    hidden = 20 - (len(lines) - 1)
    assert lines[-1].startswith(f"and {hidden} more; 3 done" if hidden else "3 done")


def test_without_a_terminal_there_are_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SweepDisplay() as display:
        display.show(progress())
        display.last_line -= 60
        display.show(progress())
        display.show(progress())
        display.say("[1/2] one: done")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "a-member-with-a-long-name-0 pretrain 75%" in lines[0]
    assert "\x1b" not in "".join(lines)
