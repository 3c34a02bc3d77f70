"""Ranks in folders of a test's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.started_ranks import Start, Started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ranks in a folder of the test's, and leaves none behind."""
    started: list[Started] = []

    def begin(name: str, size: int, epochs: int, *words: object, **settings: Any) -> Started:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        started.append(Started(folder, size, epochs, *words, **settings))
        return started[-1]

    yield begin
    for one in started:
        one.close()
