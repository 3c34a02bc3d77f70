"""Sums of squares off the diagonal of a P×P product, computed in blocks of rows, so that it is never stored whole.

The redundancy and covariance terms are Σ_{i≠j} M_ij² with M = aᵀb, whose gradient is that of a quadratic form: 2 b M′ᵀ
for a and 2 a M′ for b, M′ being M with a diagonal of zeros. It needs nothing from outside, so it is taken while a block
of M is there, and the backward pass only scales it. The diagonal is set to zero before anything is squared: taking its
squares from the sum of all would lose the digits of a small remainder.

Over several ranks, each block of M is the sum of what they have of it: one exchange of P² numbers in all, after which
each has the whole gradient of its own rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cssl_cli.nn.operators import define_operator, rows_of_a_block, scaled
from cssl_cli.nn.ranks import ALONE, Ranks


def off_diagonal_squares(a: Tensor, b: Tensor, *, rows: int | None = None, ranks: Ranks = ALONE) -> Tensor:
    """Σ_{i≠j} (aᵀb)_ij² of a and b (B, P), float32 or float64: a scalar ≥ 0.

    Memory grows with B · P and the `rows` of aᵀb that are held at once, by default as many as suit the device. Where
    a and b are the same tensor, its gradient costs half. Differentiable once. With a and b of the images of each of
    several `ranks`, this rank's share of it.
    """
    rows = rows or rows_of_a_block(b.shape[1], a.device)
    if a is b:
        return _with_gradient(a, a.detach(), rows, ranks, symmetric=True)
    return _with_gradient(a, b, rows, ranks, symmetric=False)


def _with_gradient(a: Tensor, b: Tensor, rows: int, ranks: Ranks, *, symmetric: bool) -> Tensor:
    wanted = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    return torch.ops.cssl.off_diagonal_squares(a, b, rows, symmetric, wanted, ranks.key, ranks.size)[0]


def _off_diagonal_squares(
    a: Tensor, b: Tensor, rows: int, symmetric: bool, wanted: bool, key: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A rank's share of the sum, and if they are `wanted` the sum's gradients with respect to a and b.

    With `symmetric`, b is a, and the gradient is that with respect to both, in the place of a's.
    """
    total = a.new_zeros(())
    of_a, of_b = _empty_gradients(a, b, symmetric, wanted)
    of_b.zero_()
    for number, part in enumerate(a.split(rows, dim=1)):
        product = part.T @ b  # (rows, P)
        if key >= 0:
            product = torch.ops.cssl.sum_over_ranks(product, key)
        product.diagonal(offset=number * rows).zero_()
        total += product.square().sum()
        if wanted:
            of_a[:, number * rows : number * rows + len(product)] = b @ product.mul_(4 if symmetric else 2).T
        if wanted and not symmetric:
            of_b.addmm_(part, product)
    return total / size, of_a, of_b


def _empty_gradients(a: Tensor, b: Tensor, symmetric: bool, wanted: bool) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape if wanted else 0), b.new_empty(b.shape if wanted and not symmetric else 0)


def _shapes(a: Tensor, b: Tensor, _: int, symmetric: bool, wanted: bool, *__: int) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(()), *_empty_gradients(a, b, symmetric, wanted)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, _, ctx.symmetric, *_ = inputs
    _, of_a, of_b = output
    ctx.mark_non_differentiable(of_a, of_b)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(of_a, of_b, a, b)


def _pull(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 7
    of_a, of_b, a, b = ctx.saved_tensors
    pulled_b = None if ctx.symmetric else scaled(of_b, gradient, b)
    return scaled(of_a, gradient, a), pulled_b, *[None] * 5


define_operator(
    "off_diagonal_squares",
    "(Tensor a, Tensor b, int rows, bool symmetric, bool wanted, int key, int size) -> (Tensor, Tensor, Tensor)",
    _off_diagonal_squares,
    shapes=_shapes,
    backward=_pull,
    keep=_keep,
)
