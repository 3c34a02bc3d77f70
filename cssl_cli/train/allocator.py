"""Settings of the memory allocator of this process."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MOST = 2**31 - 1
HEADROOM = 3.0
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def keep_freed_memory() -> bool:
    """Keep memory that is freed for the next allocation instead of giving it back; whether that was arranged.

    A training step allocates the same large tensors again and again. By default each goes back to the system and comes
    as fresh pages, which have to be mapped and zeroed one by one: more than a tenth of the time of a large encoder's
    step on a CPU. What is kept is in pieces, so that the process grows, by half in the worst case that was seen: hence
    only where `HEADROOM` times what it has taken at most so far is free. For glibc on Linux; elsewhere nothing changes.
    """
    taken, free = _most_taken(), _free()
    if taken is None or free is None or free < HEADROOM * taken:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST), (M_TOP_PAD, 2**26))
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(accepted)


def _most_taken() -> int | None:
    """Bytes of memory that this process has had at most."""
    return _kilobytes(PROC / "self" / "status", "VmHWM")


def _free() -> int | None:
    """Bytes that the machine, or the control groups this process runs in (version 2), can still give."""
    free = _kilobytes(PROC / "meminfo", "MemAvailable")
    if free is not None:
        for group in _groups():
            with suppress(OSError, ValueError):  # most groups have no limit
                limit = int((group / "memory.max").read_text(encoding="utf-8", errors="replace"))
                free = min(free, limit - int((group / "memory.current").read_text(encoding="utf-8", errors="replace")))
    return free


def _groups() -> list[Path]:
    """The folders of the control group of this process and of those around it."""
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("0::/"):
                own = CGROUP / line.removeprefix("0::/")
                return [own, *(parent for parent in own.parents if parent.is_relative_to(CGROUP))]
    return [CGROUP]


def _kilobytes(path: Path, name: str) -> int | None:
    """A line `name: 123 kB` of one of the system's files, in bytes."""
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    return None
