"""What a machine can do: its measured rates of matrix products and of copies."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
ROUNDS = 7


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second in products of large square matrices of this type, best of a few tries.

    Uses random numbers: with constants, whose bits do not change, a GPU takes less power and runs faster than normal.
    """
    # Gaming cards are 64 times slower in float64: full-size matrices would take a quarter of a minute.
    side = MATRIX_SIDE[device.type] // (4 if dtype == torch.float64 else 1)
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn((side, side), generator=generator, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / _least_seconds(lambda: torch.mm(left, right, out=out), device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read plus written, of a copy within the device's memory, best of a few tries."""
    num_bytes = COPY_BYTES[device.type]
    if device.type == "cuda":
        num_bytes = min(num_bytes, torch.cuda.mem_get_info(device)[0] // 8)
    source = torch.zeros(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
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
