"""Reports of a sweep: one row a variant, mean ± standard deviation over seeds, accuracies beside terms."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.launch import MemberResult, member_path
from cssl_cli.report.layout import compacted, console, fits, note, print_json, table
from cssl_cli.report.recipes import run_state
from cssl_cli.run_dir import RunDir

if TYPE_CHECKING:
    from cssl_cli.sweep import Member, Sweep

CENTRAL_EPSILON = 0.5


@dataclass(frozen=True)
class Column:
    """A quantity of the table: where it stands in a member's files, how it is shown, and which way is better."""

    name: str
    title: str
    read: Callable[[MemberResult], float | None]
    best: Callable[[Sequence[float]], float]
    scale: float = 1.0
    digits: int = 2


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (None for a single value) and number of seeds behind a cell."""

    mean: float
    sd: float | None
    n: int


def _accuracy(encoder: str, classifier: str) -> Callable[[MemberResult], float | None]:
    return lambda result: result.probe[encoder][classifier]["accuracy"] if result.probe else None


def _term(term: str, quantity: str, encoder: str = "trained") -> Callable[[MemberResult], float | None]:
    return lambda result: result.analysis[encoder][term][quantity]["value"] if result.analysis else None


def _r_epsilon(result: MemberResult) -> float | None:
    if result.analysis is None:
        return None
    curve = result.analysis["trained"]["R_epsilon"]["curve"]["value"]
    epsilons = result.analysis["settings"]["epsilons"]
    return curve[epsilons.index(central_epsilon(epsilons))] if curve else None


def central_epsilon(epsilons: Sequence[float]) -> float:
    """The ε of the grid that the table shows: the one nearest to 0.5."""
    return min(epsilons, key=lambda epsilon: abs(epsilon - CENTRAL_EPSILON))


ACCURACIES = (
    Column("linear", "linear", _accuracy("trained", "linear"), max, scale=100, digits=1),
    Column("knn", "k-NN", _accuracy("trained", "knn"), max, scale=100, digits=1),
    Column("nearest_center", "centre", _accuracy("trained", "nearest_center"), max, scale=100, digits=1),
)
TERMS = (
    Column("alignment", "align ↓", _term("alignment", "unbiased"), min),
    Column("mean_inner_product", "μk·μl ↓", _term("class_centers", "mean_inner_product"), min),
    Column("R_epsilon", "R_ε ↓", _r_epsilon, min),
    Column("ratio", "W/B ↓", _term("spread", "ratio"), min, digits=1),
)
BASELINES = tuple(
    Column(f"{encoder}_{classifier}", "", _accuracy(encoder, classifier), max, scale=100, digits=1)
    for encoder in ("untrained", "pixels")
    for classifier in ("linear", "knn", "nearest_center")
)
UNTRAINED_TERMS = (
    Column("untrained_alignment", "", _term("alignment", "unbiased", "untrained"), min),
    Column("untrained_mean_inner_product", "", _term("class_centers", "mean_inner_product", "untrained"), min),
)


def summarize(values: Sequence[float | None]) -> Summary | None:
    """Mean ± sample standard deviation of the values there are; None when there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    return Summary(statistics.fmean(present), statistics.stdev(present) if len(present) > 1 else None, len(present))


def _summaries(members: Sequence[MemberResult], columns: Sequence[Column]) -> dict[str, Summary | None]:
    """A row's cells; a member that failed counts in none of them, whatever it had got to."""
    done = _done(members)
    return {column.name: summarize([column.read(member) for member in done]) for column in columns}


def rows_of(results: Sequence[MemberResult]) -> dict[str, list[MemberResult]]:
    """The members of each row (a variant with all its seeds), in the order of the sweep."""
    rows: dict[str, list[MemberResult]] = {}
    for result in results:
        rows.setdefault(result.member.row, []).append(result)
    return rows


# ---------------------------------------------------------------------- the table
def write_sweep(sweep: Sweep, results: Sequence[MemberResult], out_dir: Path) -> str:
    """Write the whole sweep's table as table.csv and table.json beside the runs; says where."""
    content = as_content(sweep, results)
    home = RunDir(out_dir / sweep.name)
    home.write_json("table.json", content)
    home.write_text("table.csv", as_csv(content))
    return f"Written to {home.file('table.csv')} and {home.file('table.json')}"


def show_sweep(
    sweep: Sweep, results: Sequence[MemberResult], members: Sequence[Member], as_json: bool, written: str = ""
) -> None:
    """Print the table of the rows of `members`, and where the whole was `written`."""
    rows = {member.row for member in members}
    shown = [result for result in results if result.member.row in rows]
    if as_json:
        return print_json(as_content(sweep, shown))
    out = console()
    print_table(out, shown)
    return note(out, written) if written else None


def print_table(out: Console, results: Sequence[MemberResult]) -> None:
    """Accuracies beside terms in one table, or one above the other where the terminal is too narrow for both."""
    whole = compacted(out, _grid(results, (*ACCURACIES, *TERMS)))
    if fits(out, whole):
        out.print(whole)
    else:
        out.print(compacted(out, _grid(results, ACCURACIES)))
        out.print()
        out.print(compacted(out, _grid(results, TERMS)))
    for result in results:
        if result.error:
            out.print(Text(f"{result.member.name} failed: {result.error}", style="red"))
    if _images_differ(results):
        out.print(Text("The images changed between members: their numbers cannot be compared.", style="red"))
    note(out, _caption(results))


def _images_differ(results: Sequence[MemberResult]) -> bool:
    """Whether members whose recipes name the same data were measured on different images."""
    keys: dict[str, set[str]] = {}
    for result in _done(results):
        for content in (result.probe, result.analysis):
            if content is not None:
                keys.setdefault(repr(result.member.recipe.settings("data")), set()).add(content["content_key"])
    return any(len(found) > 1 for found in keys.values())


def _grid(results: Sequence[MemberResult], columns: Sequence[Column]) -> Table:
    rows = rows_of(results)
    cells = {row: _summaries(members, columns) for row, members in rows.items()}
    complete = {row: len(_done(members)) for row, members in rows.items()}
    grid = table("", *(column.title for column in columns))
    grid.columns[0].no_wrap = True
    facts = _facts(results)
    alike = len(facts["views"]) <= 1 and len(facts["epsilon"]) <= 1
    for row in rows:
        # R_ε grows with the views and falls with ε: between unlike ones there is no best.
        shown = (_cell(column, row, cells, complete, alike or column.name != "R_epsilon") for column in columns)
        grid.add_row(row, *shown)
    if columns[0] == ACCURACIES[0] and any(result.probe for result in _done(results)):
        grid.add_section()
        for encoder, label in (("untrained", "untrained encoder"), ("pixels", "raw pixels")):
            readers = [_accuracy(encoder, classifier) for classifier in ("linear", "knn", "nearest_center")]
            grid.add_row(
                label, *(_range([v for r in _done(results) if (v := read(r)) is not None]) for read in readers)
            )
    return grid


def _cell(
    column: Column, row: str, cells: dict[str, dict[str, Summary | None]], complete: dict[str, int], comparable: bool
) -> Text:
    """Mean ± deviation, starred where best; a mean over some of the row's seeds only says so and is never the best."""
    summary = cells[row][column.name]
    if summary is None:
        return Text("– ")
    text = _rounded(column.scale * summary.mean, column.digits)
    if summary.sd is not None:
        text += f" ±{_rounded(column.scale * summary.sd, column.digits)}"
    if summary.n < complete[row]:
        return Text(f"{text} ({summary.n} of {complete[row]}) ")
    others = [(name, cells[name][column.name]) for name in cells]
    means = [other.mean for name, other in others if other is not None and other.n == complete[name]]
    is_best = comparable and len(set(means)) > 1 and summary.mean == column.best(means)
    return Text(f"{text}*" if is_best else f"{text} ", style="bold" if is_best else "")


def _rounded(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0.0 turns −0.00 into 0.00


def _range(accuracies: Sequence[float]) -> str:
    """A baseline over all members: one number, or the least and the greatest."""
    low, high = f"{100 * min(accuracies):.1f}", f"{100 * max(accuracies):.1f}"
    return f"{low} " if low == high else f"{low}–{high} "


def _done(results: Sequence[MemberResult]) -> list[MemberResult]:
    return [result for result in results if result.analysis and not result.error]


def _facts(results: Sequence[MemberResult]) -> dict[str, set[Any]]:
    """Under which circumstances the members' terms were measured: sets, since a sweep may vary them."""
    analyses = [result.analysis for result in _done(results) if result.analysis]
    return {
        "images": {analysis["num_images"] for analysis in analyses},
        "views": {analysis["settings"]["num_views"] for analysis in analyses},
        "epsilon": {central_epsilon(analysis["settings"]["epsilons"]) for analysis in analyses},
    }


def _caption(results: Sequence[MemberResult]) -> str:
    done = _done(results)
    if not done:
        return "No member has finished."
    counts = {len(_done(members)) for members in rows_of(results).values()} - {0}
    spread = "One seed, hence no ±" if counts == {1} else f"Mean ± sample standard deviation over {_span(counts)} seeds"
    tested = {result.probe["trained"]["linear"]["num_images"] for result in done if result.probe}
    facts = _facts(results)
    accuracies = (
        f"Accuracies in % on {_span(tested)} test images, last epoch, centre: nearest class centre; baselines: least "
        "to greatest over the members. "
        if tested
        else "No accuracies, since the images have no labels. "
    )
    return (
        f"{spread}; * best mean. {accuracies}Terms on "
        f"{_span(facts['images'])} images, unit-norm features: align E‖f(v) − f(v′)‖²; μk·μl mean inner product of "
        f"class centres; R_ε at ε = {_span(facts['epsilon'])}, too low since over {_span(facts['views'])} views only; "
        "W/B the spread within classes over that between their centres, – where the latter is not above its noise."
    )


def _span(values: set[Any]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# ---------------------------------------------------------------------- for machines
def as_content(sweep: Sweep, results: Sequence[MemberResult]) -> dict[str, Any]:
    """The table as JSON types: each row's cells as mean, sd and n, and every member with its values."""
    columns = (*ACCURACIES, *TERMS, *BASELINES, *UNTRAINED_TERMS)
    rows = []
    for row, members in rows_of(results).items():
        cells = _summaries(members, columns)
        rows.append(
            {
                "row": row,
                "axes": dict(members[0].member.axes),
                "cells": {name: vars(cell) if cell else None for name, cell in cells.items()},
            }
        )
    return {
        "sweep": sweep.name,
        "rows": rows,
        "members": [
            {
                "name": result.member.name,
                "row": result.member.row,
                "seed": result.member.seed,
                "run": str(result.path),
                "error": result.error,
                "values": {column.name: column.read(result) for column in columns},
            }
            for result in results
        ],
    }


def as_csv(content: dict[str, Any]) -> str:
    """One line a row: its axes, then mean, sd and n of each quantity (accuracies as shares)."""
    rows = content["rows"]
    axes = list(rows[0]["axes"]) if rows else []
    names = list(rows[0]["cells"]) if rows else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", *axes, *(f"{name}_{part}" for name in names for part in ("mean", "sd", "n"))])
    for row in rows:
        cells = [row["cells"][name] or {"mean": "", "sd": "", "n": 0} for name in names]
        values = ["" if cell[part] is None else cell[part] for cell in cells for part in ("mean", "sd", "n")]
        writer.writerow([row["row"], *(row["axes"][axis] for axis in axes), *values])
    return buffer.getvalue()


# ---------------------------------------------------------------------- the plan
def show_sweep_plan(sweep: Sweep, members: Sequence[Member], out_dir: Path, as_json: bool) -> None:
    """The `members` in order, and how far each is."""
    plan = [(member, member_path(sweep, member, out_dir)) for member in members]
    if as_json:
        return print_json(
            [{"name": member.name, "run": str(path), "state": run_state(RunDir(path))} for member, path in plan]
        )
    out = console()
    grid = table("member", "state", "run directory", text_columns=3)
    for member, path in plan:
        grid.add_row(member.name, run_state(RunDir(path)), path.name)
    out.print(grid)
    rows = len({member.row for member in members})
    return note(out, f"{len(plan)} members ({rows} rows) under {out_dir / sweep.name}")
