"""The claims of a sweep file in sentences: their verdicts, and the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cssl_cli.report.compare.claims import NO, OPEN, YES, Answer, Part
from cssl_cli.report.compare.named_quantities import called, shown
from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.report.compare.tables.differences import apart
from cssl_cli.report.layout import heading, note, plural

STYLES = {YES: "green", NO: "red", OPEN: "yellow"}


def print_claims(out: Console, answered: Sequence[Answer]) -> None:
    """Print a line per claim with its verdict, and a line for each of its parts; nothing without claims."""
    if not answered:
        return
    heading(out, "Claims")
    for claim in answered:
        text = Text(f"{claim['says']}: ")
        text.append(_verdict(claim), style=STYLES[claim["verdict"]])
        out.print(text)
        for part in claim["parts"] if claim["finished"] else ():
            out.print(Padding(Text(f"{_place(part)}: {_in_words(part)}"), (0, 0, 0, 2)))
            for step in part.get("steps", ()):
                if not step["in_order"]:
                    out.print(Padding(Text(_step_in_words(part, step)), (0, 0, 0, 4)))
    note(out, _caption(answered))


def _verdict(claim: Answer) -> str:
    verdict, comparisons = claim["verdict"], claim["comparisons"]
    if verdict == OPEN:
        unfinished = claim["finished"] < claim["rows"]
        return f"open: {claim['finished']} of {plural(claim['rows'], 'row')} finished" if unfinished else verdict
    refuted = verdict == NO and claim["beyond_noise"]  # a single such difference is enough
    if claim["noise_unknown"] and not refuted:
        return f"{verdict}, with seed noise unknown"
    if verdict == NO and not claim["beyond_noise"]:
        return "no, but what contradicts it is within seed noise"
    within = comparisons - claim["beyond_noise"]
    if verdict == YES and within:
        return "yes, but within seed noise" + (f" in {within} of {comparisons} comparisons" if comparisons > 1 else "")
    return str(verdict)


def _place(part: Part) -> str:
    return called(part["quantity"]) if part["group"] is None else f"{part['group']}, {called(part['quantity'])}"


def _in_words(part: Part) -> str:
    if part["finished"] < part["rows"]:
        return f"open, {part['finished']} of {plural(part['rows'], 'row')} finished"
    if part["lacking"]:
        return f"open, without a number for {', '.join(part['lacking'])}"
    return _order_in_words(part) if "steps" in part else _ahead_in_words(part)


def _ahead_in_words(part: Part) -> str:
    ranked, named = part["ranked"], part["named"]
    found = part["difference"]
    last, rival = part["last_named"], part["rival"]
    if part["verdict"] == YES:
        are = "is" if len(named) == 1 else "are"
        leading = ", ".join(_with_mean(part, row) for row in ranked if row in named)
        return f"{leading} {are} {part['way']}; next {_with_mean(part, rival)}, {apart(part['quantity'], found)}"
    place = f"place {ranked.index(last) + 1} of {len(ranked)}"
    ends = part["means"][last], part["means"][rival]
    tied = not exceeds(max(ends), min(ends))
    ahead = "as far as" if tied else "before"
    return (
        f"{_with_mean(part, rival)} comes {ahead} {_with_mean(part, last)} ({place}), {apart(part['quantity'], found)}"
    )


def _order_in_words(part: Part) -> str:
    right = [step for step in part["steps"] if step["in_order"]]
    beyond = [step["difference"].beyond_noise if step["difference"] else None for step in right]
    noise = f"{beyond.count(True)} of them beyond seed noise"
    if None in beyond:
        unknown = beyond.count(None)
        noise = "seed noise unknown" if unknown == len(beyond) else f"{noise}, of {unknown} it is unknown"
    return f"{len(right)} of {len(part['steps'])} neighbours in order, {noise}"


def _step_in_words(part: Part, step: Mapping[str, Any]) -> str:
    before, after = _with_mean(part, step["from"]), _with_mean(part, step["to"])
    side = "below" if part["way"] == "increasing" else "above"
    return f"{before} is not {side} {after}, {apart(part['quantity'], step['difference'])}"


def _with_mean(part: Part, row: str) -> str:
    return f"{row} {shown(part['quantity'], part['means'][row])}"


def _caption(answered: Sequence[Answer]) -> str:
    one_seed = any(
        found is not None and found.n == 1
        for claim in answered
        for part in claim["parts"]
        for found in (part.get("difference"), *(step["difference"] for step in part.get("steps", ())))
    )
    return (
        "Verdicts compare means over seeds and are open until all rows that they compare have finished. Apart: the "
        "mean difference over the same seeds ± its sample standard deviation; within seed noise: its 95 % interval "
        "holds 0." + (" With one seed nothing is known of seed noise." if one_seed else "")
    )
