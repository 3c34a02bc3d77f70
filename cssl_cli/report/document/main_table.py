"""The main table of a report: the terminal's, each number with its interval or deviation, its n and how it errs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import escaped
from cssl_cli.report.analysis import SHARE_LABEL, called, share_readings
from cssl_cli.report.compare.catalogue import ACCURACIES, BEFORE_TRAINING, BEST_KNN, MAIN_TERMS, Column
from cssl_cli.report.compare.published import published_of
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.compare.tables.rows import marked
from cssl_cli.report.document.blocks import Block, Cell, Grid, Head, Line
from cssl_cli.report.layout import plural, without_interval
from cssl_cli.report.quantities import COLUMNS, Result, columns_of, short_direction
from cssl_cli.report.summary import BOTH_WAYS, Reading, accuracy_readings, term_readings
from cssl_cli.runs.results import ERRS
from cssl_cli.sweep.file import Reference
from cssl_cli.theory.shown import declared, shown_in
from cssl_cli.theory.term import In

# Only what has a column: other terms share its title, such as σ in other distances.
_BY_TITLE: Mapping[str, Column] = {column.title: column for column in (*ACCURACIES, *MAIN_TERMS)}
_ERRS: Mapping[str, str] = {
    **{shown.name: BOTH_WAYS if shown.declared.band else shown.declared.errs for shown in shown_in(In.SWEEP)},
    BEST_KNN.name: "high",
}
_SAID: Mapping[str, str] = {
    **ERRS,
    BOTH_WAYS: "too large for few views, too small for few images",
}


# ---------------------------------------------------------------------- one run
def table_of_run(result: Result, probe: Mapping[str, Any] | None) -> Grid:
    """The summary of an analysis: a row per accuracy and term, a column per encoder."""
    columns = columns_of(result)
    heads = [Head("", numeric=False), Head("errs", numeric=False), *map(Head, columns.values())]
    accuracies, terms = accuracy_readings(probe), term_readings(result)
    lines = []
    for position, (label, errs, readings) in enumerate((*accuracies, *terms), start=1):
        kept = [one for name, one in zip(COLUMNS, readings, strict=True) if name in columns]
        cells = (Cell(escaped(label)), Cell(errs), *map(_of_reading, kept), *_counts(kept))
        lines.append(Line(cells, ends=position == len(accuracies)))
    return Grid((*heads, Head("images"), Head("views")), tuple(lines), in_percent=True)


def _of_reading(reading: Reading) -> Cell:
    """The number above its interval."""
    interval = re.search(r"\[.*\]", reading.text)
    spread = interval[0] if interval else ""
    return Cell(without_interval(reading.text), reading.value, reading.interval, spread)


def _counts(readings: Sequence[Reading]) -> tuple[Cell, Cell]:
    """On how many images and views a row was measured; all counts where encoders differ in them."""
    counts = ({one.num_images for one in readings}, {one.num_views for one in readings})
    images, views = (sorted(count for count in found if count is not None) for found in counts)
    return _count(images), _count(views)


def _count(counts: Sequence[int]) -> Cell:
    return Cell(", ".join(f"{count:,}" for count in counts), counts[0] if len(counts) == 1 else None)


# ---------------------------------------------------------------------- several runs
def table_of_runs(
    printed: Grid,
    results: Mapping[Path, Result],
    probes: Mapping[Path, Mapping[str, Any] | None],
    ranked: Mapping[Path, Mapping[str, Any]],
) -> Grid:
    """The table that was `printed` of several runs, a row each, with the numbers behind it."""
    shares = share_readings(ranked)
    errs: dict[str, str] = {SHARE_LABEL: declared("ranking", "share").declared.errs}
    behind: dict[str, dict[str, Reading]] = {}
    for path, result in results.items():
        rows = [*accuracy_readings(probes[path]), *term_readings(result)]
        of_run = {label: readings[0] for label, _, readings in rows}
        behind[escaped(called(path, results))] = of_run | ({SHARE_LABEL: shares[path]} if path in shares else {})
        errs |= {label: err for label, err, _ in rows if err}
    heads = [replace(head, detail=errs.get(head.title, "")) for head in printed.heads]
    lines = []
    for line in printed.lines:
        known = behind.get(line.cells[0].text, {})
        cells = [
            _with_count(known[head.title]) if head.title in known else cell
            for head, cell in zip(printed.heads, line.cells, strict=True)
        ]
        lines.append(replace(line, cells=tuple(cells)))
    return Grid(tuple(heads), tuple(lines), sortable=True)


def _with_count(reading: Reading) -> Cell:
    cell = _of_reading(reading)
    return replace(cell, detail="" if reading.num_images is None else f"n {reading.num_images:,}")


# ---------------------------------------------------------------------- a sweep
def table_of_sweep(printed: Grid, rows: Sequence[Row], reference: Reference | None) -> Grid:
    """The table that was `printed` of a sweep, with mean, deviation and number of seeds of each cell, and published
    values; what the columns mean and how they err is in their heads.
    """
    by_label = {escaped(marked(row)): row for row in rows}
    columns = [_BY_TITLE.get(head.title) for head in printed.heads]
    heads = [_head(head, column) for head, column in zip(printed.heads, columns, strict=True)]
    lines = []
    for line in printed.lines:
        row = by_label.get(line.cells[0].text)
        if row is not None:
            published = published_of(reference, row.name)
            cells = [
                cell if column is None else _of_seeds(cell, column, row, published.get(column.name))
                for column, cell in zip(columns, line.cells, strict=True)
            ]
            line = replace(line, cells=(_label(line.cells[0], row), *cells[1:]))
        lines.append(line)
    return Grid(tuple(heads), tuple(lines), sortable=True)


def _head(head: Head, column: Column | None) -> Head:
    if column is None:
        return head
    errs = _ERRS.get(column.name, "unbiased")
    said = "chosen on the test images, hence too high" if column is BEST_KNN else _SAID.get(errs, errs)
    about = "; ".join(filter(None, (column.called, _without_places(column.meaning), said)))
    return replace(head, detail=short_direction(errs), about=about)


def _without_places(meaning: str) -> str:
    """A legend whose values stand in the caption."""
    return re.sub(r"\{(\w+)\}", lambda place: {"epsilon": "ε", "delta": "δ"}.get(place[1], place[1]), meaning)


def _label(cell: Cell, row: Row) -> Cell:
    done, meant = row.done, len(row.members)
    return cell if done == meant or row.stopped else replace(cell, detail=f"{done} of {plural(meant, 'seed')} finished")


def _of_seeds(cell: Cell, column: Column, row: Row, published: float | None) -> Cell:
    """Mean above deviation and number of seeds, and what was published."""
    theirs = "" if published is None else f"theirs {100 * published:.1f}"
    summary = row.cells[column.name]
    if summary is None:
        return Cell("–", detail=theirs)
    text = column.shown(summary.mean)
    if not cell.text.startswith(text):  # the terminal's number is the one that counts
        return cell
    text += "*" if cell.strong else ""
    with_noise = summary.sd is not None and column.name not in BEFORE_TRAINING
    spread = f"±{column.shown(summary.sd)}" if summary.sd is not None and with_noise else ""
    counted = f"n {summary.n}" + (f" of {row.done}" if summary.n < row.done else "")
    return Cell(text, summary.mean, None, spread, " ".join(filter(None, (counted, theirs))), cell.strong)


def first_grid(blocks: Sequence[Block]) -> Grid:
    """The first table among the blocks."""
    return next(block for block in blocks if isinstance(block, Grid))


def with_first_grid(blocks: Sequence[Block], grid: Grid) -> list[Block]:
    """The blocks with their first table replaced."""
    at = next(place for place, block in enumerate(blocks) if isinstance(block, Grid))
    return [*blocks[:at], grid, *blocks[at + 1 :]]
