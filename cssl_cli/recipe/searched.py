"""The settings of an augmentation that vary continuously, and the ranges within which a search may vary them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, Predicate

from cssl_cli.errors import InputError, some, unknown_name
from cssl_cli.recipe import schema
from cssl_cli.recipe.ranges import ascending
from cssl_cli.recipe.recipe import Recipe

FACTOR = 8  # either side of the start, where the range of a field ends nowhere or at an open 0
DIGITS = 3  # significant, of a value that is tried
AT_END = 0.01  # of the range: nearer to an end is at it

Values = tuple[float, ...]  # of a field: its number, or the two of its pair, in ascending order


@dataclass(frozen=True)
class SearchedField:
    """A field, such as augment.crop.scale, to be varied within [low, high], on a log scale or a linear one."""

    name: str
    start: Values
    low: float
    high: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Where a value lies in the range: 0 at its low end, 1 at its high end."""
        return (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))

    def values(self, places: Sequence[float]) -> Values:
        """The field's values at these places, one for each of its numbers, to DIGITS digits; sorted, so any will do."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = [low + min(max(place, 0.0), 1.0) * (high - low) for place in sorted(places)]
        found = [_rounded(math.exp(value) if self.logarithmic else value) for value in scaled]
        return tuple(min(max(value, self.low), self.high) for value in found)

    def ends(self, values: Values) -> list[float]:
        """The ends of the range at which values lie."""
        places = [self.place(value) for value in values]
        at_low, at_high = min(places) < AT_END, max(places) > 1 - AT_END
        return [self.low] * at_low + [self.high] * at_high

    def written(self, values: Values) -> float | list[float]:
        """The values as a recipe holds them."""
        return list(values) if len(values) > 1 else values[0]

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def read_searched(recipe: Recipe, names: Sequence[str]) -> tuple[SearchedField, ...]:
    """The fields of these names; `InputError` for one that is unknown, not continuous, or has no value to start from.

    The ends of a field's range are those of the search where it has two that it may take. Otherwise the search goes
    from an eighth of the start to eight times the start, on a log scale, or to the end there is.
    """
    document = recipe.model_dump(by_alias=True)
    everywhere = [".".join(path) for path in schema.paths(Recipe, document)]
    known = {}
    for name in everywhere:
        info = schema.field_at(Recipe, document, tuple(name.split(".")))
        numbers = _numbers(info.annotation, info.metadata) if info is not None else None
        if name.startswith("augment.") and numbers is not None:
            known[name] = numbers
    if not names:
        raise InputError("no field is named", where="--optimise", remedy=f"Searchable: {some(list(known))}.")
    found = []
    for name in dict.fromkeys(names):
        if name not in everywhere:
            raise unknown_name("field", name, known, where="--optimise")
        if name not in known:
            raise InputError(
                f"{name} is not a continuous setting of an augmentation",
                where="--optimise",
                remedy=f"Searchable: {some(list(known))}.",
            )
        value = _value_at(document, name.split("."))
        if value is None:
            raise InputError(
                f"{name} has no value in {recipe.name} to start from",
                where="--optimise",
                remedy=f"Give it one: {name}={'[LOW,HIGH]' if len(known[name]) > 1 else 'VALUE'}",
            )
        start = tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),)
        found.append(_searched(name, start, known[name]))
    return tuple(found)


def with_values(recipe: Recipe, values: Mapping[SearchedField, Values]) -> Recipe:
    """The recipe with these values in place of its own; in the second view, too, where that has the same."""
    document = recipe.model_dump(mode="json", by_alias=True)
    for name, written in _changes(document, values).items():
        *blocks, key = name.split(".")
        _value_at(document, blocks)[key] = written
    return Recipe.model_validate(document)


def overrides(recipe: Recipe, values: Mapping[SearchedField, Values]) -> list[str]:
    """The overrides that make `with_values` of the recipe, also of one that has its second view written out."""
    changes = _changes(recipe.model_dump(mode="json", by_alias=True), values)
    return [f"{name}={json.dumps(written, separators=(',', ':'))}" for name, written in changes.items()]


def _changes(document: Mapping[str, Any], values: Mapping[SearchedField, Values]) -> dict[str, float | list[float]]:
    """What is written at which field; what both views share, unless either is searched for itself, at both."""
    changes, searched = {}, {field.name for field in values}
    for field, own in values.items():
        changes[field.name] = field.written(own)
        of_second = field.name.replace("augment.", "augment.view_2.", 1)
        shared = _value_at(document, field.name.split(".")) == _value_at(document, of_second.split("."))
        if shared and of_second not in searched:
            changes[of_second] = field.written(own)
    return changes


def _value_at(document: Any, path: Sequence[str]) -> Any:
    """What the document has at the path; None where it leads nowhere."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


# ---------------------------------------------------------------------- ranges
def _numbers(annotation: Any, metadata: Sequence[Any]) -> list[list[Any]] | None:
    """The constraints of each of the numbers that a field holds, one or an ascending pair; None for other fields."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _numbers(inner, [*metadata, *more])
    if annotation is float:
        return [list(metadata)]
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) is tuple:
        if not any(isinstance(item, Predicate) and item.func is ascending for item in metadata):
            return None
        items = [_numbers(option, []) for option in options]
        return [numbers[0] for numbers in items if numbers is not None]
    return _numbers(options[0], metadata) if len(options) == 1 else None


def _searched(name: str, start: Values, numbers: Sequence[Sequence[Any]]) -> SearchedField:
    """The field with its range: of a pair, from the least that the first may be to the most that the second may be."""
    least = next((item for item in numbers[0] if isinstance(item, Ge | Gt)), None)
    most = next((item for item in numbers[-1] if isinstance(item, Le | Lt)), None)
    low = None if least is None else _lowest(least)
    high = None if most is None else _highest(most)
    if low is not None and high is not None:
        return SearchedField(name, start, low, high, logarithmic=False)
    if min(start) <= 0:
        raise InputError(
            f"{name} starts at {min(start):g}, and its range is searched on a log scale",
            where="--optimise",
            remedy=f"Give it a start above 0: {name}=VALUE",
        )
    lowest, highest = _rounded(min(start) / FACTOR), _rounded(max(start) * FACTOR)
    return SearchedField(
        name,
        start,
        lowest if low is None else max(low, lowest),
        highest if high is None else high,
        logarithmic=True,
    )


def _lowest(least: Ge | Gt) -> float | None:
    """The low end of a range, or a number next to it where it is not part of the range; None above an open 0."""
    if isinstance(least, Ge):
        return float(least.ge)  # type: ignore[arg-type]
    end = float(least.gt)  # type: ignore[arg-type]
    return end + abs(end) * 10**-DIGITS if end else None


def _highest(most: Le | Lt) -> float:
    if isinstance(most, Le):
        return float(most.le)  # type: ignore[arg-type]
    end = float(most.lt)  # type: ignore[arg-type]
    return end - abs(end) * 10**-DIGITS


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
