"""Checks that a sweep file names only existing rows, fields and quantities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cssl_cli.errors import did_you_mean, nearest, not_among
from cssl_cli.recipe import schema
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.load import resolve
from cssl_cli.recipe.merge import Override, merge
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.yaml_text import KeyPath
from cssl_cli.sweep.claims import Rows, faults_of
from cssl_cli.sweep.file import Claim, Reference, SweepSources

Parts = Mapping[str, Mapping[str, frozenset[str]]]  # by axis and variant, for axes that declare parts


def check_claims(
    given: SweepSources, rows: Rows, controls: Collection[str], quantities: Collection[str] | None
) -> list[str]:
    """Faults of the claims, one line each. rows: without negative controls; quantities: None to skip that check."""
    faults = []
    for position, claim in enumerate(given.claims):
        found = [*faults_of(claim, rows), *_unknown_quantities(claim, quantities)]
        for field, problem in found:
            source = given.last_with("claims")
            place = given.place(source, "claims", str(position), field)
            named = [name for name in (*(claim.rows or ()), *(claim.order or ())) if name in controls]
            remark = f" ({', '.join(named)}: a negative control, of which nothing is claimed)" if named else ""
            faults.append(f"claims[{position}].{field}{place} {problem}{remark}")
    return faults


def _unknown_quantities(claim: Claim, known: Collection[str] | None) -> Iterator[tuple[str, str]]:
    if known is None:
        return
    for field in ("smallest", "largest", "by"):
        for name in getattr(claim, field) or ():
            if name not in known:
                yield field, f"names {name!r}, which is no quantity{not_among(name, list(known))}"


def check_reference(given: SweepSources, rows: Rows, recipes: Sequence[Recipe]) -> tuple[Reference | None, list[str]]:
    """The reference and its faults, one line each; without values of rows that an inheriting sweep removed.

    recipes: those of the members; a value of the protocol must be valid for one of them.
    """
    reference = given.file.reference
    if reference is None:
        return None, []
    faults: list[str] = []
    values: dict[str, float] = {}
    path: KeyPath
    for row, value in reference.values.items():
        if value is None:
            continue
        path = ("reference", "values", row)
        if row not in rows and given.inherits(*path):
            continue
        problem = _unfit_published(row, value, rows)
        if problem:
            faults.append(f"{'.'.join(path)}{_place(given, path)} {problem}")
        values[row] = value
    if values and not faults and max(values.values()) <= 1:
        path = ("reference", "values")
        faults.append(f"{'.'.join(path)}{_place(given, path)} are all at most 1; give them in per cent, 89.8 not 0.898")
    if not values:
        path = ("reference", "values")
        problem = "names no row of this sweep; give its own values, or reference: null"
        faults.append(f"{'.'.join(path)}{_place(given, path)} {problem}")
    faults += _protocol_faults(given, reference.protocol, recipes)
    return (None, faults) if faults else (reference.model_copy(update={"values": values}), [])


def _place(given: SweepSources, path: KeyPath) -> str:
    return given.place(given.last_with(*path), *path)


def _unfit_published(row: str, value: Any, rows: Rows) -> str | None:
    if row not in rows:
        return "is no row" + not_among(row, list(rows), "Rows")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        return f"is {schema.show(value)}; must be an accuracy in per cent, a number in (0, 100]"
    return None


# --------------------------------------------------------------------------------------------------------------- parts
def check_parts(given: SweepSources, rows: Rows, controls: Collection[str]) -> tuple[Parts, list[str]]:
    """The parts of each existing variant, without those an inheriting sweep removed, and the faults, one line each.

    Every variant needs parts, unless all its rows are negative controls, and no two may have the same.
    """
    found: dict[str, dict[str, frozenset[str]]] = {}
    faults: list[str] = []
    axes = list(next(iter(rows.values()), {}))
    for axis, of_axis in given.file.parts.items():
        if of_axis is None or (axis not in axes and given.inherits("parts", axis)):
            continue
        known = list(dict.fromkeys(variants[axis] for variants in rows.values())) if axis in axes else []
        if not known:
            faults.append(f"parts.{axis}{_place(given, ('parts', axis))} is no axis{not_among(axis, axes)}")
            continue
        needed = {variants[axis] for row, variants in rows.items() if row not in controls}
        found[axis], problem, fields = _parts_of_axis(given, axis, of_axis, known, needed)
        faults += [f"parts.{axis}{_place(given, ('parts', axis))} {problem}"] if problem else []
        faults += [
            f"parts.{axis}.{variant}{_place(given, ('parts', axis, variant))} {fault}" for variant, fault in fields
        ]
    return ({} if faults else found), faults


def _parts_of_axis(
    given: SweepSources, axis: str, content: Any, known: Sequence[str], needed: Collection[str]
) -> tuple[dict[str, frozenset[str]], str | None, list[tuple[str, str]]]:
    """The parts of each variant, the faults of the whole axis, and those of single variants."""
    if not isinstance(content, Mapping):
        return {}, f"is {schema.show(content)}; must be a mapping of variants to lists of parts", []
    found: dict[str, frozenset[str]] = {}
    faults: list[tuple[str, str]] = []
    for variant, parts in content.items():
        if parts is None or (variant not in known and given.inherits("parts", axis, variant)):
            continue
        if variant not in known:
            faults.append((variant, f"is no variant of the axis{not_among(variant, known)}"))
        elif not isinstance(parts, list) or not all(isinstance(part, str) and part for part in parts):
            faults.append((variant, f"is {schema.show(parts)}; must be a list of the names of its parts"))
        elif len(set(parts)) < len(parts):
            faults.append((variant, "names a part twice"))
        else:
            same = [other for other, of_other in found.items() if of_other == set(parts)]
            if same:
                faults.append((variant, f"has the same parts as {same[0]}; name what they differ in as a part, too"))
            found[variant] = frozenset(parts)
    missing = [variant for variant in known if variant in needed and content.get(variant) is None]
    return found, f"lacks the parts of {', '.join(missing)}; give them, or parts: null" if missing else None, faults


# ------------------------------------------------------------------------------------------------------------ protocol
def _protocol_faults(given: SweepSources, protocol: Mapping[str, Any], recipes: Sequence[Recipe]) -> Iterator[str]:
    known = plain_fields(Recipe)
    for key in protocol:
        block = key.partition(".")[0]  # the only block that decides whether the value is valid
        distinct = {getattr(recipe, block, None): recipe for recipe in recipes}.values()
        documents = (recipe.model_dump(mode="json", by_alias=True) for recipe in distinct)
        problem = unknown_key(key, known) or _unfit_value(key, protocol, documents)
        if problem:
            yield f"reference.protocol.{key}{_place(given, ('reference', 'protocol', key))} {problem}"


def plain_fields(root: type[Block]) -> list[str]:
    """The dotted keys of all fields that are not blocks, over all blocks that a recipe may have."""
    found: dict[str, bool] = {}
    for path in schema.paths(root, {}):
        info = schema.field_at(root, {}, path)
        found[".".join(path)] = info is not None and not schema.block_types(info.annotation)
    return [key for key, plain in found.items() if plain]


def unknown_key(key: str, known: Sequence[str]) -> str | None:
    """Why a dotted key is none of the `known` ones, as the rest of a sentence; None if it is."""
    if key in known:
        return None
    below = [name for name in known if name.startswith(f"{key}.")]
    if below:
        return f"is a block; give its fields: {', '.join(below)}"
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    guess = same_end[0] if len(same_end) == 1 else nearest(key, known)
    return "is not a field of a recipe" + (did_you_mean(guess) or "; write it as train.epochs")


def _unfit_value(key: str, protocol: Mapping[str, Any], documents: Iterable[Mapping[str, Any]]) -> str | None:
    """The fault of a value that is invalid in every recipe with this field; null means the field is not given."""
    path, value = tuple(key.split(".")), protocol[key]
    names = [name for name in protocol if name.endswith(".name") and name != key]
    problem = None
    for document in documents if value is not None else ():
        for name in names:  # if they used another optimizer, the field is one of its own
            document = merge(document, Override("", tuple(name.split(".")), protocol[name]).patch)
        if path not in schema.paths(Recipe, document):
            continue
        changed = merge(document, Override("", path, value).patch)
        own = [fault for fault in resolve([Source("", changed)])[1] if fault.path == path]
        if not own:
            return None
        problem = own[0].problem
    return problem
