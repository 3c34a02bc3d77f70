"""R_ε over ε: the share of images with two views more than ε apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.report.figures.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    SKY,
    TRAINED,
    UNTRAINED,
    grid,
    legend_above,
    new_figure,
)
from cssl_cli.runs.results import direction, gaps, intervals, numbers, part, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = list[tuple[float, float]]
Curve = tuple[list[float | None], list[float | None], tuple[list[float], list[float]] | None]  # ε, R_ε, intervals
LOOKS: dict[str, dict[str, Any]] = {
    "trained": {"color": TRAINED, "marker": "o", "ls": "-"},
    "projector": {"color": GREEN, "marker": "^", "ls": (0, (3, 1, 1, 1))},
    "untrained": {"color": UNTRAINED, "marker": "s", "ls": (0, (5, 1.5))},
}
LABELS = {"trained": "trained encoder", "projector": "its projector", "untrained": "untrained encoder"}
GROWTH_LOOKS = ((BLUE, "o"), (SKY, "D"), (INK, "v"))
SHARES = (0.9, 0.5, 0.1)  # the growth is shown at the ε where R_ε is nearest to these


def r_epsilon(content: Mapping[str, Any]) -> Figure | None:
    """R_ε of both encoders and the projector with pointwise intervals, the bound from alignment, and the growth of R_ε
    with the views at a few ε."""
    drawn = {name: curve for name in LOOKS if (curve := _read(content, name))}
    if not drawn:
        return None
    used = [part(content, name, "R_epsilon", "curve") for name in drawn]
    bound = _bound(content, drawn["trained"][0]) if "trained" in drawn else []
    growth = _growth(content, drawn["trained"]) if "trained" in drawn else []
    facts = [sample(*used)]
    facts += [f"$R_\\varepsilon$ is {said}" for said in [direction(*used)] if said]
    facts += ["shaded: pointwise 95 % intervals"] * any(curve[2] is not None for curve in drawn.values())
    facts += ["bound: certain for these images and views"] * bool(bound)
    facts += ["where a line on the right still rises, more views would raise it further"] * bool(growth)
    figure = new_figure("Images with two views more than ε apart", "; ".join(fact for fact in facts if fact) + ".")
    axes, *beside = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1]) if growth else [figure.add_subplot()]
    for name, curve in drawn.items():
        _draw_curve(axes, name, curve)
    if bound:
        _draw_bound(axes, bound)
    axes.set_xlabel("ε (distance of features of unit length)")
    axes.set_ylabel(r"$R_\varepsilon$  (share of images)")
    axes.set_ylim(-0.03, 1.12 if bound else 1.03)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    grid(axes)
    for panel in beside:
        _draw_growth(panel, growth)
    legend_above(figure, axes.get_legend_handles_labels()[0])
    return figure


def _read(content: Mapping[str, Any], name: str) -> Curve | None:
    curve = part(content, name, "R_epsilon", "curve")
    values = numbers(curve.get("value"))
    epsilons = numbers(part(content, name, "R_epsilon", "epsilons").get("value"))
    if values is None or epsilons is None or len(values) != len(epsilons):
        return None
    return epsilons, values, intervals(curve.get("interval"), len(values))


def _draw_curve(axes: Axes, name: str, curve: Curve) -> None:
    epsilons, values, interval = curve
    axes.plot(gaps(epsilons), gaps(values), label=LABELS[name], **LOOKS[name])
    if interval is not None:
        axes.fill_between(gaps(epsilons), *interval, color=LOOKS[name]["color"], alpha=0.22, lw=0)


def _growth(content: Mapping[str, Any], curve: Curve) -> list[tuple[float, list[float]]]:
    """At a few ε where R_ε is neither 0 nor 1: R_ε with 2, 3, … views."""
    rows = part(content, "trained", "R_epsilon", "curve_by_views").get("value")
    read = [numbers(row) for row in rows] if isinstance(rows, Sequence) and not isinstance(rows, str) else []
    epsilons, values, _ = curve
    if len(read) < 2 or any(row is not None and len(row) != len(epsilons) for row in read):
        return []
    told = [at for at, value in enumerate(values) if value is not None and epsilons[at] is not None and 0 < value < 1]
    if not told:
        return []
    shown = sorted({min(told, key=lambda at: abs((values[at] or 0.0) - share)) for share in SHARES})
    lines = [(at, gaps(None if row is None else row[at] for row in read)) for at in shown]
    return [(epsilons[at] or 0.0, line) for at, line in lines if not all(map(math.isnan, line))]


def _draw_growth(axes: Axes, growth: Sequence[tuple[float, list[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Trained encoder over views", size=7.5)
    for (epsilon, line), (color, marker) in zip(growth, GROWTH_LOOKS, strict=False):
        axes.plot(range(2, 2 + len(line)), line, color=color, marker=marker, lw=1.1)
        last = next((value for value in reversed(line) if not math.isnan(value)), 0.0)
        axes.annotate(
            f"ε = {epsilon:g}", (1 + len(line), last), xytext=(0, 4), textcoords="offset points", ha="right", size=7,
            color=color,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    axes.set_xlabel("stored views, clean included")
    grid(axes)


def _bound(content: Mapping[str, Any], epsilons: list[float | None] | None) -> Points:
    values = numbers(part(content, "trained", "R_epsilon_bounds", "stored_views").get("value"))
    if values is None or epsilons is None or len(values) != len(epsilons):
        return []
    return [(x, y) for x, y in zip(epsilons, values, strict=True) if x is not None and y is not None]


def _draw_bound(axes: Axes, bound: Points) -> None:
    below, above = clipped(bound)
    label = "bound by alignment, trained"
    for stretch in above:
        shown = None if below else label
        axes.plot(*zip(*stretch, strict=True), color=GRAY, ls=(0, (1.5, 1.5)), lw=1.2, label=shown)
    if above:
        axes.text(above[0][0][0], 1.02, "bound vacuous here", color=GRAY, size=7)
    for i, stretch in enumerate(below):
        marker = "^" if len(stretch) == 1 else ""
        shown = label if i == 0 else None
        axes.plot(*zip(*stretch, strict=True), color=INK, ls=(0, (6, 1.5, 1, 1.5)), lw=1.2, marker=marker, label=shown)


def clipped(points: Points) -> tuple[list[Points], list[Points]]:
    """The stretches of a line below 1, and those above it drawn at 1; they meet where the line crosses 1."""
    below: list[Points] = []
    above: list[Points] = []
    previous: tuple[float, float] | None = None
    for x, y in points:
        target = above if y >= 1 else below
        point = (x, min(y, 1.0))
        if previous is not None and (previous[1] >= 1) == (y >= 1):
            target[-1].append(point)
        elif previous is None:
            target.append([point])
        else:
            share = (1 - previous[1]) / (y - previous[1])
            crossing = (previous[0] + share * (x - previous[0]), 1.0)
            (below if y >= 1 else above)[-1].append(crossing)
            target.append([crossing, point])
        previous = (x, y)
    return below, above
