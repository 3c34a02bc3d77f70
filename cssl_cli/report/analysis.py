"""Reports of an analysis: accuracy beside the main terms, the verdicts, and sections on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cssl_cli.errors import DamagedError, shown_path
from cssl_cli.report.compare.catalogue import LINEAR, Quantity
from cssl_cli.report.compare.prediction import prediction_content
from cssl_cli.report.compare.run_rows import rows_of_runs
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.report.control_encoders import compare_controls, fooled_in
from cssl_cli.report.control_table import print_controls, print_fooled
from cssl_cli.report.layout import (
    Rounding,
    compacted,
    console,
    fits,
    note,
    number,
    percent,
    plural,
    print_json,
    print_widest,
    table,
    without_interval,
)
from cssl_cli.report.quantities import COLUMNS, Result, by_encoder, interval_of, quantity, reasons, short_direction
from cssl_cli.report.run import precision_note
from cssl_cli.report.sections.alignment import r_epsilon
from cssl_cli.report.sections.certificates import certificates, classes
from cssl_cli.report.sections.companions import companions
from cssl_cli.report.sections.concentration import central_delta, outside_band, print_concentration
from cssl_cli.report.sections.divergence import divergence
from cssl_cli.report.sections.lipschitz import lipschitz
from cssl_cli.report.sections.losses import losses
from cssl_cli.report.verdicts import verdicts
from cssl_cli.runs.run_dir import PROBE, RunDir

SECTIONS: Mapping[str, Callable[[Console, Result], None]] = {
    "alignment": r_epsilon,
    "divergence": divergence,
    "concentration": print_concentration,
    "lipschitz": lipschitz,
    "certificates": certificates,
    "losses": losses,
    "companions": companions,
    "classes": classes,
}
CLASSIFIERS = {"linear": "linear", "knn": "k-NN", "nearest_center": "nearest centre"}
CENTRAL_EPSILON = 0.5
BOTH_WAYS = "both"
MIN_RUNS = 3  # of which rank correlations say anything
ALIKE = ("num_views", "classes", "epsilons", "deltas", "precision")  # settings that runs must share to be compared

# label, term, quantity, shown as a share
HEADLINE = (
    ("error, new images, %", "population", "error", True),
    ("certified ≤, new images, %", "population", "error_bound", True),
)
SUMMARY = (
    *HEADLINE,
    ("alignment", "alignment", "unbiased", False),
    ("mean μk·μl", "class_centers", "mean_inner_product", False),
    ("least ‖μk − μl‖", "class_centers", "closest_pair", False),
    ("within / between", "spread", "ratio", False),
    ("uniformity", "uniformity", "uniformity", False),
    ("RankMe", "effective_rank", "rankme", False),
)


# ---------------------------------------------------------------------- one run
def show_analysis(path: Path, result: Result, sections: Sequence[str], as_json: bool) -> None:
    """The summary, the verdicts, then the sections asked for."""
    if as_json:
        return print_json(_content(result))
    out = console()
    _summary(out, result, read_probe(path), path)
    lines = verdicts(result)
    if lines:
        out.print()
        for line in lines:
            out.print(Text(line))
    print_controls(out, result)
    for name in sections:
        out.print()
        SECTIONS[name](out, result)
    left = [name for name in SECTIONS if name not in sections]
    if left:
        note(out, f"\nMore: --section NAME, of {', '.join(left)}; all of them: --section all")
    return None


def _content(result: Result) -> dict[str, Any]:
    """An analysis with what the report says of it, as JSON types."""
    compared = compare_controls(result)
    return {**result, "verdicts": verdicts(result), **({} if compared is None else {"fooled": compared})}


def read_probe(path: Path) -> dict[str, Any] | None:
    """The latest probe.json of the run, if it has one that can be relied on."""
    try:
        return RunDir(path).latest_result(PROBE)
    except DamagedError:  # which measure.py tells of
        return None


def _summary(out: Console, result: Result, probe: Mapping[str, Any] | None, path: Path) -> None:
    accuracies = []
    if probe is not None:
        for classifier, label in CLASSIFIERS.items():
            scores = [probe.get(encoder, {}).get(classifier) for encoder in COLUMNS]
            cells = [percent(score["accuracy"], score["interval"]) if score else "–" for score in scores]
            accuracies.append((f"{label}, %", "unbiased", cells))
    print_widest(out, [by_encoder(accuracies, _rows(result), intervals=count) for count in (3, 1, 0)])
    note(out, _caption(result, probe))
    _note_precision(out, result, probe)
    reasons(out, result, [(term, name) for _, term, name, _ in SUMMARY])
    if probe is None and result["class_names"] is not None:
        note(out, f"Accuracies: cssl probe {shown_path(path)}")


def _note_precision(out: Console, result: Result, probe: Mapping[str, Any] | None) -> None:
    for said in (precision_note(result, "Terms of features"), precision_note(probe, "Accuracies of features")):
        if said:
            note(out, said)


def _rows(result: Result) -> list[tuple[str, str, list[str]]]:
    """Label, direction of error and the cells of every term in the summary."""
    rows = []
    for label, term, name, share in SUMMARY:
        entries = [quantity(result, encoder, term, name) for encoder in COLUMNS]
        show = percent if share else number
        rounded: Rounding = "up" if name.endswith("_bound") else "nearest"
        cells = [
            show(entry["value"], interval_of(entry), rounded=rounded) + (" vacuous" if entry.get("vacuous") else "")
            for entry in entries
        ]
        rows.append((label, _errs(entries), cells))
    alignment, centers = len(HEADLINE) + 1, len(HEADLINE) + 4  # after which R_ε and 1 − σ come in
    return [
        *rows[:alignment],
        _central_r_epsilon(result),
        *rows[alignment:centers],
        *_concentration(result),
        *rows[centers:],
    ]


def _errs(entries: Sequence[Mapping[str, Any]]) -> str:
    errs = next((entry["errs"] for entry in entries if entry["value"] is not None), "")
    return short_direction(errs)


def _central_r_epsilon(result: Result) -> tuple[str, str, list[str]]:
    epsilons = result["settings"]["epsilons"]
    at = min(range(len(epsilons)), key=lambda position: abs(epsilons[position] - CENTRAL_EPSILON))
    entries = [quantity(result, encoder, "R_epsilon", "curve") for encoder in COLUMNS]
    cells = ["–" if entry["value"] is None else percent(entry["value"][at], entry["interval"][at]) for entry in entries]
    return f"R_ε at ε = {epsilons[at]:g}, %", _errs(entries), cells


def _concentration(result: Result) -> list[tuple[str, str, list[str]]]:
    """1 − σ at the quoted δ in the features of each encoder, and in pixels, which know no encoder."""
    relative = result["settings"]["deltas"]
    at = central_delta(relative)
    rows = []
    in_features = [_outside(result, encoder, at) for encoder in COLUMNS]
    if any(cell != "–" for cell in in_features):
        rows.append((f"1−σ at {relative[at]:g} δ₀, features, %", BOTH_WAYS, in_features))
    for distance in ("pixels", "standardized_pixels"):
        cell = _outside(result, distance, at)
        if cell != "–":
            label = {"pixels": "pixels", "standardized_pixels": "std. pixels"}[distance]
            rows.append((f"1−σ at {relative[at]:g} δ₀, {label}, %", BOTH_WAYS, [cell, "–", cell]))
    return rows


def _outside(result: Result, distance: str, at: int) -> str:
    quantities = result["concentration"].get(distance, {})
    low, high = (quantities.get(f"mean_sigma_{end}", {}).get("value") for end in ("low", "high"))
    return outside_band(low, high, at)


def _caption(result: Result, probe: Mapping[str, Any] | None) -> str:
    settings = result["settings"]
    simplex = quantity(result, "trained", "class_centers", "simplex_inner_product")["value"]
    tested = ""
    if probe is not None:
        tested = (
            f"Accuracies: {plural(probe['trained']['linear']['num_images'], 'test image')}, Clopper–Pearson intervals. "
        )
    of_classes = "" if settings["classes"] is None else f" of {', '.join(settings['classes'])}"
    augmented = settings["num_views"] - 1
    of_concentration = (
        "; 1−σ the share of images outside the main part of their class, δ₀ the median distance between clean images "
        "of different classes"
        if result["concentration"]
        else ""
    )
    return (
        f"{tested}Terms: {plural(result['num_images'], result['part'] + ' image')}{of_classes}, "
        f"{plural(settings['num_views'], 'view')} each (the clean image and {augmented} augmented), features scaled to "
        "unit norm, 95 % intervals over images. "
        "New images: class centres from one half of these images, tested on the other; certified by Theorems B and C "
        f"at 95 % confidence, vacuous unless below chance{_chance(result)}. "
        "Alignment E‖f(v) − f(v′)‖²; μk the class centres; within / between the spread of images in their class over "
        f"that of the centres{of_concentration}. Errs: against the full augmentation and the population of images; "
        "both: too large for few views, too small for few images; exact*: a fact about these images and views."
        + (f" A regular simplex of class centres has mean μk·μl {simplex:.3f}." if simplex else "")
    )


def _chance(result: Result) -> str:
    chance = quantity(result, "trained", "population", "chance")["value"]
    return "" if chance is None else f" ({percent(chance)} %)"


# ---------------------------------------------------------------------- several runs
def show_runs(results: Mapping[Path, dict[str, Any]], as_json: bool, *, accuracy: Quantity = LINEAR) -> None:
    """One table over runs: a row each, accuracies beside the main terms of the encoder; of three, what predicts."""
    probes = {path: read_probe(path) for path in results}
    if as_json:
        runs = {str(path): {**_content(result), **_of_accuracies(probes[path])} for path, result in results.items()}
        return print_json({"runs": runs, **prediction_content(rows_of_runs(results, probes))})
    out = console()
    _print_runs(out, results, probes)
    print_fooled(out, [fooled_in(result) for result in results.values()])
    if len(results) >= MIN_RUNS:
        unprobed = [f"cssl probe {shown_path(path)}" for path, probe in probes.items() if probe is None]
        if unprobed:
            note(out, f"Without accuracies, hence in no rank correlation: {len(unprobed)}. First {unprobed[0]}")
        rows = rows_of_runs(results, probes)
        print_prediction(out, rows, prediction_content(rows, [accuracy.name]), accuracy)
    return None


def _of_accuracies(probe: Mapping[str, Any] | None) -> dict[str, Any]:
    """What precision the accuracies beside an analysis are of, and the error that it made, where not float32."""
    if probe is None or "precision" not in probe["settings"]:
        return {}
    return {"accuracy_precision": probe["settings"]["precision"], "accuracy_feature_error": probe["feature_error"]}


def _print_runs(out: Console, results: Mapping[Path, Result], probes: Mapping[Path, dict[str, Any] | None]) -> None:
    accuracy = table("", *(f"{label}, %" for label in CLASSIFIERS.values()))
    first = next(iter(results.values()))
    measured = {
        path: {label: without_interval(cells[0]) for label, _, cells in _rows(r)} for path, r in results.items()
    }
    labels = list(dict.fromkeys(label for cells in measured.values() for label in cells))
    whole = table("", *(f"{label}, %" for label in CLASSIFIERS.values()), *labels)
    for path in results:
        probe = probes[path]
        scores = [percent(probe["trained"][name]["accuracy"]) if probe else "–" for name in CLASSIFIERS]
        cells = [measured[path].get(label, "–") for label in labels]
        accuracy.add_row(path.name, *scores)
        whole.add_row(path.name, *scores, *cells)
    if fits(out, whole):
        out.print(whole)
    else:
        out.print(compacted(out, accuracy))
        out.print()
        _transposed(out, measured, labels)
    note(out, f"Encoder features; what follows is said of {next(iter(results))}. {_caption(first, None)}")
    for path, result in results.items():
        of_terms, of_accuracies = (
            precision_note(result, "Terms of features"),
            precision_note(probes[path], "Accuracies of features"),
        )
        if of_terms or of_accuracies:
            note(out, f"{path.name}: {' '.join(filter(None, (of_terms, of_accuracies)))}")
    circumstances = {
        repr([result["content_key"], result["num_images"], *(result["settings"].get(name) for name in ALIKE)])
        for result in results.values()
    }
    if len(circumstances) > 1:
        said = "Measured on different images, classes, views or grids of ε and δ, or in different precision: the terms "
        out.print(Text(said + "cannot be compared.", style="red"))
    if len({probe["settings"].get("precision") for probe in probes.values() if probe is not None}) > 1:
        out.print(Text("The accuracies are of features in different precision.", style="red"))


def _transposed(out: Console, measured: Mapping[Path, Mapping[str, str]], labels: Sequence[str]) -> None:
    """Terms as rows and runs as numbered columns, for terminals that are too narrow for the other way."""
    grid = table("", *(str(position) for position in range(1, len(measured) + 1)))
    for label in labels:
        grid.add_row(label, *(cells.get(label, "–") for cells in measured.values()))
    out.print(compacted(out, grid))
    for position, path in enumerate(measured, start=1):
        note(out, f"{position}: {shown_path(path)}")
