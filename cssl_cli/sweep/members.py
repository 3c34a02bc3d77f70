"""The recipes of a sweep's members, each block merged and validated once for all members that share it.

Blocks are merged separately, so that each depends only on the variants of the axes that change it. Rules between
blocks are checked once for each combination of the blocks involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cssl_cli.recipe.faults import Fault
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.load import resolve
from cssl_cli.recipe.merge import merge
from cssl_cli.recipe.recipe import BETWEEN_BLOCKS, Recipe

Axis = Mapping[str, tuple[Source, ...]]  # what each variant changes, one source a file
_Choice = tuple[int, ...]  # of variants, of the axes that change a block


@dataclass(frozen=True)
class Combination:
    """A variant of each axis, and the recipe they make, or its faults and their sources."""

    variants: tuple[str, ...]
    recipe: Recipe | None
    faults: list[Fault]
    sources: list[Source]


def combinations(
    axes: Mapping[str, Axis], base: Sequence[Source], changes: Sequence[Source], *, row: str, seed: int | None
) -> Iterator[Combination]:
    """Every combination of variants, the last axis changing fastest; recipes are named by variants, or `row` without.

    base, changes: sources that precede and follow the variants. A combination whose faults were all reported with an
    earlier one has neither faults nor recipe.
    """
    blocks = _Blocks(list(axes.values()), base, changes)
    for choice in itertools.product(*(range(len(axis)) for axis in axes.values())):
        variants = tuple(names[number] for names, number in zip(blocks.names, choice, strict=True))
        yield blocks.combine(choice, variants, "-".join(variants) or row, seed)


class _Blocks:
    """The blocks built so far, by recipe key and the variants that determine them."""

    def __init__(self, axes: Sequence[Axis], base: Sequence[Source], changes: Sequence[Source]) -> None:
        self.names = [list(axis) for axis in axes]
        self.variants = [list(axis.values()) for axis in axes]
        self.base, self.changes = list(base), list(changes)
        touched = [{key for sources in axis.values() for source in sources for key in source.patch} for axis in axes]
        fixed = {key for source in (*base, *changes) for key in source.patch}
        # For each recipe key, the axes that change it.
        self.axes_of = {
            key: [position for position, keys in enumerate(touched) if key in keys]
            for key in sorted(fixed.union(*touched) | set(Recipe.model_fields))
        }
        self.merged: dict[tuple[str, _Choice], Any] = {}  # merged; once known to be valid, validated
        self.looked_at: dict[tuple[Any, ...], bool] = {}  # whether it is valid

    def combine(self, choice: _Choice, variants: tuple[str, ...], row: str, seed: int | None) -> Combination:
        own = {key: tuple([choice[position] for position in axes]) for key, axes in self.axes_of.items()}
        between = tuple(own[key] for key in BETWEEN_BLOCKS)
        parts: list[tuple[Any, ...]] = [*own.items(), between]
        verdicts = [self.looked_at.get(part) for part in parts]
        if None not in verdicts and False in verdicts:
            return Combination(variants, None, [], [])
        document = {}
        for part in own.items():
            if part not in self.merged:
                self.merged[part] = self._merge(*part)
            if self.merged[part] is not ...:
                document[part[0]] = self.merged[part]
        document["name"] = row
        if seed is not None:
            document["seed"] = seed
        try:
            recipe = Recipe.model_validate(document)
        except ValidationError:
            sources = [*self._sources(choice), Source("variant names", {"name": row})]
            sources += [] if seed is None else [Source("seeds", {"seed": seed})]
            _, faults = resolve(sources)
            wrong = {fault.path[0] for fault in faults}
            alone = wrong - ({BETWEEN_BLOCKS[0]} if any(len(fault.blame) > 1 for fault in faults) else set())
            self.looked_at |= {(key, of_key): key not in alone for key, of_key in own.items()}
            self.looked_at[between] = alone == wrong
            return Combination(variants, None, faults, sources)
        if None in verdicts:
            self.looked_at |= dict.fromkeys(parts, True)
            for key, of_key in own.items():
                if key in Recipe.model_fields and self.merged[key, of_key] is not ...:
                    self.merged[key, of_key] = getattr(recipe, key)
        return Combination(variants, recipe, [], [])

    def _sources(self, choice: _Choice) -> list[Source]:
        chosen = [source for axis, number in zip(self.variants, choice, strict=True) for source in axis[number]]
        return [*self.base, *chosen, *self.changes]

    def _merge(self, key: str, of_key: _Choice) -> Any:
        """The value of a key under its variants; ... if nothing sets it."""
        numbers = iter(of_key)
        chosen = [source for position in self.axes_of[key] for source in self.variants[position][next(numbers)]]
        merged: dict[str, Any] = {}
        for source in (*self.base, *chosen, *self.changes):
            if key in source.patch:
                merged = merge(merged, {key: source.patch[key]})
        return merged.get(key, ...)
