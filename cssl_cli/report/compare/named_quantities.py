"""Quantities by the names used in claims and options: those of the catalogue, and error_linear and the like."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from cssl_cli.errors import unknown_name
from cssl_cli.report.compare.catalogue import ACCURACIES, BY_NAME, Column
from cssl_cli.report.compare.paired_difference import PairedDifference, paired_difference
from cssl_cli.report.compare.rows import Row, is_finished
from cssl_cli.report.layout import number

ERROR = "error_"
ERRORS: Mapping[str, str] = {f"{ERROR}{accuracy.name}": accuracy.name for accuracy in ACCURACIES}
NAMES = (*BY_NAME, *ERRORS)


def require_quantity(name: str, where: str) -> str:
    """The name, checked; `InputError` with the nearest one if there is no such quantity."""
    if name not in NAMES:
        raise unknown_name("quantity", name, NAMES, where=where)
    return name


def called(name: str) -> str:
    """The name of a quantity in sentences, without the arrow."""
    if name in ERRORS:
        return called(ERRORS[name]).replace("accuracy", "error")
    quantity = BY_NAME[name]
    return quantity.label.rstrip(" ↑↓") or name.replace("_", " ")


def shown(name: str, value: float) -> str:
    """A value as the tables print it, with a per cent sign if it is a share."""
    quantity = _catalogued(name)
    if is_percent(name):
        return f"{quantity.shown(value)} %"
    return quantity.shown(value) if quantity.digits < 2 else number(value)


def shown_difference(name: str, value: float) -> str:
    """A difference of two values, without unit, to one digit more than the tables."""
    quantity = _catalogued(name)
    if quantity.digits < 2:
        return f"{round(quantity.scale * value, quantity.digits + 1) + 0.0:.{quantity.digits + 1}f}"
    return number(value)


def is_percent(name: str) -> bool:
    """Whether a quantity is a share that the tables print in per cent."""
    return _catalogued(name).scale == 100


def _catalogued(name: str) -> Column:
    return BY_NAME[ERRORS.get(name, name)]


def by_seed(row: Row, name: str) -> dict[Hashable, float | None]:
    """A quantity of the row's finished members, by seed; None if a member lacks it."""
    found: dict[Hashable, float | None] = {}
    for result, values in zip(row.members, row.values, strict=True):
        if is_finished(result):
            value = values[ERRORS.get(name, name)]
            found[result.member.seed] = 1 - value if name in ERRORS and value is not None else value
    return found


def mean_of(row: Row, name: str) -> float | None:
    """A row's mean over all finished members; None if some lack the quantity or none has finished."""
    mean = row.mean(ERRORS.get(name, name))
    return 1 - mean if name in ERRORS and mean is not None else mean


def is_complete(row: Row) -> bool:
    """Whether all seeds of the row have finished."""
    return row.done == len(row.members)


def difference(a: Row, b: Row, name: str) -> PairedDifference | None:
    """a − b over the seeds that both rows have."""
    return paired_difference(by_seed(a, name), by_seed(b, name))
