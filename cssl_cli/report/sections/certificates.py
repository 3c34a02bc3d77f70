"""Sections of an analysis: the nearest-centre error, and certificates for new images and for these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.report.layout import (
    compacted,
    folding,
    heading,
    note,
    number,
    percent,
    plural,
    print_widest,
    table,
    without_interval,
)
from cssl_cli.report.quantities import COLUMNS, Result, quantities_table, quantity, reasons

NOISE = "≤ noise"  # a squared distance not above the noise of the centres
RESUBSTITUTION = "These images with their own centres (resubstitution)"
# For each theorem, the certified share of a class, and the class's margin to show.
OF_CLASSES = {
    "A": ("certificate_a", "certified_share_per_class", "margin_per_class"),
    "B": ("certificate_b", "certified_share_per_class", "margin_median_per_class"),
    "C": ("certificate_c", "certified_share_per_class", "margin_median_per_class"),
}


def certificates(out: Console, result: Result) -> None:
    """Print what holds for new images; then every bound on the error of these images, and the paper's condition."""
    if result["class_names"] is None:
        heading(out, "Certificates")
        return note(out, "–: the images have no labels.")
    quantities_table(
        out, result, "New images: centres from one half of each class, tested on the other; as shares", "new images"
    )
    _by_views(out, result, "population", "Certified for new images")
    quantities_table(out, result, f"{RESUBSTITUTION}; as shares", "own centres")
    _outside_the_centers(out, result)
    _paper(out, result)
    _by_views(out, result, "certificate_c", f"Theorem C, {RESUBSTITUTION[0].lower()}{RESUBSTITUTION[1:]}")
    _by_class(out, result)
    _thresholds(out, result)
    return _connected_parts(out, result)


def _outside_the_centers(out: Console, result: Result) -> None:
    """Print nearest-centre errors on images outside the centres, and bounds for few labels."""
    quantities_table(
        out, result, "Error of the nearest centre on images that enter no centre, as shares", "outside centres"
    )
    note(
        out,
        "Few labels: mean over draws of the labelled images, in brackets where 95 % of single draws lie. The bounds "
        "are estimates for new images; that of Luthra et al. is for centres of clean images.",
    )


def _paper(out: Console, result: Result) -> None:
    """Print the parts of Lemma 3.1 and Theorem 1: the right side, the condition, and the assumption on views."""
    quantities_table(
        out,
        result,
        "The paper's Lemma 3.1 and Theorem 1, δ and ε distances of features",
        *("Lemma 3.1", "Theorem 1", "class overlap"),
        warn=False,  # already printed under the certificates
    )
    if quantity(result, "trained", "lemma_3_1", "slack")["value"] is None:
        return
    note(
        out,
        "(1 − σ) + R_ε bounds the error only where all images of the main parts of diameter at most ε are classified "
        "right: here, where they are found to be, which uses the errors themselves; its least without that is 0 on any "
        "table. Slack: "
        "right less left side of the paper's condition, the least over pairs of classes, in units of r²; the condition "
        "holds where it is positive. Slack and ρ are the best where (1 − σ) + R_ε is below the error of always naming "
        "the largest class. InfoNCE, cross-correlation: the paper's corollaries, with the least Lipschitz constant "
        "that the views allow, hence too low. Last rows: images with a view within δ of, or at, a view of another "
        "class. The paper assumes that views of two classes never coincide; its theorem does not need that.",
    )
    _lemma_by_class(out, result)


def _lemma_by_class(out: Console, result: Result) -> None:
    """Print ρ and slack of Lemma 3.2 for each class."""
    names = result["class_names"]
    rhos = quantity(result, "trained", "theorem_1", "rho_per_class")["value"]
    slacks = quantity(result, "trained", "lemma_3_1", "slack_per_class")["value"]
    if names is None or rhos is None or slacks is None:
        return
    heading(out, "Lemma 3.2 class by class at those δ and ε, trained encoder")
    grid = table("class", "ρ", "slack")
    for name in names:
        grid.add_row(name, number(rhos.get(name)), number(slacks.get(name)))
    out.print(compacted(out, grid))


def _by_views(out: Console, result: Result, term: str, what: str) -> None:
    by_views = {encoder: quantity(result, encoder, term, "by_views")["value"] for encoder in COLUMNS}
    if by_views["trained"] is None:
        return
    heading(out, f"{what}: ≤ %, by the number of views, the clean one included")
    grid = table("views", *(COLUMNS[encoder] for encoder, values in by_views.items() if values), text_columns=0)
    shown = [values for values in by_views.values() if values]
    for num_views, row in enumerate(zip(*shown, strict=True), start=1):
        grid.add_row(str(num_views), *(percent(value, rounded="up") for value in row))
    out.print(grid)
    note(out, "Suprema over this many views; centres over all augmented views, so the error is the same throughout.")


def _by_class(out: Console, result: Result) -> None:
    """Print the share of each class that A, B and C certify, and how much is missing or to spare."""
    names = result["class_names"]
    measured = {
        theorem: [quantity(result, "trained", term, name)["value"] for name in quantities]
        for theorem, (term, *quantities) in OF_CLASSES.items()
    }
    half = quantity(result, "trained", "certificate_b", "half_distance_per_class")["value"]
    if names is None or all(None in values for values in measured.values()):
        return
    heading(out, f"{RESUBSTITUTION}: certified share of each class in %, and its margin, trained encoder")
    columns = [title for theorem in measured for title in (f"{theorem}, %", "margin")]
    grid = table("class", *columns, "½ distance")
    for name in names:
        cells = []
        for shares, margins in measured.values():
            cells += [percent(shares and shares.get(name), rounded="down"), number(margins and margins.get(name))]
        grid.add_row(name, *cells, number(half and half.get(name)))
    out.print(compacted(out, grid))
    note(
        out,
        "Margin: how far, at least, images lie on their own side of the bisector to the nearest rival centre; "
        "certified where positive. A: of the set certified, or of the one that came nearest; B, C: median over the "
        "images of the class. ½ distance: half that of the class's centre to the nearest other.",
    )


def _thresholds(out: Console, result: Result) -> None:
    """Print what Theorem A adds to B, which certifies all that A does: thresholds like the paper's, class by class."""
    names = ("certified", "good_share", "delta", "epsilon")
    columns = [quantity(result, "trained", "certificate_a", f"{name}_per_class")["value"] for name in names]
    if None in columns:
        return
    heading(out, "Thresholds of Theorem A, trained encoder")
    grid = table("class", "certified", "share, %", "δ", "ε")
    for name in result["class_names"]:
        certified, share, delta, epsilon = (column.get(name) for column in columns)
        said = "–" if certified is None else "yes" if certified else "no"
        grid.add_row(name, said, percent(share), number(delta), number(epsilon))
    out.print(compacted(out, grid))
    note(
        out,
        "The share of the class whose images are pairwise within δ and of diameter at most ε: of the set certified, or "
        "of the one that came nearest. B certifies whatever A does; A says at which δ and ε, as the paper's theorem "
        "does.",
    )


def _connected_parts(out: Console, result: Result) -> None:
    """Print what a connected part of each class needs, beside the same images as a clique; and edges across classes."""
    shares = quantity(result, "trained", "connected_parts", "part_share_per_class")["value"]
    if shares is None:
        return
    heading(out, "Connected parts (d_A^f ≤ δ, diameters ≤ ε) in Theorem A, trained encoder")
    grid = table("class", "certified", "share, %", "δ", "ε", "hops h", "b", "as a clique")
    columns = [
        quantity(result, "trained", "connected_parts", f"{name}_per_class")["value"] or {}
        for name in ("delta", "epsilon", "hops", "step", "clique_step", "certified")
    ]
    for name in result["class_names"]:
        delta, epsilon, hops, step, clique, certified = (column.get(name) for column in columns)
        said = "–" if certified is None else "yes" if certified else "no"
        steps = "–" if hops is None else f"{hops:.0f}"
        grid.add_row(
            name, said, percent(shares.get(name)), *map(number, (delta, epsilon)), steps, *map(number, (step, clique))
        )
    out.print(compacted(out, grid))
    note(
        out,
        "Of the part certified, or of the one that came nearest. b = hδ + (h + 1)ε bounds the distance of any two "
        "views in it, and says nothing from 2r = 2 on; as a clique: δ′ + 2ε, δ′ the largest distance of the same "
        "images, never more than b.",
    )
    _edges_across(out, result)


def _edges_across(out: Console, result: Result) -> None:
    across = {encoder: quantity(result, encoder, "connected_parts", "edges_across") for encoder in COLUMNS}
    shown = {encoder: entry for encoder, entry in across.items() if entry["value"] is not None}
    if not shown:
        return reasons(out, result, [("connected_parts", "edges_across")])
    heading(out, "Edges d_A^f ≤ δ that join images of different classes, %")
    grid = table("pairs of a class that are edges", *(COLUMNS[encoder] for encoder in shown))
    first = next(iter(shown.values()))
    for level in first["value"]:
        grid.add_row(f"{percent(float(level))} %", *(percent(entry["value"].get(level)) for entry in shown.values()))
    out.print(grid)
    pairs = quantity(result, next(iter(shown)), "connected_parts", "pairs_across")["value"]
    return note(
        out,
        f"Among {plural(first['num_images'], 'image')}, at the δ where this share of pairs within classes are edges; "
        f"if edges ignored classes: {percent(pairs)} %.",
    )


# ---------------------------------------------------------------------- classes
def classes(out: Console, result: Result) -> None:
    """Print, class by class, the error of new images and its certificate, beside the terms of each class."""
    heading(out, "Class by class, trained encoder")
    names = result["class_names"]
    if names is None:
        return note(out, "–: the images have no labels.")
    nearest = _nearest_centers(quantity(result, "trained", "class_centers", "squared_distances")["value"], names)
    print_widest(out, [_of_classes(result, names, nearest, intervals=intervals) for intervals in (True, False)])
    note(
        out,
        "Error, certified: new images, centres from one half of each class, tested on the other, each class at its own "
        "95 %; 100.0 is vacuous. Alignment, within: unbiased, the latter over images."
        + (
            f" {NOISE}: the distance is not above the noise of the centres."
            if any(said.endswith(NOISE) for said in nearest.values())
            else ""
        ),
    )
    return reasons(out, result, [("population", "error_per_class")])


def _of_classes(result: Result, names: Sequence[str], nearest: Mapping[str, str], *, intervals: bool) -> Table:
    error = quantity(result, "trained", "population", "error_per_class")
    bound = quantity(result, "trained", "population", "error_bound_per_class")["value"]
    align = quantity(result, "trained", "alignment", "per_class")
    within = quantity(result, "trained", "spread", "within_per_class")["value"]
    grid = folding(table("class", "error, %", "certified ≤, %", "alignment", "within", "nearest centre of"), -1)
    for name in names:
        aligned = number(align["value"] and align["value"].get(name), (align.get("interval") or {}).get(name))
        wrong = percent(error["value"] and error["value"].get(name), (error.get("interval") or {}).get(name))
        grid.add_row(
            name,
            wrong if intervals else without_interval(wrong),
            percent(bound and bound.get(name), rounded="up"),
            aligned if intervals else without_interval(aligned),
            number(within and within.get(name)),
            nearest.get(name, "–"),
        )
    return grid


def _nearest_centers(squared: Sequence[Sequence[Any]] | None, names: Sequence[str]) -> dict[str, str]:
    """The nearest class and the distance of its centre, for each class for which this can be estimated.

    Uses the unbiased squared distances unclipped: clipped at 0, close classes would all be equally close.
    """
    found = {}
    for name, row in zip(names, squared or [], strict=False):
        others = {other: value for other, value in zip(names, row, strict=True) if value is not None and other != name}
        if others:
            nearest = min(others, key=lambda other: others[other])
            distance = number(others[nearest] ** 0.5) if others[nearest] > 0 else NOISE
            found[name] = f"{nearest} {distance}"
    return found
