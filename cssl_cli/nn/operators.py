"""Custom operators: tensor functions that work in blocks, each of which torch.compile sees as one call.

Unrolled into a graph, hundreds of blocks would take minutes to compile. Nothing in them waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "cssl"  # torch.ops.cssl.NAME

# Entries of a block of rows: on a CPU they stay in the cache, elsewhere they should keep the device busy.
CPU_BLOCK = 2**20
DEVICE_BLOCK = 2**24
LEAST_ROWS = 128  # fewer would read the other factor of their product too often


def rows_of_a_block(num_columns: int, device: torch.device) -> int:
    """How many rows of a matrix with so many columns should be held at once on the `device`."""
    entries = CPU_BLOCK if device.type == "cpu" else DEVICE_BLOCK
    return max(entries // num_columns, LEAST_ROWS)


def define_operator(
    name: str,
    schema: str,
    function: Callable[..., Any],
    *,
    shapes: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
) -> None:
    """Define torch.ops.cssl.`name` on every device.

    `function` computes new contiguous tensors and changes none; `shapes` gives empty ones like them. With
    `backward(ctx, *grads)`, itself made of operators, and `keep(ctx, inputs, output)`, which saves for it, the operator
    is differentiable (torch.library.register_autograd); without, a gradient through it is a `NotImplementedError`.
    """
    qualified = f"{NAMESPACE}::{name}"
    # Not torch.library.custom_op, whose first call imports the whole compiler.
    torch.library.define(qualified, schema)
    torch.library.impl(qualified, "default", function)
    torch.library.register_fake(qualified, shapes)
    torch.library.register_autograd(qualified, backward or _not_differentiable, setup_context=keep)


def scaled(kept: Tensor, factor: Tensor, of: Tensor) -> Tensor:
    """`kept` · `factor`, where `kept` is a gradient with respect to `of` taken beforehand, during the forward pass.

    An operator of all three, so that a second derivative, of which `kept` knows nothing, is an error and not wrong.
    """
    return torch.ops.cssl.scaled(kept, factor, of)


def _not_differentiable(*_: Any) -> None:
    raise NotImplementedError("losses that are computed in blocks can be differentiated once only")


define_operator(
    "scaled",
    "(Tensor kept, Tensor factor, Tensor of) -> Tensor",
    lambda kept, factor, _: kept * factor,
    shapes=lambda kept, *_: kept.new_empty(kept.shape),
)
