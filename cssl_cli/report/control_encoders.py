"""Control encoders, made without training: which terms prefer one that classifies worse, or reject a better one.

Not the negative controls of a sweep (controls.py): those are trained, on images that are faded out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.runs.results import number, part, quoted
from cssl_cli.theory.shown import Shown, declared, shown_in
from cssl_cli.theory.term import ARROWS, In

Result = Mapping[str, Any]
Fooled = Mapping[str, Mapping[str, str]]  # verdicts by measured control and term

HASH, CLASS_AWARE = "hash", "class_aware"
CONTROLS = {HASH: "hash", CLASS_AWARE: "class-aware"}
FOOLED, NOT, UNDECIDED = "fooled", "not", "undecided"


@dataclass(frozen=True)
class Reading:
    """A measured number, or infinity, and its interval, None if there is none."""

    value: float
    interval: tuple[float, float] | None

    def exceeds(self, other: Reading) -> bool:
        """Whether it is greater beyond both intervals; without an interval the value itself counts."""
        low = self.value if self.interval is None else self.interval[0]
        high = other.value if other.interval is None else other.interval[1]
        return low > high if math.isinf(low) else exceeds(low, high)


@dataclass(frozen=True)
class Directed:
    """A quantity and its direction for better encoders: `sign` +1 upwards, −1 downwards."""

    name: str
    called: str
    sign: int
    shown: Shown

    @classmethod
    def of(cls, shown: Shown) -> Directed:
        """The quantity as the table of terms declares it for control encoders."""
        row = shown.declared
        assert row.expected is not None, f"{row.name}: a quantity that expects nothing can fool nobody"
        # All distances here are in features, each row's own.
        return cls(shown.name, row.label if shown.term.of == "distance" else shown.called, row.expected, shown)

    @property
    def share(self) -> bool:
        """Whether it is shown in %."""
        return self.shown.declared.share

    @property
    def term(self) -> str:
        """The name of its term in an encoder's results."""
        return self.shown.term.group

    @property
    def quantity(self) -> str:
        """Its name in the term."""
        return self.shown.declared.name

    def label(self, settings: Mapping[str, Any]) -> str:
        """Its label, with the point of a curve, the unit and an arrow."""
        point = self.shown.declared.point
        at = "" if point is None else point.words.format(point.value(settings[point.grid]))
        return f"{self.called}{at}{', %' if self.share else ''}{ARROWS[self.sign]}"

    def read(self, terms: Mapping[str, Any], settings: Mapping[str, Any]) -> Reading | None:
        """Its reading from the terms of one encoder; None if missing.

        A ratio that is absent because one part is not above its noise becomes 0 or infinite.
        """
        quantities, row = part(terms, self.term), self.shown.declared
        found = quoted(quantities, row, settings)
        if found is not None:
            return Reading(*found)
        if row.parts is None:
            return None
        above, below = (number(part(quantities, name).get("value")) for name in row.parts)
        if above is None or below is None or (above <= 0) == (below <= 0):
            return None
        return Reading(0.0 if above <= 0 else math.inf, None)

    def pair(self, result: Result, control: str) -> tuple[Reading | None, Reading | None]:
        """The readings of the trained encoder and of a control."""
        settings = part(result, "settings")
        trained = {**part(result, "trained"), "concentration": part(result, "concentration", "trained")}
        return self.read(trained, settings), self.read(part(result, "controls", control), settings)


# The quality of an encoder: its error on images outside the centres.
HELD_OUT = Directed("held_out_error", "held-out error", -1, declared("population", "error"))
DIRECTED = tuple(map(Directed.of, shown_in(In.CONTROLS)))
BY_NAME = {directed.name: directed for directed in DIRECTED}


# ---------------------------------------------------------------------- verdicts
def compare_controls(result: Result) -> dict[str, Any] | None:
    """What each control fools, as JSON types; None if the analysis has no control encoders.

    For each: the `held_out_error` of `trained` encoder and `control`; whether the control `counts` (the hash if its
    error is higher, the class-aware control if it is lower, beyond both intervals; None without labels); and the
    `terms`, each {"term", "trained", "control", "verdict"}, with None for infinite values. The verdict is "fooled" if
    the term prefers the encoder with the higher held-out error, "not" if it prefers the other or neither, "undecided"
    if the values differ only within both intervals, and None if the control does not count or a value is missing. A
    control that could not be made has only a `reason`.
    """
    if not part(result, "controls"):
        return None
    return {name: _compared(name, result) for name in CONTROLS}


def _compared(name: str, result: Result) -> dict[str, Any]:
    control = part(result, "controls", name)
    if "reason" in control or not control:
        return {"reason": control.get("reason", "it was not measured")}
    errors = HELD_OUT.pair(result, name)
    in_order = _worse_first(name, errors)
    counts = None if in_order is None else in_order[0].exceeds(in_order[1])
    pairs = {directed.name: directed.pair(result, name) for directed in DIRECTED}
    return {
        "held_out_error": {"trained": _value(errors[0]), "control": _value(errors[1])},
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


def _worse_first(control: str, readings: tuple[Reading | None, Reading | None]) -> tuple[Reading, Reading] | None:
    """Both readings, that of the encoder meant to classify worse first; None if either is missing."""
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
    if exceeds(above.value, below.value):
        return UNDECIDED
    return UNDECIDED if exceeds(below.value, above.value) and not below.exceeds(above) else NOT


def _value(reading: Reading | None) -> float | None:
    return None if reading is None or math.isinf(reading.value) else reading.value


def fooled_in(result: Result) -> Fooled:
    """The verdicts of an analysis by control and term, without controls that do not count or were not measured."""
    compared = compare_controls(result) or {}
    return {
        name: {entry["term"]: entry["verdict"] for entry in found["terms"] if entry["verdict"]}
        for name, found in compared.items()
        if "terms" in found
    }
