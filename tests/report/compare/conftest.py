"""Fewer resamples and orders for simulations that do not look at what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cssl_cli.report.compare.rank_correlation import bootstrap, permutation

CACHED = (bootstrap._dirichlet, permutation._drawn_orders)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set the numbers of resamples behind an interval and of orders behind a p-value, for this test alone."""

    def set_numbers(*, resamples: int | None = None, orders: int | None = None) -> None:
        for cached in CACHED:
            cached.cache_clear()
        monkeypatch.setattr(bootstrap, "REPLICATES", resamples or bootstrap.REPLICATES)
        monkeypatch.setattr(permutation, "NUM_ORDERS", orders or permutation.NUM_ORDERS)

    yield set_numbers
    for cached in CACHED:
        cached.cache_clear()
