"""All checks: of the system here, with torch in another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from cssl_cli.runs.doctor import folders, packages, system
from cssl_cli.runs.doctor.findings import Check, Finding, examined

LIMIT = 120.0  # seconds for what is examined with torch; a slow disk may take half of them to load it
COMPILE_LIMIT = 600.0
# With this process's own import path, whatever the working directory.
_CODE = (
    "import json, sys; sys.path[:] = {path!r}; "
    "from cssl_cli.runs.doctor.torch_part import main; main({descriptor}, json.loads({request!r}))"
)


def examine(
    out: Path, *, data: Sequence[str], compile_too: bool, begins: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Every finding, as soon as it is made.

    out: where runs go. data: a recipe and overrides, of which the images are looked at; empty: none. begins: told of
    what is examined next, where that takes long.
    """
    checks: dict[str, Check] = {
        "versions": packages.versions,
        "torchvision": packages.torchvision_fits,
        "processor": system.processors,
        "memory": system.memory,
        "runs folder": lambda: folders.runs_folder(out),
        "cache": folders.cache,
        "C++ compiler": system.compiler,
        "terminal": system.terminal,
        "clock": system.clock,
    }
    with with_torch(data, compile_too=compile_too, begins=begins) as found:  # which loads meanwhile
        yield from examined(checks)
        yield from examined({"torch": lambda: found})


@contextmanager
def with_torch(
    data: Sequence[str],
    *,
    compile_too: bool,
    begins: Callable[[str], None] = lambda _: None,
    limit: float | None = None,
) -> Iterator[Iterator[Finding]]:
    """What a process with torch finds, which runs from here on; that it crashed, or did not end in `limit` seconds."""
    limit = limit or (COMPILE_LIMIT if compile_too else LIMIT)
    request = json.dumps({"data": "\0".join(data), "compile": compile_too})
    reading, writing = os.pipe()
    with _unnamed_file() as said, os.fdopen(reading, encoding="ascii") as lines:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(path=sys.path, descriptor=writing, request=request)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            yield _findings(process, lines, said, begins, late, limit)
        finally:
            timer.cancel()
            process.kill()
            process.wait()


def _unnamed_file() -> BinaryIO:
    """In memory, where the system (Linux) can: on a full disk there is no place for a temporary file."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("cssl doctor"), "w+b")
    return cast("BinaryIO", tempfile.TemporaryFile())


def _findings(
    process: subprocess.Popen[bytes],
    lines: Iterable[str],
    said: BinaryIO,
    begins: Callable[[str], None],
    late: threading.Event,
    limit: float,
) -> Iterator[Finding]:
    name = "torch"
    for line in lines:
        content = json.loads(line)
        if "begins" in content:
            begins(name := content["begins"])
        else:
            yield Finding(**content["finding"])
    code = process.wait()
    if late.is_set():
        remedy = "Is the machine very busy, or does a driver hang? Try again; if it stays, install torch again."
        yield Finding(name, f"did not answer in {limit:.0f} s", "failed", remedy)
    elif code:
        yield Finding(name, f"the process that examined it {_ended(code)}{_last_words(said)}", "failed", _AGAIN)


_AGAIN = "Install torch again, for this processor and driver: https://pytorch.org/get-started."


def _ended(code: int) -> str:
    if code > 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last_words(said: BinaryIO) -> str:
    """The last line that the process printed, to follow a sentence."""
    said.seek(0)
    text = said.read()[-2000:].decode(errors="replace").strip()
    return f": {text.splitlines()[-1][:200]}" if text else ""
