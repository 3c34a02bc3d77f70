"""Parts dealt to ranks: each is computed once, and all ranks have what all of them come to, in order."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cssl_cli.nn.ranks import Ranks
from cssl_cli.runs.dealing import dealt
from cssl_cli.runs.team import Team
from cssl_cli.runs.watch import Watch
from tests.support.thread_ranks import on_ranks


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("num_parts", [0, 2, 7])
def test_parts_of_ranks(size: int, num_parts: int) -> None:
    store = itertools.count(1)
    computed: list[int] = []

    def part(number: int) -> dict[str, Any]:
        computed.append(number)
        return {"third": number / 3, "text": "σ" * number, "nothing": None, "list": [[1e-300, 2.0**70]]}

    def work(ranks: Ranks) -> dict[str, Any]:
        watch = Watch(SimpleNamespace(add=lambda _key, _one: next(store)), ranks, silence=60)
        watch.explain = lambda reason: reason  # type: ignore[method-assign]
        team = Team(ranks, watch=None if size == 1 else cast("Watch", watch))
        return dealt({str(number): lambda number=number: part(number) for number in range(num_parts)}, team)

    found = on_ranks(size, work)
    assert sorted(computed) == list(range(num_parts))
    computed.clear()
    for of_rank in found:
        assert list(of_rank.items()) == [(str(number), part(number)) for number in range(num_parts)]
