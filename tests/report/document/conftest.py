"""Documents of a run and of a sweep, with names as nobody should choose them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.content import as_content
from cssl_cli.report.document.of_run import RunFiles, read_run
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Member, Sweep
from tests.support.synthetic_sweeps import Values, results_of, sweep_of

HOSTILE = (
    "<script>alert(1)</script>",
    "=cmd('/c calc')",
    "[red]",
    "a|b",
    r"\input{x} 50% $x_1$ & #~^",
    "\x1b[31m\x07",
    "\u202eabc\u200f",
    "</style><img src=http://example.org/x onerror=alert(1)>",
)
SWEEP = """\
name: compared
base: simclr-shapes
axes:
  method: {simclr: {}, vicreg: {method: {name: vicreg, projector: [8]}}}
  optim.lr: [0.001, 0.002, 0.003, 0.004, 0.005]
seeds: 3
reference:
  source: "Table 1 of <i>a paper</i> & [red]"
  accuracy: linear
  selection: last_epoch
  values: {simclr-0.001: 61.5, simclr-0.002: 50}
claims:
  - {says: "<script>alert(1)</script> is best", rows: [simclr-0.001], largest: [linear]}
"""


def renamed(content: Any, names: Mapping[str, str]) -> Any:
    """The same with other names of classes."""
    if isinstance(content, dict):
        return {names.get(key, key): renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


@pytest.fixture
def hostile_run(analyzed: Path) -> RunFiles:
    """The tiny run, had its classes been called so."""
    files = read_run(analyzed)
    assert files.analysis is not None
    names = dict(zip(files.analysis["class_names"], HOSTILE, strict=False))
    files.analysis, files.probe = renamed(files.analysis, names), renamed(files.probe, names)
    return files


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return sweep_of(tmp_path, SWEEP)


def numbers_of(member: Member) -> Values | None:
    """Other numbers for each member; one row has not begun, one of another has failed."""
    if member.row == "vicreg-0.004":
        return None
    place = (len(member.row) * 7 + int(member.row[-1]) * 5 + member.seed * 3) % 17
    values = {"linear": 0.3 + place / 40, "knn": 0.2 + place / 50, "nearest_center": 0.25 + place / 60}
    terms = {"alignment": 0.1 + place / 90, "mean_inner_product": 0.5 - place / 70, "R_epsilon": place / 17}
    return {**values, **terms, "ratio": 3 - place / 9, "rankme": 10.0 + place, "sigma": place / 20}


@pytest.fixture
def results(sweep: Sweep, tmp_path: Path) -> list[MemberResult]:
    found = results_of(sweep, numbers_of, tmp_path / "runs" / sweep.name)
    failed = {"vicreg-0.003-seed2": "<b>it broke</b>"}
    return [replace(result, error=failed.get(result.member.name)) for result in found]


@pytest.fixture
def content(sweep: Sweep, results: list[MemberResult]) -> dict[str, Any]:
    """What `cssl sweep --report --json` prints."""
    found: dict[str, Any] = json.loads(json.dumps(as_content(sweep, results)))
    return found


@pytest.fixture
def files_of_many_classes() -> RunFiles:
    """A run of 200 classes and 5,000 images, as far as its figures go."""
    from tests.support.synthetic_analysis import analysis

    return RunFiles(Path("many"), load_recipe("simclr-shapes"), {"state": "finished"}, analysis=analysis(200, 5000))
