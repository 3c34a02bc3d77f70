"""An analysis to change and print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.report.analysis import show_analysis


@pytest.fixture
def content(analyzed: Path) -> dict[str, Any]:
    """The analysis of the tiny run."""
    return json.loads((analyzed / "analysis.json").read_text())


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """The report of an analysis with sections, as one piece of text or, with `lines`, as it was printed."""

    def shown(content: dict[str, Any], *sections: str, width: int = 80, lines: bool = False) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        capfd.readouterr()
        show_analysis(tmp_path, content, sections, as_json=False)
        printed = capfd.readouterr().out
        return printed if lines else " ".join(printed.split())

    return shown
