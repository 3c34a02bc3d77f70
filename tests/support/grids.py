"""Grids of settings with made-up terms and accuracies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from cssl_cli.report.compare.measures.grid import Grid, grid_of

Floats = np.ndarray


def full_grid(*sizes: int) -> Grid:
    """Every combination of so many settings of axes `a`, `b`, …, the last axis changing fastest."""
    return partial_grid(list(itertools.product(*map(range, sizes))))


def partial_grid(rows: Sequence[Sequence[int]]) -> Grid:
    """The grid of these rows, each a setting of the axes `a`, `b`, …"""
    return grid_of([{"abcdefgh"[axis]: str(setting) for axis, setting in enumerate(row)} for row in rows])


def effects(grid: Grid, generator: np.random.Generator, sizes: Sequence[float], noise: float = 1.0) -> Floats:
    """A number for each row (N,): a normal effect of each setting, of such size for each axis, and noise of its own."""
    values = noise * generator.standard_normal(len(grid.codes))
    for axis, size in enumerate(sizes):
        values += size * generator.standard_normal(len(grid.settings[axis]))[grid.codes[:, axis]]
    return values


def random_sample(seed: int, *, rows: int = 30, terms: int = 5) -> tuple[Grid, Floats, Floats]:
    """A partial grid of three axes, terms (N, M) with ties and missing values, and accuracies with ties."""
    generator = np.random.default_rng(seed)
    every = np.array(list(itertools.product(range(3), range(4), range(5))))
    grid = partial_grid(every[generator.permutation(len(every))[:rows]].tolist())
    x = np.round(generator.standard_normal((rows, terms)) * 2) / 2
    x[generator.random(x.shape) < 0.1] = np.nan
    x[:, 0] = generator.standard_normal(rows)
    return grid, x, np.round(generator.standard_normal(rows), 1)
