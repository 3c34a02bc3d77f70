"""Permutations of the rows: all of them if few enough, else a random sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints, Signs, group_sizes

MAX_ENUMERATED = math.factorial(8)  # orders that are enumerated
NUM_ORDERS = 10_000  # sampled beyond that, including the observed one
PMethod = Literal["exact", "Monte Carlo"]
SEED = 0  # the same rows give the same numbers


def orders_within(codes: Ints) -> tuple[Ints, PMethod]:
    """Orders (R, N) of rows sorted by group, the observed one first: all of them if few, else sampled."""
    sizes = group_sizes(codes)
    if math.prod(math.factorial(size) for size in sizes) <= MAX_ENUMERATED:
        return _all_orders(sizes), "exact"
    return _drawn_orders(sizes), "Monte Carlo"


@lru_cache(maxsize=8)
def _all_orders(sizes: tuple[int, ...]) -> Ints:
    orders, start = np.zeros((1, 0), dtype=np.int64), 0
    for size in sizes:
        of_group = np.array(list(itertools.permutations(range(start, start + size))), dtype=np.int64)
        orders = np.hstack([np.repeat(orders, len(of_group), axis=0), np.tile(of_group, (len(orders), 1))])
        start += size
    return orders


@lru_cache(maxsize=8)
def _drawn_orders(sizes: tuple[int, ...]) -> Ints:
    group = np.repeat(np.arange(len(sizes)), sizes)
    orders = np.argsort(np.random.default_rng(SEED).random((NUM_ORDERS, len(group))) + group, axis=1)
    orders[0] = np.arange(len(group))
    return orders


def permuted_scores(x: Sequence[Signs], y: Floats, orders: Ints) -> Floats:
    """Concordant minus discordant pairs (R, M) of M variables, with signs `x` (N, N), and `y` (N) in R orders."""
    of_terms = np.stack(x, axis=2)
    permuted = y.astype(np.float32)[orders]
    scores = np.zeros((len(orders), len(x)), dtype=np.float32)
    for row in range(len(y) - 1):
        partners = row + 1 + np.flatnonzero(of_terms[row, row + 1 :].any(axis=1))
        if len(partners):
            # Rows are sorted by group: a row's partners are its neighbours, except for missing ones.
            span = slice(row + 1, partners[-1] + 1)
            scores += np.sign(permuted[:, row, None] - permuted[:, span]) @ of_terms[row, span]
    return scores.astype(np.float64)


def shares_as_far(scores: Floats) -> list[float]:
    """Two-sided p-values of M statistics from their values (R, M) in all orders, of which row 0 is the observed one.

    The share of orders with a value at least as far from 0. The observed one counts: for sampled orders this is the
    (count + 1)/(R + 1) of Davison and Hinkley (1997, section 4.2), and a p-value is never 0. The scores are integers,
    so ties are exact.
    """
    return [float(share) for share in (np.abs(scores) >= np.abs(scores[0])).mean(axis=0)]
