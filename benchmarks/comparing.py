"""Compares ratios of a benchmark run with stored ones: which are worse by more than their noise?

A ratio may change by three times its combined spread or by a quarter, whichever is more: runs of the same code half an
hour apart differed by up to a fifth, because the machine had become slower at moving memory. The spread of a ratio that
was measured once is taken to be `UNKNOWN_SPREAD`. Ratios taken on another kind of device, in another precision
or with another number of threads are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SPREADS, LEAST_TOLERANCE = 3, 0.25
UNKNOWN_SPREAD = 0.10
CONDITIONS = ("device", "precision", "threads")

Verdict = Literal["better", "worse", "within noise", "missing", "new", "not comparable"]


@dataclass(frozen=True)
class Comparison:
    """A ratio before and now. `change` is above 1 if it improved; `reason` says why it is not compared."""

    benchmark: str
    name: str
    verdict: Verdict
    before: float | None = None
    now: float | None = None
    change: float | None = None
    tolerance: float | None = None
    reason: str = ""


def compare(baseline: Mapping[str, Any], results: Mapping[str, Any]) -> list[Comparison]:
    """Every ratio of either run, in order; both map the name of a benchmark to what its script wrote."""
    found = []
    for benchmark in dict.fromkeys([*baseline, *results]):
        before, now = baseline.get(benchmark, {}), results.get(benchmark, {})
        reason = differing_conditions(before.get("machine", {}), now.get("machine", {}))
        old, new = before.get("ratios", {}), now.get("ratios", {})
        for name in dict.fromkeys([*old, *new]):
            found.append(_compare_ratio(benchmark, name, old.get(name), new.get(name), reason))
    return found


def _compare_ratio(
    benchmark: str, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, reason: str
) -> Comparison:
    before, now = old["ratio"] if old else None, new["ratio"] if new else None
    if old is None or new is None:
        return Comparison(benchmark, name, "missing" if new is None else "new", before, now)
    if reason:
        return Comparison(benchmark, name, "not comparable", before, now, reason=reason)
    change = new["ratio"] / old["ratio"] if new["better"] == "higher" else old["ratio"] / new["ratio"]
    tolerance = tolerance_of(old["spread"], new["spread"])
    verdict: Verdict = "within noise"
    if change < 1 / (1 + tolerance):
        verdict = "worse"
    elif change > 1 + tolerance:
        verdict = "better"
    return Comparison(benchmark, name, verdict, before, now, change, tolerance)


def tolerance_of(before: float | None, now: float | None) -> float:
    """The relative change that noise may bring, from the spreads of the two ratios."""
    spreads = [UNKNOWN_SPREAD if spread is None else spread for spread in (before, now)]
    return max(SPREADS * math.hypot(*spreads), LEAST_TOLERANCE)


def differing_conditions(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The conditions a ratio depends on that differ between two machines; empty if none does."""
    changed = [name for name in CONDITIONS if name in before and name in now and before[name] != now[name]]
    return ", ".join(f"{name} {before[name]} → {now[name]}" for name in changed)
