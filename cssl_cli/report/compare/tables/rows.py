"""The table of a sweep: one row per variant, mean ± standard deviation over seeds, accuracies beside the main terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.errors import some
from cssl_cli.recipe.schema import show
from cssl_cli.report.compare.catalogue import (
    BEFORE_TRAINING,
    BEST_KNN,
    COMPANIONS,
    FEATURE_TERMS,
    LAST_EPOCH,
    Column,
)
from cssl_cli.report.compare.granulated import short_names
from cssl_cli.report.compare.rows import Row, circumstances, is_finished
from cssl_cli.report.layout import compacted, fits, note, table
from cssl_cli.runs.results import CLASSIFIERS
from cssl_cli.theory.distance_terms import DELTA
from cssl_cli.theory.terms import EPSILON

CONTROL, STOPPED = " (control)", " (stopped)"
MOST_STOPPED = 20  # rows of an epoch that are named; --json has all


def print_table(out: Console, rows: Sequence[Row]) -> None:
    """Print accuracies beside terms in one table, or in parts below each other if the terminal is too narrow."""
    results = [result for row in rows for result in row.members]
    accuracies, companions = _with_values(rows, BEST_KNN), _with_values(rows, *COMPANIONS)
    first = (*LAST_EPOCH, *accuracies)
    _print_parts(
        out,
        rows,
        [
            [(*first, *FEATURE_TERMS, *companions)],
            [first, (*FEATURE_TERMS, *companions)],
            [first, FEATURE_TERMS, companions],
        ],
    )
    for sentence in _about_stopped(rows):
        out.print(Text(sentence, style="yellow"))
    failed: dict[str, list[str]] = {}
    for result in results:
        if result.error:
            failed.setdefault(result.error, []).append(result.member.name)
    for error, names in failed.items():
        out.print(Text(f"{some(names)} failed: {error}", style="red"))
    for damage in dict.fromkeys(damage for result in results for damage in result.damage):  # members may share a run
        out.print(Text(damage, style="red"))
    if _images_differ(rows):
        out.print(Text("The images changed between members: their numbers cannot be compared.", style="red"))
    note(out, _caption(rows, {quantity.name for quantity in (*accuracies, *companions)}))


def _about_stopped(rows: Sequence[Row]) -> list[str]:
    """Where successive halving stopped rows, the best of each epoch first."""
    by_epoch: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        if row.stopped is not None:
            by_epoch.setdefault((row.stopped.epoch, row.stopped.epochs), []).append(row)
    sentences = []
    for (epoch, epochs), stopped in sorted(by_epoch.items()):
        stopped.sort(key=lambda row: -1.0 if row.stopped is None or row.stopped.knn is None else -row.stopped.knn)
        known = [f"{row.name} {_percent_of(row)}" for row in stopped]
        sentences.append(f"stopped at epoch {epoch} of {epochs}, k-NN: {some(known, limit=MOST_STOPPED)}")
    return sentences


def _percent_of(row: Row) -> str:
    knn = None if row.stopped is None else row.stopped.knn
    return "–" if knn is None else f"{100 * knn:.1f}"


def _with_values(rows: Sequence[Row], *quantities: Column) -> tuple[Column, ...]:
    """The quantities that some row has: those not always measured get no empty column."""
    return tuple(quantity for quantity in quantities if any(row.cells[quantity.name] for row in rows))


def _print_parts(out: Console, rows: Sequence[Row], versions: Sequence[Sequence[Sequence[Column]]]) -> None:
    """Print the first version whose parts all fit, else the last; each has more parts than the one before."""
    grids: list[Table] = []
    for version in versions:
        grids = [compacted(out, _grid(rows, columns)) for columns in version if columns]
        if all(fits(out, grid) for grid in grids):
            break
    for position, grid in enumerate(grids):
        if position:
            out.print()
        out.print(grid)


def _images_differ(rows: Sequence[Row]) -> bool:
    """Whether members whose recipes name the same data were measured on different images."""
    keys: dict[Any, set[str | None]] = {}
    for row in rows:
        for result, measured in zip(row.members, row.circumstances, strict=True):
            if is_finished(result):
                found = keys.setdefault(result.member.recipe.data, set())
                found.add(measured.content)
                if result.probe is not None:
                    found.add(measured.probed_content)
    return any(len(found) > 1 for found in keys.values())


def _grid(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    sampled = rows[0].members[0].member.sampled if rows and columns[0] == LAST_EPOCH[0] else {}
    grid = table("", *short_names(list(sampled)), *(column.title for column in columns))
    facts = circumstances(rows)
    alike = all(len(facts[name]) <= 1 for name in ("views", "epsilons", "deltas"))
    # R_ε grows with the views and falls with ε: values for different views or ε have no best.
    best = {column.name: _best(column, rows) for column in columns if alike or not column.of_views}
    for row in rows:
        shown = (_cell(column, row, best.get(column.name)) for column in columns)
        drawn = (f"{show(row.members[0].member.sampled[key], limit=24)} " for key in sampled)
        grid.add_row(marked(row), *drawn, *shown)
    done = [
        values
        for row in rows
        for result, values in zip(row.members, row.values, strict=True)
        if is_finished(result) and result.probe
    ]
    if columns[0] == LAST_EPOCH[0] and done:
        grid.add_section()
        for encoder, label in (("untrained", "untrained encoder"), ("pixels", "raw pixels")):
            of_classifiers = [f"{encoder}_{classifier}" for classifier in CLASSIFIERS]
            ranges = (_range([values[name] for values in done]) for name in of_classifiers)
            grid.add_row(label, *("" for _ in sampled), *ranges)
    return grid


def marked(row: Row) -> str:
    """The row's name, and what sets it apart."""
    return row.name + (CONTROL if row.control else "") + (STOPPED if row.stopped else "")


def _best(column: Column, rows: Sequence[Row]) -> float | None:
    """The best mean among rows with all their seeds; None if all are equal.

    Negative controls do not count: being best is no merit there.
    """
    means = {mean for row in rows if not row.control and (mean := row.mean(column.name)) is not None}
    return column.best(list(means)) if len(means) > 1 else None


def _cell(column: Column, row: Row, best: float | None) -> Text:
    """Mean ± deviation, starred if best; a mean over only some of the row's seeds says so and is never the best."""
    summary = row.cells[column.name]
    if summary is None:
        return Text("– ")
    text = column.shown(summary.mean)
    if summary.sd is not None and column.name not in BEFORE_TRAINING:  # these have noise, but none between seeds
        text += f" ±{column.shown(summary.sd)}"
    if summary.n < row.done:
        return Text(f"{text} ({summary.n} of {row.done}) ")
    is_best = summary.mean == best and not row.control
    return Text(f"{text}*" if is_best else f"{text} ", style="bold" if is_best else "")


def _range(accuracies: Sequence[float | None]) -> str:
    """A baseline over all members: one number, or the range."""
    present = [100 * accuracy for accuracy in accuracies if accuracy is not None]
    if not present:
        return "– "
    low, high = f"{min(present):.1f}", f"{max(present):.1f}"
    return f"{low} " if low == high else f"{low}–{high} "


def _caption(rows: Sequence[Row], shown: set[str]) -> str:
    if not any(row.done for row in rows):
        return "No member is trained and measured yet."
    counts = {row.done for row in rows} - {0}
    spread = "One seed, hence no ±" if counts == {1} else f"Mean ± sample standard deviation over {_span(counts)} seeds"
    controls = (
        "; (control): a negative control, never the best and in no rank correlation"
        if any(row.control for row in rows)
        else ""
    )
    stopped = (
        "; (stopped): by --halve, for its k-NN accuracy on the way, and in no best, correlation or claim"
        if any(row.stopped for row in rows)
        else ""
    )
    facts = circumstances(rows)
    return (
        f"{spread}; * best mean{controls}{stopped}. {_about_accuracies(rows, shown)}Terms on "
        f"{_spanned(facts['images'], 'image')}, unit-norm features: {_legend(facts, shown)}."
    )


def _legend(facts: dict[str, set[Any]], shown: set[str]) -> str:
    """The legend of the columns of terms."""
    values = {
        "epsilon": _span({EPSILON.value(grid) for grid in facts["epsilons"] if grid}),
        "delta": _span({DELTA.value(grid) for grid in facts["deltas"] if grid}),
        "views": _spanned(facts["views"], "view"),
    }
    columns = [*FEATURE_TERMS, *(column for column in COMPANIONS if column.name in shown)]
    return "; ".join(
        f"{column.title.rstrip(' ↑↓')} {column.meaning.format(**values)}" for column in columns if column.meaning
    )


def _about_accuracies(rows: Sequence[Row], shown: set[str]) -> str:
    tested = circumstances(rows)["probed_images"] - {None}
    if not tested:
        return "No accuracies, since the images have no labels. "
    best = (
        "best k-NN: that of the best epoch, chosen on the test images, comparable with published numbers chosen so, "
        "not an estimate; "
        if BEST_KNN.name in shown
        else ""
    )
    return (
        f"Accuracies in % on {_spanned(tested, 'test image')}, last epoch, centre: nearest class centre; {best}"
        "baselines: least to greatest over the members. "
    )


def _spanned(values: set[Any], noun: str) -> str:
    return f"{_span(values)} {noun}{'' if values == {1} else 's'}"


def _span(values: set[Any]) -> str:
    if not values:
        return "–"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
