"""The certified bound on the error of new images, against the number of views it must hold for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cssl_cli.report.figures.style import BLUE, GRAY, VERMILION, grid, legend_above, new_figure
from cssl_cli.runs.results import direction, gaps, intervals, number, numbers, part, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_TABLE: dict[str, Any] = {"ls": (0, (1, 1.5)), "lw": 1.0, "alpha": 0.8}  # for these images with their own centres


def certificate(content: Mapping[str, Any]) -> Figure | None:
    """The bound for new images with 1 … V stored views, and the error of held-out centres that it bounds.

    Thin lines beside them show these images with their own centres: Theorem C and the error it bounds.
    """
    from matplotlib.ticker import MaxNLocator

    quantity = part(content, "trained", "population", "by_views")
    in_table = part(content, "trained", "certificate_c", "by_views")
    bounds, own_bounds = (numbers(found.get("value")) for found in (quantity, in_table))
    shown = [values for values in (bounds, own_bounds) if values is not None]
    if not shown:
        return None
    chances = (part(content, "trained", term, "chance").get("value") for term in ("population", "center_error"))
    chance = next((level for level in map(number, chances) if level is not None), 1.0)
    facts = {
        "new images: centres from one half of the images, tested on the other, at 95 % confidence": quantity,
        f"own centres, too low for new images: {direction(in_table)}": in_table,
    }
    said = [f"{fact} ({sample(found)})" for fact, found in facts.items() if numbers(found.get("value")) is not None]
    caption = "; ".join([*said, "a bound is vacuous unless below chance, the error of one name for all images"])
    figure = new_figure("Certified bound on the error", f"{caption[0].upper()}{caption[1:]}.")
    axes = figure.add_subplot()
    top = 1.12 * max(chance, *(bound for values in shown for bound in values if bound is not None))
    _vacuous(axes, chance, top)
    if bounds is not None:
        axes.plot(range(1, len(bounds) + 1), gaps(bounds), color=BLUE, marker="o", label="certified, new images")
    _error(axes, part(content, "trained", "population", "error"))
    if own_bounds is not None:
        label = "certified, own centres"
        axes.plot(range(1, len(own_bounds) + 1), gaps(own_bounds), color=BLUE, label=label, **IN_TABLE)
    own_error = number(part(content, "trained", "center_error", "error").get("value"))
    if own_error is not None:
        axes.axhline(own_error, color=VERMILION, label="error, own centres", **IN_TABLE)
    axes.set_xlim(0.6, max(map(len, shown)) + 0.4)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("stored views behind the bound, the clean one first")
    axes.set_ylabel("error (share of images)")
    grid(axes)
    legend_above(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure


def _vacuous(axes: Axes, chance: float, top: float) -> None:
    """Hatching from chance upwards; labelled above 1, where no bound lies."""
    axes.axhspan(chance, top, facecolor="#F2F2F2", edgecolor="#CFCFCF", hatch="////", lw=0)
    axes.axhline(chance, color=GRAY, lw=0.8)
    said = axes.text(
        0.01, (top + max(chance, 0.9 * top)) / 2, f"vacuous: from chance, {chance:.3g}, on",
        transform=axes.get_yaxis_transform(), ha="left", va="center", color=GRAY, size=7,
    )  # fmt: skip
    said.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})


def _error(axes: Axes, quantity: Mapping[str, Any]) -> None:
    """The error of held-out centres with its interval."""
    error, ends = number(quantity.get("value")), intervals([quantity.get("interval")], 1)
    if error is None:
        return
    axes.axhline(error, color=VERMILION, ls=(0, (5, 1.5)), label="error, new images")
    if ends is not None:
        axes.axhspan(ends[0][0], ends[1][0], color=VERMILION, alpha=0.15, lw=0)
