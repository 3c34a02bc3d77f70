"""The machine as the system tells of it: processors, memory, the compiler, the terminal, the clock."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cssl_cli
from cssl_cli.runs.doctor.findings import Finding
from cssl_cli.runs.memory import free_memory, gib

LITTLE_MEMORY = 1e9  # bytes
COLUMNS = 80  # for which the tables are made
BUSY = 0.5  # load of each core, of others, from which rates are low
# What torch's compiler writes for a CPU: C++ with OpenMP, loaded into Python.
_PROGRAM = """
#include <Python.h>
#include <omp.h>
extern "C" int threads() { return omp_get_max_threads(); }
"""


_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_CGROUPS = (
    (r"^0::/(.*)$", "", ("cpu.max",)),
    (r"^\d+:(?:\w+,)*cpu(?:,\w+)*:/(.*)$", "cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
)


def processors() -> Iterator[Finding]:
    """Cores that this process may use, how many threads it will, and what others use of them."""
    there, usable = os.cpu_count() or 1, cores()
    quota = cpu_quota()
    share = f", a quota of {quota:g} of them" if quota is not None and quota < usable else ""
    some = f" of {there}" if usable < there else ""
    facts = {"cores": there, "usable": usable, "quota": quota, "model": model()}
    yield Finding("processor", f"{facts['model']}, {usable}{some} core{'s' * (usable != 1)}{share}", facts=facts)
    yield from _threads(useful_cores())
    yield from _load(usable)


def _threads(useful: int) -> Iterator[Finding]:
    text = os.environ.get("OMP_NUM_THREADS", "")
    try:
        threads = int(text.split(",")[0]) if text else None
    except ValueError:
        yield Finding("threads", f"OMP_NUM_THREADS is {text!r}, no number", "warning", "Unset it, or set a number.")
        return
    said = f"OMP_NUM_THREADS={threads}" if threads else f"OMP_NUM_THREADS is not set: as many as cores, {useful}"
    if threads is not None and threads < useful and threads <= useful // 2:
        yield Finding("threads", f"{said}, and {useful} cores may be used", "warning", "Unset it, or set it higher.")
    elif threads is not None and threads > useful:
        remedy = f"Set it to {useful}: threads without a core of their own wait for one another."
        yield Finding("threads", f"{said}, and {useful} cores may be used", "warning", remedy)
    else:
        yield Finding("threads", said, facts={"OMP_NUM_THREADS": threads})


def _load(usable: int) -> Iterator[Finding]:
    load = os.getloadavg()[0]
    busy = load > BUSY * usable
    said = f"others ran {load:.1f} processes at a time in the last minute" if busy else f"load {load:.1f}"
    remedy = "Rates below are too low, and training is slower than it could be, while they run." if busy else None
    yield Finding("load", said, "warning" if busy else "ok", remedy, {"load": load})


def cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def useful_cores() -> int:
    """The cores that have work for a thread each: a quota may leave a container the time of fewer than it sees."""
    quota = cpu_quota()
    return cores() if quota is None else max(1, min(cores(), int(quota + 0.5)))


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group gets, as of a container; None without a limit."""
    try:
        own = (_PROC / "self" / "cgroup").read_text(errors="replace")
    except OSError:
        return None
    return min((quota for groups in _CGROUPS for quota in _quotas(own, *groups)), default=None)


def _quotas(own: str, line: str, below: str, names: Sequence[str]) -> Iterator[float]:
    """Of this process's group and of those around it, by a version of Linux's control groups.

    own: /proc/self/cgroup, with a `line` that names the group. names: of the files with the limit and its period.
    """
    found = re.search(line, own, re.MULTILINE)
    folder = _GROUPS / below / (found[1] if found else "")
    for group in (folder, *folder.parents):
        try:
            limit, period = " ".join((group / name).read_text() for name in names).split()
            quota = int(limit) / int(period)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0:  # version 1 says -1 for none
            yield quota


def model() -> str:
    """What the processor is called."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def memory() -> Iterator[Finding]:
    """What this process may still use, by the system and its control groups."""
    free = free_memory()
    if free is None:
        yield Finding("memory", "the system does not say how much is free")
        return
    little = free < LITTLE_MEMORY
    remedy = "End other programs, or raise the limit of the job or the container." if little else None
    yield Finding("memory", f"{gib(free)} GiB free", "warning" if little else "ok", remedy, {"free": free})


def compiler() -> Iterator[Finding]:
    """Whether a C++ compiler makes what torch's compiler asks of it. Needed where train.compile is used only."""
    name = next(
        (found for one in (os.environ.get("CXX"), "g++", "clang++") if one and (found := shutil.which(one))), ""
    )
    needed = "Only compiled training steps need one: train.compile, and long runs on a GPU or with AVX-512."
    if not name:
        yield Finding("C++ compiler", "there is none", "warning", f"{needed} Install g++.")
        return
    with tempfile.TemporaryDirectory(prefix="cssl-doctor-") as folder:
        source = Path(folder, "program.cpp")
        source.write_text(_PROGRAM)
        include = sysconfig.get_path("include")
        command = [name, "-shared", "-fPIC", "-fopenmp", f"-I{include}", "-o", f"{folder}/program.so", str(source)]
        began = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    seconds = time.perf_counter() - began
    if ended.returncode == 0:
        yield Finding("C++ compiler", f"{name} works, with OpenMP and Python's headers", facts={"seconds": seconds})
        return
    said = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr.strip()[:200])
    install = "Install Python's headers, such as python3-dev." if "Python.h" in ended.stderr else "Install g++ whole."
    yield Finding("C++ compiler", f"{name} fails: {said.strip()}", "warning", f"{needed} {install}")


def terminal() -> Iterator[Finding]:
    """The encoding and the width that results are printed in."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("_", "-")
    columns = shutil.get_terminal_size((0, 0)).columns
    width = f"{columns} columns" if columns else "no terminal"
    facts = {"encoding": encoding, "columns": columns or None, "locale": locale.setlocale(locale.LC_CTYPE)}
    if encoding not in ("utf-8", "utf8"):
        said = f"the encoding is {encoding}: Greek letters and signs are replaced"
        yield Finding("terminal", said, "warning", "Set LC_ALL=C.UTF-8, or PYTHONUTF8=1.", facts)
    elif 0 < columns < COLUMNS:
        yield Finding("terminal", f"{width}: tables are folded", "warning", f"Make it {COLUMNS} wide.", facts)
    else:
        yield Finding("terminal", f"{encoding}, {width}", facts=facts)


def clock() -> Iterator[Finding]:
    """Whether the clock is later than our own files, by whose kind runs and caches are told apart."""
    made = Path(cssl_cli.__file__).stat().st_mtime
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(now))
    if now < made - 86400:
        remedy = "Set it: the age of files in the cache and of runs is wrong otherwise."
        yield Finding("clock", f"{said}, earlier than cssl was installed", "warning", remedy)
    else:
        yield Finding("clock", said, facts={"time": now})
