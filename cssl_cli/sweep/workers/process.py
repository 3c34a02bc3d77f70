"""A worker as seen by the sweep: a process with a pipe to it and a pipe from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cssl_cli.host.files import open_in_place, open_to_read
from cssl_cli.host.signals import ENDING, blocked_signals
from cssl_cli.runs.doctor.system import useful_cores
from cssl_cli.sweep.workers.messages import COMPILING, THREADS, Ended, Lines, Message, RankTask, Task, decode, encode

ENDING_TIME = 10.0  # seconds for a worker to end
# Uses the sweep's own import path, whatever the working directory.
_CODE = "import sys; sys.path[:] = {path!r}; from cssl_cli.sweep.workers.worker import main; main()"


def threads_each(workers: int) -> int:
    """Threads for each of `workers` workers: an equal share of the cores available to this process, at least one."""
    return max(1, available_cores() // workers)


def available_cores() -> int:
    """The number of cores available to this process, also within the quota of a container."""
    return useful_cores()


class WorkerProcess:
    """A worker process, started with its first task. `messages` returns its output; `stop` asks it to save and end."""

    def __init__(self, task: Task | RankTask, *, threads: int) -> None:
        """Start on `task`. A thread count set by the user takes precedence over `threads`."""
        log = open_log(task.log)
        try:
            with blocked_signals():  # the worker unblocks them once its handlers are installed
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _CODE.format(path=sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={THREADS: str(threads), COMPILING: str(threads), **os.environ},
                )
        finally:
            os.close(log)
        assert self.process.stdout is not None
        self.events = self.process.stdout.fileno()
        self.lines = Lines()
        self.send(task)

    def send(self, task: Task | RankTask) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # a dead worker is noticed at the end of its messages
            self.process.stdin.write(encode(task))
            self.process.stdin.flush()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def messages(self) -> list[Message] | None:
        """Wait for messages since the last call; None once the process has ended."""
        data = os.read(self.events, 1 << 16)
        return [message for line in self.lines.feed(data) if (message := _decoded(line))] if data else None

    def stop(self) -> None:
        """Ask it to save its work and end; it does the same if this process dies."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def end(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for its end, then kill it; returns its exit status, negative for a signal."""
        self.stop()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def _decoded(line: bytes) -> Message | None:
    """A worker's message; None for another line, as what a machine's own code prints when Python starts."""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        return decode(line)
    return None


def run_alone(task: RankTask, *, threads: int, tell: Callable[[Message], None]) -> Ended:
    """Complete a task in a worker of its own; `tell` takes what it says until it ends."""
    process = WorkerProcess(task, threads=threads)
    try:
        while (messages := process.messages()) is not None:
            for message in messages:
                if isinstance(message, Ended):
                    return message
                tell(message)
    finally:
        status = process.end(ENDING_TIME)
    return Ended(error=end_in_words(status))


def open_log(path: str) -> int:
    """A handle that appends to a log, creating file and folder as needed; the null device if that fails."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return open_in_place(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def end_in_words(status: int) -> str:
    """How a process ended, given only its exit status."""
    if status >= 0:
        return f"its process ended unexpectedly (exit code {status})"
    return killed_in_words(-status)


def killed_in_words(number: int) -> str:
    """What a signal did to a process."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    if number == signal.SIGKILL:
        return f"killed (signal {number}, {name}: often out of memory)"
    if number in ENDING:
        return f"stopped (signal {number}, {name})"
    return f"crashed (signal {number}, {name})"


def tail(path: str, start: int, lines: int) -> list[str]:
    """The last lines of a log from position `start`; empty if it cannot be read."""
    try:
        with open_to_read(Path(path)) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 200 * 120))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]
