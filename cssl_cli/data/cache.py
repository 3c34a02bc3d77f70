"""Decoded images on disk: one memory-mapped array and one JSON file an entry, built aside and renamed into place.

Builders take turns on one lock file, so that of several processes that want the same entry one decodes and the others
find it ready; the system frees the lock of a killed process. Where the file system has no locks, everyone builds under
a name of their own and the last rename wins, with the same bytes. The JSON file is renamed last and describes the
array: an entry without it, or one whose two files do not fit together, is built again.
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

import numpy as np
import torch
from torch import Tensor

from cssl_cli.data.image_set import Summary, summarize
from cssl_cli.errors import InputError, RunError

_LOCK_NAME = ".lock"
_TEMPORARY_SUFFIX = ".building"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def cached_images(
    cache_dir: Path, key: str, *, size: int, lengths: Sequence[int], fill: Callable[[np.ndarray], None]
) -> list[tuple[Tensor, Summary]]:
    """The cached array of `key`, split into parts of `lengths` images, each uint8 (N, 3, size, size) with its summary.

    On a miss, or when the entry is damaged, `fill` writes the array (N, 3, size, size), N = sum(lengths). The tensors
    map the file copy-on-write: reading them costs no memory of its own, writing to them does not reach the disk.
    Raises InputError when `cache_dir` cannot be written, RunError when the disk is full.
    """
    shape = (sum(lengths), 3, size, size)
    parts = _read(cache_dir, key, shape, lengths)
    if parts is None:
        with exclusive(cache_dir) as alone:
            parts = _read(cache_dir, key, shape, lengths)
            if parts is None:
                if alone:
                    _delete_leftovers(cache_dir)
                try:
                    _build(cache_dir, key, shape, lengths, fill)
                except OSError as error:
                    raise _unwritable(cache_dir, error) from error
                parts = _read(cache_dir, key, shape, lengths)
                assert parts is not None
    return parts


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Holds the lock of `folder`, which is created when missing; yields False where the file system has no locks."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK_NAME).open("ab")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone


def _paths(cache_dir: Path, key: str) -> tuple[Path, Path]:
    return cache_dir / f"{key}.npy", cache_dir / f"{key}.json"


def _read(
    cache_dir: Path, key: str, shape: tuple[int, ...], lengths: Sequence[int]
) -> list[tuple[Tensor, Summary]] | None:
    """The parts of a sound entry, else None."""
    array_path, meta_path = _paths(cache_dir, key)
    try:
        meta = json.loads(meta_path.read_bytes())
        array = np.load(array_path, mmap_mode="c", allow_pickle=False)
        sound = meta["key"] == key and meta["lengths"] == list(lengths) and meta["bytes"] == array_path.stat().st_size
        summaries = [Summary(s["digest"], tuple(s["mean"]), tuple(s["std"])) for s in meta["summaries"]]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if not sound or array.shape != shape or array.dtype != np.uint8 or len(summaries) != len(lengths):
        return None
    return list(zip(torch.from_numpy(array).split(list(lengths)), summaries, strict=True))


def _build(
    cache_dir: Path, key: str, shape: tuple[int, ...], lengths: Sequence[int], fill: Callable[[np.ndarray], None]
) -> None:
    array_path, meta_path = _paths(cache_dir, key)
    unique = uuid.uuid4().hex
    new_array, new_meta = (p.with_name(f"{p.name}.{unique}{_TEMPORARY_SUFFIX}") for p in (array_path, meta_path))
    try:
        _allocate(new_array, shape)
        array = np.load(new_array, mmap_mode="r+")
        fill(array)
        array.flush()
        meta = {
            "key": key,
            "lengths": list(lengths),
            "bytes": new_array.stat().st_size,
            "summaries": [asdict(summarize(part)) for part in torch.from_numpy(array).split(list(lengths))],
        }
        with new_meta.open("w", encoding="utf-8") as file:
            json.dump(meta, file)
            file.flush()
            os.fsync(file.fileno())
        new_array.replace(array_path)
        new_meta.replace(meta_path)
    finally:
        for path in (new_array, new_meta):
            path.unlink(missing_ok=True)


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
    """Removes what killed builders left; only the holder of the lock may."""
    for path in cache_dir.glob(f"*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> InputError | RunError:
    reason = (error.strerror or str(error)).lower()
    kind = RunError if error.errno in _DISK_FULL else InputError
    return kind(
        f"cannot write here: {reason}",
        where=str(folder),
        remedy="Free space, or name another cache folder in $CSSL_CACHE.",
    )
