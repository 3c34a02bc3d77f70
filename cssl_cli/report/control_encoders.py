"""Control encoders: which terms prefer one that is made without training although it classifies worse, or the reverse.

Not to be taken for the negative controls of a sweep (controls.py): those are trained, on images that are faded out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cssl_cli.report.compare.catalogue import central_epsilon
from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.report.sections.concentration import central_delta
from cssl_cli.runs.results import number as finite
from cssl_cli.runs.results import part

Result = Mapping[str, Any]
Fooled = Mapping[str, Mapping[str, str]]  # verdicts by control measured and term
Place = Callable[[Sequence[float]], int]  # on the grid of a curve

HASH, CLASS_AWARE = "hash", "class_aware"
CONTROLS = {HASH: "hash", CLASS_AWARE: "class-aware"}
FOOLED, NOT, UNDECIDED = "fooled", "not", "undecided"


@dataclass(frozen=True)
class Reading:
    """A measured number, or infinity, and its interval, None where there is none."""

    value: float
    interval: tuple[float, float] | None

    def exceeds(self, other: Reading) -> bool:
        """Whether it is greater, whatever the two intervals leave open; without one the value itself counts."""
        low = self.value if self.interval is None else self.interval[0]
        high = other.value if other.interval is None else other.interval[1]
        return low > high if math.isinf(low) else exceeds(low, high)


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

    def pair(self, result: Result, control: str) -> tuple[Reading | None, Reading | None]:
        """Of the trained encoder and of a control."""
        settings = part(result, "settings")
        trained = {**part(result, "trained"), "concentration": part(result, "concentration", "trained")}
        return self.read(trained, settings), self.read(part(result, "controls", control), settings)


class _SpreadRatio(Directed):
    """Within over between, which is absent where one of them is not above its noise: it is then 0 or infinite here."""

    def read(self, terms: Mapping[str, Any], settings: Mapping[str, Any]) -> Reading | None:
        known = super().read(terms, settings)
        within, between = (finite(part(terms, self.term, name).get("value")) for name in ("within", "between"))
        if known is not None or within is None or between is None or (within <= 0) == (between <= 0):
            return known
        return Reading(0.0 if within <= 0 else math.inf, None)


def _central(epsilons: Sequence[float]) -> int:
    return epsilons.index(central_epsilon(epsilons))


# What "better" is measured by: images that gave no centre.
HELD_OUT = Directed("held_out_error", "held-out error", -1, "population", "error", share=True)
# Every quantity that expects better encoders on one side; α-ReQ, which likes 1 best, is none.
DIRECTED = (
    Directed("in_table_error", "error on these images", -1, "center_error", "error", share=True),
    Directed("certificate_c", "certified ≤ (Theorem C)", -1, "certificate_c", "error_bound", share=True),
    Directed("uncertified_share", "uncertified held out", -1, "population", "uncertified_share", share=True),
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
        "1−σ (features)",
        -1,
        "concentration",
        "mean_sigma_low",
        share=True,
        curve="deltas",
        place=central_delta,
        at=" at {:g} δ₀",
        outside=True,
    ),
    Directed("within_over_between_trained", "d_A w/b (features)", -1, "concentration", "within_over_between"),
    Directed(
        "nearest_same_class_trained", "nearest of its class", 1, "concentration", "nearest_same_class", share=True
    ),
    _SpreadRatio("ratio", "within / between", -1, "spread", "ratio"),
    Directed("nt_xent", "NT-Xent", -1, "nt_xent", "loss"),
    Directed("info_nce", "InfoNCE", -1, "info_nce", "loss"),
    Directed("redundancy_loss", "‖M − I‖²", -1, "cross_correlation", "redundancy_loss"),
    Directed("uniformity", "uniformity", -1, "uniformity", "uniformity"),
    Directed("rankme", "RankMe", 1, "effective_rank", "rankme"),
    Directed("nesum", "NESum", 1, "effective_rank", "nesum"),
    Directed("lidar", "LiDAR", 1, "lidar", "lidar"),
    Directed("arc", "ARC", 1, "chaos", "arc"),
    Directed("nc1", "NC1", -1, "neural_collapse", "nc1"),
    Directed("plain_ratio", "plain tr Σ_W / tr Σ_B", -1, "neural_collapse", "ratio"),
    Directed("cdnv", "CDNV", -1, "neural_collapse", "cdnv"),
)
BY_NAME = {directed.name: directed for directed in DIRECTED}


# ---------------------------------------------------------------------- verdicts
def compare_controls(result: Result) -> dict[str, Any] | None:
    """What each control fools, as JSON types; None where the analysis was made without them.

    For each the `held_out_error` of `trained` encoder and `control`, whether it `counts` (the hash by a higher error,
    the class-aware control by a lower one, beyond both intervals; None without labels), and the `terms`, each
    {"term", "trained", "control", "verdict"}; a value that is infinite is None, too. The verdict is "fooled" where the
    term prefers the encoder with the higher held-out error, "not" where it prefers the other or neither, "undecided"
    where the values differ within the intervals of the two. It is None where the control does not count or a value is
    missing. A control that could not be made has a `reason` only.
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
    if exceeds(above.value, below.value):
        return UNDECIDED
    return UNDECIDED if exceeds(below.value, above.value) and not below.exceeds(above) else NOT


def _value(reading: Reading | None) -> float | None:
    return None if reading is None or math.isinf(reading.value) else reading.value


def fooled_in(result: Result) -> Fooled:
    """The verdicts of an analysis by control and term: none of a control that does not count or was not measured."""
    compared = compare_controls(result) or {}
    return {
        name: {entry["term"]: entry["verdict"] for entry in found["terms"] if entry["verdict"]}
        for name, found in compared.items()
        if "terms" in found
    }
