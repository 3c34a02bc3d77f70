"""Which terms predict an accuracy over the rows of a table: rank correlations, along each axis, negative controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cssl_cli.report.compare.catalogue import ACCURACIES, BY_NAME, LABELS, SIGNS
from cssl_cli.report.compare.controls import compare_control
from cssl_cli.report.compare.granulated import granulated_content
from cssl_cli.report.compare.rows import Row, circumstances
from cssl_cli.report.compare.sharing import sharing_of

UNLIKE = {
    "content": "images",
    "images": "numbers of images",
    "views": "numbers of views",
    "classes": "classes",
    "epsilons": "grids of ε",
    "deltas": "grids of δ",
}


def prediction_content(
    rows: Sequence[Row], accuracies: Sequence[str] | None = None, *, chosen: str | None = None
) -> dict[str, Any]:
    """`correlations` of accuracies with the terms, `granulated` by axis, and the negative `controls`, as JSON types.

    accuracies: their names; None for every one that a row has. `chosen`: the sentence that says so if the rows were
    chosen by an accuracy; None if nothing but stopped rows among them can say so.
    """
    chosen = chosen or how_chosen(rows)
    if accuracies is None:
        accuracies = [accuracy.name for accuracy in ACCURACIES if any(row.cells[accuracy.name] for row in rows)]
    return {
        "correlations": {accuracy: screen(rows, accuracy, chosen) for accuracy in accuracies},
        "granulated": {} if chosen else granulated_content(rows, accuracies),
        "chosen": chosen,
        "controls": [{"row": row.name, **compare_control(row, rows, accuracies)} for row in rows if row.control],
    }


def screen(rows: Sequence[Row], accuracy: str, chosen: str | None = None) -> dict[str, Any]:
    """The result of `rank_correlation.screening.screen_accuracy` for the rows that are not controls.

    Terms that no row has are left out; with fewer than three rows, all terms are. Rows that are left of successive
    halving are described, without p and intervals; `chosen` says so if the others are not among `rows`.
    """
    compared = [row for row in rows if row.done and not row.control]
    count = sum(row.mean(accuracy) is not None for row in compared)
    terms = {term: sign for term, sign in SIGNS.items() if any(row.mean(term) is not None for row in compared)}
    if count == 0:  # usually a sweep that has not run: avoids loading numpy
        return _too_few(accuracy, count, len(compared))
    from cssl_cli.report.compare.rank_correlation.coefficients import MIN_ROWS_COMPARED
    from cssl_cli.report.compare.rank_correlation.screening import screen_accuracy

    if count < MIN_ROWS_COMPARED:
        return _too_few(accuracy, count, len(compared))
    entries = [(row.name, row.group, {name: row.mean(name) for name in (accuracy, *terms)}) for row in compared]
    chosen = chosen or how_chosen(rows)
    if chosen is None:
        sharing = sharing_of(compared)
        found = screen_accuracy(entries, accuracy, terms, LABELS, sharing.design, sharing.built_from)
    else:
        found = screen_accuracy(entries, accuracy, terms, LABELS, chosen=chosen)
    found["warnings"] += _about_circumstances(compared)
    return found


def how_chosen(rows: Sequence[Row]) -> str | None:
    """What is to be said if only some rows went on for their k-NN accuracy; None if all did."""
    stopped = sum(row.stopped is not None for row in rows)
    return chosen_in_words(stopped, len(rows), "rows") if stopped else None


def chosen_in_words(stopped: int, count: int, what: str) -> str:
    """The sentence about rows, or runs, of which halving has stopped some."""
    return (
        f"{stopped} of {count} {what} were stopped for their k-NN accuracy, and the others went on for theirs. An "
        "order among rows chosen so is not that of all rows, and the choice itself can hide one or make one: there are "
        "no p and no intervals, and nothing along each axis. The same command without --halve trains the rest."
    )


def _too_few(accuracy: str, count: int, num_rows: int) -> dict[str, Any]:
    said = (
        f"Rank correlations of terms with the {BY_NAME[accuracy].label} take three rows that have it in all their "
        f"seeds; there {'is' if count == 1 else 'are'} {count or 'none'}."
    )
    return {
        "n": count,
        "num_rows": num_rows,
        "scopes": {"pooled": None, "within": None},
        "terms": [],
        "warnings": [said],
    }


def _about_circumstances(rows: Sequence[Row]) -> list[str]:
    facts = circumstances(rows)
    unlike = [words for name, words in UNLIKE.items() if len(facts[name]) > 1]
    if not unlike:
        return []
    return [f"Rows were measured with different {' and '.join(unlike)}: that may be what orders them."]
