"""The certified bound on the error over the number of views it is asked to hold for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cssl_cli.plot.quantities import direction, gaps, number, numbers, part, sample
from cssl_cli.plot.style import BLUE, GRAY, VERMILION, grid, legend_above, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def certificate(content: Mapping[str, Any]) -> Figure | None:
    """Certificate C for 1 … V stored views, beside the error of the classifier it bounds."""
    from matplotlib.ticker import MaxNLocator

    quantity = part(content, "trained", "certificate_c", "by_views")
    bounds = numbers(quantity.get("value"))
    if bounds is None:
        return None
    error = number(part(content, "trained", "center_error", "error").get("value"))
    views = range(1, len(bounds) + 1)
    facts = [
        sample(quantity),
        f"the bound is {said}" if (said := direction(quantity)) else "",
        "centres and error are of these images alone",
    ]
    figure = new_figure("Certified bound on the error", "; ".join(fact for fact in facts if fact) + ".")
    axes = figure.add_subplot()
    top = max(1.12, 1.05 * max(bound for bound in bounds if bound is not None))
    axes.axhspan(1, top, facecolor="#F2F2F2", edgecolor="#CFCFCF", hatch="////", lw=0)
    axes.axhline(1, color=GRAY, lw=0.8)
    axes.plot(views, gaps(bounds), color=BLUE, marker="o", label="certified bound (certificate C)")
    if error is not None:
        axes.axhline(error, color=VERMILION, ls=(0, (5, 1.5)), label="error of the nearest class centre")
    vacuous = axes.text(
        0.01, 1 + (top - 1) / 2, "vacuous", transform=axes.get_yaxis_transform(), ha="left", va="center", color=GRAY,
        size=7,
    )  # fmt: skip
    vacuous.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axes.set_xlim(0.6, len(bounds) + 0.4)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("stored views behind the bound, the clean one first")
    axes.set_ylabel("error (share of images)")
    grid(axes)
    legend_above(figure, axes.get_legend_handles_labels()[0])
    return figure
