"""Figures that several files look at, drawn once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.report.figures import figures
from cssl_cli.report.figures.figures import draw_figures
from cssl_cli.report.figures.style import KINDS
from tests.support.figures import NAMES_DRAWN, OF_CLASSES, names_of
from tests.support.synthetic_analysis import analysis, trace


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The figures of 10 classes, and those that 40 classes change, with a longer trace and one of one record.

    Of the workers one draws them; `draw_figures` does not draw again what is there.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folders = {num_classes: shared / f"figures-of-{num_classes}-classes" for num_classes in NAMES_DRAWN}
    with (shared / "figures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for num_classes, num_records in ((10, 12), (40, 1)):
            with pytest.MonkeyPatch.context() as patch:
                if num_classes > 10:
                    of_classes = {name: figures.ANALYSIS_FIGURES[name] for name in OF_CLASSES}
                    patch.setattr(figures, "ANALYSIS_FIGURES", of_classes)
                paths = draw_figures(analysis(num_classes, 300), trace(num_records), folders[num_classes])
            assert names_of(paths) == NAMES_DRAWN[num_classes]
    return folders


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of figures have nothing in them: what they hold takes a second each."""

    def save(figure: object, folder: Path, name: str) -> list[Path]:
        paths = [folder / f"{name}.{kind}" for kind in KINDS]
        for path in paths:
            path.write_bytes(b"")
        return paths

    monkeypatch.setattr(figures, "save", save)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw these figures of an analysis and no others: all of them take eight seconds."""

    def keep(*names: str) -> None:
        monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {name: figures.ANALYSIS_FIGURES[name] for name in names})

    return keep
