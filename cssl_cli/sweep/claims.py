"""Which rows of a sweep a claim is about.

A row's name joins the variants of the axes, as in `simclr-abcd`. Within one variant of an axis the names of the other
variants suffice: `abcd`. Claims exclude negative controls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cssl_cli.errors import not_among, some
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.sweep.file import Claim

METHOD = "method"  # the default axis of a claim whose rows are patterns
Rows = Mapping[str, Mapping[str, str]]  # the variants of each row by axis


@dataclass(frozen=True)
class Group:
    """The rows that a claim compares: all of them, or those of one variant of an axis.

    named: the rows that the claim names; for `order`, in its order.
    """

    variant: str | None
    rows: tuple[str, ...]
    named: tuple[str, ...]


def is_negative_control(recipe: Recipe) -> bool:
    """Whether a recipe reduces contrast, which concentrates the views and destroys their content."""
    return recipe.augment.fade is not None


def axis_of(claim: Claim, axes: Sequence[str]) -> str | None:
    """The axis along which the claim is repeated, once per variant; None if it compares all rows at once."""
    if claim.within is not None:
        return claim.within
    is_pattern = any(character in name for name in claim.rows or claim.order or () for character in "*?")
    return METHOD if is_pattern and METHOD in axes else None


def groups_of(claim: Claim, rows: Rows) -> list[Group]:
    """The groups of a claim without faults (`faults_of`), in row order; groups without a named row are left out.

    rows: without negative controls.
    """
    groups = [_group(claim, variant, called) for variant, called in _called(claim, rows).items()]
    return [group for group in groups if group.named]


def faults_of(claim: Claim, rows: Rows) -> list[tuple[str, str]]:
    """Faults in the rows that a claim names: the field, and the rest of a sentence that begins with it."""
    axes = list(next(iter(rows.values()), {}))
    if claim.within is not None and claim.within not in axes:
        return [("within", f"is {claim.within!r}, which is no axis{not_among(claim.within, axes)}")]
    called = _called(claim, rows)
    field, names = ("rows", claim.rows) if claim.rows else ("order", claim.order or ())
    known = list(dict.fromkeys(name for of_group in called.values() for name in of_group))
    unknown = [name for name in names if not any(fnmatchcase(one, name) for one in known)]
    faults = [(field, f"names {name!r}, which is no row{not_among(name, known)}") for name in unknown]
    if not faults and claim.order:
        faults = [fault for variant, of_group in called.items() for fault in _unclear(claim.order, variant, of_group)]
    if not faults and claim.rows and not any(set(group.rows) > set(group.named) for group in groups_of(claim, rows)):
        faults = [("rows", "names every row there is, and leaves none to compare with")]
    return faults


def _called(claim: Claim, rows: Rows) -> dict[str | None, dict[str, str]]:
    """The rows of each group, by every name they have in it."""
    axis = axis_of(claim, list(next(iter(rows.values()), {})))
    called: dict[str | None, dict[str, str]] = {}
    for row, variants in rows.items():
        of_group = called.setdefault(None if axis is None else variants[axis], {})
        others = "-".join(variant for name, variant in variants.items() if name != axis)
        if axis is not None and others:
            of_group[others] = row
        of_group[row] = row
    return called


def _group(claim: Claim, variant: str | None, called: Mapping[str, str]) -> Group:
    rows = tuple(dict.fromkeys(called.values()))
    if claim.order:
        return Group(variant, rows, tuple(row for name in claim.order for row in _matching(name, called)))
    matching = [row for name in claim.rows or () for row in _matching(name, called)]
    return Group(variant, rows, tuple(row for row in rows if row in matching))


def _unclear(order: Sequence[str], variant: str | None, called: Mapping[str, str]) -> list[tuple[str, str]]:
    """Items of an order that do not match exactly one row of a group, or repeat a row."""
    place = "" if variant is None else f" of {variant}"
    faults, seen = [], dict[str, str]()
    for name in order:
        matching = _matching(name, called)
        if len(matching) != 1:
            counted = f"{len(matching)} rows{place} ({some(matching)})" if matching else f"no row{place}"
            faults.append(("order", f"names {name!r}, which is {counted}; must be one"))
        elif matching[0] in seen:
            faults.append(("order", f"names {matching[0]} twice, as {seen[matching[0]]!r} and as {name!r}"))
        else:
            seen[matching[0]] = name
    return faults


def _matching(name: str, called: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(row for known, row in called.items() if fnmatchcase(known, name)))
