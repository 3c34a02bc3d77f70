"""What the rows of a table share: their whole set of augmentations, or the parts that it is built from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from cssl_cli.report.rows import Row

if TYPE_CHECKING:
    from cssl_cli.rank_correlation.parts import BuiltFrom

NOT_OF_COLUMN = ("name", "seed", "data", "augment", "probe", "analyze")


def design_of(rows: Sequence[Row]) -> list[tuple[Hashable, Hashable]]:
    """Of each row its images with their augmentations, and all other settings that decide the encoder."""
    return [(_settings(row, ("data", "augment")), _apart_from_views(row)) for row in rows]


def built_from(rows: Sequence[Row]) -> BuiltFrom:
    """The parts of each row, as the sweep file declares them, or else the operations of its augmentation.

    An operation with other settings is another part. The column is the row's variants of the other axes, or else all
    its other settings.
    """
    from cssl_cli.rank_correlation.parts import BuiltFrom

    members = [row.members[0].member for row in rows]
    axes = {axis for member in members for axis in member.parts}
    if axes and all(set(member.parts) == axes for member in members):
        return BuiltFrom(
            [frozenset((axis, part) for axis in axes for part in member.parts[axis]) for member in members],
            [tuple(variant for axis, variant in member.axes.items() if axis not in axes) for member in members],
            declared=True,
        )
    operations = [member.recipe.augment.model_dump(by_alias=True) for member in members]
    return BuiltFrom(
        [frozenset((name, repr(one)) for name, one in of_row.items() if one is not None) for of_row in operations],
        [(_settings(row, ("data",)), _apart_from_views(row)) for row in rows],
        declared=False,
    )


def _settings(row: Row, blocks: Sequence[str]) -> str:
    return repr([row.members[0].member.recipe.settings(block) for block in blocks])


def _apart_from_views(row: Row) -> str:
    """All settings but those of the views, the seed, the name and how the encoder is measured."""
    settings = row.members[0].member.recipe.model_dump(by_alias=True)
    return repr({name: block for name, block in settings.items() if name not in NOT_OF_COLUMN})
