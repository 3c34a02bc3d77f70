"""A pool over fake workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cssl_cli.recipe import load_recipe
from cssl_cli.sweep.workers import process
from tests.support.commands import TINY_RECIPE
from tests.support.pool_bench import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    code = f"import sys; sys.path[:] = {sys.path!r}; from tests.support.fake_worker import main; main()"
    monkeypatch.setattr(process, "_CODE", code)
    return Bench(tmp_path, load_recipe(str(tmp_path / "tiny.yaml")))
