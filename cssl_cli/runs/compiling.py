"""Whether a run's step is compiled, and where the compiler keeps its cache."""

from __future__ import annotations

import os

import torch

from cssl_cli.errors import InputError
from cssl_cli.host.cache_folder import COMPILED, tag
from cssl_cli.runs.images import cache_dir
from cssl_cli.train.loop import Plan
from cssl_cli.train.step import Compiled

COMPILED_STEPS = 20_000  # compiling pays from here on; for its cost and gain see docs/performance.md
COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def compiles(setting: Compiled | None, plan: Plan, device: torch.device, *, in_parts: bool = False) -> Compiled:
    """Whether to compile the training step: as the recipe says, or if the run is long enough to pay for it.

    Among CPUs, those with AVX-512 gain; others lost as much on one encoder as they gained on another. An encoder that
    takes a batch `in_parts` would repeat its graph for every part. The answer stays the same while a run stays on its
    machine, so that it resumes as it began. Raises `InputError` if a graph is to be captured without a GPU.
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
    """Keep torch's compiled code in the user's cache folder rather than /tmp, unless the environment sets a place.

    If that folder is unknown or cannot be written to, torch's own choice stays.
    """
    try:
        folder = cache_dir() / COMPILED
        folder.mkdir(parents=True, exist_ok=True)
        tag(folder)
    except (InputError, OSError):
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(COMPILER_CACHE, str(folder))
