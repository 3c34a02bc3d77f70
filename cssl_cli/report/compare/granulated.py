"""Which terms predict an accuracy along every axis of a sweep: the protocol of generalization measures, as JSON types.

`measures` has the mathematics, docs/statistics.md (section 12) what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cssl_cli.report.compare.catalogue import SIGNS
from cssl_cli.report.compare.rows import Row, is_finished, is_of_draws

if TYPE_CHECKING:
    from cssl_cli.report.compare.measures.environments import Environments
    from cssl_cli.report.compare.measures.grid import Grid
    from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

MIN_ROWS = 8
MIN_AXES = 2
NUM_RANDOM = 50  # random orders of a term, for what it shows by chance; fewer where pairs are many
LEAST_RANDOM = 10
WORK = 30_000_000  # pairs times orders times terms, about
QUANTILES = (0.5, 0.9)
LEVEL = 0.05


def granulated_content(rows: Sequence[Row], accuracies: Sequence[str]) -> dict[str, Any]:
    """`judged` for each accuracy that at least `MIN_ROWS` rows over at least `MIN_AXES` axes have; others are left out.

    Negative controls are left out, and so are rows without the accuracy in all their seeds.
    """
    found: dict[str, Any] = {}
    orders: dict[tuple[str, ...], _Orders] = {}  # mostly the same for all accuracies
    for accuracy in accuracies:
        compared = [row for row in rows if row.done and not row.control and row.mean(accuracy) is not None]
        if len(compared) >= MIN_ROWS and _num_axes(compared) >= MIN_AXES:
            names = tuple(row.name for row in compared)
            if names not in orders:
                orders[names] = _orders(compared)
            found[accuracy] = judged(compared, accuracy, orders[names])
    return found


def _num_axes(rows: Sequence[Row]) -> int:
    axes = [row.members[0].member.axes for row in rows]
    return sum(
        len({of_row.get(axis) for of_row in axes}) > 1 for axis in dict.fromkeys(axis for of in axes for axis in of)
    )


def judged(rows: Sequence[Row], accuracy: str, orders: _Orders) -> dict[str, Any]:
    """Each term against the accuracy of `rows`, all of which have it, the greatest |Ψ| first; p is over `orders`.

    `axes`: their settings, lines and pairs. `terms`: each {"term", "predicted_sign", "n", "psi": ψ by axis with its
    counts, or None; "mean_psi": Ψ with `p` and `p_adjusted`; "information": K, the axes `given` where it is attained
    and the value `expected` of random orders given these; "sign_error": its `worst` environment and the distribution
    over all}. `orders` says over which orders p is, or the `reason` why there is none; `noise` which pairs no
    environment counts.

    Random draws (`drawn`) are lines of ψ, each with the draws of one choice of settings. They are no settings that can
    be held fixed, or whose change can be named: K and the environments are over the other axes.
    """
    import numpy as np

    from cssl_cli.report.compare.measures.granulated import along_axes, mean_over_axes
    from cssl_cli.report.compare.measures.grid import grid_of
    from cssl_cli.report.compare.rank_correlation.signs import as_column

    terms = [term for term in SIGNS if any(row.mean(term) is not None for row in rows)]
    axes = [row.members[0].member.axes for row in rows]
    grid = grid_of(axes, {axis for axis in axes[0] if is_of_draws(axis, rows)})
    y = as_column([row.mean(accuracy) for row in rows])
    x = (
        np.stack([as_column([row.mean(term) for row in rows]) for term in terms], axis=1)
        if terms
        else y[:, None][:, :0]
    )
    along = along_axes(grid, x, y)
    psi = mean_over_axes(along)
    signs = [SIGNS[term] for term in terms]
    directions = np.array(
        [np.nan_to_num(np.sign(value)) if sign is None else sign for sign, value in zip(signs, psi, strict=True)]
    )
    p_values, over = _p_values(orders, grid, x, y)
    informed, pairs = _information(grid, x, y)
    wrong, noise = _sign_errors(rows, grid, x, y, accuracy, directions)
    entries: list[dict[str, Any]] = []
    for position, term in enumerate(terms):
        entries.append(
            {
                "term": term,
                "predicted_sign": signs[position],
                "n": int(np.isfinite(x[:, position]).sum()),
                "psi": {axis: _psi(found, position) for axis, found in zip(grid.axes, along, strict=True)},
                "mean_psi": {
                    "value": _number(psi[position]),
                    "num_axes": int(sum(np.isfinite(found.psi[position]) for found in along)),
                    **p_values[position],
                },
                "information": informed[position],
                "sign_error": wrong[position],
            }
        )
    entries.sort(key=lambda entry: -abs(entry["mean_psi"]["value"] or 0.0))
    return {
        "n": len(rows),
        "axes": [
            {
                "axis": axis,
                "settings": list(names),
                "num_lines": lines.num_lines,
                "num_pairs": len(lines.line),
                "drawn": axis in grid.drawn,
            }
            for axis, names, lines in zip(grid.axes, grid.settings, grid.lines, strict=True)
        ],
        "orders": over,
        "pairs": pairs,
        "noise": noise,
        "terms": entries,
    }


def _psi(found: Any, position: int) -> dict[str, Any] | None:
    """ψ of one term along one axis, with its counts; None without a line."""
    if not math.isfinite(found.psi[position]):
        return None
    counts = ("num_lines", "num_pairs", "num_tied", "num_tied_in_term")
    return {"value": float(found.psi[position]), **{name: int(getattr(found, name)[position]) for name in counts}}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ---------------------------------------------------------------------- p-values
class _Orders(NamedTuple):
    """Orders (R, N) of rows and how they were found, or None and why; the axes that they leave as they are."""

    orders: Ints | None
    how: str
    held_fixed: tuple[str, ...]


def _orders(rows: Sequence[Row]) -> _Orders:
    from cssl_cli.report.compare.measures.orders import orders_of_settings
    from cssl_cli.report.compare.sharing import changing_places

    places = changing_places(rows)
    found = orders_of_settings(places.parts, places.fixed)
    orders, how = (None, found) if isinstance(found, str) else found
    return _Orders(orders, how, places.fixed_axes)


def _p_values(over: _Orders, grid: Grid, x: Floats, y: Floats) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`p` and `p_adjusted` of Ψ of each column of `x` (N, M), and what they are over."""
    from cssl_cli.report.compare.measures.granulated import psi_in_orders
    from cssl_cli.report.compare.rank_correlation.correction import smallest_p_values_of, step_down_min_p
    from cssl_cli.report.compare.rank_correlation.permutation import shares_as_far

    held = {"held_fixed": list(over.held_fixed)}
    if over.orders is None or not x.shape[1]:
        return [{"p": None, "p_adjusted": None}] * x.shape[1], {"num_orders": 0, "reason": over.how, **held}
    scores = psi_in_orders(grid, x, y, over.orders)
    p_values = [
        {"p": p, "p_adjusted": adjusted}
        for p, adjusted in zip(shares_as_far(scores), step_down_min_p(scores), strict=True)
    ]
    least = min(smallest_p_values_of(scores)) if over.how == "exact" else None
    return p_values, {"num_orders": len(scores), "p_method": over.how, "smallest_p": least, **held}


def _num_random(num_pairs: int, num_terms: int) -> int:
    """How many random orders of each term to count so many pairs in."""
    return min(NUM_RANDOM, max(LEAST_RANDOM, WORK // max(1, num_pairs * num_terms)))


# ---------------------------------------------------------------------- information
def _information(grid: Grid, x: Floats, y: Floats) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
    """K of each column of `x` (N, M) with what a random order of its values has, and the pairs it is from."""
    from cssl_cli.report.compare.measures.information import (
        cells_of,
        expected_information,
        information,
        least_information,
        pairs_of,
    )

    pairs = pairs_of(y)
    cells = cells_of(grid, pairs)
    least, where = least_information(information(x, pairs, cells))
    count = _num_random(len(pairs.first), x.shape[1])
    entries: list[dict[str, Any] | None] = [
        None
        if where[position] < 0
        else {
            "value": float(least[position]),
            "given": [grid.axes[axis] for axis in cells[where[position]].given],
            "expected": _number(expected_information(grid, x[:, position], pairs, cells[where[position]], count)),
        }
        for position in range(x.shape[1])
    ]
    return entries, {
        "num_pairs": len(pairs.first),
        "num_tied": pairs.num_tied,
        "drawn": pairs.drawn,
        "num_random": count,
    }


# ---------------------------------------------------------------------- environments
def _sign_errors(
    rows: Sequence[Row], grid: Grid, x: Floats, y: Floats, accuracy: str, directions: Floats
) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
    """The sign error of each column of `x` (N, M) over environments, and the pairs that noise left out."""
    import numpy as np

    from cssl_cli.report.compare.measures.environments import MIN_PAIRS, environments_of, sign_errors

    errors = np.array(standard_errors(rows, accuracy), dtype=np.float64)
    found = environments_of(grid, y, errors)
    wrong, counts = sign_errors(found, x, directions)
    count = _num_random(len(found.first), x.shape[1])
    entries: list[dict[str, Any] | None] = []
    for position in range(x.shape[1]):
        counted = np.flatnonzero(np.isfinite(wrong[:, position]))
        if not len(counted):
            entries.append(None)
            continue
        of_term = wrong[counted, position]
        worst = counted[int(of_term.argmax())]
        axis, *settings = found.named[worst]
        entries.append(
            {
                "worst": float(of_term.max()),
                "axis": grid.axes[axis],
                "settings": [grid.settings[axis][setting] for setting in settings],
                "num_pairs": int(counts[worst, position]),
                "expected_worst": _worst_by_chance(found, x[:, position], count),
                "mean": float(of_term.mean()),
                "quantiles": {str(q): float(np.quantile(of_term, q)) for q in QUANTILES},
                "num_environments": len(counted),
                "direction": int(directions[position]),
            }
        )
    noise = {
        "num_pairs": len(found.first),
        "num_left_out": int((~found.beyond).sum()),
        "num_environments": len(found.named),
        "least_pairs": MIN_PAIRS,
        "rows_of_unknown_noise": int(np.isnan(errors).sum()),
    }
    return entries, noise


def _worst_by_chance(found: Environments, column: Floats, count: int) -> float | None:
    """The mean over `count` random orders of a term (N) of its greatest sign error."""
    import numpy as np

    from cssl_cli.report.compare.measures.environments import sign_errors
    from cssl_cli.report.compare.measures.grid import shuffled

    random = shuffled(column, np.zeros(len(column), dtype=np.int64), count)
    errors = sign_errors(found, random, np.ones(count))[0]
    known = errors[np.isfinite(errors).all(axis=1)]
    return float(known.max(axis=0).mean()) if len(known) else None


def standard_errors(rows: Sequence[Row], accuracy: str) -> list[float]:
    """The standard error (N) of each row's mean accuracy: of its seeds, or of the test images if it has one seed.

    The variance over seeds is pooled over all rows that have several. NaN for one seed and an unknown number of images.
    """
    cells = [row.cells[accuracy] for row in rows]
    several = [cell for cell in cells if cell is not None and cell.sd is not None]
    degrees = sum(cell.n - 1 for cell in several)
    variance = sum((cell.n - 1) * (cell.sd or 0.0) ** 2 for cell in several) / degrees if degrees else math.nan
    found = []
    for row, cell in zip(rows, cells, strict=True):
        if cell is None:
            found.append(math.nan)
        elif cell.n > 1:
            found.append(math.sqrt(variance / cell.n))
        else:
            found.append(_binomial(cell.mean, _test_images(row)))
    return found


def _binomial(accuracy: float, num_images: int | None) -> float:
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / num_images) if num_images else math.nan


def _test_images(row: Row) -> int | None:
    """The test images of the row's one finished member."""
    known = [
        one.probed_images for result, one in zip(row.members, row.circumstances, strict=True) if is_finished(result)
    ]
    return known[0] if known else None


def best_first(found: Mapping[str, Any], most: int) -> tuple[list[Mapping[str, Any]], int]:
    """The first `most` terms that have Ψ, and how many others have it."""
    known = [entry for entry in found["terms"] if entry["mean_psi"]["value"] is not None]
    return known[:most], max(0, len(known) - most)


def short_axes(axes: Sequence[Mapping[str, Any]]) -> list[str]:
    """`short_names` of the axes."""
    return short_names([str(axis["axis"]) for axis in axes])


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names that tell them apart: `epochs` for `train.epochs`, `flip.p` if blur has p."""
    endings = [[".".join(name.split(".")[-count:]) for count in range(1, name.count(".") + 2)] for name in names]
    known = [ending for of_name in endings for ending in of_name]
    return [next((one for one in of_name if known.count(one) == 1), of_name[-1]) for of_name in endings]
