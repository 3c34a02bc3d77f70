"""Floating-point operations, counted as torch's formulas count them: a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from cssl_cli.nn import (
    log_sum_exp,  # noqa: F401 (they define the operators of the formulas below)
    off_diagonal,  # noqa: F401 (they define the operators of the formulas below)
)


def count_flops(function: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in a call of `function`, those of its backward included."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def forward_flops(encoder: nn.Module, image_size: int, channels: int = 3) -> int:
    """Operations of an encoder on the meta device for one image of this side; nothing is computed."""
    image = torch.empty(1, channels, image_size, image_size, device="meta")
    with torch.no_grad():
        encoder.eval()
        return count_flops(lambda: encoder(image))


# ---------------------------------------------------------------------- operators of our own
@register_flop_formula(torch.ops.cssl.log_sum_exp_of_others, get_raw=True)
def _of_others(z: Tensor, name: str, parameters: list[float], tile: int, **_: Any) -> int:  # noqa: ARG001
    return _scores(z, tile)


@register_flop_formula(torch.ops.cssl.log_sum_exp_of_others_backward, get_raw=True)
def _of_others_backward(gradient: Tensor, z: Tensor, sums: Tensor, kept: Tensor, *rest: Any, **_: Any) -> int:  # noqa: ARG001
    again = 0 if len(kept) else _scores(z, tile=rest[2])
    return again + 2 * len(z) ** 2 * z.shape[1]


@register_flop_formula(torch.ops.cssl.log_sum_exp_over_keys, get_raw=True)
def _over_keys(queries: Tensor, keys: Tensor, temperature: float, rows: int, wanted: bool, **_: Any) -> int:  # noqa: ARG001
    return 2 * queries.numel() * len(keys) * (2 if wanted else 1)


@register_flop_formula(torch.ops.cssl.off_diagonal_squares, get_raw=True)
def _off_diagonal_squares(a: Tensor, b: Tensor, rows: int, symmetric: bool, wanted: bool, *_: Any, **__: Any) -> int:  # noqa: ARG001
    products = 1 + (0 if not wanted else 1 if symmetric else 2)
    return 2 * a.numel() * b.shape[1] * products


def _scores(z: Tensor, tile: int) -> int:
    """Of the tiles on and above the diagonal."""
    lengths = [len(part) for part in z.split(tile)]
    return z.shape[1] * (sum(lengths) ** 2 + sum(length**2 for length in lengths))
