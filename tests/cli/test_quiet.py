"""`--quiet`: nothing on stderr but errors and what has to be done something about; results as ever."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer

from cssl_cli.cli.app import app
from cssl_cli.cli.live_table import SweepDisplay
from cssl_cli.cli.quiet import VARIABLE, is_quiet, keeping_quiet
from cssl_cli.cli.terminal import TerminalReporter
from cssl_cli.host.progress import MemberProgress, SweepProgress, TaskProgress, warn
from tests.support.commands import Invoke


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_results_without_progress(invoke: Invoke, trained: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = invoke("pretrain", trained / "recipe.yaml", "--out", trained.parent)
    assert "is finished already" in loud.stderr
    if place == "environment":
        monkeypatch.setenv(VARIABLE, "1")
    arguments = ["pretrain", trained / "recipe.yaml", "--out", trained.parent]
    quiet = invoke(*["-q"] * (place == "before"), *arguments, *["--quiet"] * (place == "after"))
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, loud.stdout, "")
    assert not is_quiet() or place == "environment"


def test_errors_are_told(invoke: Invoke) -> None:
    failed = invoke("pretrain", "no-such-recipe", "-q")
    assert failed.code == 2
    assert failed.stderr.startswith("error: unknown recipe")


def test_every_command_takes_it() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in commands.values():
        assert any({"-q", "--quiet"} == set(parameter.opts) for parameter in command.params), command.name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [TerminalReporter, SweepDisplay])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_displays_say_warnings_only(kind: type, stream: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", written := stream())
    member = MemberProgress("a", TaskProgress("pretrain", 1, 2, ""), 1.0)
    with keeping_quiet(True), kind() as reporter:
        reporter.last_line = {} if kind is TerminalReporter else -1000.0
        reporter.say("a remark")
        reporter.notice("a notice")
        reporter.advance("pretrain", 1, 2, "half")
        reporter.advance("pretrain", 2, 2, "all")
        reporter.show(SweepProgress((member,), 1, 0, 0, None, False))
        warn(reporter, "a warning")
    assert written.getvalue().split("\x1b")[0].strip() == "a warning" or written.getvalue().strip() == "a warning"
