"""A sweep file's axes to an ordered list of validated recipes. Nothing runs here.

A sweep has a base recipe, named axes and seeds. An axis is a mapping of variants, each a patch that follows the rules
of `based_on`, or a list of values for one dotted key. The members are the product of the axes in their order, the last
axis changing fastest, each with every seed.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cssl_cli.claimed_rows import is_negative_control
from cssl_cli.errors import InputError
from cssl_cli.recipe.faults import Source, as_error
from cssl_cli.recipe.field_types import MAX_NAME_LENGTH, NAME_PATTERN
from cssl_cli.recipe.load import resolve
from cssl_cli.recipe.merge import Override, parse_overrides
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.schema import show
from cssl_cli.sweep_checks import Parts, check_claims, check_parts, check_reference
from cssl_cli.sweep_file import OWN_FIELDS, Claim, Reference, SweepFile, SweepSources, lines_below, read_sweep_file


@dataclass(frozen=True)
class Member:
    """One run of a sweep: `row` names its variants, `name` its seed as well.

    parts: what its variants are built from, for each axis of which the sweep file says so.
    """

    name: str
    row: str
    axes: Mapping[str, str]
    seed: int
    recipe: Recipe
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """The recipe's; members that differ only in how they are measured have the same."""
        return self.recipe.fingerprint


@dataclass(frozen=True)
class Sweep:
    """A sweep's members in the order in which they run, and the variants of each axis."""

    name: str
    path: Path
    axes: Mapping[str, tuple[str, ...]]
    members: tuple[Member, ...]
    reference: Reference | None = None
    claims: tuple[Claim, ...] = ()

    @cached_property
    def run_names(self) -> dict[str, str]:
        """What the run of each fingerprint is called: as the first member that has it."""
        names: dict[str, str] = {}
        for member in self.members:
            names.setdefault(member.fingerprint, member.name)
        return names


_Axis = Mapping[str, tuple[Source, ...]]  # what each variant changes, one source a file


def load_sweep(name_or_path: str, overrides: Sequence[str] = (), *, quantities: Collection[str] | None = None) -> Sweep:
    """The sweep of a shipped name or of a file. Overrides change every member; `seeds=`, `name=`, ... the sweep itself.

    quantities: the names that its claims may use; None leaves them unchecked. Raises `InputError` when the sweep cannot
    be read or two members are the same run; the faults of all members are listed in one error, each once, with the
    axis and the variant that made it, and so are those of its reference and claims.
    """
    own, changes = _split(parse_overrides(overrides))
    given = read_sweep_file(name_or_path, own)
    axes = _read_axes(given)
    members = _members(given.file, given.base, axes, changes, str(given.path))
    reference, parts = _check_what_is_said(given, members, quantities)
    if parts:
        members = tuple(replace(member, parts=_parts_of(member, parts)) for member in members)
    variants = {axis: tuple(of_axis) for axis, of_axis in axes.items()}
    return Sweep(given.file.name, given.path, variants, members, reference, given.claims)


def _split(overrides: Sequence[Override]) -> tuple[list[Source], list[Source]]:
    """The overrides of the sweep itself and those of its members."""
    for override in overrides:
        if override.path[0] in ("base", "axes", "based_on"):
            remedy = "Override fields of the members, such as train.epochs=2, or seeds=[0, 1]."
            raise InputError(f"a sweep's {override.path[0]} cannot be overridden", where=override.label, remedy=remedy)
        if override.path[0] == "seed":
            raise InputError("a sweep has several seeds", where=override.label, remedy="Write seeds=[0, 1].")
    sources = [(override.path[0] in OWN_FIELDS, Source(override.label, override.patch)) for override in overrides]
    return [source for own, source in sources if own], [source for own, source in sources if not own]


def _check_what_is_said(
    given: SweepSources, members: Sequence[Member], quantities: Collection[str] | None
) -> tuple[Reference | None, Parts]:
    """The reference of the rows that there are, and the parts; one error for all that is wrong there or with claims."""
    rows = {member.row: member.axes for member in members}
    controls = {member.row for member in members if is_negative_control(member.recipe)}
    reference, faults = check_reference(given, rows, [member.recipe for member in members])
    claimed = {row: axes for row, axes in rows.items() if row not in controls}
    parts, of_parts = check_parts(given, rows, controls)
    faults += of_parts + check_claims(given, claimed, controls, quantities)
    if faults:
        raise as_error(faults, str(given.path))
    return reference, parts


def _parts_of(member: Member, parts: Parts) -> dict[str, frozenset[str]]:
    """Of each axis with parts those of the member's variant, where it has any: a negative control need not."""
    return {axis: of_axis[member.axes[axis]] for axis, of_axis in parts.items() if member.axes[axis] in of_axis}


# ---------------------------------------------------------------------------------------------------------------- axes
def _read_axes(given: SweepSources) -> dict[str, _Axis]:
    """The variants of each axis; one error for all that is wrong with their form."""
    faults: list[str] = []
    found: dict[str, _Axis] = {}
    lists: set[str] = set()  # a list of values is one value: another file replaces it whole
    for source in given.sources:
        axes = source.patch.get("axes", ...)
        if not axes:  # null, or a block without anything in it
            found.clear()
        for axis, content in axes.items() if isinstance(axes, Mapping) else ():
            if content is None and axis in found:
                del found[axis]
                continue
            try:
                variants = dict(_variants(axis, content, source, given.prefix(source)))
                replaced = axis in lists or isinstance(content, list)
                found[axis] = _changed({} if replaced else found.get(axis, {}), variants, content)
                lists = lists | {axis} if isinstance(content, list) else lists - {axis}
                if not found[axis]:
                    raise _AxisFault("has no variant left; null in place of its variants takes the axis away")
            except _AxisFault as fault:
                faults.append(f"axes.{axis}{given.place(source, 'axes', axis)} {fault}")
    if faults:
        raise as_error(faults, str(given.path))
    return found


class _AxisFault(Exception):
    """What is wrong with an axis, as the rest of a sentence that begins with its name."""


def _variants(axis: str, content: Any, source: Source, prefix: str) -> Iterator[tuple[str, Source]]:
    if not content or not isinstance(content, Mapping | list):
        raise _AxisFault(f"is {show(content)}; must be a mapping of variants, or a list of values of the field {axis}")
    if isinstance(content, list):
        names = [re.sub(r"[^a-z0-9._]+", "-", show(value).lower()).strip("-._") for value in content]
        patches = [Override("", tuple(axis.split(".")), value).patch for value in content]
    else:
        names, patches = list(content), [{} if patch is None else patch for patch in content.values()]
    for position, (name, patch) in enumerate(zip(names, patches, strict=True)):
        if not re.fullmatch(NAME_PATTERN, name):
            raise _AxisFault(f"has a variant {name!r}; a name takes a-z 0-9 . _ -, the first a letter or digit")
        if name in names[:position]:
            raise _AxisFault(f"has two variants {name!r}; give the values names of their own, as a mapping")
        if not isinstance(patch, Mapping):
            raise _AxisFault(f"has a variant {name!r} that is {show(patch)}; must be a mapping of what it changes")
        taken = [key for key in ("name", "seed") if key in patch]
        if taken:
            raise _AxisFault(f"changes {' and '.join(taken)}, which the sweep sets itself: use seeds")
        yield name, Source(f"{prefix}axis {axis}, variant {name}", patch, lines_below(source, ("axes", axis, name)))


def _changed(inherited: _Axis, variants: Mapping[str, Source], content: Any) -> _Axis:
    """An axis as a further file changes it: null takes an inherited variant away, {} empties it."""
    changed = dict(inherited)
    for name, source in variants.items():
        if name in inherited and content[name] is None:
            del changed[name]
        else:
            changed[name] = (*(inherited.get(name, ()) if source.patch else ()), source)
    return changed


# ------------------------------------------------------------------------------------------------------------- members
def _members(
    file: SweepFile, base: Sequence[Source], axes: Mapping[str, _Axis], changes: Sequence[Source], where: str
) -> tuple[Member, ...]:
    members: list[Member] = []
    faults: dict[str, None] = {}  # in order, each once
    for combination in itertools.product(*(axis.items() for axis in axes.values())):
        variants = [name for name, _ in combination]
        row = "-".join(variants) or file.name
        first, *more = file.seeds or (None,)
        of_variants = [source for _, changed in combination for source in changed]
        sources = [*base, *of_variants, *changes, Source("variant names", {"name": row})]
        sources += [] if first is None else [Source("seeds", {"seed": first})]
        of_first, found = resolve(sources)
        faults.update(dict.fromkeys(fault.line(sources, where) for fault in found))
        if of_first is not None:
            for recipe in (of_first, *(of_first.model_copy(update={"seed": seed}) for seed in more)):
                name = f"{row}-seed{recipe.seed}"
                if len(name) > MAX_NAME_LENGTH:
                    faults[f"the name {name} has {len(name)} characters, more than {MAX_NAME_LENGTH}"] = None
                named = recipe.model_copy(update={"name": name})
                members.append(Member(name, row, dict(zip(axes, variants, strict=True)), recipe.seed, named))
    if faults:
        raise as_error(list(faults), where)
    _check_distinct(members, where)
    return tuple(members)


def _check_distinct(members: Sequence[Member], where: str) -> None:
    by_name, by_run = defaultdict(list), defaultdict(list)
    for member in members:
        variants = ", ".join(f"{axis} {variant}" for axis, variant in member.axes.items())
        by_name[member.name].append(variants)
        by_run[member.fingerprint, member.recipe.probe, member.recipe.analyze].append(member.name)
    clashes = [f"{' and '.join(same)} are both called {name}" for name, same in by_name.items() if len(same) > 1]
    clashes += [f"{' and '.join(same)} are the same run" for same in by_run.values() if len(set(same)) > 1]
    if clashes:
        remedy = "Each variant needs a name and a change of its own, which no later axis and no override undoes."
        raise as_error(clashes, where, remedy)
