"""Which terms predict an accuracy over the rows of a table: rank correlations, the figure, and negative controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cssl_cli.report.compare.catalogue import (
    ACCURACIES,
    BY_NAME,
    FIGURE_TERMS,
    LABELS,
    MAIN_TERMS,
    SIGNS,
    TERMS,
    Column,
)
from cssl_cli.report.compare.controls import compare_control, print_control
from cssl_cli.report.compare.correlations import print_correlations
from cssl_cli.report.compare.rows import Row, circumstances
from cssl_cli.report.compare.sharing import sharing_of
from cssl_cli.report.layout import note

FIGURES = ("accuracy_vs_terms.png", "accuracy_vs_terms.svg")  # those of `draw_prediction`

UNLIKE = {
    "content": "images",
    "images": "numbers of images",
    "views": "numbers of views",
    "classes": "classes",
    "epsilons": "grids of ε",
    "deltas": "grids of δ",
}


def prediction_content(rows: Sequence[Row]) -> dict[str, Any]:
    """`correlations` of every accuracy that a row has with the terms, and the negative `controls`, as JSON types."""
    present = [accuracy.name for accuracy in ACCURACIES if any(row.cells[accuracy.name] for row in rows)]
    return {
        "correlations": {accuracy: screen(rows, accuracy) for accuracy in present},
        "controls": [{"row": row.name, **compare_control(row, rows, present)} for row in rows if row.control],
    }


def screen(rows: Sequence[Row], accuracy: str) -> dict[str, Any]:
    """What `rank_correlation.screening.screen_accuracy` says of the rows that are no controls.

    Terms that no row has are left out, all of them with fewer than three rows.
    """
    compared = [row for row in rows if row.done and not row.control]
    count = sum(row.mean(accuracy) is not None for row in compared)
    terms = {term: sign for term, sign in SIGNS.items() if any(row.mean(term) is not None for row in compared)}
    if count == 0:  # most often a sweep of which nothing has run: numpy is not loaded for it
        return _too_few(accuracy, count, len(compared))
    from cssl_cli.report.compare.rank_correlation import MIN_ROWS_COMPARED
    from cssl_cli.report.compare.rank_correlation.screening import screen_accuracy

    if count < MIN_ROWS_COMPARED:
        return _too_few(accuracy, count, len(compared))
    entries = [(row.name, row.group, {name: row.mean(name) for name in (accuracy, *terms)}) for row in compared]
    sharing = sharing_of(compared)
    found = screen_accuracy(entries, accuracy, terms, LABELS, sharing.design, sharing.built_from)
    found["warnings"] += _about_circumstances(compared)
    return found


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
    return [f"Rows were measured with different {' and '.join(unlike)}: what orders them may be that."]


def print_prediction(out: Console, rows: Sequence[Row], accuracy: Column) -> None:
    """The table of rank correlations with one accuracy, then the negative controls; a sentence with too few rows."""
    if not any(row.done for row in rows):
        return
    found = screen(rows, accuracy.name)
    if found["terms"]:
        print_correlations(out, found, accuracy_title=_capital(accuracy.label), term_titles=LABELS)
        note(out, _legend(rows))
    else:
        out.print()
        note(out, found["warnings"][0])
    for row in rows:
        if row.control and row.done:
            compared = compare_control(row, rows, [accuracy.name])
            print_control(out, row.name, compared, accuracy)


def _legend(rows: Sequence[Row]) -> str:
    """What the names of the terms mean, as far as the table of accuracies and terms has not said it."""
    explained = {column.title for column in MAIN_TERMS}
    others = {column.title: column.meaning for column in TERMS if column.meaning and column.title not in explained}
    legend = "".join(f"; {title.rstrip(' ↑↓')}: {meaning}" for title, meaning in others.items())
    return (
        "Pixels, std. pixels, untrained, trained: the distance of views (of features under that encoder). 1−σ at δ "
        "nearest to ½ and 1 of δ₀, the median distance of clean images of two classes; 1−σ rel.: at the median d_A "
        f"between classes{legend}. The sign of uniformity and RankMe is their authors'."
        + (" Negative controls are left out." if any(row.control for row in rows) else "")
    )


def draw_prediction(content: Mapping[str, Any], accuracy: Column, folder: Path) -> list[Path]:
    """Draw the accuracy against the main terms; `content` has the rows and what `prediction_content` says of them.

    Gives the files, of which an earlier figure's are removed where there is nothing to draw. Raises InputError or
    RunError where one cannot be written.
    """
    from cssl_cli.report.figures.accuracy_vs_terms import draw_accuracy_vs_terms, remove_accuracy_vs_terms

    found = content["correlations"].get(accuracy.name, {"terms": []})
    drawn = {**found, "terms": [entry for entry in found["terms"] if entry["term"] in FIGURE_TERMS]}
    paths = draw_accuracy_vs_terms(
        content["rows"],
        drawn,
        accuracy.name,
        folder,
        accuracy_title=_capital(accuracy.label),
        term_titles=LABELS,
    )
    if not paths:
        remove_accuracy_vs_terms(folder)
    return paths


def _capital(text: str) -> str:
    """A name that begins a title; k-NN keeps its small letter."""
    return text if text[1] == "-" else text[0].upper() + text[1:]
