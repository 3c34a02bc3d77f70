"""What pydantic calls to check a field's value: each gives the value back, or raises where it is not allowed."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from pydantic_core import PydanticCustomError

from cssl_cli.host.files import open_to_read
from cssl_cli.host.paths import UnknownPath, expand, expand_home, variables

RESERVED_ENDINGS = (".partial", ".building")


def refuse() -> PydanticCustomError:
    """The error of a validator whose field says in its `Allowed` what it takes."""
    return PydanticCustomError("not_allowed", "not allowed")


def increasing(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in pairwise(values)):
        raise refuse()
    return values


def moderate(values: tuple[float, ...]) -> tuple[float, ...]:
    """Numbers whose squares and quotients are numbers still."""
    if any(value and not 1e-9 <= value <= 1e9 for value in values):
        raise refuse()
    return values


def unreserved(name: str) -> str:
    if name.endswith(RESERVED_ENDINGS):
        raise ValueError(f"ends in {' or '.join(RESERVED_ENDINGS)}, as files do that are being written")
    return name


def absolute(path: str) -> str:
    """An absolute path; one that names environment variables as it stands, since they may differ where the run goes on.

    Their values are looked up when the folder is needed: `Recipe.settings`.
    """
    try:
        path = expand_home(path)
        if variables(path) and not os.path.lexists(path):
            return path if path.startswith("$") else os.path.abspath(path)  # noqa: PTH100 (it may begin with a variable)
        given = Path(path).absolute()
        plain = "/" + os.path.normpath(given).lstrip("/")
        # A link stays as it is given: what it leads to may change. Only `link/..` cannot be shortened.
        same = os.path.realpath(plain) == os.path.realpath(given)
        return _written(plain if same else str(given))
    except UnknownPath:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise refuse() from error


def absolute_if_path(name: str) -> str:
    """`absolute` of what begins as a path does; any other name as it is."""
    return absolute(name) if name[0] in "/.~$" else name


def file_digest(path: str) -> str:
    """The SHA-256 digest of a file; ValueError where it cannot be read."""
    try:
        found = Path(expand(path))
        stat = found.stat()
        return _digest_of(str(found), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    except UnknownPath:
        raise
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ValueError(f"cannot be taken of {path}: {reason}; give a file of weights as encoder.weights") from error


@lru_cache(maxsize=64)
def _digest_of(path: str, *_: int) -> str:
    """Of a large file, read once as long as it stays as it is."""
    with open_to_read(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UnknownPath("is in a folder whose name is no UTF-8, which no recipe can hold; rename that") from None
    return path
