"""Control encoders: which terms prefer one that is made without training although it classifies worse, or the reverse.

Not to be taken for the negative controls of a sweep (controls.py): those are trained, on images that are faded out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.paired_difference import exceeds
from cssl_cli.plot.quantities import number as finite
from cssl_cli.plot.quantities import part
from cssl_cli.report.catalogue import central_epsilon
from cssl_cli.report.concentration import central_delta
from cssl_cli.report.layout import (
    Rounding,
    heading,
    note,
    number,
    percent,
    plural,
    print_widest,
    table,
    without_interval,
)

Result = Mapping[str, Any]
Fooled = Mapping[str, Mapping[str, str]]  # verdicts by control and term
Place = Callable[[Sequence[float]], int]  # on the grid of a curve

HASH, CLASS_AWARE = "hash", "class_aware"
CONTROLS = {HASH: "hash", CLASS_AWARE: "class-aware"}
TITLE = "Control encoders, made without training"
FOOLED, NOT, UNDECIDED = "fooled", "not", "undecided"


@dataclass(frozen=True)
class Reading:
    """A measured number and its interval, None where there is none."""

    value: float
    interval: tuple[float, float] | None

    def exceeds(self, other: Reading) -> bool:
        """Whether it is greater, whatever the two intervals leave open; without one the value itself counts."""
        low = self.value if self.interval is None else self.interval[0]
        high = other.value if other.interval is None else other.interval[1]
        return exceeds(low, high)


@dataclass(frozen=True)
class Directed:
    """A quantity of a term with the direction in which it expects better encoders: `sign` +1 upwards, −1 downwards.

    share: shown in %. curve: the setting that is the grid of a curve, `place` which of its points is meant, and `at`
    that in words. outside: one less the quantity is meant.
    """

    name: str
    called: str
    sign: int
    term: str
    quantity: str
    share: bool = False
    curve: str | None = None
    place: Place = len
    at: str = ""
    outside: bool = False

    def label(self, settings: Mapping[str, Any]) -> str:
        at = "" if self.curve is None else self.at.format(settings[self.curve][self.place(settings[self.curve])])
        return f"{self.called}{at}{', %' if self.share else ''} {'↑' if self.sign > 0 else '↓'}"

    def read(self, terms: Mapping[str, Any], settings: Mapping[str, Any]) -> Reading | None:
        """From the terms of one encoder; None where they lack it."""
        found = part(terms, self.term, self.quantity)
        value, interval = found.get("value"), found.get("interval")
        if self.curve is not None and isinstance(value, list):
            at = self.place(settings[self.curve])
            value, interval = value[at], interval and interval[at]
        known = finite(value)
        if known is None:
            return None
        low, high = interval or (known, known)
        if self.outside:
            known, low, high = 1 - known, 1 - high, 1 - low
        return Reading(known, (low, high) if interval else None)

    def shown(self, reading: Reading | None) -> str:
        if reading is None:
            return "–"
        rounded: Rounding = "up" if "≤" in self.called else "nearest"
        return (percent if self.share else number)(reading.value, reading.interval, rounded=rounded)


def _central(epsilons: Sequence[float]) -> int:
    return epsilons.index(central_epsilon(epsilons))


# What "better" is measured by: images that gave no centre.
HELD_OUT = Directed("held_out_error", "held-out error", -1, "population", "error", share=True)
# Every quantity that expects better encoders on one side; α-ReQ, which likes 1 best, is none.
DIRECTED = (
    Directed("in_table_error", "error on these images", -1, "center_error", "error", share=True),
    Directed("certificate_c", "certified ≤ (Theorem C)", -1, "certificate_c", "error_bound", share=True),
    Directed("uncertified_share", "uncertified, held out", -1, "population", "uncertified_share", share=True),
    Directed("alignment", "alignment", -1, "alignment", "unbiased"),
    Directed(
        "R_epsilon",
        "R_ε",
        -1,
        "R_epsilon",
        "curve",
        share=True,
        curve="epsilons",
        place=_central,
        at=" at ε = {:g}",
    ),
    Directed("mean_inner_product", "mean μk·μl", -1, "class_centers", "mean_inner_product"),
    Directed("closest_pair", "least ‖μk − μl‖", 1, "class_centers", "closest_pair"),
    Directed(
        "one_minus_sigma_trained",
        "1−σ, features",
        -1,
        "concentration",
        "mean_sigma_low",
        share=True,
        curve="deltas",
        place=central_delta,
        at=", {:g} δ₀",
        outside=True,
    ),
    Directed("within_over_between_trained", "d_A w/b, features", -1, "concentration", "within_over_between"),
    Directed(
        "nearest_same_class_trained", "nearest of its class", 1, "concentration", "nearest_same_class", share=True
    ),
    Directed("ratio", "within / between", -1, "spread", "ratio"),
    Directed("nt_xent", "NT-Xent", -1, "nt_xent", "loss"),
    Directed("info_nce", "InfoNCE", -1, "info_nce", "loss"),
    Directed("redundancy_loss", "‖M − I‖²", -1, "cross_correlation", "redundancy_loss"),
    Directed("uniformity", "uniformity", -1, "uniformity", "uniformity"),
    Directed("rankme", "RankMe", 1, "effective_rank", "rankme"),
    Directed("nesum", "NESum", 1, "effective_rank", "nesum"),
    Directed("lidar", "LiDAR", 1, "lidar", "lidar"),
    Directed("arc", "ARC", 1, "chaos", "arc"),
    Directed("nc1", "NC1", -1, "neural_collapse", "nc1"),
    Directed("plain_ratio", "tr Σ_W / tr Σ_B, plain", -1, "neural_collapse", "ratio"),
    Directed("cdnv", "CDNV, mean over pairs", -1, "neural_collapse", "cdnv"),
)
BY_NAME = {directed.name: directed for directed in DIRECTED}


# ---------------------------------------------------------------------- verdicts
def compare_controls(result: Result) -> dict[str, Any] | None:
    """What each control fools, as JSON types; None where the analysis was made without them.

    For each the `held_out_error` of `trained` encoder and `control`, whether it `counts` (the hash by a higher error,
    the class-aware control by a lower one, beyond both intervals; None without labels), and the `terms`, each
    {"term", "trained", "control", "verdict"}. The verdict is "fooled" where the term prefers the encoder with the
    higher held-out error, "not" where it prefers the other or neither, "undecided" where the values differ within the
    intervals of the two. It is None where the control does not count or a value is missing. A control that could not be
    made has a `reason` only.
    """
    if not part(result, "controls"):
        return None
    return {name: _compared(name, result) for name in CONTROLS}


def _compared(name: str, result: Result) -> dict[str, Any]:
    control, settings = part(result, "controls", name), part(result, "settings")
    if "reason" in control or not control:
        return {"reason": control.get("reason", "it was not measured")}
    pairs = {directed.name: _pair(directed, result, name) for directed in (HELD_OUT, *DIRECTED)}
    errors = _worse_first(name, pairs.pop(HELD_OUT.name))
    counts = None if errors is None else errors[0].exceeds(errors[1])
    return {
        "held_out_error": {
            "trained": _value(HELD_OUT.read(part(result, "trained"), settings)),
            "control": _value(HELD_OUT.read(control, settings)),
        },
        "counts": counts,
        "terms": [
            {
                "term": term,
                "trained": _value(trained),
                "control": _value(of_control),
                "verdict": _verdict(BY_NAME[term].sign, _worse_first(name, (trained, of_control))) if counts else None,
            }
            for term, (trained, of_control) in pairs.items()
        ],
    }


def _pair(directed: Directed, result: Result, control: str) -> tuple[Reading | None, Reading | None]:
    """The reading of the trained encoder and of the control."""
    settings = part(result, "settings")
    trained = {**part(result, "trained"), "concentration": part(result, "concentration", "trained")}
    return directed.read(trained, settings), directed.read(part(result, "controls", control), settings)


def _worse_first(control: str, readings: tuple[Reading | None, Reading | None]) -> tuple[Reading, Reading] | None:
    """Of trained encoder and control first the one that is meant to classify worse; None where either is missing."""
    trained, of_control = readings
    if trained is None or of_control is None:
        return None
    return (of_control, trained) if control == HASH else (trained, of_control)


def _verdict(sign: int, readings: tuple[Reading, Reading] | None) -> str | None:
    if readings is None:
        return None
    worse, better = readings
    above, below = (worse, better) if sign > 0 else (better, worse)
    if above.exceeds(below):
        return FOOLED
    differ = exceeds(above.value, below.value) or exceeds(below.value, above.value)
    return UNDECIDED if differ and not below.exceeds(above) else NOT


def _value(reading: Reading | None) -> float | None:
    return None if reading is None else reading.value


# ---------------------------------------------------------------------- of one run
CAPTION = (
    "On the same images and views: hash gives each image a random direction and knows no class, class-aware gives each "
    "class one and keeps views far apart. A term is fooled that prefers whichever of control and trained encoder has "
    "the higher held-out error (half of each class gives the centres, the rest is tested), by more than the intervals "
    "where it has any"
)


def print_controls(out: Console, result: Result) -> None:
    """A row a term: the trained encoder, both controls, and which of them fools it; the held-out error first."""
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
            rows.append((directed.label(result["settings"]), cells, mark))
    print_widest(out, [_grid(rows, intervals=count) for count in (3, 1, 0)])
    note(out, CAPTION + ("; ?: within them." if any("?" in mark for *_, mark in rows) else "."))
    for said in dict.fromkeys([*_absences(result), *_without_verdicts(compared)]):
        note(out, said)


def _cells(directed: Directed, result: Result) -> list[str]:
    trained, hashed = _pair(directed, result, HASH)
    return [directed.shown(reading) for reading in (trained, hashed, _pair(directed, result, CLASS_AWARE)[1])]


def _mark(verdicts: Mapping[str, str | None]) -> str:
    """The controls that fool a term; with a question mark those that do or do not within the intervals."""
    fooled = [CONTROLS[name] for name, verdict in verdicts.items() if verdict == FOOLED]
    if len(fooled) == len(CONTROLS):
        return "both"
    return ", ".join([*fooled, *(f"{CONTROLS[name]}?" for name, verdict in verdicts.items() if verdict == UNDECIDED)])


def _grid(rows: Sequence[tuple[str, Sequence[str], str]], intervals: int) -> Table:
    grid = table("", "trained", *CONTROLS.values(), "fooled by")
    grid.columns[-1].justify = "left"
    for place, (label, cells, mark) in enumerate(rows):
        shown = (cell if column < intervals else without_interval(cell) for column, cell in enumerate(cells))
        grid.add_row(label, *shown, Text(mark, style="bold"), end_section=place == 0)
    grid.columns[0].no_wrap = True
    return grid


def _absences(result: Result) -> Iterator[str]:
    """Why controls lack what the trained encoder has."""
    for name, called in CONTROLS.items():
        control = part(result, "controls", name)
        for directed in DIRECTED:
            reason = part(control, directed.term, directed.quantity).get("reason")
            if reason and _pair(directed, result, name)[0] is not None:
                yield f"{directed.called} of {called}: {reason}."


def _without_verdicts(compared: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Why there is no verdict about a control."""
    for name, found in compared.items():
        if "reason" in found:
            yield f"No {CONTROLS[name]} control: {found['reason']}."
        elif found["counts"] is None:
            yield f"No verdicts about {CONTROLS[name]}: there is no held-out error to compare."
        elif not found["counts"]:
            needed = "above" if name == HASH else "below"
            yield (
                f"No verdicts about {CONTROLS[name]}: its held-out error is not {needed} the trained encoder's by more "
                "than the intervals."
            )


# ---------------------------------------------------------------------- of many
def fooled_in(result: Result) -> Fooled:
    """For each control that counts in an analysis, its verdicts by term; empty without controls."""
    compared = compare_controls(result) or {}
    return {
        name: {entry["term"]: entry["verdict"] for entry in found["terms"] if entry["verdict"]}
        for name, found in compared.items()
        if found.get("counts")
    }


def fooled_lines(verdicts: Sequence[Fooled]) -> Iterator[str]:
    """A sentence a control: which terms it fools in all of the runs where it counts, in some and in none.

    `verdicts` are those of `fooled_in`, one for each run.
    """
    for name, called in CONTROLS.items():
        runs = [of_run[name] for of_run in verdicts if name in of_run]
        if not runs:
            continue
        counts = Counter(term for of_run in runs for term, verdict in of_run.items() if verdict == FOOLED)
        measured = Counter(term for of_run in runs for term in of_run)
        in_all = [term for term in BY_NAME if measured[term] and counts[term] == measured[term]]
        in_some = [term for term in BY_NAME if 0 < counts[term] < measured[term]]
        in_none = [term for term in BY_NAME if measured[term] and not counts[term]]
        groups = {
            f"fools, in {'all of ' if len(runs) > 1 else ''}{plural(len(runs), 'run')}": [_called(t) for t in in_all],
            "in some": [f"{_called(term)} ({counts[term]} of {measured[term]})" for term in in_some],
            "not": [_called(term) for term in in_none],
        }
        said = "; ".join(f"{title}: {', '.join(terms)}" for title, terms in groups.items() if terms)
        yield f"The {called} control {said}."


def _called(term: str) -> str:
    return BY_NAME[term].called


def print_fooled(out: Console, verdicts: Sequence[Fooled]) -> None:
    """The sentences of `fooled_lines`, and what a control is; nothing without controls."""
    lines = list(fooled_lines(verdicts))
    if not lines:
        return
    heading(out, TITLE)
    for line in lines:
        out.print(Text(line))
    note(out, CAPTION + ".")
