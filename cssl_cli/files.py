"""Files appear on disk whole or not at all."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cssl_cli.errors import InputError, RunError

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT)


@contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Turn the operating system's words into an error for the user.

    A place that cannot be written to is an `InputError`; a disk that fails or is full, a `RunError`.
    """
    try:
        yield
    except OSError as error:
        kind = InputError if error.errno in _REFUSALS else RunError
        raise kind(f"cannot be written: {error.strerror or error}", where=str(path), remedy=remedy) from error


def require_writable(folder: Path, remedy: str) -> None:
    """Make `folder` if it is not there; `InputError` when nothing can be written to it."""
    with explained(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def require_creatable(folder: Path, remedy: str) -> None:
    """`InputError` when `folder` could not be made or written to; makes nothing yet."""
    with explained(folder, remedy):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Remove what a killed process had begun to write aside in `folder`, `older_than` seconds ago at least.

    What another process writes at this moment would go, too: hold a lock, or give more seconds than a file takes.
    """
    for leftover in folder.glob(".*.partial"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """A path beside `path` to write to; what was written there becomes `path` at the end, or nothing changes."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # several machines may write here
    try:
        with explained(path, remedy):
            yield partial
            with partial.open("rb+") as written:
                os.fsync(written.fileno())
            partial.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before is the better story
            partial.unlink(missing_ok=True)
