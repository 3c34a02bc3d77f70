"""The sections of an analysis: one function each, the quantities of a few terms as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.report.layout import compacted, heading, note, number, percent, print_widest, table, without_interval
from cssl_cli.report.verdicts import quantity

Result = Mapping[str, Any]
Rows = Sequence[tuple[str, str, str]]  # label, term, quantity
Row = tuple[str, str, Sequence[str]]  # label, direction of error, cells

COLUMNS = {"trained": "encoder", "projector": "projector", "untrained": "untrained"}
MAX_CLASSES_IN_MATRIX = 12


def reasons(out: Console, result: Result, quantities: Sequence[tuple[str, str]]) -> None:
    """Why quantities of the trained encoder are absent, each reason once."""
    found = [quantity(result, "trained", term, name).get("reason") for term, name in quantities]
    for reason in dict.fromkeys(reason for reason in found if reason):
        note(out, f"–: {reason}.")


def short_direction(errs: str) -> str:
    """A direction of error as the tables show it."""
    return {"exact for the table": "exact*", "consistent": "consist."}.get(errs, errs)


def by_encoder(*parts: Sequence[Row], intervals: int) -> Table:
    """Rows (label, direction of error, a cell an encoder), with intervals for the first so many encoders."""
    grid = table("", "errs", *COLUMNS.values(), text_columns=2)
    for part in parts:
        for label, errs, cells in part:
            shown = (cell if place < intervals else without_interval(cell) for place, cell in enumerate(cells))
            grid.add_row(label, errs, *shown)
        if part:
            grid.add_section()
    grid.columns[0].no_wrap = True
    return grid


def _quantities(out: Console, result: Result, title: str, rows: Rows) -> None:
    """A row a quantity, a column an encoder; then the reasons of what is absent."""
    heading(out, title)
    shown = []
    for label, term, name in rows:
        entries = [quantity(result, encoder, term, name) for encoder in COLUMNS]
        errs = next((entry["errs"] for entry in entries if entry["value"] is not None), "")
        one_sided = (term, name) == ("population", "error_bound")  # the bound is the interval
        cells = [
            number(entry["value"], None if one_sided else entry.get("interval"))
            + (" v" if entry.get("vacuous") and name != "rho" else "")
            for entry in entries
        ]
        shown.append((label, short_direction(errs), cells))
    print_widest(out, [by_encoder(shown, intervals=count) for count in (3, 1, 0)])
    if any(cell.endswith(" v") for _, _, cells in shown for cell in cells):
        note(out, "v: vacuous, no better than what is known without the bound.")
    reasons(out, result, [(term, name) for _, term, name in rows])


# ---------------------------------------------------------------------- alignment and R_epsilon
def r_epsilon(out: Console, result: Result) -> None:
    """R_ε over ε with the bounds on it, and how it grows with the views."""
    heading(out, "R_ε: share of images with two views more than ε apart, and what alignment says of it")
    curve = quantity(result, "trained", "R_epsilon", "curve")
    if curve["value"] is None:
        return note(out, f"–: {curve.get('reason', 'not measured')}.")
    bounds = {
        "views ≤": quantity(result, "trained", "R_epsilon_bounds", "stored_views")["value"],
        "converse ≥": quantity(result, "trained", "R_epsilon_bounds", "converse")["value"],
        "Thm 2 ≤": quantity(result, "trained", "R_epsilon_bounds", "theorem_2")["value"],
        "sharper ≤": quantity(result, "trained", "R_epsilon_bounds", "theorem_2_sharp")["value"],
    }
    curves = {name: quantity(result, encoder, "R_epsilon", "curve") for encoder, name in COLUMNS.items()}
    versions = []
    for intervals in (3, 1, 0):
        grid = table("ε", *COLUMNS.values(), *bounds, text_columns=0)
        for position, epsilon in enumerate(result["settings"]["epsilons"]):
            measured = [_entry(entry, position) for entry in curves.values()]
            shown = (cell if place < intervals else without_interval(cell) for place, cell in enumerate(measured))
            bounded = ("–" if values is None else _bound(values[position]) for values in bounds.values())
            grid.add_row(f"{epsilon:g}", *shown, *bounded)
        versions.append(grid)
    print_widest(out, versions)
    note(
        out,
        f"{curve['num_images']:,} images, {curve['num_views']} views. Too low for the full augmentation, since a "
        "supremum over finitely many views is too small; 95 % Clopper–Pearson intervals for this number of views. "
        "Bounds for the trained encoder; v: vacuous. Views: from the alignment of the stored views. "
        "Thm 2, sharper: the paper's Theorem 2 and a sharper form, with the least Lipschitz constant that the views "
        "allow, hence themselves too low.",
    )
    reasons(out, result, [("R_epsilon_bounds", name) for name in ("stored_views", "theorem_2")])
    return _by_views(out, result)


def _by_views(out: Console, result: Result) -> None:
    by_views = quantity(result, "trained", "R_epsilon", "curve_by_views")
    if by_views["value"] is None:
        return
    heading(out, "R_ε of the trained encoder by the number of stored views")
    epsilons = result["settings"]["epsilons"]
    shown = range(0, len(epsilons), max(1, len(epsilons) // 5))
    grid = table("views", *(f"ε = {epsilons[at]:g}" for at in shown), text_columns=0)
    for num_views, values in enumerate(by_views["value"], start=2):
        grid.add_row(str(num_views), *(number(values[at]) for at in shown))
    out.print(grid)


def _entry(entry: Mapping[str, Any], position: int) -> str:
    return "–" if entry["value"] is None else number(entry["value"][position], entry["interval"][position])


def _bound(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 1 else f"{value:.1e} v" if value >= 1000 else f"{value:.1f} v"


# ---------------------------------------------------------------------- divergence
def divergence(out: Console, result: Result) -> None:
    """The Gram matrix of the class centres and its closest pair."""
    heading(out, "Class centres μ_k, trained encoder: inner products, ‖μ_k‖² on the diagonal")
    names = result["class_names"]
    products = quantity(result, "trained", "class_centers", "inner_products")
    if products["value"] is None:
        return note(out, f"–: {products.get('reason')}.")
    if len(names) <= MAX_CLASSES_IN_MATRIX:
        grid = table("", *(str(position) for position in range(1, len(names) + 1)))
        for position, (name, row) in enumerate(zip(names, products["value"], strict=True), start=1):
            # Adding 0.0 turns a rounded −0.00 into 0.00.
            grid.add_row(f"{position} {name}", *("–" if x is None else f"{round(x, 2) + 0.0:.2f}" for x in row))
        out.print(grid)
    else:
        note(out, f"{len(names)} classes; the matrix is in analysis.json and in the figure class_centers.")
    pair = quantity(result, "trained", "class_centers", "closest_pair")
    if pair["value"] is None:
        return note(out, f"–: {pair.get('reason')}.")
    one, other = pair["classes"]
    note(out, f"Closest pair: {one} and {other}, {number(pair['value'], pair['interval'])} apart.")
    return _quantities(
        out,
        result,
        "Divergence",
        (
            ("mean μk·μl", "class_centers", "mean_inner_product"),
            ("−1/(K − 1), the simplex", "class_centers", "simplex_inner_product"),
            ("largest μk·μl", "class_centers", "largest_inner_product"),
            ("least ‖μk − μl‖", "class_centers", "closest_pair"),
            ("spread within, images", "spread", "within"),
            ("spread within, views", "spread", "within_views"),
            ("spread between", "spread", "between"),
            ("within / between", "spread", "ratio"),
        ),
    )


# ---------------------------------------------------------------------- lipschitz
def lipschitz(out: Console, result: Result) -> None:
    """What bounds the encoder's Lipschitz constant from below and from above."""
    _quantities(
        out,
        result,
        "Lipschitz constant of the encoder with unit-norm output, per unit of pixel distance",
        (
            ("≥ largest ratio over views", "lipschitz", "largest_ratio"),
            ("≥ the same, views of one image", "lipschitz", "largest_ratio_same_image"),
            ("≥ largest local Jacobian norm", "lipschitz", "local_jacobian_largest"),
            ("   median local Jacobian norm", "lipschitz", "local_jacobian_median"),
            ("≤ product of spectral norms", "lipschitz", "spectral_product"),
            ("   the same before unit norm", "lipschitz", "spectral_product_unscaled"),
        ),
    )


# ---------------------------------------------------------------------- certificates
def certificates(out: Console, result: Result) -> None:
    """Every bound on the nearest-centre error, the paper's condition, and Theorem C by the number of views."""
    _quantities(
        out,
        result,
        "Bounds on the nearest-centre error of these images, as shares",
        (
            ("error", "center_error", "error"),
            ("Theorem 1, the paper's", "theorem_1", "error_bound"),
            ("   its ρ", "theorem_1", "rho"),
            ("   ρ would have to be below", "theorem_1", "rho_needed"),
            ("   ρ with pixel distances", "theorem_1", "pixel_rho"),
            ("Theorem 1, sharpened", "theorem_1", "sharp_error_bound"),
            ("Theorem A", "certificate_a", "error_bound"),
            ("Theorem B", "certificate_b", "error_bound"),
            ("Theorem C", "certificate_c", "error_bound"),
            ("any of A, B, C", "combined", "error_bound"),
            ("variance alone (Cantelli)", "variance_bound", "error_bound"),
            ("new images: error, measured", "population", "error"),
            ("new images: certified, 95 %", "population", "error_bound"),
        ),
    )
    by_views = {encoder: quantity(result, encoder, "certificate_c", "by_views")["value"] for encoder in COLUMNS}
    if by_views["trained"] is None:
        return
    heading(out, "Theorem C by the number of views behind its suprema, %")
    grid = table("views", *(COLUMNS[encoder] for encoder, values in by_views.items() if values), text_columns=0)
    shown = [values for values in by_views.values() if values]
    for num_views, row in enumerate(zip(*shown, strict=True), start=1):
        grid.add_row(str(num_views), *(percent(value) for value in row))
    out.print(grid)
    note(out, "Centres over all augmented views throughout, so that the error is the same in every row.")


# ---------------------------------------------------------------------- losses
def losses(out: Console, result: Result) -> None:
    """The losses' alignment and divergence parts, their floors, and the bounds they put on the class centres."""
    _quantities(
        out,
        result,
        "NT-Xent at the recipe's batch size, frozen features",
        (
            ("alignment part", "nt_xent", "alignment_part"),
            ("divergence part", "nt_xent", "divergence_part"),
            ("loss", "nt_xent", "loss"),
            ("floor of the divergence part", "nt_xent", "collapse_floor"),
            ("gap to the floor", "nt_xent", "collapse_gap"),
            ("mean μk·μl", "nt_xent", "mean_inner_product"),
            ("   bounded by the loss: ≤", "nt_xent", "mean_bound"),
        ),
    )
    _quantities(
        out,
        result,
        "InfoNCE with one negative (the paper's)",
        (
            ("alignment part", "info_nce", "alignment_part"),
            ("divergence part", "info_nce", "divergence_part"),
            ("loss", "info_nce", "loss"),
            ("floor of the divergence part", "info_nce", "collapse_floor"),
            ("gap to the floor", "info_nce", "collapse_gap"),
            ("mean μk·μl", "info_nce", "mean_inner_product"),
            ("   bounded by loss and centres: ≤", "info_nce", "mean_bound"),
            ("   bounded by the loss alone: ≤", "info_nce", "mean_bound_from_loss_alone"),
            ("any μk·μl ≤ (the paper's form)", "info_nce", "pair_bound"),
        ),
    )
    _quantities(
        out,
        result,
        "Cross-correlation of standardised features (Barlow Twins), inner products over d",
        (
            ("Σ (1 − M_ii)²", "cross_correlation", "invariance"),
            ("‖M − I‖²", "cross_correlation", "redundancy_loss"),
            ("‖Σ_W‖", "cross_correlation", "within_covariance_norm"),
            ("   ≤ tr Σ_W", "explicit_tau", "within_covariance_trace"),
            ("   ≤ by main parts and diameters", "explicit_tau", "trace_bound"),
            ("root mean square of μk·μl", "cross_correlation", "rms_inner_product"),
            ("   bounded: ≤", "cross_correlation", "rms_bound"),
            ("any |μk·μl| ≤", "cross_correlation", "pair_bound"),
            ("any μk·μl ≤ (Theorem 4)", "cross_correlation", "theorem_4_bound"),
            ("   with an explicit τ′", "explicit_tau", "theorem_4_bound"),
            ("alignment", "cross_correlation", "alignment"),
            ("   bounded (Lemma 4.1): ≤", "cross_correlation", "alignment_bound"),
        ),
    )


# ---------------------------------------------------------------------- companions
def companions(out: Console, result: Result) -> None:
    """What others measure of features, beside the theory's terms."""
    _quantities(
        out,
        result,
        "Companion measures",
        (
            ("uniformity", "uniformity", "uniformity"),
            ("RankMe", "effective_rank", "rankme"),
            ("α-ReQ", "effective_rank", "alpha_req"),
            ("NESum", "effective_rank", "nesum"),
            ("LiDAR", "lidar", "lidar"),
            ("ACR", "chaos", "acr"),
            ("ARC", "chaos", "arc"),
            ("GACR, mean", "chaos", "gacr_mean"),
            ("NC1", "neural_collapse", "nc1"),
            ("tr Σ_W / tr Σ_B, plain", "neural_collapse", "ratio"),
            ("CDNV, mean over pairs", "neural_collapse", "cdnv"),
            ("CDNV, worst pair", "neural_collapse", "cdnv_closest"),
        ),
    )


# ---------------------------------------------------------------------- classes
def classes(out: Console, result: Result) -> None:
    """Class by class: error and what is certified, beside the terms of each class."""
    heading(out, "Class by class, trained encoder")
    names = result["class_names"]
    if names is None:
        return note(out, "–: the images have no labels.")
    error = quantity(result, "trained", "center_error", "error_per_class")["value"]
    bound = quantity(result, "trained", "certificate_c", "error_bound_per_class")["value"]
    align = quantity(result, "trained", "alignment", "per_class")
    within = quantity(result, "trained", "spread", "within_per_class")["value"]
    nearest = _nearest_centers(quantity(result, "trained", "class_centers", "distances")["value"], names)
    grid = table("class", "error, %", "certified ≤, %", "alignment", "within", "nearest centre of", text_columns=1)
    for name in names:
        interval = (align.get("interval") or {}).get(name)
        grid.add_row(
            name,
            percent(error and error.get(name)),
            percent(bound and bound.get(name)),
            number(align["value"] and align["value"].get(name), interval),
            number(within and within.get(name)),
            nearest.get(name, "–"),
        )
    out.print(compacted(out, grid))
    note(out, "Certified by Theorem C; 100.0 is vacuous. Alignment, within: unbiased, the latter over images.")
    return reasons(out, result, [("center_error", "error_per_class"), ("certificate_c", "error_bound_per_class")])


def _nearest_centers(distances: Sequence[Sequence[float | None]] | None, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name, row in zip(names, distances or [], strict=False):
        others = [
            (value, other) for value, other in zip(row, names, strict=True) if value is not None and other != name
        ]
        if others:
            value, other = min(others)
            found[name] = f"{other} {number(value)}"
    return found
