"""The map of a sweep: ranks as the theory predicts, rows that can be read whatever their number and names."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.report.compare.catalogue import LINEAR
from cssl_cli.report.compare.tables.prediction import draw_map
from cssl_cli.report.figures.point_labels import told_apart
from cssl_cli.report.figures.style import drawing
from cssl_cli.report.figures.sweep_map import MapColumn, draw_sweep_map, ranks, rows_of_map, sweep_map
from tests.support.figures import texts_of

COLUMNS = (
    MapColumn("linear", "Linear accuracy", lambda value: f"{100 * value:.1f}"),
    MapColumn("alignment", "alignment ↓", lambda value: f"{value:.2f}", -1),
    MapColumn("rankme", "RankMe ↑", lambda value: f"{value:.1f}", 1),
    MapColumn("share", "share ↑", lambda value: f"{value:.1f}", 1),
)
MAP = ("sweep_map.png", "sweep_map.svg")
UNUSUAL = ["<script>alert(1)</script>", "$x^2$", "[red]bold[/red]", "=cmd", "a name\nof two lines", "\\frac{a}{b}"]


def row(name: str, control: bool = False, stopped: bool = False, **means: float | None) -> dict[str, Any]:
    cells = {key: None if mean is None else {"mean": mean, "sd": None, "n": 1} for key, mean in means.items()}
    facts = {"epoch": 1, "epochs": 4, "knn": 0.2} if stopped else None
    return {"row": name, "group": "simclr", "cells": cells, "control": control, "stopped": facts}


def rows(count: int, name: str = "simclr-s{:02d}") -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        row(name.format(number), linear=0.5 + 0.01 * number, alignment=float(generator.random()), rankme=3.0)
        for number in range(count)
    ]


def draw(content: list[dict[str, Any]], folder: Path) -> list[Path]:
    return draw_sweep_map(content, COLUMNS, "linear", folder, accuracy_title="Linear accuracy")


def test_ranks_run_from_the_end_that_the_theory_calls_good() -> None:
    given = [
        row("a", alignment=0.1, rankme=5.0),
        row("b", alignment=0.2, rankme=5.0),
        row("c", alignment=0.4, rankme=9.0),
        row("d", alignment=None, rankme=5.0),
        row("control", control=True, alignment=0.0, rankme=1.0),
    ]
    assert ranks(given, COLUMNS[1]) == [1.0, 0.5, 0.0, None, None]
    assert ranks(given, COLUMNS[2]) == pytest.approx([1 / 3, 1 / 3, 1.0, 1 / 3, None])
    assert ranks(given[:2], COLUMNS[2]) == [0.5, 0.5]
    assert ranks(given[:1], COLUMNS[2]) == [0.5]


def test_a_mean_over_some_of_the_seeds_has_no_rank() -> None:
    """W/B is missing where centres are closest together, so that a mean over the other seeds is too good."""
    given = [row("a", linear=0.4, alignment=0.1), row("b", linear=0.3, alignment=0.2), row("c", linear=0.2)]
    for cell in given[0]["cells"].values():
        cell |= {"n": 3, "sd": 0.01}
    given[0]["cells"]["alignment"]["n"] = 2
    assert ranks(given, COLUMNS[0]) == [1.0, 0.5, 0.0]
    assert ranks(given, COLUMNS[1]) == [None, 0.5, None]
    with drawing():
        figure = sweep_map(given, COLUMNS, "linear", accuracy_title="Linear accuracy")
    assert figure is not None
    said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Gray with a number: of some of the seeds only" in said


def test_the_greatest_accuracy_is_on_top_and_controls_are_last() -> None:
    given = [
        row("low", linear=0.1),
        row("control", control=True, linear=0.9),
        row("none", linear=None),
        row("high", linear=0.8),
        row("same", linear=0.8),
        row("nan", linear=float("nan")),
    ]
    assert [one["row"] for one in rows_of_map(given, "linear")] == ["high", "same", "low", "control"]
    assert rows_of_map(given[:1], "linear") == []


def test_values_are_printed_and_what_is_missing_is_said(tmp_path: Path) -> None:
    given = [
        row("first", linear=0.9, alignment=0.1, rankme=None),
        row("second", linear=0.2, alignment=-0.25, rankme=7.0),
        row("fade", control=True, linear=0.1, alignment=0.3, rankme=1.0),
        row("gone", stopped=True, linear=None),
    ]
    said = texts_of(draw(given, tmp_path)[1])
    lines = [line.strip() for line in said.splitlines()]
    for word in ("90.0", "0.10", "−0.25", "–", "7.0", "first", "second", "fade (control)", "alignment ↓", "RankMe ↑"):
        assert word in lines, word
    text = " ".join(said.split())
    assert "2 rows, the greatest accuracy first. Colour" in text
    assert "Gray: no number, or a negative control" in text
    assert "Not drawn: 1 row stopped early for k-NN accuracy." in text
    assert "share ↑" not in lines  # no row has it
    assert "gone" not in lines


@pytest.mark.parametrize("count", [2, 40, 41, 200])
def test_from_two_to_two_hundred_rows_nothing_reaches_the_edge(tmp_path: Path, count: int) -> None:
    paths = draw(rows(count), tmp_path)
    assert tuple(path.name for path in paths) == MAP
    with Image.open(paths[0]) as image:
        pixels = np.asarray(image.convert("L"))
        assert image.width == 1200
        assert image.height < 2000
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all()


@pytest.mark.parametrize("count", [2, 40, 41, 200])
def test_names_of_rows_do_not_overlap(count: int) -> None:
    with drawing():
        figure = sweep_map(rows(count), COLUMNS, "linear", accuracy_title="Linear accuracy")
        assert figure is not None
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) >= min(count, 60)
    boxes.sort(key=lambda box: float(box.y0))
    for one, other in pairwise(boxes):
        assert one.y1 <= other.y0 + 1


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for one, other in zip(draw(rows(9), tmp_path / "one"), draw(rows(9), tmp_path / "other"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_unusual_names_are_drawn_as_text(tmp_path: Path) -> None:
    given = [row(name, linear=0.1 * position) for position, name in enumerate(UNUSUAL, start=1)]
    said = texts_of(draw(given, tmp_path)[1])
    for name in ("<script>alert(1)</script>", r"\$x^2\$", "[red]bold[/red]", "=cmd", "a name of two lines"):
        assert name in said or name.replace("\\$", "$") in said, name


def test_long_names_stay_different() -> None:
    assert told_apart(["short", "other"]) == ["short", "other"]
    long = [f"a-very-long-name-of-a-variant-{number}-with-more-words-behind-it" for number in range(3)]
    assert told_apart(long) == ["…0…", "…1…", "…2…"]
    ends = [f"{'x' * 40}-{number}" for number in range(3)]
    assert told_apart(ends) == ends  # cut in the middle, they differ


def test_the_map_of_a_sweep_is_removed_where_there_is_none(tmp_path: Path) -> None:
    content = {"rows": rows(3), "correlations": {}, "granulated": {}}
    assert [path.name for path in draw_map(content, LINEAR, tmp_path)] == list(MAP)
    content["rows"] = rows(1)
    assert draw_map(content, LINEAR, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
