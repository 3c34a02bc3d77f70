"""Main parts of a class, sets of images pairwise within δ of one another: a search that several terms share.

The largest is a maximum clique of the graph d ≤ δ. Any clique found is a valid main part; a cheap bound on its size
from the degrees shows when a search is not worth its time. (docs/theory.md, 10.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cssl_cli.theory.concentration.cliques import clique_bounds

MAX_QUANTILE_VALUES = 1 << 22
TIES = 1e-9  # relative


def quantile_grid(values: Tensor, levels: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles of the values at ascending `levels`, each (but for rounding) one of the values, without repetition.

    Very long lists are thinned evenly first, keeping their extremes.
    """
    flat = values.reshape(-1)
    step = -(-len(flat) // MAX_QUANTILE_VALUES)
    thinned = flat[::step].cpu().numpy()
    if step > 1:
        thinned = np.append(thinned, [flat.min().item(), flat.max().item()])
    return _thresholds(thinned, levels)


def pairs_grid(distances: Sequence[Tensor], levels: Sequence[float]) -> NDArray[np.float64]:
    """`quantile_grid` of the distances (n, n) of distinct images, pooled over the matrices; [0] if there is no pair."""
    pools: list[NDArray[np.float64]] = []
    rows = max(1, sum(len(matrix) for matrix in distances))
    for matrix in distances:
        step = max(1, rows * len(matrix) // MAX_QUANTILE_VALUES)  # every row of a small table
        on_host = matrix.cpu().numpy()
        pools.extend(on_host[i, i + 1 :] for i in range(0, len(matrix) - 1, step))
        if step > 1:
            pools.append(np.array([on_host.max()]))
    pool = np.concatenate(pools) if pools else np.zeros(1)
    return _thresholds(pool, levels)


def _thresholds(values: NDArray[np.float64], levels: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles just above values, so that values equal but for rounding fall on the same side."""
    return np.unique(np.quantile(values, levels, method="higher")) * (1 + TIES)


def size_bound(degrees: NDArray[np.int64]) -> int:
    """The largest t such that t vertices have degree at least t, counting themselves: no clique is larger."""
    return int(np.count_nonzero(np.sort(degrees)[::-1] >= np.arange(1, len(degrees) + 1)))


def main_part(adjacent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The members, in order, of a large clique of the graph (n, n), diagonal True."""
    if adjacent.all():
        return np.arange(len(adjacent))
    loops = np.eye(len(adjacent), dtype=bool)
    return np.sort(np.asarray(clique_bounds(adjacent & ~loops, upper=False).members, dtype=np.int64))
