"""The folders that we write to: the one for runs, and the cache."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cssl_cli.errors import InputError, shown_path
from cssl_cli.host.files import require_access
from cssl_cli.host.paths import cache_dir
from cssl_cli.runs.cache import entries
from cssl_cli.runs.doctor.findings import Finding

LITTLE_SPACE = 1e9  # bytes
WRITTEN = 32 * 2**20  # bytes, to measure by
SKEW = 5.0  # seconds that the clocks of this machine and of a file server may differ
_FULL = (errno.ENOSPC, errno.EDQUOT)


def runs_folder(out: Path) -> Iterator[Finding]:
    """Whether runs can be written and locked where they go, and how fast."""
    folder = nearest_folder(out)
    place = "runs folder"
    remedy = "Choose another folder with --out DIR."
    if not _is_writable(folder):
        yield Finding(place, f"{shown_path(folder)} cannot be written to", "failed", remedy)
        return
    yield _space(place, folder, "Free some, or choose another folder with --out DIR.")
    trial = folder / f".cssl-doctor.{uuid.uuid4().hex}.partial"
    try:
        yield from _written(trial, remedy)
        yield from _locked(trial, remedy)
        yield from _dated(trial)
    except OSError as error:
        said = f"{shown_path(folder)}: {(error.strerror or str(error)).lower()}"
        yield Finding(place, said, "failed", "Free some space." if error.errno in _FULL else remedy)
    finally:
        with suppress(OSError):
            trial.unlink()


def _is_writable(folder: Path) -> bool:
    try:
        require_access(folder)
    except OSError:
        return False
    return True


def nearest_folder(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if one.is_dir()), Path("/"))


def _space(place: str, folder: Path, remedy: str) -> Finding:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    facts = {"folder": str(folder), "free": free}
    if status.f_files and status.f_favail < 1000:
        return Finding(place, f"{shown_path(folder)}: {status.f_favail} files more fit on it", "warning", remedy, facts)
    little = free < LITTLE_SPACE
    return Finding(
        place,
        f"{shown_path(folder)}: {free / 1e9:,.1f} GB free",
        "warning" if little else "ok",
        remedy if little else None,
        facts,
    )


def _written(trial: Path, remedy: str) -> Iterator[Finding]:
    """Write as checkpoints are written: whole, and synced."""
    content = os.urandom(1 << 20)
    began = time.perf_counter()
    with trial.open("xb") as file:
        for _ in range(WRITTEN >> 20):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    rate = WRITTEN / (time.perf_counter() - began)
    slow = rate < 5e6
    said = f"{rate / 1e6:,.0f} MB/s, synced"
    yield Finding("disk", said, "warning" if slow else "ok", remedy if slow else None, {"bytes_per_second": rate})


def _locked(trial: Path, remedy: str) -> Iterator[Finding]:
    """Whether a lock that one process has keeps another out, as the lock of a run has to."""
    with trial.open("rb+") as first, trial.open("rb+") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            said = f"the file system cannot lock files: {(error.strerror or str(error)).lower()}"
            yield Finding("locks", said, "failed", f"{remedy} Or mount this one with locks.")
            return
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Finding("locks", "work")
        else:
            said = "the file system gives everybody the same lock: two processes would work on one run"
            yield Finding("locks", said, "failed", f"{remedy} Or mount this one with locks.")


def _dated(trial: Path) -> Iterator[Finding]:
    os.utime(trial)
    ahead = trial.stat().st_mtime - time.time()
    if abs(ahead) > SKEW:
        said = f"files there are dated {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's clock"
        yield Finding("file times", said, "warning", "Set the clocks of both: edits of images may go unnoticed.")


def cache() -> Iterator[Finding]:
    """Where prepared images are kept, how much they take, and whether more can be written."""
    remedy = "Name another folder in $CSSL_CACHE, or see: cssl cache prune --help"
    try:
        folder = cache_dir()
        found = entries(folder)
    except InputError as error:
        yield Finding("cache", str(error).partition("\n")[0], "failed", error.remedy or remedy)
        return
    num_bytes = sum(entry.num_bytes for entry in found)
    near = nearest_folder(folder)
    blocked = folder.exists() and not folder.is_dir()
    if blocked or not _is_writable(near):
        yield Finding("cache", f"{shown_path(folder)} cannot be written to", "failed", remedy)
        return
    facts = {"folder": str(folder), "num_bytes": num_bytes, "entries": len(found)}
    yield Finding("cache", f"{shown_path(folder)}: {num_bytes / 1e9:,.1f} GB", facts=facts)
    space = _space("cache", near, remedy)
    if space.state != "ok":
        yield space
