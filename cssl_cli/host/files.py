"""Writing files atomically, and opening only regular files.

A process holds a lock on each temporary file it writes, so that others can tell a file being written from one that a
killed process left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from cssl_cli.errors import InputError, ReadOnlyError, RunError

LEFT_OVER = 3600.0  # seconds after which a file that cannot be locked is nobody's: nothing takes so long to write

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_REFUSALS = {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENOTEMPTY,
}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial(\.gz)?", re.DOTALL)


@contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Turn the operating system's words into an error for the user.

    A place that may only be read is a `ReadOnlyError`, one that cannot be written to for another reason an
    `InputError`; a disk that fails or is full, a `RunError`.
    """
    try:
        yield
    except OSError as error:
        kind = ReadOnlyError if error.errno in _READ_ONLY else InputError if error.errno in _REFUSALS else RunError
        raise kind(f"cannot be written: {error.strerror or error}", where=str(path), remedy=remedy) from error


def require_writable(folder: Path, remedy: str) -> None:
    """Make `folder` if it is not there; `InputError` when nothing can be written to it."""
    with explained(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        require_access(folder)


def require_creatable(folder: Path, remedy: str) -> None:
    """`InputError` when `folder` could not be made or written to; makes nothing yet."""
    with explained(folder, remedy):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        require_access(there)


def require_access(folder: Path) -> None:
    """`OSError` when nothing can be written to a folder that is there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_folder(path: Path) -> bool:
    """Whether there is a folder; what cannot even be looked for, such as too long a name, is not there."""
    try:
        return path.is_dir()
    except OSError:
        return False


def exists(path: Path) -> bool:
    """Whether there is anything; what cannot even be looked for is not there."""
    try:
        return path.exists()
    except OSError:
        return False


# ---------------------------------------------------------------------- opening
def open_to_read(path: Path) -> BufferedReader:
    """A regular file, perhaps behind a link. `OSError` for anything else; never waits, as a named pipe would."""
    _require_regular(path.stat().st_mode)
    return os.fdopen(_opened(path, os.O_RDONLY), "rb")


def open_in_place(path: Path, flags: int) -> int:
    """A handle on a file that is written where it stands. `OSError` for a link, which would lead the writing astray."""
    with suppress(FileNotFoundError):
        _require_regular(path.lstat().st_mode)
    return _opened(path, flags | os.O_NOFOLLOW)


def _opened(path: Path, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
    try:
        _require_regular(os.fstat(handle).st_mode)
    except OSError:
        os.close(handle)
        raise
    return handle


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = stat.S_IFMT(mode)
        number = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}.get(kind, errno.EINVAL)
        raise OSError(number, f"it is {_KINDS.get(kind, 'something else')}, not a file")


def read_bytes(path: Path, *, largest: int) -> bytes:
    """What a regular file of at most `largest` bytes holds; `OSError` for any other."""
    with open_to_read(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise OSError(errno.EFBIG, f"it is larger than {largest:,} bytes")
        return file.read()


# ---------------------------------------------------------------------- replacing
def remove_leftovers(folder: Path, *, whole_name: bool = False) -> None:
    """Remove from `folder`, if it is there, what killed processes had begun to write aside.

    whole_name: only what is named in all its parts as `replacing` does, in folders where other programs write, too.
    """
    with suppress(OSError):
        for path in list(folder.glob(".*.partial*")):
            if not whole_name or _PARTIAL.fullmatch(path.name):
                with suppress(OSError):
                    _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    handle = open_in_place(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it is being written
            return
        except OSError:  # a file system without locks
            if time.time() - os.fstat(handle).st_mtime < LEFT_OVER:
                return
        path.unlink()
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, remedy: str) -> Iterator[Path]:
    """A path beside `path` to write to; what was written there becomes `path` at the end, or nothing changes.

    What killed processes left in the same way in that folder is removed first.
    """
    remove_leftovers(path.parent, whole_name=True)
    with explained(path, remedy):
        partial, handle = _begin(path)
    try:
        with explained(path, remedy):
            yield partial
            with partial.open("rb+") as written:
                os.fsync(written.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # what went wrong before is the better story
            partial.unlink(missing_ok=True)
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Have the new name itself on the disk; some file systems cannot, and the file is whole there all the same."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _begin(path: Path) -> tuple[Path, int]:
    """An empty file beside `path` under a name of its own (several machines may write here), and a lock on it."""
    while True:
        partial = path.parent / f".{path.name[:50]}.{uuid.uuid4().hex}.partial"
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)  # waits for who takes it for a leftover, to see below what came of it
        if os.fstat(handle).st_nlink:
            return partial, handle
        os.close(handle)  # taken for a leftover before it was locked
