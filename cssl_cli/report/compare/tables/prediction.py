"""Which terms predict an accuracy, on the screen and as a figure: rank correlations, then the negative controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from cssl_cli.report.compare.catalogue import ACCURACIES, BY_NAME, FIGURE_TERMS, LABELS, MAIN_TERMS, TERMS, Column
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.compare.tables.controls import print_control
from cssl_cli.report.compare.tables.correlations import print_correlations
from cssl_cli.report.compare.tables.granulated import print_granulated
from cssl_cli.report.layout import note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cssl_cli.report.figures.sweep_map import MapColumn

FIGURES = ("accuracy_vs_terms.png", "accuracy_vs_terms.svg")
BY_AXIS = ("prediction_by_axis.png", "prediction_by_axis.svg")


def print_prediction(
    out: Console, rows: Sequence[Row], predicted: Mapping[str, Any], accuracy: Column, *, every: bool = True
) -> None:
    """Print the rank correlations with one accuracy, those along each axis, then the negative controls.

    Of the correlations `every` one, else only those that can be told from chance.

    With too few rows, a sentence says so.

    predicted: the result of `prediction_content` for the rows, with this accuracy among its own.
    """
    if not any(row.done for row in rows):
        return
    found = predicted["correlations"][accuracy.name]
    if found["terms"]:
        title = _capital(accuracy.label)
        if print_correlations(out, found, accuracy_title=title, term_titles=LABELS, every=every):
            note(out, _legend(rows))
    else:
        out.print()
        note(out, found["warnings"][0])
    chosen = predicted["chosen"]
    if chosen is not None and not (every and found["terms"]):  # else it is among the warnings
        out.print(Text(chosen, style="yellow"))
    if accuracy.name in predicted["granulated"]:
        found = predicted["granulated"][accuracy.name]
        print_granulated(out, found, title=_capital(accuracy.label), term_titles=LABELS, every=every)
    done = {row.name for row in rows if row.done}
    for control in predicted["controls"]:
        if control["row"] in done:
            print_control(out, control["row"], control, accuracy)


def _legend(rows: Sequence[Row]) -> str:
    """What the names of the terms mean, unless the table of accuracies and terms has explained it."""
    explained = {column.title for column in MAIN_TERMS}
    others = {column.title: column.meaning for column in TERMS if column.meaning and column.title not in explained}
    legend = "".join(f"; {title.rstrip(' ↑↓')}: {meaning}" for title, meaning in others.items())
    return (
        "Pixels, std. pixels, untrained, trained: the distance of views (of features under that encoder). 1−σ at δ "
        "nearest to ½ and 1 of δ₀, the median distance of clean images of two classes; 1−σ rel.: at the median d_A "
        f"between classes{legend}. The sign of uniformity and RankMe is their authors'."
        + (" Negative controls are left out." if any(row.control for row in rows) else "")
    )


def draw_prediction(
    content: Mapping[str, Any], accuracy: Column, folder: Path, kept: dict[str, Figure] | None = None
) -> list[Path]:
    """Draw the accuracy against the main terms; `content` has the rows and the result of `prediction_content`.

    The figure goes into `kept`, too, by its name. Returns the files; if there is nothing to draw, removes those of an
    earlier figure. Raises InputError or RunError if one cannot be written.
    """
    from cssl_cli.report.figures.accuracy_vs_terms import draw_accuracy_vs_terms, remove_accuracy_vs_terms

    paths = draw_accuracy_vs_terms(
        content["rows"],
        _of_main_terms(content, accuracy),
        accuracy.name,
        folder,
        accuracy_title=_capital(accuracy.label),
        term_titles=LABELS,
        kept=kept,
    )
    if not paths:
        remove_accuracy_vs_terms(folder)
    return paths


def draw_by_axis(
    content: Mapping[str, Any], accuracy: Column, folder: Path, kept: dict[str, Figure] | None = None
) -> list[Path]:
    """Draw what predicts the accuracy along each axis; like `draw_prediction` in all else."""
    from cssl_cli.report.figures.accuracy_vs_terms import remove_accuracy_vs_terms
    from cssl_cli.report.figures.prediction_by_axis import NAME, draw_prediction_by_axis

    found, paths = content["granulated"].get(accuracy.name), []
    if found is not None:
        titles: dict[str, Any] = {"accuracy_title": _capital(accuracy.label), "term_titles": LABELS}
        paths = draw_prediction_by_axis(found, folder, **titles, kept=kept)
    if not paths:
        remove_accuracy_vs_terms(folder, NAME)
    return paths


def figures_to_draw(content: Mapping[str, Any], accuracy: Column) -> dict[str, Callable[[], Figure | None]]:
    """What draws each figure of a sweep, by name; arguments as those of `draw_prediction`."""
    from cssl_cli.report.figures.accuracy_vs_terms import accuracy_vs_terms
    from cssl_cli.report.figures.prediction_by_axis import prediction_by_axis
    from cssl_cli.report.figures.sweep_map import sweep_map

    titles: dict[str, Any] = {"accuracy_title": _capital(accuracy.label), "term_titles": LABELS}
    by_axis = content["granulated"].get(accuracy.name)
    drawn: dict[str, Callable[[], Figure | None]] = {
        "accuracy_vs_terms": lambda: accuracy_vs_terms(
            content["rows"], _of_main_terms(content, accuracy), accuracy.name, **titles
        )
    }
    if by_axis is not None:
        drawn["prediction_by_axis"] = lambda: prediction_by_axis(by_axis, **titles)
    drawn["sweep_map"] = lambda: sweep_map(
        content["rows"], _columns_of_map(accuracy), accuracy.name, accuracy_title=titles["accuracy_title"]
    )
    return drawn


def draw_map(
    content: Mapping[str, Any], accuracy: Column, folder: Path, kept: dict[str, Figure] | None = None
) -> list[Path]:
    """Draw the rows by the accuracy, each with its rank in every main quantity; like `draw_prediction` in all else."""
    from cssl_cli.report.figures.accuracy_vs_terms import remove_accuracy_vs_terms
    from cssl_cli.report.figures.sweep_map import NAME, draw_sweep_map

    title, columns = _capital(accuracy.label), _columns_of_map(accuracy)
    paths = draw_sweep_map(content["rows"], columns, accuracy.name, folder, accuracy_title=title, kept=kept)
    if not paths:
        remove_accuracy_vs_terms(folder, NAME)
    return paths


def _columns_of_map(accuracy: Column) -> list[MapColumn]:
    from cssl_cli.report.figures.sweep_map import MapColumn

    others = [column for column in ACCURACIES if column != accuracy]
    terms = [BY_NAME[name] for name in dict.fromkeys([column.name for column in MAIN_TERMS] + list(FIGURE_TERMS))]
    return [
        MapColumn(column.name, _capital(column.label), column.shown, column.sign)
        for column in (accuracy, *others, *terms)
    ]


def figures_of(content: Mapping[str, Any], accuracy: Column) -> tuple[str, ...]:
    """The files that `draw_prediction` and `draw_by_axis` would write."""
    from cssl_cli.report.figures.accuracy_vs_terms import is_drawn
    from cssl_cli.report.figures.prediction_by_axis import terms_with_psi

    by_axis = content["granulated"].get(accuracy.name)
    return (
        *(FIGURES if is_drawn(content["rows"], _of_main_terms(content, accuracy), accuracy.name) else ()),
        *(BY_AXIS if by_axis is not None and terms_with_psi(by_axis) else ()),
    )


def _of_main_terms(content: Mapping[str, Any], accuracy: Column) -> dict[str, Any]:
    """The rank correlations of the terms that have a panel."""
    found = content["correlations"].get(accuracy.name, {"terms": []})
    return {**found, "terms": [entry for entry in found["terms"] if entry["term"] in FIGURE_TERMS]}


def _capital(text: str) -> str:
    """A name as the first word of a title; k-NN stays lower case."""
    return text if text[1] == "-" else text[0].upper() + text[1:]
