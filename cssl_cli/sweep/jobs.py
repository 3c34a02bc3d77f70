"""How many members of a sweep run at a time, where the user leaves the choice to us.

Small networks hardly use a second core: on two, one process with two threads does 1.3 times the work of one thread, and
two processes with a thread each 1.7 times (benchmarks/threads.py). Threads that wait for one another also lose far more
than their share to any other program that runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cssl_cli.errors import InputError
from cssl_cli.sweep import memory_check
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import unfinished_work
from cssl_cli.sweep.workers.messages import THREADS
from cssl_cli.sweep.workers.process import available_cores

VARIABLE = "CSSL_JOBS"
AUTO = "auto"
_GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # in /dev: of NVIDIA, of AMD, of either under Windows


def parse_jobs(given: str | None) -> int | None:
    """The members at a time of `--jobs`, else of the environment: 0 for none apart from this process, None for auto.

    Raises InputError for anything else.
    """
    text, where = (given, "--jobs") if given is not None else (os.environ.get(VARIABLE) or AUTO, VARIABLE)
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InputError(
            f"{text!r} is no number of members from 0 to 99999",
            where=where,
            remedy="Give a number, or auto: one a core on a CPU. 0 runs them one after another in this process.",
        )
    return int(text)


def choose_jobs(request: SweepRequest, environment: Mapping[str, str] = os.environ) -> int | None:
    """One member a core on a CPU, as far as they fit in memory; None, in this process, on a GPU or a single core.

    But for memory, the number follows from the whole sweep and not from what is left of it, since the threads of each
    decide roundings.
    """
    if _may_use_a_gpu(request.device):
        return None
    threads = environment.get(THREADS, "")
    cores = available_cores() // max(int(threads) if threads.isascii() and threads.isdigit() else 1, 1)
    jobs = min(cores, len(request.sweep.run_names))
    if jobs < 2:
        return None
    return memory_check.most_together(unfinished_work(request), device_name=request.device, limit=jobs)


def _may_use_a_gpu(device: str | None) -> bool:
    """Whether a GPU is asked for, or none is and there may be one: the sweep's own process never loads torch."""
    if device is not None:
        return device != "cpu"
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and any(
        next(Path("/dev").glob(pattern), None) for pattern in _GPUS
    )
