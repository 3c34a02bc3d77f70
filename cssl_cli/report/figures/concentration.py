"""1 − σ(δ): the share of a class outside its largest part of images that lie within δ of one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.style import GRAY, INK, SKY, TRAINED, grid, legend_above, new_figure
from cssl_cli.runs.results import gaps, number, numbers, part, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "pixels": ("Pixels", "δ (distance of pixel values)"),
    "standardized_pixels": ("Standardized pixels", "δ (distance of standardized pixel values)"),
    "untrained": ("Untrained encoder", "δ (distance of features of unit length)"),
    "trained": ("Trained encoder", "δ (distance of features of unit length)"),
}
MAX_CLASSES = 20  # more lines would be illegible: a band then shows where most classes lie
OUTER = 0.1  # share of the classes on either side of that band


class Curve(NamedTuple):
    """1 − σ over the grid of δ for one distance: a band, a line per class, the median d_A between classes."""

    deltas: list[float]
    lower: list[float]
    upper: list[float]
    per_class: list[list[float]]
    between: float | None
    sample: str


def concentration(content: Mapping[str, Any]) -> Figure | None:
    """The certain range of 1 − σ(δ), averaged over classes: one panel per distance."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    curves = {name: curve for name in PANELS if (curve := _read(part(content, "concentration", name)))}
    if not curves:
        return None
    samples = {curve.sample for curve in curves.values()}
    common = samples.pop() if len(samples) == 1 else ""
    caption = (
        f"{common + '. ' if common else ''}Band: certain bounds for these images and views, at each δ of the grid. "
        "With few views 1_−_σ is too high for the full augmentation; with few images, too low for the population."
    ).replace("_", "\N{NO-BREAK SPACE}")
    rows, columns = (len(curves) + 1) // 2, min(len(curves), 2)
    figure = new_figure("Concentration of the classes", caption, (6.0, 1.5 + 2.2 * rows if rows > 1 else 4.0))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for (name, curve), axes in zip(curves.items(), panels, strict=False):
        title, label = PANELS[name]
        _draw(axes, curve)
        axes.set_title(f"{title}, {curve.sample}" if curve.sample and not common else title)
        axes.set_xlabel(label)
    for unused in list(panels):
        unused.remove()
    for first in range(0, len(curves), columns):
        figure.axes[first].set_ylabel("1 − σ(δ)  (share of a class)")
    handles: list[Any] = [Patch(facecolor=SKY, alpha=0.5, edgecolor=TRAINED, label="mean over classes, certain range")]
    if any(0 < len(curve.per_class) <= MAX_CLASSES for curve in curves.values()):
        handles.append(Line2D([], [], color=GRAY, lw=0.5, alpha=0.6, label="single classes, upper end"))
    if any(len(curve.per_class) > MAX_CLASSES for curve in curves.values()):
        handles.append(Patch(facecolor=GRAY, alpha=0.25, label="80 % of classes, upper end"))
    if any(curve.between is not None for curve in curves.values()):
        handles.append(Line2D([], [], color=INK, lw=1, ls=(0, (4, 2)), label="median $d_A$ between classes"))
    legend_above(figure, handles)
    return figure


def _draw(axes: Axes, curve: Curve) -> None:
    if len(curve.per_class) > MAX_CLASSES:
        low, high = zip(*(_most(of_delta) for of_delta in zip(*curve.per_class, strict=True)), strict=True)
        axes.fill_between(curve.deltas, low, high, color=GRAY, alpha=0.25, lw=0)
    for line in curve.per_class if len(curve.per_class) <= MAX_CLASSES else ():
        axes.plot(curve.deltas, line, color=GRAY, lw=0.5, alpha=0.6)
    axes.fill_between(curve.deltas, curve.lower, curve.upper, color=SKY, alpha=0.5, lw=0)
    marker = "o" if len(curve.deltas) == 1 else ""
    axes.plot(curve.deltas, curve.upper, color=TRAINED, lw=0.9, marker=marker)
    axes.plot(curve.deltas, curve.lower, color=TRAINED, lw=0.9, marker=marker)
    if curve.between is not None:
        axes.axvline(curve.between, color=INK, lw=1, ls=(0, (4, 2)))
    axes.set_ylim(-0.03, 1.03)
    grid(axes)


def _read(quantities: Mapping[str, Any]) -> Curve | None:
    entries = {name: part(quantities, name) for name in ("deltas", "mean_sigma_low", "mean_sigma_high")}
    deltas, low, high = (numbers(entry.get("value")) for entry in entries.values())
    if deltas is None or low is None or high is None or not len(deltas) == len(low) == len(high):
        return None
    kept = [i for i, three in enumerate(zip(deltas, low, high, strict=True)) if None not in three]
    if not kept:
        return None
    lines = []
    by_class = part(quantities, "sigma_low_per_class", "value")
    for values in by_class.values():
        line = numbers(values)
        if line is not None and len(line) == len(deltas):
            lines.append(_complement([line[i] for i in kept]))
    levels = part(quantities, "between_quantiles", "value")
    return Curve(
        deltas=gaps(deltas[i] for i in kept),
        lower=_complement([high[i] for i in kept]),
        upper=_complement([low[i] for i in kept]),
        per_class=lines,
        between=next((number(value) for level, value in levels.items() if _is_half(level)), None),
        sample=sample(entries["mean_sigma_low"]),
    )


def _most(values: Sequence[float]) -> tuple[float, float]:
    """The `OUTER` quantile of the values from either end; NaN without a value."""
    known = sorted(value for value in values if not math.isnan(value))
    cut = int(OUTER * len(known))
    return (known[cut], known[-1 - cut]) if known else (math.nan, math.nan)


def _complement(values: list[float | None]) -> list[float]:
    return gaps(None if value is None else 1 - value for value in values)


def _is_half(level: str) -> bool:
    try:
        return float(level) == 0.5
    except ValueError:
        return False
