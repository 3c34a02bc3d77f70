"""What the figures draw, and say, of which numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cssl_cli.report.figures.certificate import certificate
from cssl_cli.report.figures.figures import draw_figures
from cssl_cli.report.figures.r_epsilon import clipped, r_epsilon
from cssl_cli.report.figures.theorem_1 import theorem_1
from cssl_cli.report.figures.training import training
from tests.support.figures import NAMES, names_of, said_by, texts_of
from tests.support.synthetic_analysis import absent, analysis, class_names, trace


def test_sample_sizes_and_directions_of_error_are_said(drawn: dict[int, Path]) -> None:
    said = {name: texts_of(drawn[10] / f"{name}.svg") for name in NAMES}
    for name in ("concentration", "r_epsilon", "certificate"):
        assert "1,000 images, 8 views" in said[name]
    for name in ("class_centers", "spectrum"):
        assert "1,000 images, 7 views" in said[name]
    assert "300 images, 1 view" in said["projection"]
    for name, words in {
        "concentration": "too high for the full",
        "r_epsilon": "too low for the full augmentation",
        "class_centers": "unbiased",
        "projection": "too low: the plane shows 48 % of the variance",
        "training": "too low for the full augmentation",
        "certificate": "exact for these images and views",
        "spectrum": "λ is biased for few images",
    }.items():
        assert words in said[name], name


def test_names_and_values_of_the_classes_are_drawn(drawn: dict[int, Path]) -> None:
    said = texts_of(drawn[10] / "class_centers.svg").splitlines()
    lines = [line.strip() for line in said]
    for name in class_names(10):
        assert lines.count(name) == 2
    matrix = analysis(10, 300)["trained"]["class_centers"]["inner_products"]["value"]
    assert lines.count(f"{matrix[0][0]:.2f}") >= 1
    assert "regular simplex, −0.111" in "\n".join(lines)
    many = texts_of(drawn[40] / "class_centers.svg")
    assert f"{matrix[0][0]:.2f}" not in many
    for name in class_names(40):
        assert name in many
        assert name in texts_of(drawn[40] / "projection.svg")


def test_the_median_of_augmented_distances_is_not_taken_for_the_yardstick(drawn: dict[int, Path]) -> None:
    """δ₀ is a median distance between classes, too: of clean images."""
    assert "median $d_A$ between classes" in texts_of(drawn[10] / "concentration.svg")


def test_what_is_absent_is_not_drawn(tmp_path: Path) -> None:
    content = analysis(3, 60)
    content["class_names"] = None
    content["concentration"] = {"trained": {"deltas": absent(), "mean_sigma_low": absent()}}
    content["trained"]["class_centers"]["inner_products"] = absent()
    content["trained"]["certificate_c"]["by_views"] = content["trained"]["population"]["by_views"] = absent()
    content["trained"]["lemma_3_1"]["slack"] = absent()
    for encoder in ("trained", "untrained", "projector"):
        content[encoder]["positive_pairs"] = dict.fromkeys(content[encoder]["positive_pairs"], absent())
    content["projection"] |= {"labels": None, "centers": None}
    for encoder in ("untrained", "projector"):
        content[encoder]["R_epsilon"] = {"epsilons": absent(), "curve": absent(), "curve_by_views": absent()}
    assert names_of(draw_figures(content, [], tmp_path)) == {"r_epsilon", "projection"}
    said = texts_of(tmp_path / "r_epsilon.svg")
    assert " trained encoder" in said
    assert "untrained" not in said
    assert "projector" not in said


def test_the_projector_and_the_growth_with_the_views_are_drawn(drawn: dict[int, Path]) -> None:
    said = texts_of(drawn[10] / "r_epsilon.svg")
    for words in ("its projector", "stored views", "ε = 0.4", "ε = 0.7", "ε = 1", "would raise it further"):
        assert words in said
    content = analysis(3, 60)
    for values in ([absent()["value"]], None, [[0.1] * 15]):
        content["trained"]["R_epsilon"]["curve_by_views"]["value"] = values
        assert "stored views" not in said_by(r_epsilon, content)


def test_the_spectrum_is_drawn_with_its_label_energy_where_there_are_labels() -> None:
    from cssl_cli.report.figures.spectrum import spectrum
    from cssl_cli.report.figures.style import drawing

    content = analysis(10, 20)
    with drawing():
        figure = spectrum(content)
        assert figure is not None
        values, energy = figure.axes
        in_sample, own = values.lines[1], content["untrained"]["positive_pairs"]
        assert list(in_sample.get_ydata()) == content["trained"]["positive_pairs"]["in_sample"]["value"]
        assert [line.get_label() for line in values.lines[::2]] == [
            "trained encoder",
            "its projector",
            "untrained encoder",
        ]
        assert list(energy.lines[2].get_xdata()) == own["functions"]["value"]
        assert energy.lines[2].get_ydata()[-1] == pytest.approx(100 * own["label_energy"]["value"][-1])
        assert energy.lines[-1].get_xdata() == [9, 9]  # classes less one
        for encoder in ("trained", "projector", "untrained"):
            content[encoder]["positive_pairs"]["label_energy"] = absent()
            del content[encoder]["positive_pairs"]["in_sample"]
        figure = spectrum(content)
        assert figure is not None
        (values,) = figure.axes
        assert len(values.lines) == 3
        assert spectrum({"trained": {}}) is None


def test_the_scale_of_the_class_centres_is_that_of_all_inner_products(tmp_path: Path) -> None:
    from cssl_cli.report.figures.class_centers import class_centers
    from cssl_cli.report.figures.style import drawing

    for matrix, ends in (([[0.45, 0.40], [0.40, 0.51]], (0, 1)), ([[0.45, -0.01], [-0.01, 0.51]], (-1, 1))):
        content = {"trained": {"class_centers": {"inner_products": {"value": matrix}}}}
        with drawing():
            figure = class_centers(content)
        assert figure is not None
        assert figure.axes[0].images[0].get_clim() == ends


@pytest.mark.parametrize(
    ("dropped", "words"),
    [("mean_inner_product", "; alignment is unbiased"), ("alignment", "; inner products are unbiased")],
)
def test_the_caption_of_training_speaks_of_what_is_drawn(dropped: str, words: str) -> None:
    records = [{key: value for key, value in record.items() if key != dropped} for record in trace(5)]
    assert words in said_by(training, records)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each entry of a mapping, and to the first and the last one of each list."""
    keys = list(value) if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        keys = sorted({0, len(value) - 1})
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def read_by_figures() -> dict[str, Any]:
    """An analysis of two classes with only what the figures read."""
    content = analysis(2, 4)
    trained = content["trained"]
    for entry in (*trained["R_epsilon"].values(), *trained["R_epsilon_bounds"].values()):
        entry["value"] = entry["value"][:2]
    trained["R_epsilon"]["curve_by_views"]["value"] = [[0.1, 0.05], [0.4, 0.2]]
    trained["R_epsilon"]["curve"]["interval"] = [[0.1, 0.9]] * 2
    for entry in trained["lemma_3_1"].values():
        entry["value"] = [row[:2] if isinstance(row, list) else row for row in entry["value"][:2]]
    curve = content["concentration"]["trained"]
    for name in ("deltas", "mean_sigma_low", "mean_sigma_high"):
        curve[name]["value"] = curve[name]["value"][:2]
    curve["sigma_low_per_class"]["value"] = {"plane": [0.1, None], "car": None}
    curve = {name: curve[name] for name in ("deltas", "mean_sigma_low", "mean_sigma_high", "sigma_low_per_class")}
    return content | {"concentration": {"trained": curve}, "trained": trained, "projector": None, "untrained": None}


@pytest.mark.soak
def test_a_null_at_any_place_harms_no_figure() -> None:
    """Each entry in turn is null or no number; the figures are laid out and not written, to be quick."""
    from cssl_cli.report.figures.figures import ANALYSIS_FIGURES
    from cssl_cli.report.figures.style import drawing

    reads = {
        "concentration": ["concentration"],
        "projection": ["projection"],
        "class_names": ["projection", "class_centers"],
        "R_epsilon": ["r_epsilon"],
        "R_epsilon_bounds": ["r_epsilon"],
        "class_centers": ["class_centers"],
        "certificate_c": ["certificate"],
        "center_error": ["certificate"],
        "population": ["certificate"],
        "lemma_3_1": ["theorem_1"],
        "positive_pairs": ["spectrum"],
    }
    spoilt = (None, float("nan"), [], {}, "words")
    content, records = read_by_figures(), trace(2)
    with drawing():
        for i, path in enumerate(places(content)):
            for name in reads.get(path[1] if path[0] == "trained" and len(path) > 1 else path[0], ()):
                ANALYSIS_FIGURES[name](replaced(content, path, spoilt[i % 5]))
        for i, path in enumerate(places(records)):
            training(replaced(records, path, spoilt[i % 5]))


def test_a_bound_above_one_is_clipped_and_said_to_be_vacuous() -> None:
    below, above = clipped([(0.5, 3.0), (1.0, 2.0), (2.0, 0.5), (3.0, 0.25)])
    crossing = (1 + 2 / 3, 1.0)
    assert above == [[(0.5, 1.0), (1.0, 1.0), pytest.approx(crossing)]]
    assert below == [[pytest.approx(crossing), (2.0, 0.5), (3.0, 0.25)]]
    assert clipped([(0.5, 3.0)]) == ([], [[(0.5, 1.0)]])
    assert clipped([(0.5, 0.9)]) == ([[(0.5, 0.9)]], [])
    content = {"trained": analysis(2, 10)["trained"]}
    assert "bound vacuous here" in said_by(r_epsilon, content)
    content["trained"]["R_epsilon_bounds"]["stored_views"]["value"] = [0.5] * 15
    assert "vacuous" not in said_by(r_epsilon, content)


def test_the_certificate_of_new_images_leads_and_is_vacuous_from_chance_on() -> None:
    content = {"trained": analysis(4, 10)["trained"]}
    said = said_by(certificate, content)
    for words in (
        "certified, new images",
        "error, own centres",
        "vacuous: from chance, 0.75, on",
        "500 images, 8 views",
    ):
        assert words in said
    assert said.index("certified, new images") < said.index("certified, own centres")
    del content["trained"]["certificate_c"], content["trained"]["center_error"]
    said = said_by(certificate, content)
    assert "certified, new images" in said
    assert "own centres" not in said


def test_the_map_of_the_condition_says_whether_it_holds_anywhere() -> None:
    content = {"trained": analysis(4, 10)["trained"]}
    holds = np.array(content["trained"]["lemma_3_1"]["slack"]["value"]) > 0
    assert 0 < holds.sum() < holds.size
    said = said_by(theorem_1, content)
    assert f"above 0 at {holds.sum()} of 100 places" in said
    assert "Hatched" in said
    slack = content["trained"]["lemma_3_1"]["slack"]
    slack["value"] = [[value - 10 for value in row] for row in slack["value"]]
    content["trained"]["lemma_3_1"]["right_side"]["value"] = [[0.0] * 10] * 10
    said = said_by(theorem_1, content)
    assert "It is nowhere above 0." in said
    assert "Hatched" not in said


def test_class_names_are_drawn_as_they_stand(tmp_path: Path, only: Callable[..., None]) -> None:
    only("class_centers", "projection")
    content = analysis(6, 60)
    content["class_names"] = [r"$\frac{1}$", "a & <b>", "猫", "\x01\ttab", "\udcff", "a very long name of class 7"]
    content["projection"]["centers"] = None  # names stand in the legend
    kept = {key: content[key] for key in ("class_names", "projection", "trained")}
    assert {"class_centers", "projection"} <= names_of(draw_figures(kept, [], tmp_path))
    for name in ("class_centers", "projection"):
        said = texts_of(tmp_path / f"{name}.svg")
        assert "a & <b>" in said
        assert "a very … class 7" in said


def test_an_image_without_variance_is_drawn(tmp_path: Path) -> None:
    plane = {"method": "principal components", "explained": [0.0, 0.0], "points": [[0.0, 0.0]], "labels": [0]}
    content = {"projection": plane | {"centers": [[0.0, 0.0], [float("nan")] * 2]}, "class_names": ["cat", "dog"]}
    assert names_of(draw_figures(content, [], tmp_path)) == {"projection"}


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5])
def test_a_matrix_of_one_value_is_drawn(tmp_path: Path, value: float) -> None:
    content = {"trained": {"class_centers": {"inner_products": {"value": [[value] * 2] * 2}}}}
    assert names_of(draw_figures(content, [], tmp_path)) == {"class_centers"}


def test_of_many_classes_the_band_of_most_is_drawn_and_no_lines() -> None:
    from cssl_cli.report.figures.concentration import concentration
    from cssl_cli.report.figures.style import drawing

    content = analysis(200, 200)
    with drawing():
        figure = concentration(content)
    assert figure is not None
    lines = [len(axes.lines) for axes in figure.axes]
    assert lines == [3] * len(figure.axes)  # both ends of the mean, and the median between classes
    of_pixels = content["concentration"]["pixels"]
    upper = np.sort([1 - np.array(curve) for curve in of_pixels["sigma_low_per_class"]["value"].values()], axis=0)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    first = band[np.isclose(band[:, 0], of_pixels["deltas"]["value"][9])]
    assert sorted({round(float(y), 9) for y in first[:, 1]}) == [round(float(upper[at, 9]), 9) for at in (20, 179)]
    (legend,) = figure.legends
    assert "80 % of classes, upper end" in [text.get_text() for text in legend.get_texts()]


def test_more_classes_than_marks_are_not_told_apart() -> None:
    from cssl_cli.report.figures.projection import MAX_MARKED, projection
    from cssl_cli.report.figures.style import class_marker, drawing

    looks = {(mark["color"], mark["marker"]) for mark in (class_marker(label, 1) for label in range(MAX_MARKED))}
    assert len(looks) == MAX_MARKED
    with drawing():
        figure = projection(analysis(MAX_MARKED + 1, 300))
        assert figure is not None
        assert figure.legends == []
        images, means = figure.axes[0].lines
        assert (len(images.get_xdata()), len(means.get_xdata())) == (300, MAX_MARKED + 1)
        assert "105 classes, too many to be told apart by marks" in figure.texts[1].get_text()
        figure = projection(analysis(MAX_MARKED, 300))
        assert figure is not None
        assert len(figure.legends[0].get_texts()) == MAX_MARKED
