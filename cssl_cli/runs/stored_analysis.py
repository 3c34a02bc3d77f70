"""The content of analysis.json: its head, and every quantity in the form that the table of terms declares.

Reports and figures read it after this check. They must do without quantities that an older version did not measure, and
with quantities that are absent for a reason, but not with lists of another length or text in place of numbers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from cssl_cli.runs.stored import Result, Stored, require
from cssl_cli.theory.term import DISTANCES
from cssl_cli.theory.terms import TERMS

Values = dict[str, Any]
# By group of analysis.json and name.
SHAPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    group: {row.name: row.shape for term in TERMS if term.group == group for row in term.quantities}
    for group in {term.group: None for term in TERMS if term.of != "augmentation"}
}


class _Settings(Stored):
    epsilons: list[float] = Field(min_length=1)
    deltas: list[float] = Field(min_length=1)
    num_views: int = Field(ge=1)
    classes: list[str] | None


class _LossSettings(Stored):
    temperature: float
    batch_size: int
    of_the_method: bool | None  # None: not known of a file of features


class Analysis(Result):
    """analysis.json, without a look into its quantities. What an older version did not measure may be missing."""

    part: str
    num_images: int
    class_names: list[str] | None
    views_of_two_kinds: bool = False
    loss_settings: _LossSettings
    trained: dict[str, Values]
    untrained: Values = Field(default={})
    projector: Values = Field(default={})
    controls: dict[str, Values] = Field(default={})
    concentration: dict[Literal[tuple(DISTANCES)], Values]  # type: ignore[valid-type]


class _Absent(Stored):
    """What is said of a quantity without a value."""

    reason: str | None = None


class _Measured(Stored):
    """What is said of a quantity besides its value and interval."""

    errs: str
    num_images: int
    num_views: int
    vacuous: bool = False
    warning: str | None = None
    classes: list[str] = Field(default=[])
    absent: dict[str, str] = Field(default={})


def require_analysis(content: Mapping[str, Any]) -> None:
    """ValueError that names the first invalid field of an analysis."""
    require(Analysis, content)
    settings = require(_Settings, content["settings"])
    sizes = {
        "classes": len(content["class_names"] or ()),
        "views": settings.num_views,
        "further views": settings.num_views - 1,
        "epsilons": len(settings.epsilons),
        "deltas": len(settings.deltas),
    }
    groups: dict[str, tuple[str, Any]] = {}
    for encoder in ("trained", "untrained", "projector"):
        terms = content.get(encoder, {})
        if not isinstance(terms.get("reason", ""), str):  # of a run imported without a projector
            raise ValueError(f"{encoder}.reason: it is no text")
        groups |= {f"{encoder}.{name}": (name, found) for name, found in terms.items() if name != "reason"}
    for distance, found in content["concentration"].items():
        groups[f"concentration.{distance}"] = "concentration", found
    for control, terms in content.get("controls", {}).items():
        groups |= {f"controls.{control}.{name}": (name, found) for name, found in terms.items() if name != "reason"}
    for place, (name, quantities) in groups.items():
        if not isinstance(quantities, dict):
            raise ValueError(f"{place}: it is no mapping")
        of_group = dict(sizes)
        for quantity, shape in SHAPES.get(name, {}).items():
            if quantity in quantities:
                _require_quantity(quantities[quantity], shape, of_group, f"{place}.{quantity}")


def _require_quantity(entry: Any, shape: Sequence[str], sizes: dict[str, int], place: str) -> None:
    """sizes: entries along each axis of lists; those of axes that it lacks are added."""
    if not isinstance(entry, dict) or "value" not in entry:
        raise ValueError(f"{place}: it has no value")
    try:
        require(_Absent if entry["value"] is None else _Measured, entry)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None
    if entry["value"] is not None:
        _require_shape(entry["value"], shape, sizes, f"{place}.value")
        if entry.get("interval") is not None:
            _require_shape(entry["interval"], (*shape, "ends"), {**sizes, "ends": 2}, f"{place}.interval")


def _require_shape(found: Any, axes: Sequence[str], sizes: dict[str, int], place: str) -> None:
    """Numbers along these axes. One may be None, and so may a whole entry of a mapping, or an interval."""
    if not axes:
        if not _are_numbers((found,)):
            raise ValueError(f"{place}: it is no number")
        return
    axis, *below = axes
    entries: Iterable[tuple[Any, Any]]
    values: Iterable[Any]
    if axis in ("class", "share", "name"):
        if not isinstance(found, dict) or (axis == "share" and not all(map(_is_share, found))):
            raise ValueError(f"{place}: it is no mapping by {axis}")
        may_lack, entries, values = True, found.items(), found.values()
    else:
        if not isinstance(found, list):
            raise ValueError(f"{place}: it is no list")
        if len(found) != sizes.setdefault(axis, len(found)):
            raise ValueError(f"{place}: it has {len(found)} entries and not {sizes[axis]}")
        may_lack, entries, values = axis != "ends" and below in ([], ["ends"]), enumerate(found), found
    if not below and _are_numbers(values):
        return
    for key, entry in entries:
        if entry is not None or not may_lack:
            _require_shape(entry, below, sizes, f"{place}.{key}")


def _are_numbers(values: Iterable[Any]) -> bool:
    # Compared, as `isfinite` raises for a whole number that is too large for it.
    return all(type(value) in (float, int) and abs(value) <= sys.float_info.max for value in values)


def _is_share(key: str) -> bool:
    try:
        return math.isfinite(float(key))
    except ValueError:
        return False
