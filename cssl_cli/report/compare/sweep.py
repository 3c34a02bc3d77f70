"""The report of a sweep: what `cssl sweep` prints and writes, and its plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import CsslError, DamagedError, ReadOnlyError, shown_path
from cssl_cli.report.compare.catalogue import LINEAR, Column
from cssl_cli.report.compare.claims import answers
from cssl_cli.report.compare.content import as_content, as_csv, content_of_rows
from cssl_cli.report.compare.prediction import how_chosen, prediction_content
from cssl_cli.report.compare.published import compare_published
from cssl_cli.report.compare.rows import is_finished, rows_of
from cssl_cli.report.compare.sorting import sort_rows
from cssl_cli.report.compare.tables.claims import print_claims
from cssl_cli.report.compare.tables.findings import print_findings
from cssl_cli.report.compare.tables.prediction import (
    draw_by_axis,
    draw_map,
    draw_prediction,
    figures_of,
    print_prediction,
)
from cssl_cli.report.compare.tables.published import print_published
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.compare.tables.versus import print_comparison
from cssl_cli.report.compare.versus import compare_rows
from cssl_cli.report.control_table import print_fooled
from cssl_cli.report.layout import console, note, plural, print_json, table
from cssl_cli.report.recipes import run_state
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import MemberResult, member_path

if TYPE_CHECKING:
    from cssl_cli.sweep.sweep import Member, Sweep


@dataclass(frozen=True)
class Written:
    """The files that hold a sweep's table, the error if one could not be written, and the table's content."""

    paths: tuple[Path, ...]
    failed: CsslError | None
    content: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """Where the table was written; empty if nowhere."""
        *others, last = ["", *map(shown_path, self.paths)]
        return f"Written to {' and '.join(filter(None, [', '.join(others[1:]), last]))}" if last else ""


# ---------------------------------------------------------------------- the table
def write_sweep(
    sweep: Sweep,
    results: Sequence[MemberResult],
    out_dir: Path,
    *,
    accuracy: Column = LINEAR,
    figures: bool = False,
    html: bool = False,
) -> Written:
    """Write the whole sweep's table as table.csv and table.json beside the runs.

    With `figures`, also accuracy against the terms; with `html`, the page of it all. A write error does not prevent
    printing the table; in a read-only folder an identical table that is already there will do, and no page is needed.
    """
    content = as_content(sweep, results)
    home = RunDir(out_dir / sweep.name)
    paths: list[Path] = []
    failed: CsslError | None = None
    kept: dict[str, Any] = {}
    try:
        home.write_json("table.json", content)
        home.write_text("table.csv", as_csv(content))
        paths = [home.file("table.csv"), home.file("table.json")]
    except CsslError as error:
        if not (isinstance(error, ReadOnlyError) and _is_stored(home, content)):
            failed = error
    if figures:
        try:
            paths += draw_prediction(content, accuracy, home.path, kept)[:1]
            paths += draw_by_axis(content, accuracy, home.path, kept)[:1]
            with suppress(ReadOnlyError):  # a sweep of an earlier version, in an archive, has none
                paths += draw_map(content, accuracy, home.path, kept)[:1]
        except CsslError as error:
            if not (
                isinstance(error, ReadOnlyError)
                and all(home.file(name).exists() for name in figures_of(content, accuracy))
            ):
                failed = failed or error
    if html:
        page, problem = _write_page(sweep, results, content, out_dir, accuracy, kept if figures else None)
        paths += [page] if problem is None else []
        failed = failed or (None if isinstance(problem, ReadOnlyError) else problem)
    if isinstance(failed, ReadOnlyError):
        failed.remedy = "Copy the folder to where you may write, or add --report, which writes nothing."
    return Written(tuple(paths), failed, content)


def _write_page(
    sweep: Sweep,
    results: Sequence[MemberResult],
    content: dict[str, Any],
    out_dir: Path,
    accuracy: Column,
    kept: Mapping[str, Any] | None,
) -> tuple[Path, CsslError | None]:
    """Write report.html in the sweep's folder; returns where, and the error if that failed.

    kept: figures that are drawn already; None for a page without any.
    """
    from cssl_cli.report.document.blocks import Document, without_figures
    from cssl_cli.report.document.of_sweep import document_of_sweep
    from cssl_cli.report.document.writing import PAGE, attempt

    path = out_dir / sweep.name / PAGE

    def document() -> Document:
        made = document_of_sweep(sweep, results, content, out_dir, accuracy=accuracy, kept=kept or {})
        return without_figures(made) if kept is None else made

    return path, attempt(document, path)


def _is_stored(home: RunDir, content: dict[str, Any]) -> bool:
    """Whether table.json holds the same content, wherever the runs were when it was written."""

    def without_places(table: dict[str, Any]) -> dict[str, Any]:
        members = [{key: value for key, value in member.items() if key != "run"} for member in table["members"]]
        return {**table, "members": members}

    try:
        stored = home.read_json("table.json")
        return stored is not None and without_places(stored) == without_places(json.loads(json.dumps(content)))
    except (DamagedError, LookupError, TypeError, AttributeError):
        return False


def show_sweep(
    sweep: Sweep,
    results: Sequence[MemberResult],
    members: Sequence[Member],
    as_json: bool,
    written: Written | None = None,
    *,
    accuracy: Column = LINEAR,
    versus: str | None = None,
    order: str | None = None,
    every: bool = True,
) -> None:
    """Print the table of the rows of `members`, what predicts the accuracy, and where the whole was `written` just now.

    Then published values, the claims about the whole sweep, and each row against the row `versus`. order: the quantity
    to sort rows by (`sorting.sort_rows`); None keeps the order of the sweep. every: print all rank correlations.
    """
    of_sweep, shown = rows_of(results), {member.row for member in members}
    rows = [row for row in of_sweep if row.name in shown]
    rows = rows if order is None else sort_rows(rows, order)
    chosen = how_chosen(of_sweep)
    compared = None
    if versus is not None:
        compared = compare_rows(rows, next(row for row in of_sweep if row.name == versus), chosen)
    known = written.content if written is not None and rows == of_sweep else None  # spares the statistics
    if as_json:
        content = content_of_rows(sweep, rows, of_sweep) if known is None else dict(known)
        return print_json(content | ({} if compared is None else {"versus": compared}))
    out = console()
    print_table(out, rows)
    print_findings(out, rows, accuracy)
    print_fooled(
        out,
        [
            fooled
            for row in rows
            for result, fooled in zip(row.members, row.fooled, strict=True)
            if is_finished(result) and not row.control
        ],
    )
    has_it = known is not None and accuracy.name in known["correlations"]  # no row may have an accuracy
    predicted = known if known and has_it else prediction_content(rows, [accuracy.name], chosen=chosen)
    print_prediction(out, rows, predicted, accuracy, every=every)
    print_published(out, compare_published(sweep, rows, chosen=chosen is not None))
    print_claims(out, answers(sweep, of_sweep))
    if compared is not None:
        print_comparison(out, compared)
    return note(out, f"\n{written.sentence}") if written is not None and written.paths else None


# ---------------------------------------------------------------------- the plan
def show_sweep_plan(
    request: SweepRequest, unfinished: Sequence[Member], as_json: bool, remark: str | None = None
) -> None:
    """Print the members in order, the state of each, and a `remark` on how they would run.

    unfinished: those that lack something.
    """
    lacking = {member.name for member in unfinished}
    plan = []
    for member in request.members:
        path = member_path(request.sweep, member, request.out)
        plan.append((member, path, run_state(RunDir(path), lacking=member.name in lacking)))
    if as_json:
        return print_json([{"name": member.name, "run": str(path), "state": state} for member, path, state in plan])
    out = console()
    grid = table("member", "state", "run directory", text_columns=3)
    for member, path, state in plan:
        grid.add_row(member.name, state, path.name)
    out.print(grid)
    rows = len({member.row for member in request.members})
    home = shown_path(request.out / request.sweep.name)
    if remark is not None:
        out.print(remark)
    return note(out, f"{plural(len(plan), 'member')} ({plural(rows, 'row')}) under {home}")
