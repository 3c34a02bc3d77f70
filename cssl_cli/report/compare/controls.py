"""Negative controls: rows with near-perfect concentration but nothing to learn, and the terms they fool."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.report.compare.catalogue import SHARED_VIEWS, SIGNS
from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.report.compare.rows import Row

BY_BEST, BY_MEDIAN, NOT, NO_VALUE = "best row", "median row", "not", "no value"
MIN_ROWS_OF_GROUP = 2


def compare_control(control: Row, rows: Sequence[Row], accuracies: Sequence[str]) -> dict[str, Any]:
    """How a control compares with the `rows` of its group (of all groups, if its own has only one), as JSON types.

    For each accuracy: its `value`, its `place` among them (1 is the greatest; None without a value), the `best_row` and
    the `terms` with a predicted sign, each {"term", "value", "place", "best_row_value", "median", "fooled"}; place 1 is
    the best according to the theory. `fooled` is "best row" if the term ranks the control above the row with the
    greatest accuracy although its accuracy is lower; else "median row" if it ranks the control above the median of the
    rows although its accuracy is below their median; else "not"; and "no value" if the rows have the term but the
    control does not. `shared_views` is the share of the control's images with a view that coincides, in pixels, with
    one of another class.
    """
    others, group = _compared_with(control, rows)
    return {
        "group": group,
        "shared_views": control.mean(SHARED_VIEWS.name),
        "accuracies": {accuracy: _against(control, others, accuracy) for accuracy in accuracies},
    }


def _compared_with(control: Row, rows: Sequence[Row]) -> tuple[list[Row], str | None]:
    others = [row for row in rows if row.done and not row.control]
    of_group = [row for row in others if row.group == control.group]
    if len(of_group) >= MIN_ROWS_OF_GROUP:
        return of_group, control.group if len(of_group) < len(others) else None
    return others, None


def _against(control: Row, others: Sequence[Row], accuracy: str) -> dict[str, Any]:
    value = control.mean(accuracy)
    known = {row.name: row for row in others if row.mean(accuracy) is not None}
    if value is None or not known:
        return {"value": value, "place": None, "num_rows": len(known) + 1, "best_row": None, "terms": []}
    accuracies = {name: float(row.mean(accuracy) or 0.0) for name, row in known.items()}
    best = max(accuracies, key=lambda name: accuracies[name])
    terms = [
        _term(
            term,
            sign,
            control,
            known,
            best,
            exceeds(accuracies[best], value),
            exceeds(statistics.median(accuracies.values()), value),
        )
        for term, sign in SIGNS.items()
        if sign is not None and known[best].mean(term) is not None
    ]
    return {
        "value": value,
        "place": 1 + sum(exceeds(other, value) for other in accuracies.values()),
        "num_rows": len(known) + 1,
        "best_row": best,
        "best_row_value": accuracies[best],
        "terms": terms,
    }


def _term(
    term: str, sign: int, control: Row, known: Mapping[str, Row], best: str, below_best: bool, below_median: bool
) -> dict[str, Any]:
    values = {name: mean for name, row in known.items() if (mean := row.mean(term)) is not None}
    value, median = control.mean(term), statistics.median(values.values())
    found = {"term": term, "value": value, "best_row_value": values[best], "median": median}
    if value is None:
        return {**found, "place": None, "num_rows": len(values) + 1, "fooled": NO_VALUE}
    fooled = NOT
    if below_best and exceeds(sign * value, sign * values[best]):
        fooled = BY_BEST
    elif below_median and exceeds(sign * value, sign * median):
        fooled = BY_MEDIAN
    place = 1 + sum(exceeds(sign * other, sign * value) for other in values.values())
    return {**found, "place": place, "num_rows": len(values) + 1, "fooled": fooled}
