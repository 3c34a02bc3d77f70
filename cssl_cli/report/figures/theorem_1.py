"""The condition of the paper's Theorem 1 over (δ, ε), and the margin by which it holds or fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.figures.style import INK, VERMILION, new_figure
from cssl_cli.runs.results import number, numbers, part, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.0, 4.7)
DARK = 0.55  # of the colour scale; from here on, numbers are white


class Map(NamedTuple):
    """The slack of the condition and (1 − σ) + R_ε: one row per δ, one column per ε."""

    deltas: list[float]
    sigma: list[float]
    epsilons: list[float]
    rates: list[float]
    slack: list[list[float]]
    right_side: list[list[float]]


def theorem_1(content: Mapping[str, Any]) -> Figure | None:
    """The slack of Theorem 1's condition at every δ and ε of the grid, for the trained encoder."""
    terms = part(content, "trained", "lemma_3_1")
    found = _read(terms)
    if found is None:
        return None
    holds = sum(value > 0 for row in found.slack for value in row)
    silent = _silent(content, found)
    places = len(found.deltas) * len(found.epsilons)
    lines = [
        "Right less left side of the condition on the class centres (Lemma 3.2), the least over pairs of classes, in "
        "units of $r^2$; where it is above 0, the error is at most $(1-\\sigma)+R_\\varepsilon$.",
        f"Here it is above 0 at {holds} of {places} places, framed." if holds else "It is nowhere above 0.",
        "Hatched: there the bound would say nothing, being no less than the error of always naming the largest class."
        * bool(silent),
        f"δ and ε are quantiles; the numbers are exact for {sample(terms['slack'])}.",
    ]
    figure = new_figure(
        "By how much the condition of Theorem 1 holds or fails", " ".join(line for line in lines if line), SIZE
    )
    _draw(figure, found, silent)
    return figure


def _draw(figure: Figure, found: Map, silent: Sequence[tuple[int, int]]) -> None:
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    axes = figure.add_subplot()
    least = min(value for row in found.slack for value in row)
    largest = max(value for row in found.slack for value in row)
    colors = Normalize(min(least, largest - 1e-9, 0.0), max(largest, 0.0))
    columns = list(zip(*found.slack, strict=True))  # ε upwards, δ to the right
    image = axes.pcolormesh(columns, cmap="cividis", norm=colors, edgecolors="white", linewidth=0.4)
    for row, values in enumerate(columns):
        for column, value in enumerate(values):
            tint = "white" if colors(value) < DARK else INK
            axes.text(column + 0.5, row + 0.5, _short(value), ha="center", va="center", size=6, color=tint)
    for row, column in silent:
        axes.add_patch(Rectangle((row, column), 1, 1, fill=False, hatch="////", edgecolor="#8A8A8A", lw=0, alpha=0.6))
    _frame(axes, found)
    _ticks(axes, found)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30)
    bar.set_label("slack of the condition, in units of $r^2$", size=7.5)
    bar.outline.set_visible(False)


def _frame(axes: Axes, found: Map) -> None:
    """The contour at 0: edges between grid cells where the condition holds and others, or the border."""
    holds = {
        (row, column) for row, values in enumerate(found.slack) for column, value in enumerate(values) if value > 0
    }
    for x, y in holds:
        for neighbour, edge in (
            ((x - 1, y), ((x, x), (y, y + 1))),
            ((x + 1, y), ((x + 1, x + 1), (y, y + 1))),
            ((x, y - 1), ((x, x + 1), (y, y))),
            ((x, y + 1), ((x, x + 1), (y + 1, y + 1))),
        ):
            if neighbour not in holds:
                axes.plot(*edge, color=VERMILION, lw=1.8, solid_capstyle="round", clip_on=False, zorder=4)


def _ticks(axes: Axes, found: Map) -> None:
    places = [place + 0.5 for place in range(len(found.deltas))]
    pairs = zip(found.deltas, found.sigma, strict=True)
    axes.set_xticks(places, [f"{_length(delta)}\n{share:.2f}" for delta, share in pairs], size=6.5)
    places = [place + 0.5 for place in range(len(found.epsilons))]
    pairs = zip(found.epsilons, found.rates, strict=True)
    axes.set_yticks(places, [f"{_length(epsilon)}  |  {rate:.3f}" for epsilon, rate in pairs], size=6.5)
    axes.tick_params(length=0)
    axes.set_xlabel("δ (distance of features of unit length), below it σ, the least share in a main part")
    axes.set_ylabel(r"ε (distance of features)  |  $R_\varepsilon$ (share of images)")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _length(value: float) -> str:
    return f"{value:.3f}" if value == 0 or value >= 0.0005 else f"{value:.0e}"


def _short(value: float) -> str:
    return (f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}").replace("-", "\N{MINUS SIGN}")


def _silent(content: Mapping[str, Any], found: Map) -> list[tuple[int, int]]:
    """The grid cells where (1 − σ) + R_ε is no less than 1 − max p_k."""
    priors = [number(prior) for prior in part(content, "trained", "class_centers", "priors", "value").values()]
    chance = 1 - max((prior for prior in priors if prior is not None), default=0.0)
    return [
        (row, column)
        for row, values in enumerate(found.right_side)
        for column, value in enumerate(values)
        if value >= chance
    ]


def _read(terms: Mapping[str, Any]) -> Map | None:
    names = ("deltas", "sigma", "epsilons", "R_epsilon")
    vectors = [_whole(part(terms, name).get("value")) for name in names]
    slack, right = (_rows(part(terms, name).get("value")) for name in ("slack", "right_side"))
    if not all(vectors):
        return None
    deltas, sigma, epsilons, rates = vectors
    shapes = {len(deltas), len(sigma), len(slack), len(right)}, {len(epsilons), len(rates), *map(len, (*slack, *right))}
    if any(len(shape) != 1 for shape in shapes):
        return None
    return Map(deltas, sigma, epsilons, rates, slack, right)


def _rows(matrix: Any) -> list[list[float]]:
    return [_whole(row) for row in matrix] if isinstance(matrix, list) else []


def _whole(values: Any) -> list[float]:
    """The values as finite numbers; empty if one is missing."""
    found = numbers(values) or [None]
    whole = [value for value in found if value is not None]
    return whole if len(whole) == len(found) else []
