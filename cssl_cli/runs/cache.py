"""The cache of prepared images: what lies in it, and what may be removed of it. Loads no torch.

Only what we wrote is ever removed: entries of images, what killed processes left of them, and compiled code in a folder
with our tag. Downloads of torchvision, which lie in the same folder, and all other files stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cssl_cli.errors import InputError, InUseError, RunError
from cssl_cli.host.cache_folder import (
    COMPILED,
    LOCK_NAME,
    TAG,
    TEMPORARY_SUFFIX,
    digest_of,
    is_tagged,
    open_lock,
    regular,
)

Kind = Literal["images", "left_over", "compiled", "other"]

STILL_WARM = 3600.0  # seconds since its last use within which compiled code counts as in use: nothing locks it
_LARGEST_META = 1 << 20  # bytes
_ENTRY = re.compile(r"(folder|arrays|huggingface|torchvision)-[0-9a-f]{32}\.(npy|json)")
_BUILDING = re.compile(rf".+\.(npy|json)\.[0-9a-f]{{32}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL)
_REMOVED = re.compile(rf"\.{COMPILED}\.[0-9a-f]{{32}}\.removed")


@dataclass(frozen=True)
class CacheEntry:
    """What belongs together in the cache: `paths`, of `num_bytes` on the disk; times in seconds since 1970.

    kind: prepared `images`; what killed processes `left_over` of them; `compiled` code of training steps; or `other`,
    which is never removed. source: whose images, where that was written down. shape: (N, C, H, W) of images.
    """

    name: str
    kind: Kind
    paths: tuple[Path, ...]
    num_bytes: int
    used: float
    in_use: bool = False
    source: str = ""
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be, and what was to be removed and is in use; `failed`: why others are still there."""

    removed: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]
    failed: tuple[RunError, ...] = ()
    num_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bytes", sum(entry.num_bytes for entry in self.removed))


# ------------------------------------------------------------------------------------------------------------- reading
def entries(folder: Path) -> list[CacheEntry]:
    """What lies in the cache, the latest used first; none where there is no folder.

    Raises InputError when it is no folder or cannot be read.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot be read: {(error.strerror or str(error)).lower()}", where=str(folder)) from error
    found: list[CacheEntry] = []
    keys: dict[str, list[Path]] = {}
    for name in names:
        path = folder / name
        if name == LOCK_NAME:
            continue
        if _ENTRY.fullmatch(name) and _is_file(path):
            keys.setdefault(path.stem, []).append(path)
        else:
            found.append(_other(path))
    found += [_images(key, paths) for key, paths in keys.items()]
    return sorted(found, key=lambda entry: (-entry.used, entry.name))


def _images(key: str, paths: Sequence[Path]) -> CacheEntry:
    """The array and the description of an entry; either without the other is of no use to anybody."""
    array, meta = (next((path for path in paths if path.suffix == suffix), None) for suffix in (".npy", ".json"))
    described = _described(meta) if meta is not None and array is not None else {}
    num_bytes, used = _measured(paths)
    return CacheEntry(
        key,
        "images" if meta is not None and array is not None else "left_over",
        tuple(sorted(paths)),  # the description goes first: an array without one is nobody's
        num_bytes,
        used,
        in_use=array is not None and _is_locked(array),
        source=str(described.get("source") or ""),
        shape=None if array is None else _shape(array),
    )


def _described(meta: Path) -> dict[str, Any]:
    """The description of an entry, its digest verified; empty where it is none of ours."""
    try:
        with open(meta, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            content = json.loads(file.read(_LARGEST_META))
        digest = content.pop("sha256")
        return dict(content) if digest == digest_of(content) and content["key"] == meta.stem else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _shape(array: Path) -> tuple[int, ...] | None:
    """The shape that the header of a .npy file gives."""
    with suppress(OSError, ValueError), array.open("rb") as file:
        shape = re.search(rb"'shape': \(([\d, ]+)\)", file.read(256))
        return tuple(int(side) for side in shape[1].split(b",") if side.strip()) if shape else None
    return None


def _other(path: Path) -> CacheEntry:
    num_bytes, used = _measured([path])
    kind: Kind = "other"
    in_use = False
    if _BUILDING.fullmatch(path.name) and _is_file(path):
        kind = "left_over"
    elif path.name == COMPILED and is_tagged(path) and not path.is_symlink():
        kind, in_use = "compiled", time.time() - used < STILL_WARM
    elif _REMOVED.fullmatch(path.name) and is_tagged(path) and not path.is_symlink():
        kind = "left_over"
    return CacheEntry(path.name, kind, (path,), num_bytes, used, in_use)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    """Whether somebody reads the array now."""
    try:
        handle = _locked(path)
    except OSError as error:  # it was just removed, or nothing tells since we may not read it
        return not isinstance(error, FileNotFoundError)
    if handle is not None:
        os.close(handle)
    return handle is None


def _locked(path: Path) -> int | None:
    """A descriptor of the file, locked for us alone; None where somebody else has it."""
    handle = regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _measured(paths: Iterable[Path]) -> tuple[int, float]:
    """Bytes on the disk, and when last used, of files and of what is in folders; links are not followed."""
    num_bytes, used = 0, 0.0
    for path in paths:
        for one in (path, *_inside(path)):
            with suppress(OSError):
                status = one.lstat()
                num_bytes += status.st_blocks * 512
                if not stat.S_ISDIR(status.st_mode):
                    used = max(used, status.st_mtime)
    return num_bytes, used


def _inside(folder: Path) -> Iterator[Path]:
    if not folder.is_symlink() and folder.is_dir():
        for parent, folders, files in os.walk(folder):
            yield from (Path(parent, name) for name in (*folders, *files))


# ------------------------------------------------------------------------------------------------------------ removing
def prune(folder: Path, *, older_than: float | None, max_bytes: int | None, everything: bool, dry_run: bool) -> Pruned:
    """Remove entries of the cache: those not used for `older_than` seconds, those used longest ago until the rest takes
    `max_bytes`, or `everything`; and always what is left over. What is in use stays.

    `InUseError` while images are being prepared, which may take what is about to be removed.
    """
    if not folder.is_dir():
        return Pruned((), ())
    with _alone(folder):
        found = [entry for entry in entries(folder) if entry.kind != "other"]
        chosen = _chosen(found, older_than, max_bytes, everything)
        removed: list[CacheEntry] = []
        in_use: list[CacheEntry] = []
        failed: list[RunError] = []
        for entry in chosen:
            try:
                gone = not entry.in_use and (dry_run or _remove(entry))
            except RunError as error:  # another user's, say
                failed.append(error)
                continue
            (removed if gone else in_use).append(entry)
        return Pruned(tuple(removed), tuple(in_use), tuple(failed))


def _chosen(
    found: Sequence[CacheEntry], older_than: float | None, max_bytes: int | None, everything: bool
) -> list[CacheEntry]:
    """The entries to remove, those used longest ago first."""
    now, left = time.time(), sum(entry.num_bytes for entry in found)
    chosen = []
    for entry in sorted(found, key=lambda one: (one.kind != "left_over", one.used)):
        old = older_than is not None and now - entry.used > older_than
        large = max_bytes is not None and left > max_bytes
        if everything or old or large or entry.kind == "left_over":
            chosen.append(entry)
            left -= 0 if entry.in_use else entry.num_bytes
    return chosen


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the cache, under which entries are made."""
    try:
        handle = open_lock(folder / LOCK_NAME)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot be locked: {reason}", where=str(folder), remedy="Check its permissions.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                "images are being prepared there", where=str(folder), remedy="Try again when that is done."
            ) from None
        except OSError as error:
            raise InputError(
                f"the file system cannot lock files: {error.strerror or error}",
                where=str(folder),
                remedy="Nothing tells what is in use there. Delete files by hand when no cssl runs.",
            ) from error
        yield
    finally:
        os.close(handle)


def _remove(entry: CacheEntry) -> bool:
    """Remove the entry; False where somebody began to read it."""
    handle = None
    try:
        array = next((path for path in entry.paths if path.suffix == ".npy"), None)
        if array is not None and (handle := _locked(array)) is None:
            return False
        for path in entry.paths:
            if path.is_dir():
                aside = path.with_name(f".{COMPILED}.{uuid.uuid4().hex}.removed")
                path.rename(aside)
                for inner in aside.iterdir():  # the tag goes last, so that what a killed process leaves is ours
                    if inner.is_dir() and not inner.is_symlink():
                        shutil.rmtree(inner)
                    elif inner.name != TAG:
                        inner.unlink()
                shutil.rmtree(aside)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = str(error.filename or entry.paths[0])
        raise RunError(f"cannot be removed: {reason}", where=where, remedy="Check its permissions.") from error
    finally:
        if handle is not None:
            os.close(handle)
    return True
