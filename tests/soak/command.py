"""`cssl` as a process of its own, forked from one that has imported everything: that spares each seconds of starting.

It has the streams that a shell would give it, in whatever state the case wants them, and signals sent to itself at a
chosen operation on files. The workers of `--jobs` are forked, too.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

PRELOADED = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "safetensors.torch",
    "scipy.cluster.hierarchy",
    "scipy.optimize",
    "scipy.spatial.distance",
    "cssl_cli.data.shapes",
    "cssl_cli.sweep.run",
    "cssl_cli.cli.app",
    "cssl_cli.cli.terminal",
    "cssl_cli.runs.analyze",
    "cssl_cli.runs.concentrate",
    "cssl_cli.runs.pretrain",
    "cssl_cli.runs.probe",
    "cssl_cli.report.figures.figures",
    "cssl_cli.report.analysis",
    "cssl_cli.report.run",
    "cssl_cli.report.compare.sweep",
    "cssl_cli.cli.live_table",
    "cssl_cli.sweep.workers.worker",
)
IMPORT_PATH = list(sys.path)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = frozenset(["os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"])


def preload() -> None:
    """Import what every command needs; computes nothing, so that processes can be forked afterwards."""
    for name in PRELOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: as a shell tells it. escaped: an exception that came through, whole."""

    code: int
    stdout: str
    stderr: str
    escaped: str
    seconds: float
    events: int

    @property
    def traceback(self) -> str:
        """What a user would see of a bug; "" when there was none."""
        if self.escaped:
            return self.escaped
        text = self.stderr + self.stdout
        return text[text.index("Traceback (most") :] if "Traceback (most" in text else ""


@dataclass(frozen=True)
class Start:
    """How a command is started.

    streams: for stdout and stderr "file", "closed", "full", "broken" or "ascii". at_event: a signal's number and the
    operation on files before which the process sends it to itself. largest_file: bytes. whole: as a process of its own
    from the start, which imports everything itself.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, str] = ("file", "file")
    at_event: tuple[int, int] | None = None
    largest_file: int | None = None
    whole: bool = False


class Command:
    """`cssl ARGUMENTS` at work in `folder`; its outputs and notes go to a folder beside that."""

    def __init__(self, folder: Path, *arguments: object, start: Start | None = None) -> None:
        self.notes = folder.with_name(f"{folder.name}.notes")
        self.notes.mkdir(exist_ok=True)
        for note in self.notes.iterdir():
            note.unlink()
        self.words = [str(argument) for argument in arguments]
        self.begun = time.monotonic()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        self.pid = os.fork()
        if self.pid == 0:
            _run(folder, self.notes, self.words, start or Start(), held)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        self.status: int | None = None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds from now."""
        deadline = time.monotonic() + seconds
        pause = 0.001
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= deadline:
                return False
            else:
                time.sleep(pause)
                pause = min(pause * 1.5, 0.02)
        return True

    def signal(self, number: int, *, group: bool = False) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def children(self) -> list[int]:
        """The processes of its group but itself."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError):
                fields = entry.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid and int(entry.parent.name) != self.pid and fields[0] != "Z":
                    found.append(int(entry.parent.name))
        return found

    def kill_all(self) -> None:
        self.signal(signal.SIGKILL, group=True)
        if self.status is None:
            self.wait(10)

    def stderr(self) -> str:
        """So far."""
        return _text(self.notes / "2")

    def ended(self) -> Ended:
        """After its end."""
        assert self.status is not None
        text = {name: _text(self.notes / name) for name in ("1", "2", "escaped", "events")}
        return Ended(
            code=self.status if self.status >= 0 else 128 - self.status,
            stdout=text["1"],
            stderr=text["2"],
            escaped=text["escaped"],
            seconds=time.monotonic() - self.begun,
            events=int(text["events"] or 0),
        )


class Hang(Exception):
    """A command did not end in time."""


def run(folder: Path, *arguments: object, limit: float = 120.0, start: Start | None = None) -> Ended:
    """Run a command to its end; `Hang` when it takes longer than `limit` seconds."""
    command = Command(folder, *arguments, start=start)
    if not command.wait(limit):
        command.kill_all()
        raise Hang(f"cssl {' '.join(command.words)}: no end within {limit:.0f} s")
    ended = command.ended()
    deadline = time.monotonic() + 15  # workers end by themselves
    while command.children():
        if time.monotonic() > deadline:
            command.kill_all()
            raise Hang(f"cssl {' '.join(command.words)}: a process outlives it")
        time.sleep(0.02)
    return ended


def path_of(folder: Path, name: bytes) -> Path:
    """A path whose last part is these bytes, UTF-8 or not."""
    return folder / os.fsdecode(name)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


# --------------------------------------------------------------------------------------------------------- in the child
def _run(folder: Path, notes: Path, words: list[str], start: Start, signals: Any) -> NoReturn:
    os.setsid()
    _die_with_parent()
    code, counted = 1, [0]
    try:
        os.chdir(folder)
        os.environ.update({"NO_COLOR": "1", "COLUMNS": "100", **start.environment})
        _default_signals()
        _set_streams(notes, start.streams)
        if start.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (start.largest_file, start.largest_file))
        if start.whole:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            path = os.pathsep.join(str(Path(entry).resolve()) for entry in IMPORT_PATH)
            os.execve(sys.executable, [sys.executable, "-m", "cssl_cli", *words], {**os.environ, "PYTHONPATH": path})
        worker_process = importlib.import_module("cssl_cli.sweep.workers.process")
        ours = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedPopen})
        worker_process.subprocess = ours  # type: ignore[attr-defined]
        sys.argv = ["cssl", *words]
        main = importlib.import_module("cssl_cli.__main__").main
        _count_changes(counted, start.at_event)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        except KeyboardInterrupt:  # of an interpreter that starts, before any code of ours
            raise SystemExit(130) from None
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException as error:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        text = traceback.format_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        _note(notes / "escaped", text)
        with suppress(Exception):
            sys.stderr.write(text)
    for stream in (sys.stdout, sys.stderr):  # as the interpreter does at its end
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:
            code = 120 if stream is sys.stdout else code
            if stream is sys.stdout:
                with suppress(Exception):
                    sys.stderr.write(f"Exception ignored on flushing sys.stdout:\n{traceback.format_exc()}")
    _note(notes / "events", str(counted[0]))
    os._exit(code)


def _note(path: Path, text: str) -> None:
    """Written although the streams or the size of files are limited."""
    with suppress(Exception):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with suppress(Exception):
        path.write_text(text, errors="replace")


def _die_with_parent() -> None:
    with suppress(Exception):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _default_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _set_streams(notes: Path, kinds: tuple[str, str]) -> None:
    """File descriptors 1 and 2, and Python's objects for them as the interpreter makes them."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "rb", closefd=False))
    for number, kind in enumerate(kinds, start=1):
        if kind == "closed":
            os.close(number)
        elif kind == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        elif kind == "broken":
            reader, writer = os.pipe()
            os.dup2(writer, number)
            os.close(reader)
            os.close(writer)
        else:
            os.dup2(os.open(notes / str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        stream = None
        if kind != "closed":
            raw = io.FileIO(number, "wb", closefd=False)
            encoding = "ascii" if kind == "ascii" else "utf-8"
            errors = "strict" if number == 1 else "backslashreplace"
            stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=number == 2)
        name = ("stdout", "stderr")[number - 1]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _count_changes(counted: list[int], at_event: tuple[int, int] | None) -> None:
    """Count the operations that change files; before the one that is meant, send the signal."""

    def hook(event: str, arguments: Any) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING or str(path).startswith("/dev/"):
                return
        elif event not in CHANGES:
            return
        counted[0] += 1
        if at_event is not None and counted[0] == at_event[1]:
            os.kill(os.getpid(), at_event[0])

    sys.addaudithook(hook)


class ForkedPopen:
    """The part of `subprocess.Popen` that a sweep uses to start a worker; the worker is forked instead."""

    def __init__(self, _command: Any, *, stdin: Any, stdout: Any, stderr: int, env: Mapping[str, str]) -> None:
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run_worker(read_in, write_out, stderr, env)
        os.close(read_in)
        os.close(write_out)
        self.stdin, self.stdout = os.fdopen(write_in, "wb"), os.fdopen(read_out, "rb", buffering=0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            select.select([], [], [], 0.01)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run_worker(stdin: int, stdout: int, stderr: int, env: Mapping[str, str]) -> NoReturn:
    code = 1
    try:
        _default_signals()  # those that are held back stay so until the worker lets them in
        signals = importlib.import_module("cssl_cli.host.signals")
        signals._listener = signals._Listener()  # that of the sweep is none of a process of its own
        for number, handle in enumerate((stdin, stdout, stderr)):
            os.dup2(handle, number)
        os.closerange(3, 1024)
        os.environ.clear()
        os.environ.update(env)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, "rb", closefd=False))
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "wb", closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "wb", closefd=False), write_through=True)
        importlib.import_module("cssl_cli.sweep.workers.worker").main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        with suppress(Exception):
            sys.stderr.write(traceback.format_exc())
    os._exit(code)


def described(words: list[str], ended: Ended) -> str:
    """What a report says of a command."""
    facts = {"command": ["cssl", *words], "code": ended.code, "seconds": round(ended.seconds, 2)}
    return f"{json.dumps(facts)}\n{ended.stdout[-1500:]}\n{ended.stderr[-3000:]}\n{ended.escaped[-3000:]}"
