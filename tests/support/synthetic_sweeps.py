"""Sweeps from text with made-up results: what the reports of claims, published values and differences are tested on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cssl_cli.report.compare.named_quantities import NAMES
from cssl_cli.report.compare.rows import Row, rows_of
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Member, Sweep, load_sweep
from tests.support.synthetic_members import member

PAIRS = """\
name: pairs
base: simclr-shapes
axes:
  augment:
    ab: {augment: {gray: null, jitter: null, flip: null}}
    ac: {augment: {blur: null, jitter: null, flip: null}}
    ad: {augment: {blur: null, gray: null, flip: null}}
    control: {augment: {blur: null, gray: null, jitter: null, flip: null, fade: {}}}
"""
NESTED = """\
name: nested
base: simclr-shapes
axes:
  method: {simclr: {}, vicreg: {method: {name: vicreg, projector: [8]}}}
  augment:
    abc: {augment: {flip: null, jitter: null}}
    ab: {augment: {flip: null, jitter: null, gray: null}}
    a: {augment: {flip: null, jitter: null, gray: null, blur: null}}
"""
Values = Mapping[str, float | None]  # quantities of a member: accuracies, 1−σ in pixels as `sigma`, terms of features
ACCURACIES = ("linear", "knn", "nearest_center")


def sweep_of(folder: Path, text: str) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return load_sweep(str(path), quantities=NAMES)


def results_of(sweep: Sweep, values: Callable[[Member], Values | None], folder: Path) -> list[MemberResult]:
    """A finished member for each whose values are given; one that has not begun for None."""
    return [_result(one, values(one), folder) for one in sweep.members]


def _result(one: Member, values: Values | None, folder: Path) -> MemberResult:
    path = folder / one.name
    if values is None:
        return MemberResult(one, path, None, None, None)
    path.mkdir(parents=True, exist_ok=True)
    if "epochs" in values:
        records = [{"epoch": i, "step": i, "knn": knn} for i, knn in enumerate(values["epochs"], start=1)]  # type: ignore[arg-type, var-annotated]
        (path / "knn.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    terms: dict[str, Any] = {k: v for k, v in values.items() if k not in (*ACCURACIES, "sigma", "epochs", "error")}
    found = member(
        one.row,
        one.seed,
        accuracies={name: values[name] for name in ACCURACIES if name in values},
        distances={"pixels": {"half": values.get("sigma")}},
        path=path,
        error="it broke" if "error" in values else None,
        **terms,
    )
    return replace(found, member=one)


def rows(sweep: Sweep, values: Callable[[Member], Values | None], folder: Path) -> list[Row]:
    return rows_of(results_of(sweep, values, folder))
