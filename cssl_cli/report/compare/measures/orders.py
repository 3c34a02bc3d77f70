"""Orders of the rows of a grid that keep what rows share: the settings of each axis change places in all rows at once.

If two settings of an axis (or two parts that settings are built from) change places everywhere and the rows are mapped
onto rows, then effects of settings of any size, in term and accuracy, are preserved: they stay with their settings.
Under the null hypothesis that relabelling the settings of an axis leaves the distribution of the accuracies as it is,
whatever the term, all such orders are equally likely and p-values over them are exact. Orders within the lines of an
axis would not be: an effect of its settings, shared by all lines, makes each line a copy of the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set

from cssl_cli.report.compare.rank_correlation.crossed import Crossed
from cssl_cli.report.compare.rank_correlation.parts import MAX_PARTS, classes_of_parts, incidence
from cssl_cli.report.compare.rank_correlation.permutation import PMethod
from cssl_cli.report.compare.rank_correlation.signs import Ints, group_codes

MAX_MOVED = 4_000_000  # rows times orders
INCOMPLETE = "no two settings of an axis change places without mapping a row onto one that is missing"
TOO_MANY = f"the axes have more than {MAX_PARTS} settings"


def orders_of_settings(parts: Sequence[Set[Hashable]], fixed: Sequence[Hashable]) -> tuple[Ints, PMethod] | str:
    """Orders (R, N), the first of which leaves the rows as they are, and how they were found; or why there are none.

    parts: the settings of each row, or what these are built from, that may change places. fixed: the settings of each
    row that may not; a row is known by both together.
    """
    has = incidence(parts)
    if has.shape[1] > MAX_PARTS:
        return TOO_MANY
    columns = group_codes(fixed, len(parts))
    if not has.shape[1] or len(set(classes_of_parts(has, columns).tolist())) == has.shape[1]:
        return INCOMPLETE
    sets = group_codes([row.tobytes() for row in has], len(parts))
    return Crossed(sets, columns, has).orders(columns, most=max(1000, MAX_MOVED // len(parts)))
