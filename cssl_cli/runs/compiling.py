"""Whether a run's step is compiled, and where the compiler keeps what it has made."""

from __future__ import annotations

import os

import torch

from cssl_cli.errors import InputError
from cssl_cli.runs.images import cache_dir
from cssl_cli.train.loop import Plan
from cssl_cli.train.step import Compiled

COMPILED_STEPS = 20_000  # from which on compiling pays; how long it takes and what it saves: docs/performance.md
COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compiles(setting: Compiled | None, plan: Plan, device: torch.device, *, in_parts: bool = False) -> Compiled:
    """Whether the training step is compiled: as the recipe says, or where a run is long enough to pay for it.

    Of processors, those with AVX-512 gain; others were seen to lose as much on one encoder as they gain on another.
    Where the encoder takes a batch `in_parts`, one graph would hold it as often as there are parts. Depends on nothing
    that changes while a run stays on its machine, so that it goes on as it began. Raises `InputError` where there is no
    GPU to capture a graph on.
    """
    if setting == "graph" and device.type != "cuda":
        raise InputError(
            f"graph needs a GPU, and the device is {device.type}",
            where="train.compile",
            remedy="Give train.compile=false, or leave it out.",
        )
    if setting is not None:
        return setting
    gains = device.type == "cuda" or (device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512")
    return gains and not in_parts and plan.num_steps >= COMPILED_STEPS


def keep_compiler_cache() -> None:
    """What torch compiles is kept in the user's cache folder rather than in /tmp, unless the environment says where.

    Where that folder is not known or cannot be written to, torch's own choice stays.
    """
    try:
        folder = cache_dir() / "compiler"
        folder.mkdir(parents=True, exist_ok=True)
    except (InputError, OSError):
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(COMPILER_CACHE, str(folder))
