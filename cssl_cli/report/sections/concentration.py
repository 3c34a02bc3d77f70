"""Reports of concentration: what a recipe's augmentations, or each row of a sweep, do to the distances of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cssl_cli.report.layout import (
    compacted,
    console,
    fits,
    folding,
    heading,
    images_of,
    note,
    number,
    percent,
    plural,
    print_json,
    table,
)
from cssl_cli.runs.results import part
from cssl_cli.theory.distance_terms import BETWEEN, DELTA

IN_FULL = {
    "pixels": "pixels (the paper's)",
    "standardized_pixels": "pixels standardised per image",
    "untrained": "features of the untrained encoder",
    "trained": "features of the trained encoder",
}
Quantities = Mapping[str, Mapping[str, Any]]


def show_concentration(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the concentration of one recipe's augmented images, in every distance measured."""
    if as_json:
        return print_json(result)
    out = console()
    out.print(f"{result['recipe']}: concentration of the augmented images, before any training")
    out.print()
    print_concentration(out, result)
    return note(out, "Compare augmentations at the same images, views and seed: cssl sweep NAME --concentration-only")


def print_concentration(out: Console, result: Mapping[str, Any]) -> None:
    """Print one row per distance at the quoted δ, then 1 − σ over δ."""
    by_distance = result["concentration"]
    if not by_distance:
        return note(out, "–: analyze.distances names no distance to measure concentration in.")
    relative = result["settings"]["deltas"]
    reasons = list(by_distance.values())
    measured = {name: q for name, q in by_distance.items() if any(entry["value"] is not None for entry in q.values())}
    by_distance = measured or by_distance
    _table(out, "distance", [(IN_FULL[name], _cells(q, relative)) for name, q in by_distance.items()])
    note(out, _caption(result))
    _reasons(out, reasons)
    _across_classes(out, by_distance, relative)
    _curves(out, by_distance, relative)
    return _stars(out, by_distance, relative)


def show_sweep_concentration(content: Mapping[str, Any], as_json: bool) -> None:
    """Print a table for each distance, with the sweep's rows sorted by 1 − σ."""
    if as_json:
        return print_json(content)
    out = console()
    rows = content["rows"]
    for name in dict.fromkeys(distance for row in rows for distance in row["concentration"]):
        measured = [row for row in rows if name in row["concentration"]]
        relative = measured[0]["settings"]["deltas"]
        at = DELTA.place(relative)
        heading(out, f"Distance: {IN_FULL[name]}")
        ranked = sorted(measured, key=lambda row: _outside(row["concentration"][name], at))
        rows_shown = [(_row_name(row), _cells(row["concentration"][name], row["settings"]["deltas"])) for row in ranked]
        _table(out, content["sweep"], rows_shown)
        _reasons(out, [row["concentration"][name] for row in measured])
    if rows:
        note(out, _caption(rows[0]))
    return None


def _outside(quantities: Quantities, at: int) -> float:
    curve = part(quantities, "mean_sigma_low").get("value")
    return float("inf") if curve is None else 1 - curve[at]


def _row_name(row: Mapping[str, Any]) -> str:
    return str(row["row"]) + (f" (and {len(row['same'])} more)" if row["same"] else "")


COLUMNS = ("δ", "1−σ, %", "searched", "within", "between", "ratio", "1−σ rel., %", "nearest, %", "trade-off")
PARTS = (  # of the columns, in tables below each other
    (slice(None),),
    (slice(0, 3), slice(3, None)),
    (slice(0, 3), slice(3, -1), slice(-1, None)),
)


def _table(out: Console, title: str, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print one table, or two or three below each other if the terminal is too narrow."""
    for parts in PARTS:
        tables = [compacted(out, _grid(title, rows, places)) for places in parts]
        if all(fits(out, one) for one in tables):
            break
    for position, one in enumerate(tables):
        if position:
            out.print()
        out.print(one)


def _grid(title: str, rows: Sequence[tuple[str, Sequence[str]]], places: slice) -> Table:
    grid = table(title, *COLUMNS[places])
    for name, cells in rows:
        grid.add_row(name, *cells[places])
    return grid


def _cells(quantities: Quantities, relative: Sequence[float]) -> list[str]:
    at = DELTA.place(relative)

    def value(name: str) -> Any:
        return quantities.get(name, {}).get("value")

    deltas, within, between = value("deltas"), value("within_quantiles"), value("between_quantiles")
    nearest = quantities.get("nearest_same_class", {})
    return [
        number(None if deltas is None else deltas[at]),
        outside_band(value("mean_sigma_low"), value("mean_sigma_high"), at),
        _searched(quantities, at),
        number(within and within.get("0.5")),
        number(between and between.get("0.5")),
        number(value("within_over_between")),
        outside_band(value("sigma_relative"), value("sigma_relative_high"), BETWEEN.place(relative)),
        percent(nearest.get("value"), nearest.get("interval")),
        _trade_off(*(value(name) for name in ("same_image", "same_class", "trade_off"))),
    ]


def outside_band(low: Sequence[float] | None, high: Sequence[float] | None, at: int) -> str:
    """1 − σ as its certain bounds, in per cent; one number if they agree."""
    if low is None:
        return "–"
    outside = 1 - (high or low)[at] + 0.0, 1 - low[at] + 0.0
    least, most = (percent(share) for share in outside)
    if least == most:
        return least
    return f"{percent(outside[0], rounded='down')}–{percent(outside[1], rounded='up')}"


def _trade_off(same_image: float | None, same_class: float | None, both: float | None) -> str:
    return "–" if both is None else f"{number(same_image)} + {number(same_class)} = {number(both)}"


def _searched(quantities: Quantities, at: int) -> str:
    """1 − σ on fewer images, with the stored views and with the least distances found by a search."""
    sampled = quantities.get("sampled_mean_sigma", {}).get("value")
    refined = quantities.get("refined_mean_sigma", {}).get("value")
    if sampled is None or refined is None:
        return "–"
    return f"{100 * (1 - sampled[at]):.0f} → {100 * (1 - refined[at]):.0f}"


def _caption(result: Mapping[str, Any]) -> str:
    relative = result["settings"]["deltas"]
    multiple = BETWEEN.value(relative)
    among_them = " among them" if result["settings"]["num_views"] > 1 else ""
    times = "" if multiple == 1 else f"{multiple:g} times "
    searched = next(
        (q["refined_mean_sigma"] for q in result["concentration"].values() if "refined_mean_sigma" in q), None
    )
    of_search = ""
    if searched is not None and searched.get("value") is not None:
        of_search = (
            f" Searched, in one distance of pixels: 1−σ on {plural(searched['num_images'], 'image')} with the stored "
            "views → after a search over the augmentation's parameters for nearer views; the sampled minimum is too "
            "large."
        )
    return (
        f"{images_of(result)}, {plural(result['settings']['num_views'], 'view')} "
        f"each, the clean image{among_them}. 1−σ: share of images outside the main part of their class (mean over "
        "classes), in which any two images have views no more than δ apart; between certain bounds for these images "
        "and views. δ is "
        f"{DELTA.value(relative):g} of the median distance between clean images of different classes, "
        "hence the same for every augmentation of the same images. Fewer views make 1−σ too large, fewer images too "
        "small. Within, between: median distance of the nearest views of two images of one class, of two classes; "
        f"ratio: the first over the second. 1−σ rel.: at {times}the distance in the "
        "between column as δ; an augmentation that only shrinks all distances leaves it as it was. "
        "Nearest: images whose nearest other image is of their class. Trade-off (Cui et al.): the largest distance of "
        "two views of an image plus the least of views of it and of another image of its class, means over images."
        + of_search
    )


def _reasons(out: Console, measured: Any) -> None:
    reasons = [quantity.get("reason") for quantities in measured for quantity in quantities.values()]
    for reason in dict.fromkeys(reason for reason in reasons if reason):
        note(out, f"–: {reason}.")


def _across_classes(out: Console, by_distance: Mapping[str, Quantities], relative: Sequence[float]) -> None:
    """Print how close views of different classes come; the paper assumes that they never coincide."""
    least = {name: q["least_between"] for name, q in by_distance.items() if "least_between" in q}
    if all(entry["value"] is None for entry in least.values()):
        return
    heading(out, "Views of images of different classes")
    grid = folding(table("distance", "least", "of", "within δ, %", "coincide, %"), 2)
    for name, entry in least.items():
        near = part(by_distance[name], "share_near_other_class").get("value")
        grid.add_row(
            name.replace("_", " "),
            number(entry["value"]),
            " and ".join(entry.get("classes", ())) or "–",
            percent(near and near[DELTA.place(relative)]),
            percent(part(by_distance[name], "share_meeting_other_class").get("value")),
        )
    out.print(compacted(out, grid))
    counted = next(entry["num_images"] for entry in least.values() if entry["value"] is not None)
    note(
        out,
        f"Among {plural(counted, 'image')}: the least distance, and images with a view within δ of, or at, a view of "
        "another class; more images or views only bring them nearer. The paper assumes that none coincide.",
    )


def _curves(out: Console, by_distance: Mapping[str, Quantities], relative: Sequence[float]) -> None:
    ends = {
        name: [part(q, end).get("value") for end in ("mean_sigma_low", "mean_sigma_high")]
        for name, q in by_distance.items()
    }
    shown = {name: (low, high) for name, (low, high) in ends.items() if low is not None}
    if not shown:
        return
    heading(out, "1−σ in %, over δ in units of the median distance between clean images of different classes")
    grid = table("δ", *(name.replace("_", " ") for name in shown), text_columns=0)
    for position, delta in enumerate(relative):
        grid.add_row(f"{delta:g}", *(outside_band(low, high, position) for low, high in shown.values()))
    out.print(grid)


def _stars(out: Console, by_distance: Mapping[str, Quantities], relative: Sequence[float]) -> None:
    """Print what the counted images certify about 1 − σ in the population."""
    bounds = {name: q["mean_star_sigma"] for name, q in by_distance.items() if "mean_star_sigma" in q}
    shown = {name: bound for name, bound in bounds.items() if bound["value"] is not None}
    if not shown:
        return
    heading(out, "1−σ of the population in %, at most (95 %), over δ in the same units")
    grid = table("δ", *(name.replace("_", " ") for name in shown), text_columns=0)
    for position, delta in enumerate(relative):
        grid.add_row(f"{delta:g}", *(percent(1 - bound["value"][position], rounded="up") for bound in shown.values()))
    out.print(grid)
    counted = next(iter(shown.values()))["num_images"]
    note(
        out,
        f"By stars: images about one hub of their class, which half of the images chose; {counted:,} others were "
        "counted. Holds for the full augmentation and for new images, at all δ at once, and is far from tight: two "
        "images near one hub may be twice as far from each other. 100.0 is vacuous.",
    )
