"""Figures that several files look at, drawn once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.report.figures import figures
from cssl_cli.report.figures.figures import draw_figures
from tests.support.figures import BOTH
from tests.support.synthetic_analysis import analysis, trace


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The figures of 10 and 40 classes, with a longer trace and one of one record."""
    folders = {}
    for num_classes, num_records in ((10, 12), (40, 1)):
        folders[num_classes] = tmp_path_factory.mktemp(f"classes{num_classes}")
        paths = draw_figures(analysis(num_classes, 300), trace(num_records), folders[num_classes])
        assert {path.name for path in paths} == BOTH
    return folders


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw these figures of an analysis and no others: all of them take eight seconds."""

    def keep(*names: str) -> None:
        monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {name: figures.ANALYSIS_FIGURES[name] for name in names})

    return keep
