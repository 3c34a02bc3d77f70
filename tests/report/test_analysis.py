"""What `cssl analyze` prints of an analysis: sentences and tables from given numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from cssl_cli.report.verdicts import verdicts
from cssl_cli.runs.stored_analysis import require_analysis

Show = Callable[..., str]


def sentences(content: dict[str, Any]) -> list[str]:
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in verdicts(content)]


ALL = (
    *("alignment", "divergence", "concentration", "lipschitz", "certificates", "losses", "companions", "spectrum"),
    "classes",
)


@pytest.mark.parametrize(
    ("section", "place", "name"),
    [
        ("concentration", ("concentration", "pixels"), "mean_sigma_low"),
        ("concentration", ("concentration", "pixels"), "mean_sigma_high"),
        ("concentration", ("concentration", "pixels"), "share_near_other_class"),
        ("concentration", ("concentration", "pixels"), "share_meeting_other_class"),
        ("alignment", ("trained", "R_epsilon"), "mean_diameter_by_views"),
        ("certificates", ("trained", "connected_parts"), "delta_per_class"),
        ("certificates", ("trained", "population"), "chance"),
        ("spectrum", ("trained", "positive_pairs"), "tau_dimension"),
    ],
)
def test_a_quantity_that_an_older_analysis_lacks_is_left_out(
    show: Show, content: dict[str, Any], section: str, place: tuple[str, str], name: str
) -> None:
    content["trained"]["population"]["error_bound"]["vacuous"] = True
    del content[place[0]][place[1]][name]
    assert "More: --section NAME" in show(content, section)


@pytest.mark.parametrize(
    ("section", "term", "name"),
    [
        ("alignment", "R_epsilon", "curve"),
        ("divergence", "class_centers", "closest_pair"),
        ("alignment", "population", "error"),
    ],
)
def test_a_quantity_is_shown_without_an_interval_where_it_has_none(
    show: Show, content: dict[str, Any], section: str, term: str, name: str
) -> None:
    for without in (None, ...):
        content["trained"][term][name]["interval"] = without
        if without is ...:
            del content["trained"][term][name]["interval"]
        assert "More: --section NAME" in show(content, section)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_table_is_cut(content: dict[str, Any], show: Show, width: int) -> None:
    printed = show(content, *ALL, width=width, lines=True)
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    # A cell that was cut would have lost the end of its number.
    for encoder in ("trained", "projector", "untrained"):
        for position, (low, high) in enumerate(content[encoder]["R_epsilon"]["curve"]["interval"]):
            assert f"[{low:.3f}, {high:.3f}]" in printed, (encoder, position)
    bounds = content["trained"]["R_epsilon_bounds"]
    assert f"{bounds['iid_views']['value'][0]:.1f} v" in printed
    for count, ends in bounds["more_views"]["interval"].items():
        high = ends[0][1]
        said = re.escape(f"{high:.1f} v" if high < 1000 else f"{high:.1e} v")
        assert re.search(rf"^ *{count} ≤ +{said}", printed, re.MULTILINE)


# ---------------------------------------------------------------------- sentences
def test_the_clean_view_is_counted_and_said_to_be(content: dict[str, Any]) -> None:
    population = content["trained"]["population"]
    population["error_bound"] |= {"value": 1.0, "vacuous": True, "num_views": 8}
    population["by_views"]["value"], population["chance"]["value"] = [0.4, 0.7, 0.85, 1.0], 0.8
    (line,) = (line for line in sentences(content) if line.startswith("For new images"))
    assert line.endswith(
        "Nothing is certified with 8 views, the clean one included: ≤ 100.0 % at 95 % confidence is not below chance, "
        "80.0 %; with 2 views certified ≤ 70.0 %."
    )
    population["error_bound"] |= {"value": 0.4, "vacuous": False, "num_views": 1}
    (line,) = (line for line in sentences(content) if line.startswith("For new images"))
    assert line.endswith("Certified ≤ 40.0 % at 95 % confidence (Theorem B or C, 1 view, the clean one).")
    assert not any(re.search(r"\bm = ", line) for line in sentences(content))


def test_long_names_of_classes_cost_no_number(content: dict[str, Any], show: Show) -> None:
    """They are folded, in every column that holds names."""
    names = {name: f"{name} photographed in the snow of Alaska in winter" for name in content["class_names"]}
    content = json.loads(re.sub("|".join(names), lambda found: names[found[0]], json.dumps(content)))
    printed = show(content, "classes", "concentration", lines=True)
    assert max(map(len, printed.splitlines())) <= 80
    assert re.search(r"class +error, % +certified ≤, % +alignment +within +nearest centre of", printed)
    aligned = content["trained"]["alignment"]["per_class"]["value"]
    for name in names.values():
        assert re.search(rf"^{name[:4]}.* {aligned[name]:.3f} ", printed, re.MULTILINE), name
    near = content["concentration"]["pixels"]["share_meeting_other_class"]["value"]
    assert re.search(rf"^pixels .* {100 * near:.1f}$", printed.split("Views of images of different")[1], re.MULTILINE)


def test_the_caption_explains_no_row_that_is_not_there(content: dict[str, Any], show: Show) -> None:
    printed = show(content)
    assert "New images: class centres from one half" in printed
    assert "δ₀ the median distance between clean images of different classes" in printed
    content["class_names"] = ["cat"]
    assert "δ₀ the median distance between clean images of the only class" in show(content)
    content["class_names"] = None
    content["trained"]["population"]["error"] = {"value": None, "reason": "the images have no labels"}
    for quantities in content["concentration"].values():
        for name in ("mean_sigma_low", "mean_sigma_high"):
            quantities[name] = {"value": None, "reason": "the images have no labels"}
    printed = show(content)
    assert "New images: class centres" not in printed
    assert "1−σ the share" not in printed


def test_no_bound_is_shown_as_tighter_than_it_is(content: dict[str, Any], show: Show) -> None:
    certificate = content["trained"]["certificate_c"]
    certificate["error_bound"] |= {"value": 1 / 3000, "vacuous": False, "num_views": 1}
    certificate["by_views"]["value"] = [1 / 3000 for _ in certificate["by_views"]["value"]]
    content["trained"]["population"]["error_bound"] |= {"value": 0.00945, "vacuous": False}
    content["trained"]["theorem_1"]["error_bound"] |= {"value": 0.20001, "vacuous": False}
    lipschitz = content["trained"]["lipschitz"]
    lipschitz["largest_ratio"]["value"], lipschitz["local_jacobian_largest"]["value"] = 1.23456, 1.23467
    lipschitz["spectral_product"] |= {"value": 7.65432, "vacuous": False}
    text = "\n".join(sentences(content))
    assert "Certified ≤ 1.0 % at" in text
    assert "The paper's Theorem 1 certifies error ≤ 20.1 %, of these images with their own centres." in text
    assert "at least 1.234; at most 7.655 among" in text
    printed = show(content, "certificates", "lipschitz")
    for label, number in (
        ("Theorem C", "3.4e-04"),
        ("certified ≤, 95 %", "0.0095"),
        ("≥ largest ratio over views", "1.234"),
        ("≤ product of spectral norms", "7.655"),
    ):
        assert re.search(rf"{label} .*? {number}\b", printed), label


def test_what_is_said_of_the_papers_theorem(content: dict[str, Any]) -> None:
    terms = content["trained"]
    terms["theorem_1"]["error_bound"] |= {"value": 1.0, "vacuous": True}
    terms["lemma_3_1"]["largest_slack"] |= {"value": -3.1419, "vacuous": True}
    terms["lemma_3_1"]["slack_right_side"]["value"] = 0.4321
    terms["class_overlap"]["share_coinciding"] |= {"value": 0.0, "num_images": 50}

    def said() -> str:
        (line,) = (line for line in sentences(content) if line.startswith("The paper's"))
        return line

    assert "holds at no δ and ε" in said()
    assert "it fails by 3.142, in units of r², and the bound would be (1 − σ) + R_ε = 43.3 %." in said()
    assert "coincide" not in said()
    terms["class_overlap"]["share_coinciding"]["value"] = 0.14
    assert said().endswith("coincide, against the paper's assumption, for 14.0 % of 50 images.")
    terms["lemma_3_1"]["largest_slack"] |= {"value": 0.01, "vacuous": False}
    assert said() == (
        "The paper's Lemmas 3.1 and 3.2 bound the error, of these images with their own centres, by "
        "(1 − σ) + R_ε ≤ 43.3 %."
    )


def test_theorem_2_says_with_what_it_was_read(content: dict[str, Any], show: Show) -> None:
    constants = content["trained"]["R_epsilon_bounds"]["theorem_2_constants"]
    assert constants["value"]["n"] + constants["value"]["m"] > 0
    constants["value"] = {"n": 9, "m": 2, "LM": 0.56789}
    assert "n = 9 continuous parameters, m = 2 discrete transformations, LM ≥ 0.567." in show(content, "alignment")
    assert "(Thm 3, our τ)" in show(content, "losses")


def test_views_of_different_classes_are_shown_beside_concentration(content: dict[str, Any], show: Show) -> None:
    pixels = content["concentration"]["pixels"]
    pixels["least_between"] |= {"value": 1.234, "classes": ["cat", "dog"]}
    pixels["share_meeting_other_class"]["value"] = 0.421
    assert re.search(r"pixels +1\.234 cat and dog +[0-9.]+ +42\.1 ", show(content, "concentration"))


def test_a_statement_on_new_images_says_on_how_many_it_rests(content: dict[str, Any]) -> None:
    population = content["trained"]["population"]
    population["error"] |= {"value": 1.0, "interval": [0.158, 1.0], "num_images": 2}
    population["error_bound"] |= {"vacuous": True}
    population["error_bound"]["absent"] = {f"class {k}": "has 1 of the 2 images needed" for k in range(8)}
    (line,) = (line for line in sentences(content) if line.startswith("For new images"))
    assert line.startswith(
        "For new images error 100.0 % [15.8 %, 100.0 %]: centres from one half of the images, tested "
    )
    assert "on the other, 2 images. Nothing is certified" in line
    assert "8 classes that have fewer than two images: class 0, class 1, class 2 and 5 more" in line
    population["error"]["num_images"] = 1
    population["error_bound"] |= {"vacuous": False, "value": 0.3, "absent": {"cat": "has 1"}}
    (line,) = (line for line in sentences(content) if line.startswith("For new images"))
    assert "the other, 1 image. Certified ≤ 30.0 % at 95 % confidence" in line
    assert "Nothing is said of the class cat" in line


def test_new_images_lead_and_what_these_images_show_of_themselves_stays_in_its_section(
    content: dict[str, Any], show: Show
) -> None:
    for encoder in ("trained", "projector", "untrained"):
        terms = content[encoder]
        terms["center_error"]["error"]["value"] = terms["certificate_c"]["error_bound"]["value"] = 0.0123
        terms["population"]["error"] |= {"value": 0.765, "interval": [0.7, 0.8]}
        terms["population"]["error_bound"] |= {"value": 0.887, "interval": [0.0, 0.887], "vacuous": False}
        for name in ("error", "error_bound"):
            terms["population"][name].pop("warning", None)
    printed = show(content, width=120, lines=True)
    rows = [line for line in printed.splitlines() if "  " in line]
    assert re.match(r"error, new images, % +unbiased +76\.5  \[70\.0, 80\.0\]", rows[1])
    assert re.match(r"certified ≤, new images, % +high +88\.7 +88\.7 +88\.7$", rows[2])
    assert "1.2 %" not in printed
    assert "0.012" not in printed
    section = show(content, "certificates", lines=True).split("New images: centres from one half")[1]
    new, own = section.split("These images with their own centres (resubstitution); as shares")
    assert re.search(r"^error +unbiased +0\.765", new, re.MULTILINE)
    assert re.search(r"^Theorem C +exact\* +0\.013 ", own, re.MULTILINE)


def test_a_table_of_fewer_images_than_dimensions_is_warned_of_where_its_numbers_are_shown(
    content: dict[str, Any], show: Show
) -> None:
    """Five images a class, features of more dimensions."""
    for encoder in ("trained", "untrained"):
        assert "dimensions, the smallest class 5 images" in content[encoder]["center_error"]["error"]["warning"]
        assert content[encoder]["certificate_c"]["error_bound"]["warning"]
        assert "warning" not in content[encoder]["population"]["error"]
    printed = show(content, "certificates")
    assert printed.count("Warning (encoder, untrained): the features have") == 1
    assert "Warning" not in show(content)
    for encoder in ("trained", "projector", "untrained"):
        for quantities in content[encoder].values():
            for entry in quantities.values():
                entry.pop("warning", None)
    assert "Warning" not in show(content, "certificates")


def test_connected_parts_are_shown_beside_the_same_images_as_a_clique(content: dict[str, Any], show: Show) -> None:
    name = content["class_names"][4]
    parts = content["trained"]["connected_parts"]
    for key, value in {
        "certified": 1.0, "part_share": 0.42, "delta": 0.111, "epsilon": 0.222, "hops": 3.0, "step": 1.221,
        "clique_step": 0.765,
    }.items():  # fmt: skip
        parts[f"{key}_per_class"]["value"][name] = value
    parts["edges_across"]["value"]["0.05"] = 0.333
    printed = show(content, "certificates", lines=True)
    assert re.search(rf"^{name} +yes +42\.0 +0\.111 +0\.222 +3 +1\.221 +0\.765$", printed, re.MULTILINE)
    assert re.search(r"^5\.0 % +33\.3 ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("collapsed", "words"),
    [
        (("trained", "projector"), "All outputs of the encoder and of the projector coincide once scaled to unit norm"),
        (("projector",), "All outputs of the projector coincide once scaled to unit norm"),
    ],
)
def test_features_that_all_coincide_are_said_to(
    content: dict[str, Any], show: Show, collapsed: tuple[str, ...], words: str
) -> None:
    def coincide() -> bool:
        return any("coincide" in line for line in sentences(content))

    assert not coincide()
    for encoder in collapsed:
        content[encoder]["alignment"]["unbiased"]["value"] = 1e-16
    assert not coincide()  # only the views of an image do
    for encoder in collapsed:
        content[encoder]["uniformity"]["uniformity"]["value"] = -1e-15
    assert sentences(content)[0].startswith(words)
    assert words in show(content)
    for encoder in collapsed:
        content[encoder]["alignment"]["unbiased"]["value"] = 0.1
    assert not coincide()  # only the clean images do


# ---------------------------------------------------------------------- classes
def test_the_nearest_centre_is_the_nearest_though_below_the_noise(content: dict[str, Any], show: Show) -> None:
    names = content["class_names"]
    size = len(names)
    squared = [[0.0 if k == l else 0.25 for l in range(size)] for k in range(size)]
    squared[3][2] = squared[2][3] = -0.02  # nearer than class 0, which is at the noise, too
    squared[3][0] = squared[0][3] = -0.01
    squared[5][7] = 0.04
    content["trained"]["class_centers"]["squared_distances"]["value"] = squared
    content["trained"]["class_centers"]["distances"]["value"] = [[max(x, 0) ** 0.5 for x in row] for row in squared]
    printed = show(content, "classes", lines=True)
    rows = {line.split()[0]: line for line in printed.splitlines() if line.split() and line.split()[0] in names}
    assert rows[names[3]].endswith(f" {names[2]} ≤ noise")
    assert rows[names[5]].endswith(f" {names[7]} 0.200")
    assert "≤ noise: the distance is not above the noise" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("section", "group", "of", "name"),
    [
        ("concentration", "concentration", "trained", "within_quantiles"),
        ("concentration", "concentration", "trained", "between_quantiles"),
        ("certificates", "untrained", "connected_parts", "edges_across"),
    ],
)
def test_a_quantile_that_is_missing_has_no_cell(
    show: Show, content: dict[str, Any], section: str, group: str, of: str, name: str
) -> None:
    content[group][of][name] |= {"value": {"0.123": 0.5}, "interval": None}
    require_analysis(json.loads(json.dumps(content)))
    assert "More: --section NAME" in show(content, section)


def test_certificates_are_shown_class_by_class_with_their_margins(content: dict[str, Any], show: Show) -> None:
    name = content["class_names"][4]
    for theorem, margin in (
        ("a", "margin_per_class"),
        ("b", "margin_median_per_class"),
        ("c", "margin_median_per_class"),
    ):
        term = content["trained"][f"certificate_{theorem}"]
        term["certified_share_per_class"]["value"][name] = {"a": 0.11, "b": 0.22, "c": 0.33}[theorem]
        term[margin]["value"][name] = {"a": -0.1, "b": 0.2, "c": 0.3}[theorem]
    content["trained"]["certificate_b"]["half_distance_per_class"]["value"][name] = 0.444
    cells = r" +11\.0 +-0\.100 +22\.0 +0\.200 +33\.0 +0\.300 +0\.444"
    assert re.search(rf"^{name}{cells}$", show(content, "certificates", lines=True), re.MULTILINE)


def test_theorem_a_says_at_which_thresholds_it_certifies(content: dict[str, Any], show: Show) -> None:
    name, term = content["class_names"][4], content["trained"]["certificate_a"]
    for quantity, value in (("certified", 1.0), ("good_share", 0.42), ("delta", 0.111), ("epsilon", 0.222)):
        term[f"{quantity}_per_class"]["value"][name] = value
    printed = show(content, "certificates", lines=True)
    assert re.search(rf"^{name} +yes +42\.0 +0\.111 +0\.222$", printed, re.MULTILINE)
    assert "B certifies whatever A does" in " ".join(printed.split())


def test_what_was_measured_is_shown(content: dict[str, Any], show: Show) -> None:
    terms = content["trained"]
    marks = {}
    for number, (term, name) in enumerate(
        [
            ("theorem_1", "delta"),
            ("theorem_1", "epsilon"),
            ("lemma_3_1", "counted_bound"),
            ("lemma_3_1", "largest_slack"),
            ("lemma_3_1", "slack_right_side"),
            ("lemma_3_1", "infonce_bound"),
            ("lemma_3_1", "cross_correlation_bound"),
            ("class_overlap", "least_distance"),
            ("class_overlap", "share_within_delta"),
            ("class_overlap", "share_coinciding"),
            ("info_nce", "theorem_3"),
            ("cross_correlation", "centred_inner_product"),
            ("cross_correlation", "centred_pair_bound"),
        ]
    ):
        marks[name] = f"{0.777 + number / 1000:.3f}"
        terms[term][name] |= {"value": 0.777 + number / 1000, "vacuous": False}
    printed = show(content, "certificates", "losses")
    for name, mark in marks.items():
        assert mark in printed, name
