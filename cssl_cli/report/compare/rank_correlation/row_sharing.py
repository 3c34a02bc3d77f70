"""How rows are permuted, given what they share, and the warnings this calls for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cssl_cli.report.compare.rank_correlation.crossed import (
    MAX_ROWS_PERMUTED,
    Crossed,
    WithinColumns,
    crossed,
    of_parts,
)
from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom, incidence, overlap
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints, group_codes

Design = Sequence[tuple[Hashable, Hashable]]  # of each row, its set of augmentations, and all else that identifies it


@dataclass(frozen=True)
class RowSharing:
    """How the rows with the accuracy are permuted, given what they share; None: every row independently.

    warnings: what the report must say about it. independent: False if they share more than any orders allow for, so
    that there are no intervals; tested: False if that is known, not just read off the recipes: there is no p either.
    """

    rows: Ints
    permuted: Crossed | WithinColumns | None = None
    warnings: tuple[str, ...] = ()
    independent: bool = True
    tested: bool = True


@dataclass(frozen=True)
class Alike:
    """What the rows share, over all rows and within one group."""

    sharing: RowSharing
    design: Design | None
    built_from: BuiltFrom | None

    def within(self, rows: NDArray[np.bool_], y: Floats) -> RowSharing:
        """How the `rows` (N,) of one group are permuted on their own.

        Like all rows; if those are no full grid, the group may still be one.
        """
        permuted = self.sharing.permuted
        if not self.sharing.tested and self.design is None:  # rows that were chosen, in every group
            return replace(self.sharing, rows=np.flatnonzero(rows))
        if isinstance(permuted, Crossed):
            among = np.flatnonzero(rows[self.sharing.rows])
            return RowSharing(self.sharing.rows[among], permuted.among(among) if len(among) else None)
        places = np.flatnonzero(rows)
        design = None if self.design is None else [self.design[place] for place in places.tolist()]
        built_from = None if self.built_from is None else self.built_from.rows(places.tolist())
        own = sharing_of_rows(y[places], group_codes(None, len(places)), design, built_from)
        return replace(own, rows=places[own.rows])


def sharing_of_rows(y: Floats, codes: Ints, design: Design | None, built_from: BuiltFrom | None) -> RowSharing:
    """How rows with accuracies `y` (N), in groups `codes` (N), are permuted; NaN is missing."""
    there = np.flatnonzero(np.isfinite(y))
    over_sets = _over_sets(y, codes, design)
    if built_from is None:
        return over_sets
    built_from = built_from.rows(there.tolist())
    parts = incidence(built_from.parts)
    if not overlap(parts):
        return over_sets
    few = len(there) <= MAX_ROWS_PERMUTED
    found = of_parts(built_from.parts, built_from.columns) if few else None
    if built_from.usable and found is not None and _of_one_group(found, codes[there]):
        said = () if built_from.declared else (_found_all_sets(parts.sum(axis=1)[0], parts.shape[1]),)
        return RowSharing(there, found, said)
    why = _why_not_over_parts(built_from.declared, few, found is not None)
    tested = over_sets.tested and not built_from.declared
    return replace(over_sets, warnings=(*over_sets.warnings, why), independent=False, tested=tested)


def _over_sets(y: Floats, codes: Ints, design: Design | None) -> RowSharing:
    """Over whole sets if they are crossed, no row lacks the accuracy, and the rows are few enough."""
    rows = np.arange(len(y))
    num_sets = len({of_set for of_set, _ in design or ()})
    if design is None or not 1 < num_sets < len(y):
        return RowSharing(rows)
    found = crossed(design)
    if found is not None and len(y) <= MAX_ROWS_PERMUTED and np.isfinite(y).all() and _of_one_group(found, codes):
        return RowSharing(rows, found)
    said = (
        f"The {len(y)} rows share {num_sets} sets of augmentations (or of other settings) and are no full grid of at "
        f"most {MAX_ROWS_PERMUTED} rows, every set once with every method (or what else differs): rows that share "
        "theirs are not independent, and there are no p and no intervals."
    )
    return RowSharing(rows, warnings=(said,), independent=False, tested=False)


def _of_one_group(found: Crossed, codes: Ints) -> bool:
    """Whether each column lies in one group: otherwise it cannot be permuted within groups."""
    return len({*zip(found.columns.tolist(), codes.tolist(), strict=True)}) == found.num_columns


def over_all_groups(codes: Ints, sharing: RowSharing, design: Design | None) -> RowSharing:
    """The sharing over all rows, of groups `codes` (N), if nothing links the rows yet.

    Rows of one method are alike. If methods share no sets, rows are only permuted within their method.
    """
    of_rows = codes[sharing.rows]
    num_groups = len(set(of_rows.tolist()))
    if design is None or sharing.permuted is not None or not sharing.independent or not 1 < num_groups < len(of_rows):
        return sharing
    if len(of_rows) > MAX_ROWS_PERMUTED:
        said = (
            f"The {num_groups} methods share no sets, and the rows are more than {MAX_ROWS_PERMUTED}: rows of a method "
            "are alike, and over all rows there are no p and no intervals."
        )
        return replace(sharing, warnings=(*sharing.warnings, said), independent=False, tested=False)
    there = sharing.rows
    return replace(sharing, permuted=WithinColumns(group_codes(of_rows.tolist(), len(there))))


def _found_all_sets(size: int, num_parts: int) -> str:
    return (
        f"The rows are all sets of {size} of the same {num_parts} augmentations, and so not independent: p is over "
        "orders of the augmentations. A sweep file says what its rows are built from as `parts`."
    )


def _why_not_over_parts(declared: bool, few: bool, may_change: bool) -> str:
    """The warning about rows that share parts when their orders do not allow for it."""
    if not few:
        why = f"and are more than {MAX_ROWS_PERMUTED}"
    elif not may_change:
        why = "of which no two may change places (the sets are nested, or some are missing)"
    elif declared:
        why = "and the methods do not stand apart from them"
    else:
        why = "which the sweep file does not say (`parts`)"
    what = "parts" if declared else "augmentations"
    return f"The rows are built from shared {what}, {why}: they are not independent, " + (
        "and there are no p and no intervals." if declared else "which makes p too small; there are no intervals."
    )
