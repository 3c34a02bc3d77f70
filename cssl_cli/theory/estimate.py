"""What a term returns: a number with its estimator, its direction of error and what it was computed from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from cssl_cli.features.intervals import MIN_CLASS_IMAGES, bootstrap_interval
from cssl_cli.theory.term import Direction

__all__ = [
    "Absent",
    "Direction",
    "Estimate",
    "Interval",
    "Quantity",
    "Sample",
    "by_class",
    "intervals_by_class",
    "numbers",
]

Interval = tuple[float, float]


class Sample(NamedTuple):
    """How many images, and views of each, a number was computed from."""

    num_images: int
    num_views: int


@dataclass(frozen=True)
class Estimate:
    """A measured quantity.

    `value` is a number, a list or matrix of numbers in the order of `class_names`, or numbers by name; an entry that
    cannot be estimated is None and, where a class is the cause, `absent` says why. `errs`: see `term.Direction`.
    `interval` has the shape of `value` with (low, high) for a number, at 95 %; None if there is none. `classes` names
    the classes that a selected number is about. `vacuous` says whether a bound is no better than what is known without
    it; it is reported as computed, not clipped. `warning` is a sentence on why the number is easily misread on these
    images.
    """

    value: float | list[Any] | dict[str, float | None]
    estimator: str
    errs: Direction
    sample: Sample
    interval: Interval | list[Interval] | dict[str, Interval | None] | None = None
    classes: tuple[str, ...] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    vacuous: bool | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; `classes`, `absent` and `warning` only if they are set."""
        entry: dict[str, Any] = {
            "value": self.value,
            "interval": _lists(self.interval),
            "estimator": self.estimator,
            "errs": self.errs,
            **self.sample._asdict(),
        }
        if self.classes is not None:
            entry["classes"] = list(self.classes)
        if self.absent:
            entry["absent"] = dict(self.absent)
        if self.vacuous is not None:
            entry["vacuous"] = self.vacuous
        if self.warning is not None:
            entry["warning"] = self.warning
        return entry


@dataclass(frozen=True)
class Absent:
    """A quantity that this table cannot give, and the sentence that says why."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """`value` null and the `reason`."""
        return {"value": None, "reason": self.reason}


Quantity = Estimate | Absent


def numbers(values: Tensor) -> Any:
    """A tensor as a number or nested lists of them, with None for what is undefined (NaN)."""
    return _without_nan(values.tolist())


def by_class(class_names: Sequence[str], values: Tensor) -> dict[str, float | None]:
    """One value (K,) for each class, None if undefined (NaN)."""
    return dict(zip(class_names, numbers(values), strict=True))


def intervals_by_class(
    class_names: Sequence[str], values: Tensor, replicates: Tensor | None, sizes: Tensor, *, least: float = -math.inf
) -> dict[str, Interval | None] | None:
    """Bootstrap intervals of one number a class, from its values (K,) and replicates (R, K), where none is below
    `least`; None for a class of fewer than `MIN_CLASS_IMAGES` of its `sizes` (K,)."""
    if replicates is None:
        return None
    columns = zip(class_names, values.tolist(), replicates.cpu().unbind(dim=1), sizes.tolist(), strict=True)
    return {
        name: bootstrap_interval(value, column, degrees=size - 1, least=least) if size >= MIN_CLASS_IMAGES else None
        for name, value, column, size in columns
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if math.isnan(value) else value


def _lists(interval: Any) -> Any:
    if isinstance(interval, dict):
        return {name: _lists(entry) for name, entry in interval.items()}
    return [_lists(entry) for entry in interval] if isinstance(interval, (list, tuple)) else interval
