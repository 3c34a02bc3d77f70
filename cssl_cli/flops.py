"""Floating-point operations, counted as torch's formulas count them: a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def count_flops(function: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in a call of `function`, those of its backward included."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
