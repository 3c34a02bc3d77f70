"""Control encoders in tables and sentences: what each measures, and which terms it fools."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.report.control_encoders import (
    BY_NAME,
    CLASS_AWARE,
    CONTROLS,
    DIRECTED,
    FOOLED,
    HASH,
    HELD_OUT,
    NOT,
    UNDECIDED,
    Directed,
    Fooled,
    Reading,
    Result,
    compare_controls,
)
from cssl_cli.report.layout import (
    heading,
    note,
    number,
    percent,
    plural,
    print_widest,
    table,
    without_interval,
)
from cssl_cli.runs.results import part

TITLE = "Control encoders, made without training"
CAPTION = (
    "On the same images and views: hash gives each image a random direction and knows no class, class-aware gives each "
    "class one and keeps views far apart. A term is fooled if it prefers whichever of control and trained encoder has "
    "the higher held-out error (half of each class gives the centres, the rest is tested), by more than the intervals "
    "where it has any"
)
# Why a control has no verdicts.
NO_CONTRAST = {
    HASH: "since its held-out error is not above the trained encoder's by more than the intervals",
    CLASS_AWARE: "since its held-out error is not below the trained encoder's by more than the intervals",
}


def print_controls(out: Console, result: Result) -> None:
    """Print one row per term: the trained encoder, both controls, and which fools it; the held-out error first."""
    compared = compare_controls(result)
    if compared is None:
        return
    heading(out, TITLE)
    verdicts = {
        name: {entry["term"]: entry["verdict"] for entry in found.get("terms", ())} for name, found in compared.items()
    }
    rows = []
    for directed in (HELD_OUT, *DIRECTED):
        cells = _cells(directed, result)
        if any(cell != "–" for cell in cells):
            mark = _mark({name: of.get(directed.name) for name, of in verdicts.items()})
            rows.append((directed, [directed.label(result["settings"]), *cells, mark]))
    print_widest(out, [_grid(rows, intervals=count) for count in (3, 1, 0)])
    note(out, CAPTION + ("; ?: within them." if any("?" in cells[-1] for _, cells in rows) else "."))
    for said in dict.fromkeys([*_absences(result), *_without_verdicts(compared)]):
        note(out, said)


def _cells(directed: Directed, result: Result) -> list[str]:
    trained, hashed = directed.pair(result, HASH)
    return [_shown(directed, reading) for reading in (trained, hashed, directed.pair(result, CLASS_AWARE)[1])]


def _shown(directed: Directed, reading: Reading | None) -> str:
    if reading is None:
        return "–"
    if math.isinf(reading.value):
        return "∞"
    show = percent if directed.share else number
    return show(reading.value, reading.interval, rounded=directed.shown.declared.rounding)


def _mark(verdicts: Mapping[str, str | None]) -> str:
    """The controls that fool a term; with a question mark if undecided within the intervals."""
    fooled = [CONTROLS[name] for name, verdict in verdicts.items() if verdict == FOOLED]
    if len(fooled) == len(CONTROLS):
        return "both"
    return ", ".join([*fooled, *(f"{CONTROLS[name]}?" for name, verdict in verdicts.items() if verdict == UNDECIDED)])


def _grid(rows: Sequence[tuple[Directed, Sequence[str]]], intervals: int) -> Table:
    """Rows of label, a cell per encoder and mark, with intervals for the first `intervals` encoders."""
    grid = table("", "trained", *CONTROLS.values(), "fooled by")
    grid.columns[0].no_wrap, grid.columns[-1].justify = True, "left"
    for directed, (label, *cells, mark) in rows:
        shown = (cell if place < intervals else without_interval(cell) for place, cell in enumerate(cells))
        grid.add_row(label, *shown, Text(mark, style="bold"), end_section=directed is HELD_OUT)
    return grid


def _absences(result: Result) -> Iterator[str]:
    """Why controls lack what the trained encoder has, or have it only as 0 or ∞."""
    for name, called in CONTROLS.items():
        control = part(result, "controls", name)
        for directed in DIRECTED:
            reason = part(control, directed.term, directed.quantity).get("reason")
            if reason and directed.pair(result, name)[0] is not None:
                yield f"{directed.called} of {called}: {reason}."


def _without_verdicts(compared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Why there is no verdict about a control."""
    for name, found in compared.items():
        if "reason" in found:
            yield f"No {CONTROLS[name]} control: {found['reason']}."
        elif not found["counts"]:
            unknown = "since there is no held-out error to compare"
            yield f"{CONTROLS[name]}: no verdicts, {unknown if found['counts'] is None else NO_CONTRAST[name]}."


# ---------------------------------------------------------------------- several runs
def fooled_lines(verdicts: Sequence[Fooled]) -> Iterator[str]:
    """A sentence per control: which terms it fools in all runs where it counts, in some, and in none.

    `verdicts` are those of `fooled_in`, one per run. Terms in "not" see through the control in some runs and are fooled
    in none; the others are undecided throughout.
    """
    for name, called in CONTROLS.items():
        measured = [of_run[name] for of_run in verdicts if name in of_run]
        runs = [of_run for of_run in measured if of_run]
        if not runs:
            if measured:
                yield f"{called}: no verdicts in {plural(len(measured), 'run')}, {NO_CONTRAST[name]}."
            continue
        counts = {
            term: Counter(of_run[term] for of_run in runs if term in of_run)
            for term in BY_NAME
            if any(term in of_run for of_run in runs)
        }
        groups: dict[str, list[str]] = {title: [] for title in ("fools", "in some runs", "not", "undecided")}
        for term, found in counts.items():
            said, total = BY_NAME[term].called, found.total()
            if found[FOOLED] == total:
                groups["fools"].append(said)
            elif found[FOOLED]:
                groups["in some runs"].append(f"{said} ({found[FOOLED]} of {total})")
            else:
                groups["not" if found[NOT] else "undecided"].append(said)
        in_words = "; ".join(f"{title}: {', '.join(terms)}" for title, terms in groups.items() if terms)
        yield f"{called} ({plural(len(runs), 'run')}) {in_words}."


def print_fooled(out: Console, verdicts: Sequence[Fooled]) -> None:
    """Print the sentences of `fooled_lines`, and what a control is; nothing without controls."""
    lines = list(fooled_lines(verdicts))
    if not lines:
        return
    heading(out, TITLE)
    for line in lines:
        out.print(Text(line))
    note(out, CAPTION + ".")
