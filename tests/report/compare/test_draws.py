"""Rows of random draws: what they share, the level of their p-values, and that no draw is taken for a setting."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cssl_cli.report.compare.content import as_content, as_csv
from cssl_cli.report.compare.extract import take_numbers
from cssl_cli.report.compare.granulated import granulated_content
from cssl_cli.report.compare.prediction import screen
from cssl_cli.report.compare.rows import Row, Summary, rows_of
from cssl_cli.report.compare.tables.granulated import print_granulated
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.layout import console
from cssl_cli.sweep.sweep import Sweep
from tests.support.synthetic_sweeps import results_of, rows, sweep_of

SAMPLE = """\
name: random
base: simclr-shapes
{axes}
sample:
  {sample}
num: {num}
"""
METHODS = "axes: {method: {simclr: {}, moco: {method: {name: moco}}}}"
LR = "optim.lr: {log_uniform: [1e-4, 1e-1]}"
# All crops differ, and half of the rows have the same jitter: operations that rows share.
VIEWS = "{augment.crop.scale: [{uniform: [0.05, 0.5]}, 1.0], augment.jitter.p: {choice: [0.5, 0.8]}}"


def sampled(folder: Path, *, axes: str = METHODS, sample: str = LR, num: int = 10) -> Sweep:
    text = SAMPLE.replace("{axes}", axes).replace("{num}", str(num))
    return sweep_of(folder, text.replace("\n  {sample}", f"\n  {sample}" if sample[0] != "{" else f" {sample}"))


def numbers_of(sweep: Sweep, generator: np.random.Generator, *, of_draw: float, of_method: float) -> dict[str, float]:
    """One number a row in (0, 1): the effect of its draw, of its method, and its own."""
    rows = list(dict.fromkeys((one.row, one.axes.get("method"), one.axes["draw"]) for one in sweep.members))
    effects: dict[Any, float] = {}
    for _, method, draw in rows:
        effects.setdefault(draw, of_draw * generator.standard_normal())
        effects.setdefault(method, of_method * generator.standard_normal())
    values = {row: effects[draw] + effects[method] + generator.standard_normal() for row, method, draw in rows}
    return {row: float(1 / (1 + np.exp(-value / 4))) for row, value in values.items()}


def null_rows(sweep: Sweep, folder: Path, seed: int, **effects: float) -> list[Row]:
    """Rows whose accuracy and whose terms are unrelated."""
    generator = np.random.default_rng(seed)
    linear, alignment = (numbers_of(sweep, generator, **effects) for _ in range(2))
    return rows(sweep, lambda one: {"linear": linear[one.row], "alignment": alignment[one.row]}, folder)


@pytest.mark.parametrize("sample", [LR, VIEWS], ids=["optim.lr", "augment"])
def test_draws_under_several_methods_change_places_as_wholes(tmp_path: Path, sample: str) -> None:
    found = screen(null_rows(sampled(tmp_path, sample=sample), tmp_path, 0, of_draw=1, of_method=1), "linear")
    for scope in ("pooled", "within"):
        assert (found["scopes"][scope]["sets"], found["scopes"][scope]["parts"]) == (10, None)
    assert found["terms"][0]["pooled"]["tau"]["p"] is not None
    assert not any("augmentations" in warning for warning in found["warnings"])


@pytest.mark.parametrize("sample", [LR, VIEWS], ids=["optim.lr", "augment"])
def test_draws_alone_are_independent_rows(tmp_path: Path, sample: str) -> None:
    sweep = sampled(tmp_path, axes="", sample=sample)
    found = screen(null_rows(sweep, tmp_path, 0, of_draw=1, of_method=0), "linear")
    assert "sets" not in found["scopes"]["pooled"]
    assert found["terms"][0]["pooled"]["tau"]["interval"] is not None
    assert not any("augmentations" in warning for warning in found["warnings"])
    assert granulated_content(null_rows(sweep, tmp_path, 0, of_draw=1, of_method=0), ["linear"]) == {}  # one axis


def test_draws_under_sets_of_augmentations_are_the_columns(tmp_path: Path) -> None:
    sets = "crop: {augment: {flip: null}}, flip: {augment: {crop: null}}, gray: {augment: {gray: {p: 1.0}}}"
    axes = f"axes: {{augment: {{{sets}}}}}"
    sweep = sampled(tmp_path, axes=axes, num=4)
    found = screen(null_rows(sweep, tmp_path, 0, of_draw=1, of_method=0), "linear")
    assert (found["scopes"]["pooled"]["sets"], found["scopes"]["pooled"]["columns"]) == (3, 4)


def test_p_keeps_its_level_under_the_null(tmp_path: Path, draws: Callable[..., None]) -> None:
    """Effects of draws and methods of any size; as if rows were independent the share is above 0.15 here."""
    draws(resamples=20, orders=2000)  # intervals are not looked at
    sweep, count = sampled(tmp_path, num=5), 100
    p_values: dict[str, list[float]] = {"pooled": [], "within": [], "psi": []}
    for seed in range(count):
        tested = null_rows(sweep, tmp_path, seed, of_draw=2, of_method=2)
        (term,) = [one for one in screen(tested, "linear")["terms"] if one["term"] == "alignment"]
        p_values["pooled"].append(term["pooled"]["tau"]["p"])
        p_values["within"].append(term["within"]["tau"]["p"])
        judged = granulated_content(tested, ["linear"])["linear"]["terms"]
        (judged,) = [one for one in judged if one["term"] == "alignment"]
        p_values["psi"].append(judged["mean_psi"]["p"])
    for name, found in p_values.items():
        share = np.mean(np.array(found) <= 0.05)
        assert share <= 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5, name


def test_no_draw_is_held_fixed_or_compared_as_a_setting(tmp_path: Path) -> None:
    tested = null_rows(sampled(tmp_path, num=12), tmp_path, 1, of_draw=1, of_method=1)
    found = granulated_content(tested, ["linear"])["linear"]
    assert [(axis["axis"], axis["drawn"], axis["num_lines"]) for axis in found["axes"]] == [
        ("method", False, 12),
        ("draw", True, 2),
    ]
    assert found["orders"]["num_orders"] > 1
    for term in found["terms"]:
        if term["information"] is not None:
            assert "draw" not in term["information"]["given"]
        if term["sign_error"] is not None:
            assert term["sign_error"]["axis"] == "method"
    assert found["noise"]["num_environments"] == 1
    out = console()
    with out.capture() as captured:
        print_granulated(out, found, title="Linear accuracy", term_titles={})
    assert "Draw: random draws" in " ".join(captured.get().split())


def test_what_was_drawn_is_in_the_table_the_csv_and_the_json(tmp_path: Path) -> None:
    sweep = sampled(
        tmp_path,
        num=2,
        sample="{optim.lr: {log_uniform: [1e-4, 1e-1]}, augment.crop.scale: [{uniform: [0.1, 0.5]}, 1]}",
    )
    results = results_of(sweep, lambda one: {"linear": 0.5, "alignment": 0.1}, tmp_path)
    content = as_content(sweep, results)
    first = content["rows"][0]
    assert first["axes"] == {"method": "simclr", "draw": "s00"}
    assert first["sampled"] == dict(sweep.members[0].sampled)
    head, line, *_ = as_csv(content).splitlines()
    assert head.startswith("row,method,draw,optim.lr,augment.crop.scale,negative_control,")
    low = first["sampled"]["augment.crop.scale"][0]
    assert line.startswith(f'simclr-s00,simclr,s00,{first["sampled"]["optim.lr"]},"[{low}, 1]",0,')
    out = console()
    with out.capture() as captured:
        print_table(out, rows(sweep, lambda one: {"linear": 0.5}, tmp_path))
    text = captured.get()
    assert " lr " in text.splitlines()[0]
    assert f" {first['sampled']['optim.lr']} " in text


def test_a_single_seed_brings_the_intervals_of_its_numbers(tmp_path: Path) -> None:
    sweep = sampled(tmp_path, num=2)
    first, *_ = results_of(sweep, lambda one: {"linear": 0.5, "alignment": 0.1}, tmp_path)
    assert first.probe is not None
    assert first.analysis is not None
    first.analysis["trained"]["alignment"]["unbiased"]["interval"] = [0.08, 0.13]
    for result in (first, replace(first, taken=json.loads(json.dumps(take_numbers(first))))):
        (row,) = rows_of([result])
        cells = row.cells
        assert cells["linear"] == Summary(0.5, None, 1, (0, 1))
        assert cells["alignment"] == Summary(0.1, None, 1, (0.08, 0.13))
        assert cells["knn"] == Summary(0.3, None, 1, (0, 1))
    other = replace(first, member=replace(first.member, seed=7, name="other"))
    (row,) = rows_of([first, other])
    assert row.cells["alignment"] == Summary(0.1, 0.0, 2)
