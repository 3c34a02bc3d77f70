"""Pages of what successive halving stopped: stopped on purpose is not missing, and the commands halve again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.report.compare.content import as_content
from cssl_cli.report.document.blocks import without_figures
from cssl_cli.report.document.html import render
from cssl_cli.report.document.of_run import RunFiles, document_of_run
from cssl_cli.report.document.of_sweep import document_of_sweep
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep
from tests.report.document.conftest import numbers_of
from tests.support.html_pages import Page
from tests.support.synthetic_sweeps import results_of

STOPPED = {"epoch": 4, "epochs": 16, "knn": 0.25, "place": 3, "num_rows": 4, "num_kept": 2, "eta": 3}


@pytest.fixture
def halved(sweep: Sweep, tmp_path: Path) -> Page:
    """All rows have finished but two, which were stopped; one has a published value."""
    names = ("simclr-0.002", "vicreg-0.004")
    runs = tmp_path / "runs"
    found = results_of(sweep, lambda one: None if one.row in names else numbers_of(one), runs / sweep.name)
    results: list[MemberResult] = [replace(one, stopped=STOPPED) if one.member.row in names else one for one in found]
    document = document_of_sweep(sweep, results, as_content(sweep, results), runs)
    return Page(render(without_figures(document)))


def test_a_stopped_row_is_not_missing(halved: Page) -> None:
    assert "24 of 30 runs finished, 2 rows stopped by --halve." in halved.text
    assert "What is missing" not in halved.text
    cells = halved.tables[0].by_name()["simclr-0.002 (stopped)"]
    assert (cells[""].small, cells["linear"].text, cells["linear"].small) == ("", "–", "theirs 50.0")


def test_the_command_halves_again(halved: Page) -> None:
    assert "--halve --eta 3" in halved.text


def test_a_stopped_run_says_so(files_of_many_classes: RunFiles) -> None:
    status: dict[str, Any] = {"state": "interrupted", "step": 20, "num_steps": 80, "stopped": STOPPED}
    files = replace(files_of_many_classes, status=status, analysis=None)
    page = Page(render(without_figures(document_of_run(files))))
    assert "stopped by --halve at epoch 4 of 16" in page.text
