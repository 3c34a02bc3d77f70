"""The folder of prepared images, for those who fill it and those who tidy it: its lock, its entries, its tag."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCK_NAME = ".lock"
TEMPORARY_SUFFIX = ".building"
COMPILED = "compiler"  # where torch's compiler keeps its code
TAG = "CACHEDIR.TAG"  # https://bford.info/cachedir: what is in a folder with it can be made again
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by cssl: `cssl cache prune` may empty this folder.\n"
_COMPILERS = ("aotautograd", "fxgraph")  # what torch's compiler keeps, among other folders
_OF_COMPILER = re.compile(r"aotautograd|fxgraph|locks|precompiled_headers|triton|[a-z0-9]{2}")


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, which may belong to another user.

    Opened for writing if that is allowed, since locks over NFS need it. Created in a separate step: in folders with the
    sticky bit, Linux refuses to open another user's file with O_CREAT.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        for access in (os.O_RDWR, os.O_RDONLY):
            try:
                return regular(os.open(path, access | flags))
            except FileNotFoundError:
                break
            except OSError as error:
                if access == os.O_RDONLY or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)


def regular(descriptor: int) -> int:
    """The descriptor; `OSError` where it is of no regular file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def digest_of(meta: Mapping[str, Any]) -> str:
    """The digest of an entry's description, which stands in it as `sha256`."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def enter_use(path: Path) -> None:
    """Have the file's time of modification say when it was last used: times of access are kept by few systems."""
    with contextlib.suppress(OSError):  # it may be for others to write to
        os.utime(path)


def tag(folder: Path) -> None:
    """Mark a folder of compiled code as one that may be emptied, and is used now.

    One that has a tag keeps it, and one with anything that torch's compiler did not write gets none: it may lie there
    for another reason, as $CSSL_CACHE may be any folder.
    """
    if not (folder / TAG).exists() and not _holds_compiled_code_alone(folder):
        return
    with contextlib.suppress(FileExistsError), (folder / TAG).open("xb") as file:
        file.write(_TAG_TEXT)
    enter_use(folder / TAG)


def _holds_compiled_code_alone(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()}
    return not names or (not names.isdisjoint(_COMPILERS) and all(map(_OF_COMPILER.fullmatch, names)))


def is_tagged(folder: Path) -> bool:
    """Whether we marked the folder."""
    try:
        with open(folder / TAG, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            regular(file.fileno())
            return file.read(len(_TAG_TEXT) + 1) == _TAG_TEXT
    except OSError:
        return False
