"""One worker as the sweep sees it: a process, a pipe to it, a pipe from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cssl_cli.host.files import open_in_place, open_to_read
from cssl_cli.host.signals import ENDING, blocked_signals
from cssl_cli.sweep.workers.messages import COMPILING, THREADS, Lines, Message, Task, decode, encode

# With the sweep's own import path, wherever it was started from.
_CODE = "import sys; sys.path[:] = {path!r}; from cssl_cli.sweep.workers.worker import main; main()"


def threads_each(workers: int) -> int:
    """The threads of one of so many workers: an equal share of the cores that this process may use, at least one."""
    return max(1, available_cores() // workers)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerProcess:
    """Starts with its first task. `messages` tells what has come from it; `stop` asks it to save and end."""

    def __init__(self, task: Task, *, threads: int) -> None:
        """Start on `task`. A number of threads that the user has set goes before `threads`."""
        log = open_log(task.log)
        try:
            with blocked_signals():  # the worker lets them in once it has its own way with them
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

    def send(self, task: Task) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # one that has died is noticed by the end of its events
            self.process.stdin.write(encode(task))
            self.process.stdin.flush()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def messages(self) -> list[Message] | None:
        """What has come since the last call, waiting for it; None at the end of the process."""
        data = os.read(self.events, 1 << 16)
        return [decode(line) for line in self.lines.feed(data)] if data else None

    def stop(self) -> None:
        """Ask it to save what it works on and to end; it does the same when this process dies."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def end(self, timeout: float) -> int:
        """Wait for its end, at most `timeout` seconds, then kill it; its exit status, negative for a signal."""
        self.stop()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def open_log(path: str) -> int:
    """A handle on the end of a log, made with its folder where needed; nowhere if it cannot be a file."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return open_in_place(Path(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def end_in_words(status: int) -> str:
    """How a process ended, of which nothing else is known."""
    if status >= 0:
        return f"its process ended unexpectedly (exit code {status})"
    return killed_in_words(-status)


def killed_in_words(number: int) -> str:
    """What a signal did."""
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
    """The last lines of a log from the position `start` on; none when it cannot be read."""
    try:
        with open_to_read(Path(path)) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 200 * 120))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]
