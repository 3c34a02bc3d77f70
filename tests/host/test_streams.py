"""Standard output and standard error that are closed, full, without a reader, or short of characters."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest
from rich.text import Text

from cssl_cli.cli.app import app
from cssl_cli.cli.live_table import SweepDisplay
from cssl_cli.cli.terminal import TerminalReporter
from cssl_cli.errors import InputError, escaped, escaped_text
from cssl_cli.host.progress import MemberProgress, SweepProgress, TaskProgress
from cssl_cli.host.streams import Output, Stream, print_error, standard_streams
from cssl_cli.report import layout
from cssl_cli.report.compare.content import as_csv
from cssl_cli.report.console import make_console
from cssl_cli.runs.images import cache_dir
from tests.support.commands import the_run


def full() -> TextIO:
    return open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123


def without_reader() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", encoding="utf-8", buffering=1)  # noqa: PTH123


class Hangup(io.StringIO):
    """A terminal whose window is closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


BROKEN: dict[str, Callable[[], TextIO | None]] = {
    "full": full,
    "without a reader": without_reader,
    "closed": lambda: None,
    "hung up": Hangup,
}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """A command with these streams: its exit code, and what it wrote to a standard error that takes it."""
    opened: list[Any] = []
    monkeypatch.chdir(tmp_path)

    def carry_out(*arguments: object, stdout: TextIO | None, stderr: TextIO | None = None) -> tuple[int, str]:
        errors = stderr or io.StringIO()
        opened.extend((stdout, stderr))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", errors)
            with pytest.raises(SystemExit) as ended:
                app([str(argument) for argument in arguments], prog_name="cssl")
        return int(ended.value.code or 0), errors.getvalue() if isinstance(errors, io.StringIO) else ""

    yield carry_out
    for stream in opened:
        with suppress(OSError, AttributeError):  # a stream that is full complains once more
            stream.close()


# ---------------------------------------------------------------------- standard output
ANSWERS = (["recipes"], ["recipes", "--json"], ["recipes", "simclr-shapes"], ["--help"], ["--version"])


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_results_that_cannot_be_written(arguments: list[str], run: Run) -> None:
    code, said = run(*arguments, stdout=full())
    assert code == 1
    assert said.splitlines()[0] == "error: standard output cannot be written: No space left on device"
    assert len(said.splitlines()) == 2
    # `| head` has read enough: that is no error to speak of.
    assert run(*arguments, stdout=without_reader()) == (141, "")
    assert run(*arguments, stdout=None) == (0, "")


def test_a_training_whose_result_cannot_be_printed_is_finished(run: Run, tiny_recipe: Path, tmp_path: Path) -> None:
    code, _ = run("pretrain", tiny_recipe, "train.epochs=1", stdout=full(), stderr=without_reader())
    assert code == 1
    assert json.loads((the_run(tmp_path) / "status").read_text())["state"] == "finished"
    assert run("pretrain", tiny_recipe, "train.epochs=1", stdout=None)[0] == 0


@pytest.mark.parametrize("name", BROKEN)
def test_messages_that_cannot_be_written_change_no_exit_code(name: str, run: Run) -> None:
    stderr = BROKEN[name]()
    assert run("recipes", stdout=io.StringIO(), stderr=stderr)[0] == 0
    assert run("recipes", "simclr-cifar", stdout=io.StringIO(), stderr=stderr)[0] == 2
    assert run("recipes", "--nonsense", stdout=io.StringIO(), stderr=stderr)[0] == 2


@pytest.mark.parametrize("name", BROKEN)
def test_progress_is_best_effort(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", BROKEN[name]())
    monkeypatch.setenv("TERM", "xterm")
    running = (MemberProgress("member", TaskProgress("pretrain", 1, 2, ""), 3.0),)
    with standard_streams():
        with TerminalReporter() as reporter:
            reporter.say("sentence")
            reporter.advance("pretrain", 1, 2, "loss 1")
            reporter.advance("pretrain", 2, 2, "loss 1")
        with SweepDisplay() as display:
            display.last_line -= 60
            display.show(SweepProgress(running, 0, 0, 0, None, False))
            display.say("sentence")
        print_error("what is wrong\nwhat to do")
        print("of a library", file=sys.stderr, flush=True)


def test_an_error_of_standard_output_that_a_library_swallowed_comes_again() -> None:
    output = Output(full())
    output.write("text")
    for _ in range(2):
        with pytest.raises(Exception, match="No space left"):
            output.flush()
    output.silence()
    output.flush()


# ---------------------------------------------------------------------- encodings
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_characters_that_a_stream_lacks_are_replaced(encoding: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding=encoding)
    assert run("recipes", stdout=stdout)[0] == 0
    stdout.flush()
    assert "Print one: cssl recipes NAME." in written.getvalue().decode(encoding)
    shown = run("recipes", "--json", stdout=io.TextIOWrapper(written, encoding=encoding))
    assert shown[0] == 0


def test_similar_characters_stand_for_those_that_a_stream_lacks() -> None:
    written = io.BytesIO()
    stream = Stream(io.TextIOWrapper(written, encoding="ascii"))
    stream.write("– ≤ 3 → é ε 猫 …")
    stream.flush()
    assert written.getvalue() == b"- <= 3 -> e e ? ."


# ---------------------------------------------------------------------- names
HOSTILE = {
    "a\x1b[2Jb": r"a\x1b[2Jb",
    "a\x9b31mb": r"a\x9b31mb",
    "a\nerror: b": r"a\nerror: b",
    "a\r\x08\x7fb": r"a\r\x08\x7fb",
    "a\u202eb\u2066": r"a\u202eb\u2066",
    "a\u2028b": r"a\u2028b",
    "caf\udce9": r"caf\xe9",
    "\ud800": r"\ud800",
    "naïve 猫 [bold] :smile:": "naïve 猫 [bold] :smile:",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert escaped(name) == HOSTILE[name]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = layout.console()
    grid = layout.table(name, "accuracy")
    grid.add_row(name, "1.000")
    grid.add_row("other", "2.000")
    out.print(grid)
    header, _, first, second = sys.stdout.getvalue().splitlines()
    assert header.split("  ")[0].strip() == HOSTILE[name]
    assert first.startswith(HOSTILE[name])
    assert Text(first).cell_len == Text(second).cell_len


def test_no_control_character_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    out = make_console(terminal)
    hostile = "\x1b]0;title\x07 \x9b2J \u202e :smile: [red]"
    for shown in (hostile, Text(hostile, style="bold")):
        out.print(shown)
    print_error(str(InputError("what \x1b[2J", where="a\nb\x1b[2J")))
    with standard_streams():
        print(hostile, file=sys.stderr)
        with TerminalReporter() as reporter:
            reporter.advance(f"task {hostile}", 1, 2, hostile)
            reporter.say(hostile)
    text = terminal.getvalue()
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert not {"\x07", "\x9b", "\u202e"} & set(text)
    assert text.count(":smile:") >= 4
    assert r"a\nb\x1b[2J: what \x1b[2J" in text


def test_text_of_several_lines_keeps_them() -> None:
    assert escaped_text("a\tb\nc\x1b") == "a\tb\nc\\x1b"


def test_cells_of_a_table_for_spreadsheets_are_no_formulas() -> None:
    cells = {"linear": {"mean": -0.5, "sd": None, "n": 1}}
    names = ["=1+1", "+a", "-a", "@a", "\ta", "-0.5", "1e-3", "a=1", "caf\udce9"]
    rows = [
        {"row": name, "axes": {"-x": name, "y": -1}, "control": False, "sampled": {}, "cells": cells} for name in names
    ]
    header, *lines = csv.reader(io.StringIO(as_csv({"rows": rows})))
    assert header[:4] == ["row", "'-x", "y", "negative_control"]
    shown = ["'=1+1", "'+a", "'-a", "'@a", r"'\ta", "-0.5", "1e-3", "a=1", r"caf\xe9"]
    assert [line[:3] for line in lines] == [[name, name, "-1"] for name in shown]
    assert all(line[4:] == ["-0.5", "", "1"] for line in lines)


# ---------------------------------------------------------------------- places that are not there
def test_a_directory_that_is_gone_is_a_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for command in ("recipes", "probe"):
        assert run(command, *(["x"] if command == "probe" else []), stdout=io.StringIO()) == (
            2,
            "error: the current directory does not exist any more\n  Change to another one: cd DIR.\n",
        )
    assert run("--version", stdout=io.StringIO()) == (0, "")
    monkeypatch.chdir(tmp_path)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CSSL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(InputError, match="no home folder") as told:
        cache_dir()
    assert "CSSL_CACHE" in str(told.value.remedy)


@pytest.mark.parametrize("columns", ["0", "1", "-4", "99999999999", "wide"])
def test_a_width_that_makes_no_sense(columns: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="utf-8")
    assert run("recipes", stdout=stdout)[0] == 0
    assert b"cssl recipes NAME" in b" ".join(written.getvalue().split())


_WARNS = """
import os, time
from cssl_cli import __main__ as entry
from cssl_cli.host import signals

def warns():
    os.write(2, b"a warning of a library\\n")
    time.sleep(1)

signals.GRACE, entry._run = 0.2, warns
entry.main()
"""


def test_what_a_library_writes_to_closed_streams_is_no_signal() -> None:
    """A line break has the number of SIGUSR1."""
    closed = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, _WARNS], check=False)
    assert closed.returncode == 0
