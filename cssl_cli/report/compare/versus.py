"""Every row compared with one of them over the seeds that both have, for `--versus ROW`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cssl_cli.report.compare.catalogue import ACCURACIES, MAIN_TERMS
from cssl_cli.report.compare.named_quantities import difference
from cssl_cli.report.compare.paired_difference import PairedDifference, as_json
from cssl_cli.report.compare.rows import Row
from cssl_cli.sweep.selection import no_such_row

QUANTITIES = tuple(quantity.name for quantity in (*ACCURACIES, *MAIN_TERMS))


def require_row(name: str, rows: Sequence[str]) -> str:
    """The name, checked; `InputError` with the nearest one if there is no such row."""
    known = list(dict.fromkeys(rows))
    if name not in known:
        raise no_such_row(name, known, where="--versus")
    return name


def compare_rows(rows: Sequence[Row], baseline: Row, chosen: str | None = None) -> dict[str, Any]:
    """Each other row minus `baseline`, for every accuracy and main term of the baseline.

    `comparisons` has one entry per row: `differences` by quantity, each with `p_adjusted` for all rows compared in this
    quantity (Holm); None if the two share no seed that has it. `unpaired` rows share no seed with the baseline.
    chosen: what is to be said if the rows were chosen by an accuracy; differences then have no interval and no p.
    """
    from cssl_cli.report.compare.rank_correlation.correction import holm

    others = [row for row in rows if row.name != baseline.name and row.done]
    found: dict[str, dict[str, dict[str, Any] | None]] = {row.name: {} for row in others}
    for quantity in QUANTITIES:
        if baseline.cells[quantity] is None:
            continue
        differences = {row.name: difference(row, baseline, quantity) for row in others}
        if chosen:
            differences = {name: one and replace(one, interval=None, p=None) for name, one in differences.items()}
        tested = [name for name, one in differences.items() if one is not None and one.p is not None]
        adjusted = dict(zip(tested, holm([_p(differences[name]) for name in tested]), strict=True))
        for name, one in differences.items():
            found[name][quantity] = None if one is None else {**as_json(one), "p_adjusted": adjusted.get(name)}
    return {
        "row": baseline.name,
        "chosen": chosen,
        "comparisons": [{"row": name, "differences": of_row} for name, of_row in found.items()],
        "unpaired": [name for name, of_row in found.items() if not any(of_row.values())],
        "unfinished": [row.name for row in (*rows, baseline) if not row.done],
    }


def _p(found: PairedDifference | None) -> float:
    assert found is not None
    assert found.p is not None
    return found.p
