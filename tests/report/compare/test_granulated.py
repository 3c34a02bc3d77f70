"""The protocol of generalization measures in reports: of which rows it is, its numbers, table and warnings."""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from rich.console import Console

from cssl_cli.report.compare import granulated as module
from cssl_cli.report.compare.catalogue import LABELS, LINEAR, SIGNS
from cssl_cli.report.compare.granulated import granulated_content, standard_errors
from cssl_cli.report.compare.measures.grid import shuffled
from cssl_cli.report.compare.prediction import prediction_content
from cssl_cli.report.compare.rows import Row, rows_of
from cssl_cli.report.compare.tables.granulated import print_granulated
from cssl_cli.report.compare.tables.prediction import draw_by_axis, draw_prediction, figures_of
from cssl_cli.report.figures import prediction_by_axis as figure_module
from cssl_cli.report.figures.prediction_by_axis import draw_prediction_by_axis, prediction_by_axis
from cssl_cli.report.figures.style import drawing
from cssl_cli.sweep.sweep import Member
from tests.support.synthetic_members import random_member
from tests.support.synthetic_sweeps import Values, rows, sweep_of

AXES = """\
name: grid
base: simclr-shapes
axes:
  augment.crop.scale: [[0.08, 1], [0.2, 1], [0.4, 1]]
  train.epochs: [2, 4, 8]
  encoder.width: [4, 8]
"""
SEEDS = "seeds: [0, 1]\n"
PARTS = """\
name: grid
base: simclr-shapes
axes:
  train.epochs: [2, 4, 8]
  augment:
    flip: {augment: {jitter: null, gray: null, blur: null}}
    more: {augment: {gray: null, blur: null}}
    most: {augment: {blur: null}}
"""


def of_effects(member: Member) -> Values:
    """Effects of all settings in the accuracy; alignment follows it, 1 − σ in pixels the crop only."""
    effects = {axis: random.Random(f"{axis} {setting}").gauss(0, 1) for axis, setting in member.axes.items()}
    own = random.Random(member.name)
    accuracy = 0.5 + 0.1 * sum(effects.values()) + 0.002 * own.gauss(0, 1)
    return {
        "linear": accuracy,
        "knn": accuracy,
        "nearest_center": accuracy,
        "sigma": 0.3 - 0.02 * next(iter(effects.values())),
        "alignment": 0.5 - accuracy,
        "uniformity": own.gauss(0, 1),
    }


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("grid")
    return rows(sweep_of(folder, AXES), of_effects, folder)


@pytest.fixture(scope="module")
def found(grid: list[Row]) -> dict[str, Any]:
    return granulated_content(grid, ["linear"])["linear"]


def entry(found: dict[str, Any], term: str) -> dict[str, Any]:
    return next(one for one in found["terms"] if one["term"] == term)


def table(found: dict[str, Any], width: int = 120) -> str:
    file = io.StringIO()
    out = Console(file=file, width=width, highlight=False, markup=False)
    print_granulated(out, found, title="Linear accuracy", term_titles=LABELS)
    return file.getvalue()


# ---------------------------------------------------------------------- numbers
def test_terms_along_each_axis(found: dict[str, Any]) -> None:
    assert [(axis["axis"], axis["num_lines"], axis["num_pairs"]) for axis in found["axes"]] == [
        ("augment.crop.scale", 6, 18),
        ("train.epochs", 6, 18),
        ("encoder.width", 9, 9),
    ]
    first = found["terms"][0]
    assert first["term"] == "alignment"
    assert first["mean_psi"]["value"] == pytest.approx(-1)
    assert first["sign_error"]["worst"] == 0
    assert first["information"]["value"] == 1
    pixels = entry(found, "one_minus_sigma_pixels")
    assert [round(one["value"], 9) for one in pixels["psi"].values()] == [-1, 0, 0]
    assert pixels["mean_psi"]["value"] == pytest.approx(-1 / 3)
    assert pixels["information"] == {
        "value": pytest.approx(0, abs=1e-9),
        "given": ["augment.crop.scale"],
        "expected": pytest.approx(0.03, abs=0.03),
    }
    assert pixels["sign_error"]["worst"] == 0.5
    assert 0.5 < pixels["sign_error"]["expected_worst"] < 1


def test_p_is_over_all_orders_of_the_settings(found: dict[str, Any]) -> None:
    """3! · 3! · 2! of them; a perfect Ψ and its reverse are as far from 0."""
    assert found["orders"] == {
        "num_orders": 72,
        "p_method": "exact",
        "smallest_p": pytest.approx(2 / 72),
        "held_fixed": [],
    }
    mean = found["terms"][0]["mean_psi"]
    assert mean["p"] == pytest.approx(2 / 72)
    assert mean["p"] <= mean["p_adjusted"] <= len(found["terms"]) * mean["p"]


def test_json_has_it_for_every_accuracy_beside_what_was_there(grid: list[Row]) -> None:
    content = json.loads(json.dumps(prediction_content(grid), allow_nan=False))
    assert list(content) == ["correlations", "granulated", "chosen", "controls"]
    assert list(content["granulated"]) == ["linear", "knn", "nearest_center"]
    assert {one["term"] for one in content["granulated"]["knn"]["terms"]} <= set(SIGNS)


def test_a_row_that_lacks_a_term_is_left_out_of_its_lines_only(grid: list[Row]) -> None:
    lacking = [replace(grid[0], cells={**grid[0].cells, "alignment": None}), *grid[1:]]
    one = entry(granulated_content(lacking, ["linear"])["linear"], "alignment")
    assert one["n"] == 17
    assert [of_axis["num_pairs"] for of_axis in one["psi"].values()] == [16, 16, 8]
    assert [of_axis["num_lines"] for of_axis in one["psi"].values()] == [6, 6, 8]
    assert entry(granulated_content(lacking, ["linear"])["linear"], "uniformity")["n"] == 18


# ---------------------------------------------------------------------- of which rows
def test_it_takes_eight_rows_over_two_axes(grid: list[Row], tmp_path: Path) -> None:
    assert granulated_content(grid[:7], ["linear"]) == {}
    assert granulated_content(grid[:8], ["linear"])["linear"]["n"] == 8
    one_axis = [row for row in grid if row.members[0].member.axes["train.epochs"] == "2"]
    one_axis = [row for row in one_axis if row.members[0].member.axes["encoder.width"] == "4"]
    assert granulated_content(one_axis * 3, ["linear"]) == {}
    unfinished = rows(sweep_of(tmp_path, AXES), lambda _: None, tmp_path)
    assert granulated_content(unfinished, ["linear"]) == {}


def test_negative_controls_are_left_out(grid: list[Row]) -> None:
    marked = [replace(row, control=position < 3) for position, row in enumerate(grid)]
    assert granulated_content(marked, ["linear"])["linear"]["n"] == 15


def test_without_terms_there_is_no_table(grid: list[Row]) -> None:
    bare = [
        replace(row, cells={name: row.cells[name] if name == "linear" else None for name in row.cells}) for row in grid
    ]
    found = granulated_content(bare, ["linear"])["linear"]
    assert found["terms"] == []
    assert table(found) == ""


# ---------------------------------------------------------------------- no p
def test_grids_that_lack_rows_have_no_p_and_say_why(grid: list[Row]) -> None:
    lacking = granulated_content([grid[place] for place in (0, 1, 2, 5, 7, 10, 11, 12, 15)], ["linear"])["linear"]
    assert lacking["orders"]["num_orders"] == 0
    assert {one["mean_psi"]["p"] for one in lacking["terms"]} == {None}
    text = " ".join(table(lacking).split())
    assert "No p of Ψ: no two settings of an axis change places" in text
    assert "adj. p" not in text


def test_variants_that_share_undeclared_operations_stay_where_they_are(tmp_path: Path) -> None:
    numbers = random.Random(2)
    of_sweep = sweep_of(tmp_path, PARTS)
    members = [replace(random_member(one.row, one.seed, numbers), member=one) for one in of_sweep.members]
    found = granulated_content(rows_of(members), ["linear"])["linear"]
    assert found["orders"]["held_fixed"] == ["augment"]
    assert found["orders"]["num_orders"] == 6
    text = " ".join(table(found).split())
    assert "No Ψ can have p below 0.17 over 6 orders of the settings." in text
    assert "(augment held fixed: the sweep file does not say as `parts` what its variants share)" in text


# ---------------------------------------------------------------------- noise
def test_noise_is_that_of_the_seeds_or_of_the_test_images(grid: list[Row], tmp_path: Path) -> None:
    """One seed: √(p(1 − p)/1,000), of 1,000 test images. Two: the pooled deviation over √2."""
    accuracy = grid[0].cells["linear"].mean  # type: ignore[union-attr]
    assert standard_errors(grid, "linear")[0] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 1000))
    two = rows(sweep_of(tmp_path, AXES + SEEDS), of_effects, tmp_path)
    pooled = math.sqrt(sum(row.cells["linear"].sd ** 2 for row in two) / len(two))  # type: ignore[union-attr, operator]
    assert standard_errors(two, "linear") == pytest.approx([pooled / math.sqrt(2)] * 18)
    unknown = [
        replace(row, circumstances=tuple(one._replace(probed_images=None) for one in row.circumstances)) for row in grid
    ]
    assert math.isnan(standard_errors(unknown, "linear")[0])
    of_one, of_two = (granulated_content(some, ["linear"])["linear"]["noise"] for some in (grid, two))
    assert of_one["num_left_out"] > of_two["num_left_out"]
    assert granulated_content(unknown, ["linear"])["linear"]["noise"]["rows_of_unknown_noise"] == 18


# ---------------------------------------------------------------------- the table
def test_the_table_at_two_widths(found: dict[str, Any]) -> None:
    wide, narrow = table(found, 120), table(found, 80)
    heads = wide.splitlines()[2].split()
    assert heads == [
        "Ψ",
        "p",
        "adj.",
        "p",
        "ψ",
        "scale",
        "ψ",
        "epochs",
        "ψ",
        "width",
        "K",
        "chance",
        "worst",
        "chance",
        "median",
    ]
    assert max(map(len, narrow.splitlines())) <= 80
    row = next(line for line in wide.splitlines() if line.startswith("1−σ pixels"))
    assert row.split()[-8:-5] == ["-1.00", "tied", "tied"]
    text = " ".join(wide.split())
    assert "scale 18 pairs in 6 lines; epochs 18 pairs in 6 lines; width 9 pairs in 9 lines" in text
    assert "Chance: the mean of 50 random orders of the term among rows of the same settings of these axes" in text
    assert "within noise; its chance: that of random orders of the term among all rows; median: over the" in text
    assert "p: against 72 orders of the settings of each axis, the same in all rows, two-sided" in text


def test_a_terminal_too_narrow_for_the_axes_gets_two_tables(found: dict[str, Any]) -> None:
    assert len([line for line in table(found, 58).splitlines() if "─" in line]) == 2
    assert "ψ epochs" in table(found, 58)


def test_no_number_is_cut_however_many_axes_there_are(found: dict[str, Any]) -> None:
    named = [(f"axis-{k}.of-the-sweep-{k}", found["axes"][k % 3]) for k in range(12)]
    many = {
        **found,
        "axes": [{**axis, "axis": name} for name, axis in named],
        "terms": [{**one, "psi": {name: one["psi"][axis["axis"]] for name, axis in named}} for one in found["terms"]],
    }
    lines = table(many, 60).splitlines()
    assert all(any(f"ψ of-the-sweep-{k}" in line for line in lines) for k in range(12))
    _, *numbers = [line.split()[2:] for line in lines if line.startswith("alignment ↓")]
    assert [number for of_table in numbers for number in of_table] == ["-1.00"] * 12
    with drawing():
        figure = prediction_by_axis(many, accuracy_title="Linear accuracy", term_titles=LABELS)
        assert figure is not None
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()[:12]} == {40}
    assert all(box.y0 > figure.axes[0].get_window_extent().y1 for box in boxes)


def test_long_lists_of_terms_are_cut(found: dict[str, Any]) -> None:
    many = {**found, "terms": found["terms"] * 5}
    assert "The other 5 terms are in table.json and --json." in " ".join(table(many).split())
    assert table(many).count("alignment ↓") == 4


def test_axes_of_one_last_name_keep_their_whole_names() -> None:
    names = [{"axis": name} for name in ("train.epochs", "probe.epochs", "method")]
    assert module.short_axes(names) == ["train.epochs", "probe.epochs", "method"]
    names = [{"axis": name} for name in ("augment.flip.p", "augment.blur.p", "p", "temperature")]
    assert module.short_axes(names) == ["flip.p", "blur.p", "p", "temperature"]


# ---------------------------------------------------------------------- the figure
def test_the_figure_shows_every_axis_and_the_worst_case(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def kept(figure: Any, folder: Path, name: str) -> list[Path]:
        drawn.append(figure)
        return [folder / name]

    monkeypatch.setattr(figure_module, "save", kept)
    paths = draw_prediction_by_axis(found, tmp_path, accuracy_title="Linear accuracy", term_titles=LABELS)
    assert paths == [tmp_path / "prediction_by_axis"]
    heat, errors = drawn[0].axes
    said = {text.get_text() for axes in (heat, errors) for text in axes.findobj(Text)}
    assert said >= {
        "alignment ↓",
        "−1.00*",
        "tied",
        "scale\n18 pairs",
        "width\n9 pairs",
        "Ψ",
        "K",
        "sign error",
        "1.000",
    }
    colours = heat.images[0].get_array()
    assert colours.shape == (3, 5)
    assert colours[0, :3].tolist() == pytest.approx([-1, -1, -1])
    points = {tuple(line.get_xydata()[0]) for line in errors.lines if len(line.get_xydata()) == 1}
    assert (0.0, 0.0) in points


def test_many_pairs_get_fewer_random_orders(grid: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(column: Any, groups: Any, count: int) -> Any:
        counts.append(count)
        return shuffled(column, groups, count)

    monkeypatch.setattr("cssl_cli.report.compare.measures.grid.shuffled", counted)
    granulated_content(grid, ["linear"])
    monkeypatch.setattr(module, "WORK", 0)
    granulated_content(grid, ["linear"])
    assert counts == [50] * 3 + [10] * 3


def test_without_a_pair_beyond_noise_nothing_is_said_of_the_worst_case(
    grid: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "standard_errors", lambda rows, _: [1.0] * len(rows))
    found = granulated_content(grid, ["linear"])["linear"]
    assert {one["sign_error"] for one in found["terms"]} == {None}
    assert "worst" not in table(found).splitlines()[2]
    assert "No worst case: no two settings of an axis have 5 pairs that differ beyond noise." in " ".join(
        table(found).split()
    )
    with drawing():
        figure = prediction_by_axis(found, accuracy_title="Linear accuracy", term_titles=LABELS)
    assert figure is not None
    assert len(figure.axes) == 1


def test_no_figure_without_terms(found: dict[str, Any], tmp_path: Path) -> None:
    none = {**found, "terms": []}
    assert draw_prediction_by_axis(none, tmp_path, accuracy_title="", term_titles={}) == []
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_draws_it_beside_the_other_and_removes_an_earlier_one(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prediction_by_axis.png").touch()
    without = {"rows": [], "correlations": {}, "granulated": {}, "controls": []}
    assert draw_by_axis(without, LINEAR, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert figures_of(without, LINEAR) == ()
    monkeypatch.setattr(figure_module, "save", lambda _, folder, name: [folder / f"{name}.png", folder / f"{name}.svg"])
    paths = draw_by_axis({**without, "granulated": {"linear": found}}, LINEAR, tmp_path)
    assert [path.name for path in paths] == ["prediction_by_axis.png", "prediction_by_axis.svg"]
    assert figures_of({**without, "granulated": {"linear": found}}, LINEAR) == tuple(path.name for path in paths)


def test_a_figure_that_has_nothing_to_show_is_not_expected(found: dict[str, Any], tmp_path: Path) -> None:
    """In a folder that may only be read, a figure that is expected and not there is an error."""
    no_psi = [{**entry, "mean_psi": {**entry["mean_psi"], "value": None}} for entry in found["terms"]]
    row = {"row": "a", "group": "", "cells": {"linear": {"mean": 0.5, "sd": None}, "alignment": None}}
    content = {
        "rows": [row],
        "correlations": {"linear": {"terms": [{"term": "alignment", "pooled": {}, "within": {}}]}},
        "granulated": {"linear": {**found, "terms": no_psi}},
    }
    assert figures_of(content, LINEAR) == ()
    assert draw_by_axis(content, LINEAR, tmp_path) == draw_prediction(content, LINEAR, tmp_path) == []
    row["cells"] = {**row["cells"], "alignment": {"mean": 0.1, "sd": None}}
    assert figures_of(content, LINEAR) == ("accuracy_vs_terms.png", "accuracy_vs_terms.svg")
