"""Reports of one run: how pretraining ended, its accuracies, its theoretical terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from cssl_cli.report.layout import compacted, console, heading, note, number, percent, print_json, table
from cssl_cli.run_dir import PROBE, RESULTS_FORMAT, RunDir

CLASSIFIERS = {"linear": "linear", "knn": "k-NN", "nearest_center": "nearest centre"}
ENCODERS = {"trained": "trained", "untrained": "untrained", "pixels": "raw pixels"}
MAX_CLASSES_IN_MATRIX = 12


def show_pretrained(run: RunDir, as_json: bool) -> None:
    """Where the run is and how its last epoch went."""
    metrics = run.read_metrics()
    last = metrics[-1] if metrics else None
    if as_json:
        return print_json({"run": str(run.path), "status": run.status(), "last_epoch": last})
    out = console()
    if last is not None:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in last["terms"].items())
        seconds = sum(record["seconds"] for record in metrics)
        out.print(f"epoch {last['epoch']}, step {last['step']:,}: {terms}")
        out.print(f"{seconds:,.0f} s of training recorded, {last['images_per_second']:,.0f} images/s in the last epoch")
    out.print(str(run.path), soft_wrap=True)
    note(out, f"Next: cssl probe {run.path}")
    return None


# ---------------------------------------------------------------------- probe
def show_probe(path: Path, result: dict[str, Any]) -> None:
    """Accuracies of the trained encoder beside the untrained one and raw pixels; then class by class."""
    out = console()
    probe_table(out, result)
    _per_class(out, result["trained"])
    note(out, f"\nNext: cssl analyze {path}")


def probe_table(out: Console, result: dict[str, Any]) -> None:
    trained = result["trained"]
    grid = table("accuracy, %", *CLASSIFIERS.values())
    for name, label in ENCODERS.items():
        scores = [result[name][classifier] for classifier in CLASSIFIERS]
        grid.add_row(label, *(percent(score["accuracy"], score["interval"]) for score in scores))
    out.print(grid)
    linear, knn, center = (trained[classifier] for classifier in CLASSIFIERS)
    chosen = "" if linear["validation_accuracy"] is None else ", chosen on held-out training images"
    note(
        out,
        f"{linear['num_images']:,} test images, 95 % intervals; frozen features of the last epoch. Linear: logistic "
        f"regression, penalty {linear['penalty']:g} for the trained encoder{chosen}. k-NN: k = {knn['k']}, temperature "
        f"{knn['temperature']:g}. Nearest centre: class centres over {_plural(center['center_views'], 'view')} of each "
        "training image.",
    )
    for name, label in ENCODERS.items():
        for warning in result[name]["linear"].get("warnings", []):
            note(out, f"{label}: {warning}")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _per_class(out: Console, scores: dict[str, Any]) -> None:
    heading(out, "Accuracy by class, trained encoder, %")
    grid = table("class", *CLASSIFIERS.values())
    for name in scores["linear"]["per_class"]:
        grid.add_row(name, *(percent(scores[classifier]["per_class"][name]) for classifier in CLASSIFIERS))
    out.print(grid)


# ---------------------------------------------------------------------- analyze
def show_analysis(path: Path, result: dict[str, Any]) -> None:
    """Accuracy beside the main terms, then R_epsilon and the geometry of the class centres."""
    out = console()
    probe = RunDir(path).read_json(PROBE)
    probe = probe if probe and probe.get("format") == RESULTS_FORMAT else None
    _summary(out, result, probe)
    if probe is None:
        note(out, f"Accuracies: cssl probe {path}")
    _r_epsilon(out, result)
    if result["class_names"] is not None:
        _centers(out, result)


SUMMARY = (  # label, term, quantity
    ("alignment", "alignment", "unbiased"),
    ("mean μk·μl", "class_centers", "mean_inner_product"),
    ("least ‖μk − μl‖", "class_centers", "closest_pair"),
    ("spread within, views", "spread", "within_views"),
    ("spread within, images", "spread", "within"),
    ("spread between", "spread", "between"),
    ("within / between", "spread", "ratio"),
)


def _summary(out: Console, result: dict[str, Any], probe: dict[str, Any] | None) -> None:
    grid = table("", "errs", "trained", "untrained", text_columns=2)
    tested = ""
    if probe is not None:
        for classifier, label in CLASSIFIERS.items():
            scores = [probe[name][classifier] for name in ("trained", "untrained")]
            cells = (percent(score["accuracy"], score["interval"]) for score in scores)
            grid.add_row(f"{label}, %", "unbiased", *cells)
        tested = f"Accuracies: {probe['trained']['linear']['num_images']:,} test images, Clopper–Pearson intervals. "
    for label, term, quantity in SUMMARY:
        entries = [result[name][term][quantity] for name in ("trained", "untrained")]
        cells = (number(entry["value"], entry.get("interval")) for entry in entries)
        grid.add_row(label, entries[0].get("errs", ""), *cells)
    grid.columns[0].no_wrap = True
    out.print(compacted(out, grid))
    settings, first = result["settings"], result["trained"]
    simplex = first["class_centers"]["simplex_inner_product"]["value"]
    note(
        out,
        f"{tested}Terms: {result['num_images']:,} {result['part']} images, {settings['num_views']} views each (the "
        f"clean image and {settings['num_views'] - 1} augmented), features scaled to unit norm, bootstrap intervals "
        "over images: alignment E‖f(v) − f(v′)‖²; μk the class centres; spread of views and of images about their "
        "class centre, and of the centres. Errs: on average, against the full augmentation and the population; "
        "consistent: with a bias that vanishes as the images grow in number. All intervals 95 %."
        + (f" A regular simplex of class centres has mean inner product {simplex:.3f}." if simplex else ""),
    )
    _reasons(out, [result["trained"], result["untrained"]], [(term, quantity) for _, term, quantity in SUMMARY])


def _reasons(out: Console, encoders: list[dict[str, Any]], quantities: list[tuple[str, str]]) -> None:
    """Why quantities are absent, each reason once."""
    reasons = [terms[term][quantity].get("reason") for term, quantity in quantities for terms in encoders]
    for reason in dict.fromkeys(reason for reason in reasons if reason):
        note(out, f"–: {reason}.")


def _r_epsilon(out: Console, result: dict[str, Any]) -> None:
    heading(out, "R_ε: share of images with two views more than ε apart")
    curve = result["trained"]["R_epsilon"]["curve"]
    if curve["value"] is None:
        return note(out, curve["reason"])
    grid = table("ε", "trained", "untrained", text_columns=0)
    other = result["untrained"]["R_epsilon"]["curve"]
    for position, epsilon in enumerate(result["settings"]["epsilons"]):
        cells = (number(entry["value"][position], entry["interval"][position]) for entry in (curve, other))
        grid.add_row(f"{epsilon:g}", *cells)
    out.print(grid)
    return note(
        out,
        f"{curve['num_images']:,} images, {curve['num_views']} views. Too low for the full augmentation, since a "
        "supremum over finitely many views is too small; 95 % Clopper–Pearson intervals for this number of views.",
    )


def _centers(out: Console, result: dict[str, Any]) -> None:
    heading(out, "Class centres μ_k, trained encoder: inner products, ‖μ_k‖² on the diagonal")
    centers, names = result["trained"]["class_centers"], result["class_names"]
    products = centers["inner_products"]
    if products["value"] is None:
        return note(out, products["reason"])
    if len(names) <= MAX_CLASSES_IN_MATRIX:
        grid = table("", *(str(position) for position in range(1, len(names) + 1)))
        for position, (name, row) in enumerate(zip(names, products["value"], strict=True), start=1):
            # Adding 0.0 turns a rounded −0.00 into 0.00.
            grid.add_row(f"{position} {name}", *("–" if x is None else f"{round(x, 2) + 0.0:.2f}" for x in row))
        out.print(grid)
    else:
        note(out, f"{len(names)} classes; the matrix is in analysis.json.")
    pair = centers["closest_pair"]
    if pair["value"] is None:
        return note(out, pair["reason"])
    one, other = pair["classes"]
    return note(out, f"Closest pair: {one} and {other}, {number(pair['value'], pair['interval'])} apart.")
