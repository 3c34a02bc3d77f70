"""Log-sum-exps over all pairs of a batch whose vectors lie on several ranks, tile by tile.

Every rank gathers the vectors of all (N · P numbers, of which it sends its own n · P) and takes the log-sum-exps of its
n anchors: n rows of the matrix of all pairs, in tiles that are never stored. In the backward pass it gathers the N
log-sum-exps and the N gradients that arrive at them, and with them has the whole gradient of its own vectors: nothing
of the others' has to be sent back. Over both directions a rank computes 3 products of n · N pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cssl_cli.nn.operators import define_operator
from cssl_cli.nn.pair_scores import SCORES, tile_of
from cssl_cli.nn.ranks import Ranks


def log_sum_exp_over_ranks(
    z: Tensor, name: str, parameters: list[float], *, ranks: Ranks, tile: int | None = None
) -> Tensor:
    """log Σ_{k≠i} exp s(z_i, z_k) (n,) for the vectors z (n, P) of this rank, k over those of all ranks.

    s is the score called `name` (pair_scores.py). Each rank has as many vectors. The gradient is that of the sum over
    ranks of what is made of the log-sum-exps. Differentiable once.
    """
    every = ranks.rows_of_all(z.detach())
    first = ranks.rank * len(z)
    arguments = name, parameters, tile or tile_of(z), ranks.key, ranks.rank, ranks.size
    return torch.ops.cssl.log_sum_exp_over_ranks(z, every, first, *arguments)


def _tiles(own: Tensor, every: Tensor, first: int, name: str, parameters: list[float], tile: int) -> Iterator[Any]:
    """Rows, columns and scores of one tile after the other; an anchor's score with itself is −∞."""
    scores = SCORES[name](*parameters)
    for row in range(0, len(own), tile):
        for column in range(0, len(every), tile):
            rows, columns = slice(row, row + tile), slice(column, column + tile)
            made = scores.of(own[rows], every[columns])
            offset = first + row - column
            if -len(made) < offset < made.shape[1]:
                made.diagonal(offset).fill_(-torch.inf)
            yield rows, columns, made


def _sums(own: Tensor, every: Tensor, first: int, name: str, parameters: list[float], tile: int, *_: int) -> Tensor:
    sums = own.new_full((len(own),), -torch.inf)
    for rows, _columns, made in _tiles(own, every, first, name, parameters, tile):
        sums[rows] = torch.logaddexp(sums[rows], made.logsumexp(dim=1))
    return sums


def _gradient(
    gradients: Tensor,
    sums: Tensor,
    own: Tensor,
    every: Tensor,
    first: int,
    name: str,
    parameters: list[float],
    tile: int,
) -> Tensor:
    """The gradient (n, P) from those of all log-sum-exps (N,)."""
    scores, pulled = SCORES[name](*parameters), torch.zeros_like(own)
    for rows, columns, made in _tiles(own, every, first, name, parameters, tile):
        anchors = slice(first + rows.start, first + rows.start + len(made))
        weights = (made - sums[anchors].unsqueeze(1)).exp_().mul_(gradients[anchors].unsqueeze(1))
        weights.addcmul_((made - sums[columns]).exp_(), gradients[columns])
        pulled[rows] += scores.pull(scores.slopes(weights, made), own[rows], every[columns])
    return pulled


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    own, every, *ctx.settings, ctx.key, ctx.rank, ctx.size = inputs
    ctx.save_for_backward(own, every, output)


def _pull(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    own, every, sums = ctx.saved_tensors
    both = torch.ops.cssl.rows_of_ranks(torch.stack([gradient, sums], dim=1), ctx.key, ctx.rank, ctx.size)
    gradients, sums = both.unbind(dim=1)
    pulled = torch.ops.cssl.log_sum_exp_over_ranks_backward(gradients, sums, own, every, *ctx.settings)
    return pulled, *[None] * 8


SETTINGS = "int first, str name, float[] parameters, int tile"

define_operator(
    "log_sum_exp_over_ranks",
    f"(Tensor own, Tensor every, {SETTINGS}, int key, int rank, int size) -> Tensor",
    _sums,
    shapes=lambda own, *_: own.new_empty(len(own)),
    backward=_pull,
    keep=_keep,
)
define_operator(
    "log_sum_exp_over_ranks_backward",
    f"(Tensor gradients, Tensor sums, Tensor own, Tensor every, {SETTINGS}) -> Tensor",
    _gradient,
    shapes=lambda _, __, own, *___: own.new_empty(own.shape),
)
