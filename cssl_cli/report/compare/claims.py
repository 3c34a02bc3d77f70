"""The claims of a sweep file, answered yes, no or open, with the true order and how much of it may be seed noise.

An answer compares means over seeds. It is open until every row it compares has finished with all its seeds and has the
quantity. Differences paired by seed accompany it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from cssl_cli.report.compare.named_quantities import difference, is_complete, mean_of
from cssl_cli.report.compare.paired_difference import PairedDifference, exceeds
from cssl_cli.report.compare.rows import Row
from cssl_cli.sweep.claims import Group, groups_of
from cssl_cli.sweep.file import Claim
from cssl_cli.sweep.sweep import Sweep

YES, NO, OPEN = "yes", "no", "open"
Part = dict[str, Any]
Answer = dict[str, Any]


def answers(sweep: Sweep, rows: Sequence[Row]) -> list[Answer]:
    """Each claim of the sweep with its `verdict` and the `parts` behind it. rows: those of the whole sweep.

    A part is one quantity in one group of rows. The verdict is "no" if any part is, else "open" if any part is.
    """
    by_name = {row.name: row for row in rows if not row.control}
    variants = {member.row: member.axes for member in sweep.members if member.row in by_name}
    return [_answer(claim, groups_of(claim, variants), by_name) for claim in sweep.claims]


def _answer(claim: Claim, groups: Sequence[Group], rows: Mapping[str, Row]) -> Answer:
    parts: list[Part] = []
    for group in groups:
        for way, quantities in (("smallest", claim.smallest), ("largest", claim.largest)):
            parts += [_ahead(group, rows, quantity, way) for quantity in quantities or ()]
        way = "increasing" if claim.increasing else "decreasing"
        parts += [_ordered(group, rows, quantity, way) for quantity in claim.by or ()]
    verdicts = {part["verdict"] for part in parts}
    verdict = NO if NO in verdicts else OPEN if OPEN in verdicts else YES
    compared = {row for group in groups for row in (group.named if claim.order else group.rows)}
    return {
        "says": claim.says,
        "verdict": verdict,
        **_noise([found for part in parts for found in _deciding(part, verdict)]),
        "finished": sum(is_complete(rows[row]) for row in compared),
        "rows": len(compared),
        "parts": parts,
    }


def _deciding(part: Part, verdict: str) -> list[PairedDifference | None]:
    """The differences that confirm the claim, or those that contradict it."""
    if part["verdict"] != verdict or verdict == OPEN:
        return []
    if "steps" in part:
        return [step["difference"] for step in part["steps"] if step["in_order"] == (verdict == YES)]
    return [part["difference"]]


def _noise(deciding: Sequence[PairedDifference | None]) -> dict[str, int]:
    """The number of deciding differences, of those beyond seed noise, and of those for which it is unknown."""
    beyond = [None if found is None else found.beyond_noise for found in deciding]
    return {"comparisons": len(beyond), "beyond_noise": beyond.count(True), "noise_unknown": beyond.count(None)}


def _part(group: Group, rows: Sequence[Row], quantity: str, way: str) -> Part:
    """The fields of every part: open at first, with the rows that keep it so."""
    complete = [row for row in rows if is_complete(row)]
    return {
        "group": group.variant,
        "quantity": quantity,
        "way": way,
        "verdict": OPEN,
        "finished": len(complete),
        "rows": len(rows),
        "lacking": [row.name for row in complete if mean_of(row, quantity) is None],
        "means": {row.name: mean_of(row, quantity) for row in complete},
    }


def _is_open(part: Part) -> bool:
    return part["finished"] < part["rows"] or bool(part["lacking"])


# ---------------------------------------------------------------------- ahead of all others
def _ahead(group: Group, by_name: Mapping[str, Row], quantity: str, way: str) -> Part:
    """Whether the named rows come before all others; compares the last of them with the first of the others."""
    rows = [by_name[name] for name in group.rows]
    part = _part(group, rows, quantity, way) | {"named": list(group.named)}
    if _is_open(part):
        return part
    sign = 1 if way == "smallest" else -1
    ranked = sorted(rows, key=lambda row: sign * (mean_of(row, quantity) or 0.0))
    named = [row for row in ranked if row.name in group.named]
    others = [row for row in ranked if row.name not in group.named]
    last, rival = named[-1], others[0]
    first_named = exceeds(sign * part["means"][rival.name], sign * part["means"][last.name])
    return part | {
        "verdict": YES if first_named else NO,
        "ranked": [row.name for row in ranked],
        "last_named": last.name,
        "rival": rival.name,
        "difference": difference(rival, last, quantity),
    }


# ---------------------------------------------------------------------- in order
def _ordered(group: Group, by_name: Mapping[str, Row], quantity: str, way: str) -> Part:
    """Whether the named rows rise, or fall, along their order; compares each with the one before."""
    rows = [by_name[name] for name in group.named]
    part = _part(group, rows, quantity, way)
    if _is_open(part):
        return part
    sign = 1 if way == "increasing" else -1
    steps = [
        {
            "from": before.name,
            "to": after.name,
            "in_order": exceeds(sign * part["means"][after.name], sign * part["means"][before.name]),
            "difference": difference(after, before, quantity),
        }
        for before, after in pairwise(rows)
    ]
    return part | {"verdict": YES if all(step["in_order"] for step in steps) else NO, "steps": steps}
