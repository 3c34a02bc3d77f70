"""What a machine can do: its rates of matrix products and of copies, measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
ROUNDS = 7


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of products of large square matrices of this type: the best of a few.

    Of random numbers: of constants, whose bits do not change, a GPU takes less power and so runs faster than it will.
    """
    # Cards for games take 64 times as long in float64: the full side would keep them busy for a quarter of a minute.
    side = MATRIX_SIDE[device.type] // (4 if dtype == torch.float64 else 1)
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn((side, side), generator=generator, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / _least_seconds(lambda: torch.mm(left, right, out=out), device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second of a copy within the device's memory, read and written: the best of a few."""
    num_bytes = COPY_BYTES[device.type]
    if device.type == "cuda":
        num_bytes = min(num_bytes, torch.cuda.mem_get_info(device)[0] // 8)
    source = torch.zeros(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _least_seconds(function: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        function()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
