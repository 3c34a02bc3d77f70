"""The report of a sweep: its table, what predicts the accuracy, claims, published values, and how each row was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import escaped
from cssl_cli.report.compare.catalogue import LINEAR, Column
from cssl_cli.report.compare.claims import answers
from cssl_cli.report.compare.content import as_csv
from cssl_cli.report.compare.findings import findings
from cssl_cli.report.compare.prediction import how_chosen
from cssl_cli.report.compare.published import compare_published
from cssl_cli.report.compare.rows import Row, is_finished, rows_of
from cssl_cli.report.compare.tables.claims import print_claims
from cssl_cli.report.compare.tables.prediction import figures_to_draw
from cssl_cli.report.compare.tables.published import print_published
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.control_table import print_fooled
from cssl_cli.report.document.blocks import (
    Block,
    Cell,
    Code,
    Document,
    Figure,
    Grid,
    Head,
    Line,
    Paragraph,
    Section,
    folded_where_long,
)
from cssl_cli.report.document.commands import command_of_sweep
from cssl_cli.report.document.environments import environment_blocks, environments_of
from cssl_cli.report.document.main_table import first_grid, table_of_sweep, with_first_grid
from cssl_cli.report.document.page import Page
from cssl_cli.report.document.predicting import prediction_blocks
from cssl_cli.report.document.recipes import recipes_of_rows
from cssl_cli.report.layout import plural
from cssl_cli.report.recipes import run_state
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

BEHIND = ("rows", "correlations", "granulated", "reference")  # of the sweep's content, what figures are drawn from


def document_of_sweep(
    sweep: Sweep,
    results: Sequence[MemberResult],
    content: Mapping[str, Any],
    out: Path,
    *,
    accuracy: Column = LINEAR,
    kept: Mapping[str, Drawing] = MappingProxyType({}),
) -> Document:
    """Everything that is known of a sweep whose folder is in `out`, its table first.

    content: the result of `as_content` for it. kept: figures that are drawn already, by name.
    """
    command = command_of_sweep(sweep, out, _eta(results))
    rows = rows_of(results)
    summary = Page()
    print_table(summary, rows)
    table = table_of_sweep(first_grid(summary.blocks), rows, sweep.reference)
    summary.blocks = with_first_grid(summary.blocks, table)
    draws: dict[str, Callable[[], Drawing | None]] = {
        **figures_to_draw(content, accuracy),
        **{name: partial(kept.get, name) for name in kept},
    }
    sections = [
        Section("Results", [*summary.blocks, *_found(rows, accuracy), *_fooled(rows)]),
        Section("What predicts the accuracy", prediction_blocks(rows, content, accuracy)),
        Section("Claims", _printed(print_claims, answers(sweep, rows))[1:]),  # the section has the heading
        Section(
            "Published values",
            _printed(print_published, compare_published(sweep, rows, chosen=how_chosen(rows) is not None)),
        ),
        Section("Figures", [Figure(name.replace("_", "-"), draw) for name, draw in draws.items()]),
        Section("Recipes", recipes_of_rows({row.name: row.members[0].member.recipe for row in rows})),
        Section("Members", folded_where_long([_members(results)])),
        Section("Environment", _environment(results)),
        Section("Commands that repeat it", [Code(command)]),
        Section("What is missing", _missing(rows, command)),
    ]
    return Document(
        escaped(sweep.name),
        _lead(sweep, rows),
        [section for section in sections if section.blocks],
        table,
        as_csv(dict(content)),
        {name: content[name] for name in BEHIND},
    )


def _lead(sweep: Sweep, rows: Sequence[Row]) -> str:
    axes = ", ".join(f"{len(variants)} of {axis}" for axis, variants in sweep.axes.items())
    done = sum(row.done for row in rows)
    of_axes = f" ({axes})" if axes else ""
    stopped = sum(row.stopped is not None for row in rows)
    halved = f", {plural(stopped, 'row')} stopped by --halve" if stopped else ""
    runs = f"{done:,} of {plural(len(sweep.members), 'run')} finished"
    return escaped(f"A sweep of {plural(len(rows), 'row')}{of_axes}, {runs}{halved}.")


def _eta(results: Sequence[MemberResult]) -> int | None:
    """By how much successive halving chose among the rows; None if it stopped none."""
    return next((result.stopped["eta"] for result in results if result.stopped), None)


def _printed(show: Any, what: Any) -> list[Block]:
    page = Page()
    show(page, what)
    return folded_where_long(page.blocks)


def _found(rows: Sequence[Row], accuracy: Column) -> list[Block]:
    return [Paragraph(escaped(sentence), "verdict") for sentence in findings(rows, accuracy)]


def _fooled(rows: Sequence[Row]) -> list[Block]:
    page = Page()
    fooled = [
        found
        for row in rows
        for result, found in zip(row.members, row.fooled, strict=True)
        if is_finished(result) and not row.control
    ]
    print_fooled(page, fooled)
    return page.blocks


def _members(results: Sequence[MemberResult]) -> Grid:
    heads = [Head(title, numeric=title == "seed") for title in ("row", "seed", "run directory", "state", "error")]
    states: dict[Path, str] = {}  # members that differ only in how they are measured share a run
    lines = []
    for result in results:
        state = states.setdefault(result.path, "") or run_state(RunDir(result.path))
        states[result.path] = state
        member = result.member
        cells = (
            Cell(escaped(member.row)),
            Cell(str(member.seed), member.seed),
            Cell(escaped(result.path.name)),
            Cell(state),
            Cell(escaped(result.error or "")),
        )
        lines.append(Line(cells))
    return Grid(tuple(heads), tuple(lines), sortable=len(lines) > 1)


def _environment(results: Sequence[MemberResult]) -> list[Block]:
    runs = {result.path for result in results}
    return environment_blocks(
        Counter(found for path in sorted(runs) for found in environments_of(RunDir(path))), "process"
    )


def _missing(rows: Sequence[Row], command: str) -> list[Block]:
    members = [pair for row in rows for pair in zip(row.members, row.values, strict=True)]
    lacking = [
        result
        for row in rows
        for result in row.members
        if not is_finished(result) and (row.stopped is None or result.error is not None)
    ]
    scored = {values[LINEAR.name] is not None: 0 for result, values in members if is_finished(result)}
    said = []
    if lacking:
        failed = sum(result.error is not None for result in lacking)
        said.append(f"{plural(len(lacking), 'member')} without results, {failed:,} of them failed")
    if len(scored) > 1:
        unscored = sum(values[LINEAR.name] is None for result, values in members if is_finished(result))
        said.append(f"{plural(unscored, 'member')} without accuracies")
    return [Paragraph(f"{'; '.join(said)}. The same command goes on:"), Code(command)] if said else []
