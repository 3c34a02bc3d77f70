"""The figure of accuracy against each term: what is drawn and said, whole files, names that cover nothing."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.errors import InputError
from cssl_cli.report.compare.rank_correlation.screening import screen_accuracy
from cssl_cli.report.figures.accuracy_vs_terms import (
    MAX_PANELS,
    accuracy_vs_terms,
    draw_accuracy_vs_terms,
    remove_accuracy_vs_terms,
)
from cssl_cli.report.figures.point_labels import Labelled, place_labels, short_names
from cssl_cli.report.figures.style import drawing

METHODS = ("simclr", "barlow_twins", "moco", "simsiam")
Rows = list[dict[str, Any]]


def table(variants: list[str], num_groups: int, num_terms: int, *, seeds: int = 3, reference: bool = False) -> Rows:
    generator, rows = np.random.default_rng(0), []
    for group in METHODS[:num_groups]:
        for variant in variants:
            quality = float(generator.standard_normal())
            sd = 0.02 if seeds > 1 else None
            cells: dict[str, Any] = {"linear": {"mean": 0.5 + 0.1 * quality, "sd": sd, "n": seeds}}
            for k in range(num_terms):
                value = (-1) ** k * quality + 0.3 * k * float(generator.standard_normal())
                cells[f"t{k}"] = {"mean": value, "sd": sd, "n": seeds}
            row: dict[str, Any] = {"row": f"{group}-{variant}", "group": group, "cells": cells}
            rows.append(row | ({"reference": {"linear": 0.75 + 0.1 * quality}} if reference else {}))
    return rows


def screened(rows: Rows) -> dict[str, Any]:
    means = [
        (row["row"], row["group"], {name: cell and cell["mean"] for name, cell in row["cells"].items()}) for row in rows
    ]
    terms = dict.fromkeys(name for row in rows for name in row["cells"] if name != "linear")
    return screen_accuracy(means, "linear", terms)


def draw(rows: Rows, folder: Path, titles: dict[str, str] | None = None) -> list[Path]:
    return draw_accuracy_vs_terms(
        rows, screened(rows), "linear", folder, accuracy_title="Linear accuracy", term_titles=titles or {}
    )


def texts_of(path: Path) -> str:
    """What is written in an SVG: matplotlib keeps each text as a comment beside its outlines."""
    comments = ElementTree.TreeBuilder(insert_comments=True)
    tree = ElementTree.parse(path, ElementTree.XMLParser(target=comments))
    return html.unescape("\n".join(str(node.text) for node in tree.iter() if node.tag is ElementTree.Comment))


NESTED = ["abcde", "abcd", "abc", "ab", "a"]
TITLES = {"t0": "the first $term"}
PAIRS = [f"crop-with-{name}" for name in "bcdefghijk"]


SIZES: dict[str, Rows] = {
    "ten in two groups": table(NESTED, 2, 1, reference=True),
    "ten": table(PAIRS, 1, 2),
    "twenty": table(NESTED, 4, 4, reference=True),
    "forty": table(PAIRS, 4, 1),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return {name: draw(rows, tmp_path_factory.mktemp("figure"), TITLES) for name, rows in SIZES.items()}


@pytest.mark.parametrize("size", list(SIZES))
def test_whole_files_with_nothing_at_the_edge(drawn: dict[str, list[Path]], size: str) -> None:
    paths = drawn[size]
    assert [path.name for path in paths] == ["accuracy_vs_terms.png", "accuracy_vs_terms.svg"]
    with Image.open(paths[0]) as image:
        pixels = np.asarray(image.convert("L"))
        assert image.width == 1200
        assert round(image.info["dpi"][0]) == 200
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all()
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")


def test_the_same_numbers_give_the_same_bytes(drawn: dict[str, list[Path]], tmp_path: Path) -> None:
    again = draw(SIZES["ten in two groups"], tmp_path, TITLES)
    for one, other in zip(drawn["ten in two groups"], again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_titles_hold_tau_with_its_interval_in_the_order_of_the_table(drawn: dict[str, list[Path]]) -> None:
    found = screened(SIZES["twenty"])
    said = texts_of(drawn["twenty"][1])
    places = []
    for entry in found["terms"]:
        pooled, within = entry["pooled"]["tau"], entry["within"]["tau"]
        numbers = [signed(v) for v in (pooled["value"], *pooled["interval"], within["value"])]
        sentence = "τ {} [{}, {}]; within {}".format(*numbers)
        assert sentence in said
        places.append(said.index(sentence))
    assert places == sorted(places)
    words = ["the first $term", "20 rows", "Within: τ over pairs", "In brackets", "Bars: sample standard deviation"]
    for sentence in (*words, "Linear", "published", *METHODS):
        assert sentence in said


def test_numbers_in_the_key_cannot_be_taken_for_a_part_of_a_name(tmp_path: Path) -> None:
    said = texts_of(draw(table(["0.25-crops-small", "0.25-crops-large", "1-crops-small"], 1, 1), tmp_path)[1])
    assert "2:\N{NO-BREAK SPACE}0.25-crops-large; 3:\N{NO-BREAK SPACE}1-crops-small." in said.replace("\n", " ")


def test_long_names_in_the_key_stay_different(tmp_path: Path) -> None:
    names = [f"a-very-long-name-of-a-variant-{number}-with-more-words-behind-it" for number in range(3)]
    said = " ".join(texts_of(draw(table(names, 1, 1), tmp_path)[1]).split())
    assert "1: …0…; 2: …1…; 3: …2…." in said


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")


def test_what_is_not_there_is_not_said(tmp_path: Path) -> None:
    said = texts_of(draw(table(NESTED[:4], 1, 2, seeds=1), tmp_path)[1])
    for words in ("Within", "brackets", "Bars", "published", "simclr", "Not drawn"):
        assert words not in said


def test_short_names_stand_by_their_points_and_long_ones_get_numbers(drawn: dict[str, list[Path]]) -> None:
    said = {size: texts_of(paths[1]) for size, paths in drawn.items()}
    assert [line.strip() for line in said["ten in two groups"].split("\n")].count("abcde") == 2  # once a method
    assert "10:\N{NO-BREAK SPACE}crop-with-k" in said["ten"]
    assert "crop-with" not in said["forty"]
    assert [name.mark for name in short_names([("ab-moco", "moco"), ("moco-a", "moco"), ("moco", "moco")])] == [
        "ab",
        "a",
        "moco",
    ]
    alike = short_names([("moco-a-long-name", "moco"), ("simclr-a-long-name", "simclr"), ("b", "b")])
    assert [name.mark for name in alike] == ["1", "1", "2"]


def test_a_name_goes_where_it_covers_nothing() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    with drawing():
        # The second point is where the first one's name would go; the third is at the right edge.
        points = [Labelled(0.3, 0.5, "one"), Labelled(0.34, 0.5, "two"), Labelled(0.995, 0.9, "three")]
        place_labels(figure, [(axes, points)])
        figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["one", "two", "three"]
    frame = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        for point in points:
            x, y = axes.transData.transform((point.x, point.y))
            assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)
        for other in boxes[i + 1 :]:
            assert not box.overlaps(other)


def test_no_more_than_a_page_of_panels() -> None:
    rows = table(NESTED, 1, MAX_PANELS + 2)
    found = screened(rows)
    with drawing():
        figure = accuracy_vs_terms(rows, found, "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    assert len(figure.axes) == MAX_PANELS
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert f"Not drawn: {', '.join(entry['term'] for entry in found['terms'][MAX_PANELS:])}." in caption


def test_rows_without_both_numbers_are_not_drawn(tmp_path: Path) -> None:
    rows = table(NESTED, 1, 2)
    rows[0]["cells"]["linear"] = None
    rows[1]["cells"]["t0"] = None
    rows[2]["cells"]["t0"] = {"mean": float("nan"), "sd": None}
    rows[3]["cells"].pop("t0")
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    drawn = {axes.get_title(loc="left").split("\n")[0]: len(axes.texts) for axes in figure.axes}
    assert drawn == {"t0": 1, "t1": 4}
    for row in rows:
        row["cells"]["linear"] = None
    assert draw(rows, tmp_path / "none") == []
    assert draw([], tmp_path / "none") == []


def test_rows_that_have_not_finished_are_neither_counted_nor_in_the_legend(tmp_path: Path) -> None:
    rows = table(["a", "ab", "abc"], 3, 2)
    for row in rows[6:]:
        row["cells"] = dict.fromkeys(row["cells"])
    text = texts_of(draw(rows, tmp_path)[1])
    assert "6 rows" in text
    assert "barlow_twins" in text
    assert "moco" not in text


def test_negative_controls_are_crosses_that_no_number_counts(tmp_path: Path) -> None:
    rows = table(NESTED, 1, 1)
    found = screened(rows[1:])
    rows[0]["control"] = True
    with drawing():
        figure = accuracy_vs_terms(rows, found, "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    (axes,) = figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [
        (rows[0]["cells"]["t0"]["mean"], 100 * rows[0]["cells"]["linear"]["mean"])
    ]
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "4 rows" in caption
    assert "Crosses: negative controls, which enter no τ." in caption
    paths = draw_accuracy_vs_terms(rows, found, "linear", tmp_path, accuracy_title="Linear", term_titles={})
    assert "negative control" in texts_of(paths[1])
    remove_accuracy_vs_terms(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_single_seed_has_the_intervals_of_both_numbers() -> None:
    rows = table(NESTED, 1, 1, seeds=1)
    for row in rows[1:]:
        for cell in row["cells"].values():
            cell["interval"] = (cell["mean"] - 0.02, cell["mean"] + 0.05)
    rows[2]["cells"]["linear"]["interval"] = (rows[2]["cells"]["linear"]["mean"] + 0.01, 0.99)  # the mean lies below it
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    (axes,) = figure.axes
    (barred,) = (line for line in axes.lines if line.get_linestyle() == "-")
    xs, ys = (list(values) for values in (barred.get_xdata(), barred.get_ydata()))
    bars = [(xs[at : at + 2], ys[at : at + 2]) for at in range(0, len(xs), 3)]  # every third is a gap
    assert len(bars) == 8  # none of the first row
    t0, linear = (rows[1]["cells"][name] for name in ("t0", "linear"))
    across, up = bars[:2]
    assert across == (list(t0["interval"]), [100 * linear["mean"]] * 2)
    assert up[0] == [t0["mean"]] * 2
    assert up[1] == pytest.approx([100 * end for end in linear["interval"]])
    assert bars[3][1] == pytest.approx([100 * rows[2]["cells"]["linear"]["mean"], 99])
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "Bars: 95 % intervals over images, without the spread between seeds." in caption
    assert "sample standard deviation" not in caption
    rows[0]["cells"]["linear"]["sd"] = 0.01
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "Bars: sample standard deviation over seeds. Bars of a single seed: 95 % intervals" in caption


def test_the_number_of_artists_is_not_that_of_the_points() -> None:
    rows = table([f"v{number}" for number in range(60)], 2, 1)
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    (axes,) = figure.axes
    groups = {row["group"] for row in rows}
    assert len(axes.lines) <= 4 * len(groups)
    assert sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None") >= len(rows)


def test_no_control_lies_below_other_rows() -> None:
    rows = table(NESTED, 2, 1)
    for group in (rows[: len(NESTED)], rows[len(NESTED) :]):
        group[0]["control"] = True
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    heights = [(line.get_marker() == "x", line.get_zorder()) for line in figure.axes[0].lines]
    crosses, others = ([height for crossed, height in heights if crossed is which] for which in (True, False))
    assert len(crosses) == 2
    assert min(crosses) > max(others)


@pytest.mark.parametrize(("number", "as_pixels"), [(1000, False), (1001, True)])
def test_many_points_are_an_image_in_an_svg(number: int, as_pixels: bool) -> None:
    rows = table([f"v{place}" for place in range(number)], 1, 1)
    found = {"terms": [{"term": "t0", "pooled": {}, "within": {}}]}
    with drawing():
        figure = accuracy_vs_terms(rows, found, "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    assert {line.get_rasterized() for line in figure.axes[0].lines} == {as_pixels}


def test_without_a_coefficient_nothing_is_said_of_an_order() -> None:
    rows = table(NESTED[:2], 1, 2)
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    assert "sorted" not in " ".join(text.get_text() for text in figure.texts)


def test_rows_that_were_stopped_are_said() -> None:
    rows = table(NESTED, 1, 1)
    rows.append({"row": "gone", "group": "simclr", "cells": {"linear": None}, "stopped": {"epoch": 1, "epochs": 4}})
    with drawing():
        figure = accuracy_vs_terms(rows, screened(rows[:-1]), "linear", accuracy_title="Linear", term_titles={})
    assert figure is not None
    said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Not drawn: 1 row stopped early for k-NN accuracy." in said


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        draw(table(NESTED, 1, 1), tmp_path / "file" / "figures")
