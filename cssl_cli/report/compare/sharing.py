"""What the rows of a table share: their whole set of augmentations, or the parts it is built from.

The axes of a sweep determine how its rows are crossed: rows with the same variant of an axis are alike. With one axis
of augmentations (or other settings) and one of methods, these are sets and columns; with more axes, each variant is a
part of the rows that have it. The parts of the variants themselves are those that the sweep file declares, or else the
operations of their augmentations. A draw of a random axis is its own part, whatever it sets: draws are independent and
alike in distribution, so that they change places as wholes. For runs outside a sweep, the recipes are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cssl_cli.recipe.blocks import AugmentBlock
from cssl_cli.report.compare.rows import Row, is_of_draws

if TYPE_CHECKING:
    from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom

NOT_OF_COLUMN = ("name", "seed", "data", "augment", "probe", "analyze")
Parts = frozenset[Hashable]


@dataclass(frozen=True)
class Sharing:
    """Each row's set and column, and the parts of the set."""

    design: list[tuple[Hashable, Hashable]]
    built_from: BuiltFrom


def sharing_of(rows: Sequence[Row]) -> Sharing:
    """What the rows share: by the axes of their sweep if these distinguish the rows, else by their recipes."""
    from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom

    axes = _varying(rows)
    if axes and len({_variants(row, axes) for row in rows}) == len(rows):
        return _by_axes(rows, axes)
    columns = [_apart_from_views(row) for row in rows]
    of_data = [(_settings(row, ("data",)), column) for row, column in zip(rows, columns, strict=True)]
    built_from = BuiltFrom([_operations(row) for row in rows], of_data, declared=False)
    return Sharing([(_views(row), column) for row, column in zip(rows, columns, strict=True)], built_from)


@dataclass(frozen=True)
class ChangingPlaces:
    """What may change places in the rows of a sweep: the parts of each row, and its variants of the axes held fixed.

    Held fixed are axes whose variants share operations that the sweep file does not declare as parts.
    """

    parts: list[Parts]
    fixed: list[tuple[str, ...]]
    fixed_axes: tuple[str, ...]


def changing_places(rows: Sequence[Row]) -> ChangingPlaces:
    """The parts of the rows' variants, axis by axis; a variant without known parts is its own."""
    from cssl_cli.report.compare.rank_correlation.parts import all_of_one_size, incidence

    axes = _varying(rows)
    known = {axis: _parts_along(rows, axes, axis) for axis in axes}
    fixed = [
        axis
        for axis, (of_variant, told) in known.items()
        if not told and not all_of_one_size(incidence(list(of_variant.values())))
    ]
    free = [axis for axis in axes if axis not in fixed]
    return ChangingPlaces(
        [frozenset[Hashable]().union(*(known[axis][0][_variant(row, axis)] for axis in free)) for row in rows],
        [_variants(row, fixed) for row in rows],
        tuple(fixed),
    )


def _by_axes(rows: Sequence[Row], axes: Sequence[str]) -> Sharing:
    from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom

    of_settings = [axis for axis in axes if not is_of_draws(axis, rows)]
    of_groups = [axis for axis in of_settings if _changes_along(rows, axes, axis, lambda row: row.group)]
    declared = {axis for row in rows for axis in row.members[0].member.parts}
    of_views = [axis for axis in of_settings if axis in declared or _changes_along(rows, axes, axis, _views)]
    others = [axis for axis in axes if axis not in (*of_groups, *of_views)]
    of_columns = [*of_groups, *(others if len(of_groups) + len(others) == 1 else [])]
    of_sets = [axis for axis in axes if axis not in of_columns]
    known = {axis: _parts_along(rows, axes, axis) for axis in of_sets}
    parts = [frozenset[Hashable]().union(*(known[axis][0][_variant(row, axis)] for axis in of_sets)) for row in rows]
    columns = [_variants(row, of_columns) for row in rows]
    return Sharing(
        [(_variants(row, of_sets), column) for row, column in zip(rows, columns, strict=True)],
        BuiltFrom(parts, columns, declared=all(told for _, told in known.values())),
    )


def _parts_along(rows: Sequence[Row], axes: Sequence[str], axis: str) -> tuple[Mapping[str, Parts], bool]:
    """The parts of each variant of an axis, and whether they are declared or certain.

    Declared parts; else the operations, if variants share some; else each variant is its own part.
    """
    from cssl_cli.report.compare.rank_correlation.parts import incidence, overlap

    declared = {_variant(row, axis): row.members[0].member.parts.get(axis) for row in rows}
    if is_of_draws(axis, rows):
        return {variant: frozenset([(axis, variant)]) for variant in declared}, True
    if all(parts is not None for parts in declared.values()):
        return {variant: frozenset((axis, part) for part in parts or ()) for variant, parts in declared.items()}, True
    along = {_variant(row, axis): _operations(row) for row in reversed(rows)}  # the first row of each variant
    if _changes_along(rows, axes, axis, _operations) and overlap(incidence(list(along.values()))):
        return {variant: frozenset((axis, one) for one in parts) for variant, parts in along.items()}, False
    return {variant: frozenset([(axis, variant)]) for variant in declared}, True


def _changes_along(rows: Sequence[Row], axes: Sequence[str], axis: str, read: Callable[[Row], Hashable]) -> bool:
    """Whether rows that differ only in this axis differ in what is read."""
    found: dict[Hashable, set[Hashable]] = {}
    for row in rows:
        found.setdefault(_variants(row, [other for other in axes if other != axis]), set()).add(read(row))
    return any(len(values) > 1 for values in found.values())


def _varying(rows: Sequence[Row]) -> list[str]:
    """The axes with more than one variant among the rows."""
    axes = dict.fromkeys(axis for row in rows for axis in row.members[0].member.axes)
    return [axis for axis in axes if len({_variant(row, axis) for row in rows}) > 1]


def _variant(row: Row, axis: str) -> str:
    return row.members[0].member.axes.get(axis, "")


def _variants(row: Row, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(_variant(row, axis) for axis in axes)


def _operations(row: Row) -> Parts:
    """The operations of the row's augmentation; with other settings an operation is a different one."""
    return _operations_of(row.members[0].member.recipe.augment)


@lru_cache(maxsize=1024)  # rows of a sweep share their blocks
def _operations_of(augment: AugmentBlock) -> Parts:
    operations = augment.model_dump(by_alias=True)
    return frozenset((name, repr(settings)) for name, settings in operations.items() if settings is not None)


def _views(row: Row) -> str:
    """The images and their augmentations."""
    return _settings(row, ("data", "augment"))


def _settings(row: Row, blocks: Sequence[str]) -> str:
    return repr([row.members[0].member.recipe.settings(block) for block in blocks])


def _apart_from_views(row: Row) -> str:
    """All settings but those of the views, the seed, the name and how the encoder is measured."""
    settings = row.members[0].member.recipe.model_dump(by_alias=True)
    return repr({name: block for name, block in settings.items() if name not in NOT_OF_COLUMN})
