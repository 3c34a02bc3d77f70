"""The benchmark of the level of p of Ψ."""

from __future__ import annotations

import importlib

import numpy as np


def test_every_design_has_the_shares_that_it_prints() -> None:
    benchmark = importlib.import_module("granulated_level")
    for design in benchmark.DESIGNS:
        found = benchmark.shares(design, 2, np.random.default_rng(0))
        assert set(found) == set(benchmark.COLUMNS)
        assert all(0 <= share <= 1 for share in found.values())
        assert found["attainable"] > 0
