"""μ_k·μ_l: how the class centres lie relative to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cssl_cli.report.figures.style import INK, new_figure, plain
from cssl_cli.runs.results import class_names, direction, gaps, number, numbers, part, sample

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

MAX_PRINTED = 12  # classes whose values are printed in the cells
MAX_NAMED = 45  # labels on an axis; with more classes, only every second or third
NAME_LENGTH = 16


def class_centers(content: Mapping[str, Any]) -> Figure | None:
    """The matrix of inner products of the trained encoder's class centres, ‖μ_k‖² on its diagonal."""
    import numpy as np

    quantity = part(content, "trained", "class_centers", "inner_products")
    rows = quantity.get("value")
    read = [numbers(row) for row in rows] if isinstance(rows, Sequence) and not isinstance(rows, str) else []
    if len(read) < 2 or any(row is not None and len(row) != len(read) for row in read) or not any(read):
        return None
    num_classes = len(read)
    matrix = np.array([gaps(row if row is not None else [None] * num_classes) for row in read])
    measured = number(part(content, "trained", "class_centers", "simplex_inner_product").get("value"))
    simplex = -1 / (num_classes - 1) if measured is None else measured
    colors = _colors(matrix)
    low, high = colors.get_clim()
    value = f"{simplex:.3g}".replace("-", "−")
    on_scale = bool(low <= simplex <= high)
    facts = [
        sample(quantity),
        direction(quantity),
        r"diagonal: $\Vert\mu_k\Vert^2$",
        "grey: cannot be estimated" if np.isnan(matrix).any() else "",
        f"triangle: regular simplex, {value}" if on_scale else f"regular simplex: {value}, off the scale",
    ]
    caption = "; ".join(fact for fact in facts if fact) + "."
    figure = new_figure("Inner products of the class centres", caption, (6.0, 5.2))
    axes = figure.add_subplot()
    axes.set_facecolor("#BBBBBB")
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=colors.cmap, norm=colors.norm, interpolation="nearest")
    axes.spines[:].set_visible(False)
    _name_axes(axes, class_names(content, num_classes)[:num_classes])
    if num_classes <= MAX_PRINTED:
        _print_values(axes, matrix, image)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03, fraction=0.06)
    bar.outline.set_linewidth(0.4)
    bar.set_label(r"$\mu_k\cdot\mu_l$  (features of unit length)")
    if on_scale:
        _mark(bar, simplex)
    return figure


def _colors(matrix: np.ndarray) -> ScalarMappable:
    """Colours over the full range of inner products of unit-norm features, so that small differences look small.

    From 0 to 1, light to dark, or from −1 to 1 about 0 if a value is negative.
    """
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if np.nanmin(matrix) >= 0:
        return ScalarMappable(Normalize(0, 1), "cividis_r")
    return ScalarMappable(Normalize(-1, 1), "RdBu_r")


def _name_axes(axes: Axes, names: list[str]) -> None:
    step = -(-len(names) // MAX_NAMED)
    shown = range(0, len(names), step)
    size = min(7.5, max(4.0, 230 / len(shown)))
    labels = [plain(names[label], NAME_LENGTH) for label in shown]
    axes.set_xticks(list(shown), labels, size=size, rotation=90 if max(map(len, labels)) * len(labels) > 60 else 0)
    axes.set_yticks(list(shown), labels, size=size)
    axes.tick_params(length=1.5 if len(names) > MAX_PRINTED else 0, pad=2)
    every = "" if step == 1 else f" (one name in {step})"
    axes.set_xlabel(f"class l{every}")
    axes.set_ylabel(f"class k{every}")


def _print_values(axes: Axes, matrix: np.ndarray, image: ScalarMappable) -> None:
    import numpy as np

    size = 9.0 if len(matrix) <= 4 else max(5.2, 62 / len(matrix))
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        color = "white" if dark else INK
        axes.text(column, row, _said(value), ha="center", va="center", size=size, color=color)


def _mark(bar: Colorbar, value: float) -> None:
    """A triangle and a line on the colour bar at a value."""
    beside = bar.ax.get_yaxis_transform()
    bar.ax.axhline(value, color=INK, lw=1.2)
    bar.ax.plot([-0.35], [value], marker=">", ms=4.5, color=INK, clip_on=False, transform=beside)


def _said(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # adding 0 turns −0 into 0
