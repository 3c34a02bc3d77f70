"""Log-sum-exps over all pairs of a batch, tile by tile, so that the matrix of all pairs is never stored.

The divergence parts of the contrastive losses are means of log Σ exp s over the scores s of an anchor with all others.
In the forward pass, each tile of scores is computed, summed along its rows and, since scores are symmetric, along its
columns, and discarded; only the vectors and their log-sum-exps L are kept. In the backward pass the tile is recomputed:
a score s_ij has the gradient g_i exp(s_ij − L_i) + g_j exp(s_ij − L_j), whose exponents are ≤ 0 whatever the
temperature. Of the two products of a tile (scores, gradient) the former is needed above the diagonal only: over both
directions 2 products of all pairs, where a dense matrix under autograd takes 3. A batch of one tile keeps its scores
instead.

Queries against fixed keys need no second pass: all scores of a query are in one block of rows, so that the gradient of
its log-sum-exp is taken along with it, and the backward pass only scales it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cssl_cli.nn.log_sum_exp_over_ranks import log_sum_exp_over_ranks
from cssl_cli.nn.operators import define_operator, rows_of_a_block, scaled
from cssl_cli.nn.pair_scores import SCORES, Scores, tile_of
from cssl_cli.nn.ranks import ALONE, Ranks


def log_sum_exp_of_inner_products(
    z: Tensor, *, temperature: float, tile: int | None = None, ranks: Ranks = ALONE
) -> Tensor:
    """log Σ_{k≠i} exp(z_i·z_k / temperature) (N,) for vectors z (N, P), N ≥ 2, float32 or float64.

    Memory grows with N · P and `tile`², by default that of the device, not with N². Differentiable once. Of several
    `ranks`, each has as many of the vectors, and gets their log-sum-exps.
    """
    return _log_sum_exp(z, "inner_product", [temperature], tile, ranks)


def log_sum_exp_of_t_kernel(
    z: Tensor, *, t_df: float, tau: float, tile: int | None = None, ranks: Ranks = ALONE
) -> Tensor:
    """log Σ_{k≠i} exp of `log_t_kernel` at ‖z_i − z_k‖² (N,) for vectors z (N, P), N ≥ 2, float32 or float64.

    Distances come from inner products: vectors near their mean lose fewer digits. As for memory, derivatives and
    `ranks`, see `log_sum_exp_of_inner_products`.
    """
    return _log_sum_exp(z, "t_kernel", [t_df, tau], tile, ranks)


def log_sum_exp_over_keys(queries: Tensor, keys: Tensor, *, temperature: float, rows: int | None = None) -> Tensor:
    """log Σ_k exp(q_i·key_k / temperature) (B,) for queries (B, P) and keys (K, P); no gradient flows to the keys.

    The scores of `rows` queries are held at once, by default as many as suit the device. Differentiable once.
    """
    rows = rows or rows_of_a_block(len(keys), queries.device)
    wanted = torch.is_grad_enabled() and queries.requires_grad
    return torch.ops.cssl.log_sum_exp_over_keys(queries, keys.detach(), temperature, rows, wanted)[0]


# ---------------------------------------------------------------------- all pairs of one set
def _log_sum_exp(z: Tensor, name: str, parameters: list[float], tile: int | None, ranks: Ranks) -> Tensor:
    if not ranks.alone:
        return log_sum_exp_over_ranks(z, name, parameters, ranks=ranks, tile=tile)
    assert len(z) >= 2, "an anchor needs another vector"
    return torch.ops.cssl.log_sum_exp_of_others(z, name, parameters, tile or tile_of(z))[0]


def _tiles(z: Tensor, tile: int) -> Iterator[tuple[int, int]]:
    """Places (i, j), i ≤ j, of the tiles on and above the diagonal."""
    return itertools.combinations_with_replacement(range(-(-len(z) // tile)), 2)


def _scores_of_others(scores: Scores, first: Tensor, second: Tensor, *, on_diagonal: bool) -> Tensor:
    made = scores.of(first, second)
    return made.fill_diagonal_(-torch.inf) if on_diagonal else made


def _of_others(z: Tensor, name: str, parameters: list[float], tile: int) -> tuple[Tensor, Tensor]:
    """The log-sum-exps (N,), and the scores (N, N) if they are one tile, else (0,)."""
    scores = SCORES[name](*parameters)
    if len(z) <= tile:
        made = _scores_of_others(scores, z, z, on_diagonal=True)
        return made.logsumexp(dim=1), made
    parts = z.split(tile)
    sums = [part.new_full((len(part),), -torch.inf) for part in parts]
    for i, j in _tiles(z, tile):
        made = _scores_of_others(scores, parts[i], parts[j], on_diagonal=i == j)
        sums[i] = torch.logaddexp(sums[i], made.logsumexp(dim=1))
        if i != j:
            sums[j] = torch.logaddexp(sums[j], made.logsumexp(dim=0))
    return torch.cat(sums), z.new_empty(0)


def _of_others_shapes(z: Tensor, name: str, parameters: list[float], tile: int) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return z.new_empty(len(z)), z.new_empty((len(z), len(z)) if len(z) <= tile else 0)


def _of_others_backward(
    gradient: Tensor, z: Tensor, sums: Tensor, kept: Tensor, name: str, parameters: list[float], tile: int
) -> Tensor:
    """The gradient (N, P) from that of the log-sum-exps (N,)."""
    scores = SCORES[name](*parameters)
    parts, sums_of, gradients = z.split(tile), sums.split(tile), gradient.split(tile)
    pulled = [torch.zeros_like(part) for part in parts]
    for i, j in _tiles(z, tile):
        made = kept if len(kept) else _scores_of_others(scores, parts[i], parts[j], on_diagonal=i == j)
        weights = (made - sums_of[i].unsqueeze(1)).exp_().mul_(gradients[i].unsqueeze(1))
        weights.addcmul_((made - sums_of[j]).exp_(), gradients[j])
        slopes = scores.slopes(weights, made)
        pulled[i] += scores.pull(slopes, parts[i], parts[j])
        if i != j:
            pulled[j] += scores.pull(slopes.T, parts[j], parts[i])
    return torch.cat(pulled)


def _keep_of_others(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    z, *ctx.settings = inputs
    sums, kept = output
    ctx.mark_non_differentiable(kept)
    ctx.set_materialize_grads(False)  # that of the scores would be a matrix of zeros
    ctx.save_for_backward(z, sums, kept)


def _pull_of_others(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None, None]:
    if gradient is None:
        return None, None, None, None
    return torch.ops.cssl.log_sum_exp_of_others_backward(gradient, *ctx.saved_tensors, *ctx.settings), None, None, None


# ---------------------------------------------------------------------- queries against keys
def _over_keys(queries: Tensor, keys: Tensor, temperature: float, rows: int, wanted: bool) -> tuple[Tensor, Tensor]:
    """The log-sum-exps (B,), and if they are `wanted` their gradients (B, P): all scores of a query are at hand."""
    sums, gradients = [], []
    for part in queries.split(rows):
        scores = (part / temperature) @ keys.T
        sums.append(scores.logsumexp(dim=1))
        if wanted:
            gradients.append(scores.sub_(sums[-1].unsqueeze(1)).exp_() @ keys / temperature)
    return torch.cat(sums), torch.cat(gradients) if wanted else queries.new_empty(0)


def _over_keys_shapes(queries: Tensor, _: Tensor, __: float, ___: int, wanted: bool) -> tuple[Tensor, Tensor]:
    return queries.new_empty(len(queries)), queries.new_empty(queries.shape if wanted else 0)


def _keep_over_keys(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    queries, (_, gradients) = inputs[0], output
    ctx.mark_non_differentiable(gradients)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gradients, queries)


def _pull_over_keys(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None, None, None
    kept, queries = ctx.saved_tensors
    return scaled(kept, gradient.unsqueeze(1), queries), None, None, None, None


# ---------------------------------------------------------------------- as operators
define_operator(
    "log_sum_exp_of_others",
    "(Tensor z, str name, float[] parameters, int tile) -> (Tensor, Tensor)",
    _of_others,
    shapes=_of_others_shapes,
    backward=_pull_of_others,
    keep=_keep_of_others,
)
define_operator(
    "log_sum_exp_of_others_backward",
    "(Tensor gradient, Tensor z, Tensor sums, Tensor kept, str name, float[] parameters, int tile) -> Tensor",
    _of_others_backward,
    shapes=lambda _, z, *__: z.new_empty(z.shape),
)
define_operator(
    "log_sum_exp_over_keys",
    "(Tensor queries, Tensor keys, float temperature, int rows, bool wanted) -> (Tensor, Tensor)",
    _over_keys,
    shapes=_over_keys_shapes,
    backward=_pull_over_keys,
    keep=_keep_over_keys,
)
