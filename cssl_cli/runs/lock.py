"""The lock of a run directory: one process at a time works on it. It is released even if its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cssl_cli.errors import InputError, InUseError, ReadOnlyError
from cssl_cli.host.files import explained, open_in_place, open_to_read, require_access

_TEXT = b"process "
_ELSEWHERE = (
    "Copy the run directory to where you may write and work on it there, or give `cssl pretrain` and `cssl sweep` "
    "another folder with --out DIR."
)


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock now."""
    try:
        with open_to_read(lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def holding(lock: Path) -> Iterator[None]:
    """Hold the lock for this process.

    `InUseError` if another process holds it, `ReadOnlyError` if its folder cannot be written to.
    """
    handle = _opened(lock)
    try:
        with explained(lock.parent, _ELSEWHERE):
            require_access(lock.parent)
        try:
            _take(handle)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise InUseError(
                f"the run directory is in use by {holder}",
                where=str(lock.parent),
                remedy="Wait for it to end or stop it; the same command then goes on from its checkpoint.",
            ) from None
        except OSError as error:
            raise InputError(
                f"the file system cannot lock files: {error.strerror or error}",
                where=str(lock.parent),
                remedy="Choose another folder with --out DIR, or mount this one with locks.",
            ) from error
        _enter_holder(lock, handle)
        yield
    finally:
        os.close(handle)


def _opened(lock: Path) -> int:
    try:
        with explained(lock, "Move it away; a new lock is then made."):
            return open_in_place(lock, os.O_RDWR | os.O_CREAT)
    except ReadOnlyError as error:
        error.remedy = _ELSEWHERE
        raise


def _take(handle: int) -> None:
    """Take the lock; retry once after a moment, since `is_held` takes it briefly."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _enter_holder(lock: Path, handle: int) -> None:
    """Write into the lock who holds it, unless it has other content, as a hard link to another file has."""
    if os.pread(handle, len(_TEXT), 0) not in (b"", _TEXT):
        raise InputError(
            "it is not a lock: it has other content",
            where=str(lock),
            remedy="Move it away; a new lock is then made.",
        )
    with suppress(OSError):  # the lock works without the text, so a full disk is no problem
        os.ftruncate(handle, 0)
        os.pwrite(handle, _TEXT + f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
