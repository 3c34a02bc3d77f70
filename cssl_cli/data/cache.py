"""Decoded images on disk: each entry is a memory-mapped array and a JSON file, built under other names and renamed.

Builders take turns on one lock file: of several processes that need the same entry, one decodes and the others find it
ready. The system frees the lock of a killed process. On a file system without locks, each process builds under its own
name and the last rename wins, with the same bytes. The JSON file is renamed last. It describes the array and holds the
digests of its pixels and of itself; both are verified at every read, and a damaged entry is built again. Anyone who may
write to the folder can share it: locking needs no permission to write to the lock file.

Who reads an entry holds a shared lock on its array as long as the array is mapped, so that `cssl cache prune` keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from cssl_cli.data.image_set import Summary, pixel_digest, summarize
from cssl_cli.errors import InputError, RunError
from cssl_cli.host.cache_folder import LOCK_NAME, TEMPORARY_SUFFIX, enter_use, open_lock, regular
from cssl_cli.host.cache_folder import digest_of as _digest

Notice = Callable[[str], None]

_FAILING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Damaged(Exception):
    """An entry exists but is not what was built."""


def cached_images(
    cache_dir: Path,
    key: str,
    *,
    size: int,
    channels: int,
    lengths: Sequence[int],
    fill: Callable[[np.ndarray], None],
    notice: Notice | None = None,
    source: str = "",
) -> list[tuple[Tensor, Summary]]:
    """The cached array of `key`, split into parts of `lengths` images, each uint8 (N, C, size, size) with its summary.

    On a miss, or if the entry is damaged (which is passed to `notice`), `fill` writes the array (N, C, size, size), N =
    sum(lengths), C = `channels`. The tensors map the file copy-on-write: reading them takes no extra memory, and
    writing to them does not reach the disk. `source` says in a list of the cache whose images they are. Raises
    InputError when `cache_dir` cannot be written, RunError when the disk is full or fails.
    """
    shape = (sum(lengths), channels, size, size)
    with contextlib.suppress(_Damaged):  # or is just being replaced: checked again under the lock
        parts = _read(cache_dir, key, shape, lengths)
        if parts is not None:
            return parts
    with exclusive(cache_dir) as alone:
        try:
            parts = _read(cache_dir, key, shape, lengths)
        except _Damaged as damage:
            parts = None
            if notice:
                notice(f"{damage}: the cached images were damaged and are made again")
        if parts is None:
            if alone:
                _delete_leftovers(cache_dir)
            try:
                _build(cache_dir, key, shape, lengths, fill, source)
                parts = _read(cache_dir, key, shape, lengths)
            except OSError as error:
                raise _unwritable(Path(error.filename or cache_dir), error) from error
            except _Damaged as damage:
                raise _lost(cache_dir) from damage
            if parts is None:
                raise _lost(cache_dir)
    return parts


def side_and_channels(size: int, channels: int) -> str:
    """Of an image, for the key of an entry; three channels go without saying."""
    return str(size) if channels == 3 else f"{size}x{channels}"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Holds the lock of `folder`, which is created when missing; yields False where the file system has no locks."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    path = folder / LOCK_NAME
    try:
        descriptor = open_lock(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _open(path: Path) -> BinaryIO:
    """The file for reading; a pipe does not hang."""
    return os.fdopen(regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)), "rb")


def _paths(cache_dir: Path, key: str) -> tuple[Path, Path]:
    return cache_dir / f"{key}.npy", cache_dir / f"{key}.json"


def _read(
    cache_dir: Path, key: str, shape: tuple[int, ...], lengths: Sequence[int]
) -> list[tuple[Tensor, Summary]] | None:
    """The parts of an entry, digests verified; None if there is no entry, `_Damaged` if it is damaged."""
    array_path, meta_path = _paths(cache_dir, key)
    try:
        with _open(meta_path) as file:
            meta = json.loads(file.read())
        if meta.pop("sha256") != _digest(meta) or (meta["key"], meta["lengths"]) != (key, list(lengths)):
            raise _Damaged(meta_path)
        summaries = [_summary(entry, channels=shape[1]) for entry in meta["summaries"]]
        with _open(array_path) as file:
            array = _mapped(file, shape)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged(meta_path) from error
    parts = torch.from_numpy(array).split(list(lengths))
    if len(summaries) != len(parts) or any(
        pixel_digest(part) != summary.digest for part, summary in zip(parts, summaries, strict=True)
    ):
        raise _Damaged(array_path)
    enter_use(meta_path)
    return list(zip(parts, summaries, strict=True))


def _mapped(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    try:
        np.lib.format.read_magic(file)
        found, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy passes on errors of Python's parsers, of many kinds
        raise ValueError("no array") from error
    if found != shape or fortran_order or dtype != np.uint8:
        raise ValueError("another array")
    with contextlib.suppress(OSError):  # of the open file, which the mapping keeps
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    start = file.tell()
    if os.fstat(file.fileno()).st_size != start + int(np.prod(shape)):
        raise ValueError("an array of another length")
    return np.memmap(file, dtype, mode="c", offset=start, shape=shape)


def _summary(entry: dict[str, Any], *, channels: int) -> Summary:
    mean, std = (tuple(float(value) for value in entry[name]) for name in ("mean", "std"))
    if len(mean) != channels or len(std) != channels:
        raise ValueError("statistics of another number of channels")
    return Summary(entry["digest"], mean, std)


def _build(
    cache_dir: Path,
    key: str,
    shape: tuple[int, ...],
    lengths: Sequence[int],
    fill: Callable[[np.ndarray], None],
    source: str,
) -> None:
    array_path, meta_path = _paths(cache_dir, key)
    unique = uuid.uuid4().hex
    new_array, new_meta = (p.with_name(f"{p.name}.{unique}{TEMPORARY_SUFFIX}") for p in (array_path, meta_path))
    try:
        _allocate(new_array, shape)
        array = np.load(new_array, mmap_mode="r+")
        fill(array)
        array.flush()
        meta = {
            "key": key,
            "lengths": list(lengths),
            "summaries": [asdict(summarize(part)) for part in torch.from_numpy(array).split(list(lengths))],
            "source": source,
        }
        with new_meta.open("w", encoding="utf-8") as file:
            json.dump(meta | {"sha256": _digest(meta)}, file)
            file.flush()
            os.fsync(file.fileno())
        new_array.replace(array_path)
        new_meta.replace(meta_path)
    finally:
        for path in (new_array, new_meta):
            with contextlib.suppress(OSError):  # the first error is the one to report
                path.unlink()


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """A .npy file of `shape` with its blocks reserved: on a full disk, filling a sparse mapping kills the process."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        )
        start, length = file.tell(), int(np.prod(shape))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), start, length)
        else:
            file.truncate(start + length)


def _delete_leftovers(cache_dir: Path) -> None:
    """Removes what killed builders left; call only while holding the lock. Other users' files and non-files stay."""
    for path in cache_dir.glob(f"*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()


def _lost(folder: Path) -> RunError:
    return RunError(
        "what was written here is not what is read back",
        where=str(folder),
        remedy="The disk or its file system fails. Name another cache folder in $CSSL_CACHE.",
    )


def _unwritable(path: Path, error: OSError) -> InputError | RunError:
    if isinstance(error, FileExistsError) and path.exists() and not path.is_dir():
        return InputError("this is a file, not a folder", where=str(path), remedy="Name a folder in $CSSL_CACHE.")
    kind = RunError if error.errno in _FAILING else InputError
    return kind(
        f"cannot write here: {(error.strerror or str(error)).lower()}",
        where=str(path),
        remedy="Free space, or name another cache folder in $CSSL_CACHE."
        if error.errno in _FAILING
        else "Check the permissions, or name another cache folder in $CSSL_CACHE.",
    )
