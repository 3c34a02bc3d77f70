"""The summary of an analysis: accuracies beside the quantities that the table of terms puts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cssl_cli.report.layout import images_of, number, percent, plural
from cssl_cli.report.quantities import COLUMNS, Line, Result, interval_of, quantity, short_direction
from cssl_cli.report.sections.concentration import outside_band
from cssl_cli.runs.results import CLASSIFIERS, counted_in_words, part
from cssl_cli.theory.shown import Shown, shown_in
from cssl_cli.theory.term import DISTANCES, Declared, In
from cssl_cli.theory.terms import EPSILON

BOTH_WAYS = "both"


class Reading(NamedTuple):
    """A cell of the summary: its text, the number in it and how many images and views it was measured on.

    `value` and `interval` are as in analysis.json or probe.json; of a band, its lower end and both.
    """

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    num_images: int | None = None
    num_views: int | None = None


Row = tuple[str, str, Sequence[Reading]]  # label, direction of error, a reading for each of `COLUMNS`


def in_summary() -> list[Shown]:
    """The quantities of the summary, each once; their encoders and distances are chosen per row."""
    return [shown for shown in shown_in(In.SUMMARY) if shown.where == "trained"]


def accuracy_rows(probe: Mapping[str, Any] | None) -> list[Line]:
    """A row per classifier; none without a probe."""
    return [_in_text(row) for row in accuracy_readings(probe)]


def term_rows(result: Result) -> list[Line]:
    """Label, direction of error and cells of every quantity."""
    return [_in_text(row) for row in term_readings(result)]


def _in_text(row: Row) -> Line:
    label, errs, readings = row
    return label, errs, [reading.text for reading in readings]


def accuracy_readings(probe: Mapping[str, Any] | None) -> list[Row]:
    """`accuracy_rows` with the numbers behind the text."""
    rows: list[Row] = []
    for name, classifier in CLASSIFIERS.items() if probe is not None else ():
        scores = [part(probe, encoder, name) for encoder in COLUMNS]
        readings = [
            Reading(
                percent(score["accuracy"], score["interval"]),
                score["accuracy"],
                tuple(score["interval"]),
                score.get("num_images"),
            )
            if score
            else Reading("–")
            for score in scores
        ]
        rows.append((f"{classifier.called}, %", "unbiased", readings))
    return rows


def term_readings(result: Result) -> list[Row]:
    """`term_rows` with the numbers behind the text."""
    rows: list[Row] = []
    for shown in in_summary():
        if shown.term.of == "distance":
            rows += _in_distances(result, shown.declared)
            continue
        entries = [quantity(result, encoder, shown.term.group, shown.declared.name) for encoder in COLUMNS]
        readings = [_cell(entry, shown.declared, result) for entry in entries]
        rows.append((_label(shown.called, shown.declared, result), _errs(entries), readings))
    return rows


def _label(called: str, row: Declared, result: Result, of: str = "") -> str:
    point = row.point
    at = "" if point is None else point.words.format(point.value(result["settings"][point.grid]))
    return f"{called}{at}{of}{', %' if row.share else ''}"


def _cell(entry: Mapping[str, Any], row: Declared, result: Result) -> Reading:
    value, interval = entry["value"], interval_of(entry)
    if row.point is not None and value is not None:
        at = row.point.place(result["settings"][row.point.grid])
        value, interval = value[at], interval and interval[at]
    show = percent if row.share else number
    text = show(value, interval, rounded=row.rounding) + (" vacuous" if entry.get("vacuous") else "")
    ends = None if not interval else (interval[0], interval[1])
    return Reading(text, value, ends, entry.get("num_images"), entry.get("num_views"))


def _errs(entries: Sequence[Mapping[str, Any]]) -> str:
    errs = next((entry["errs"] for entry in entries if entry["value"] is not None), "")
    return short_direction(errs)


# ---------------------------------------------------------------------- concentration
def _in_distances(result: Result, row: Declared) -> list[Row]:
    """In the features of each encoder, and in pixels, which involve no encoder; unmeasured ones get no row."""
    in_features = [_in_distance(result, encoder, row) for encoder in COLUMNS]
    rows: list[Row] = [(_label(row.head, row, result, ", features"), _errs_of_distance(row), in_features)]
    for distance in ("pixels", "standardized_pixels"):
        cell, label = _in_distance(result, distance, row), _label(row.head, row, result, f", {DISTANCES[distance]}")
        rows.append((label, _errs_of_distance(row), [cell, Reading("–"), cell]))
    return [(label, errs, cells) for label, errs, cells in rows if any(cell.text != "–" for cell in cells)]


def _in_distance(result: Result, distance: str, row: Declared) -> Reading:
    quantities = part(result["concentration"], distance)
    entry = {"value": None, **part(quantities, row.name)}
    if not row.band:
        return _cell(entry, row, result)
    assert row.point is not None
    at = row.point.place(result["settings"][row.point.grid])
    low, high = entry["value"], part(quantities, row.band).get("value")
    ends = None if low is None else (1 - (high or low)[at] + 0.0, 1 - low[at] + 0.0)
    least = None if ends is None else ends[0]
    return Reading(outside_band(low, high, at), least, ends, entry.get("num_images"), entry.get("num_views"))


def _errs_of_distance(row: Declared) -> str:
    return BOTH_WAYS if row.band else short_direction(row.errs)


# ---------------------------------------------------------------------- in words
ERRS = (
    " Errs: against the full augmentation and the population of images; both: too large for few views, too small for "
    "few images; exact*: a fact about these images and views."
)


def caption(result: Result, probe: Mapping[str, Any] | None, *, with_errs: bool = True) -> str:
    """What the rows were measured on, and what they mean; `with_errs`, also the directions of their errors."""
    settings = result["settings"]
    simplex = quantity(result, "trained", "class_centers", "simplex_inner_product")["value"]
    tested = ""
    if probe is not None:
        tested = (
            f"Accuracies: {plural(probe['trained']['linear']['num_images'], 'test image')}, Clopper–Pearson intervals. "
        )
    of_classes = "" if settings["classes"] is None else f" of {', '.join(settings['classes'])}"
    augmented = settings["num_views"] - 1
    has_classes = quantity(result, "trained", "population", "error")["value"] is not None
    new = (
        "New images: class centres from one half of these images, tested on the other; certified by Theorems B and C "
        f"at 95 % confidence, vacuous unless below chance{_chance(result)}. "
    )
    either = ", as a first view or as a second by the toss of a coin" if result.get("views_of_two_kinds") else ""
    also = f" and {augmented} augmented{either}" if augmented else ""
    return (
        f"{tested}Terms: {images_of(result)}{of_classes}, "
        f"{plural(settings['num_views'], 'view')} each (the clean image{also}), features scaled to "
        f"unit norm, 95 % intervals over images. {new if has_classes else ''}{_meanings(result)}."
        + (ERRS if with_errs else "")
        + (f" A regular simplex of class centres has mean μk·μl {simplex:.3f}." if simplex else "")
    )


def _meanings(result: Result) -> str:
    """The legend of the rows that have a value."""
    settings = result["settings"]
    said = [
        f"{shown.called} {shown.declared.meaning}".format(
            epsilon=f"{EPSILON.value(settings['epsilons']):g}", views=counted_in_words(settings["num_views"], "view")
        )
        for shown in in_summary()
        if shown.declared.meaning and shown.term.of != "distance" and _is_measured(result, shown)
    ]
    if any(_in_distances(result, shown.declared) for shown in in_summary() if shown.term.of == "distance"):
        between = "different classes" if len(result["class_names"] or ()) != 1 else "the only class"
        said.append(
            "1−σ the share of images outside the main part of their class, δ₀ the median distance between clean images "
            f"of {between}"
        )
    legend = "; ".join(said)
    return f"{legend[:1].upper()}{legend[1:]}"


def _is_measured(result: Result, shown: Shown) -> bool:
    """Whether any encoder has a value of it."""
    return any(quantity(result, name, shown.term.name, shown.declared.name)["value"] is not None for name in COLUMNS)


def _chance(result: Result) -> str:
    chance = quantity(result, "trained", "population", "chance")["value"]
    return "" if chance is None else f" ({percent(chance)} %)"
