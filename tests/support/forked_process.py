"""`cssl` in real processes, forked from one that has imported everything: that spares each the seconds of starting.

So are the workers of `--jobs`, by the means of the campaign of faults.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from cssl_cli.cli.app import app
from tests.soak.command import PRELOADED, ForkedPopen

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(list(PRELOADED))


def in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """What a module's function returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=FORK_SERVER) as pool:
        return pool.submit(function, *arguments).result()


class ForkedProcess:
    """The part of `subprocess.Popen` that the tests use; output goes to files, so that nothing waits for a reader.

    It leads a process group of its own. largest_file: bytes beyond which it can write no file. environment: what is set
    besides. before: a function of a module, called in the process first.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        largest_file: int | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        before: Callable[[], object] | None = None,
    ) -> None:
        self.outputs = Path(tempfile.mkdtemp(dir=folder.parent, prefix="outputs-"))
        words = [str(argument) for argument in arguments]
        settings = largest_file, dict(environment), before
        self.process = FORK_SERVER.Process(target=_run, args=(folder, self.outputs, words, *settings), daemon=True)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("cssl", timeout or 0)
        return (self.outputs / "1").read_text(), (self.outputs / "2").read_text()


def _run(
    folder: Path,
    outputs: Path,
    arguments: list[str],
    largest_file: int | None,
    environment: dict[str, str],
    before: Callable[[], object] | None,
) -> None:
    os.setsid()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a shell's background
    for number in (1, 2):
        os.dup2(os.open(outputs / str(number), os.O_WRONLY | os.O_CREAT), number)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.chdir(folder)
    workers = importlib.import_module("cssl_cli.sweep.workers.process")
    workers.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedPopen})  # type: ignore[attr-defined]
    sys.argv = ["cssl", *arguments]
    if before is not None:
        before()
    app(arguments, prog_name="cssl")
