"""From a sweep file's axes to an ordered list of validated recipes. Nothing runs here.

A sweep has a base recipe, named axes and seeds. An axis is a mapping of variants, each a patch that follows the rules
of `based_on`, or a list of values for one dotted key. The members are the product of the axes in order, the last axis
changing fastest, each with every seed. Values drawn at random (sampling.py) are one more axis, `draw`, the last.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError, some
from cssl_cli.recipe import schema
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.faults import as_error, dotted
from cssl_cli.recipe.field_types import MAX_NAME_LENGTH, NAME_PATTERN
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.merge import Override, parse_overrides
from cssl_cli.recipe.recipe import Fingerprints, Recipe
from cssl_cli.recipe.schema import show
from cssl_cli.recipe.yaml_text import KeyPath
from cssl_cli.sweep.checks import Parts, check_claims, check_parts, check_reference
from cssl_cli.sweep.claims import is_negative_control
from cssl_cli.sweep.file import OWN_FIELDS, Claim, Reference, SweepFile, SweepSources, lines_below, read_sweep_file
from cssl_cli.sweep.members import Axis, combinations
from cssl_cli.sweep.sampling import DRAW, read_draws, samples

MAX_MEMBERS = 10_000  # of a sweep, unless the caller allows more
_COLUMNS = ("row", "negative_control")  # of the table, besides the axes and the parts of each quantity


@dataclass(frozen=True)
class Member:
    """One run of a sweep: `row` names its variants, `name` also its seed.

    fingerprint: the recipe's; members that differ only in how they are measured share it.
    parts: what its variants are built from, for each axis whose parts the sweep file declares. sampled: the values of
    its draw, by dotted key; empty without a random axis.
    """

    name: str
    row: str
    axes: Mapping[str, str]
    seed: int
    recipe: Recipe
    fingerprint: str
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sampled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A sweep's members in running order, and the variants of each axis.

    rank: the training images on which the augmentations are ranked before training; None: they are not.
    given, changes: the file that it was made from and the overrides of its members; None, () for one made by hand.
    """

    name: str
    path: Path
    axes: Mapping[str, tuple[str, ...]]
    members: tuple[Member, ...]
    reference: Reference | None = None
    claims: tuple[Claim, ...] = ()
    rank: int | None = None
    given: SweepSources | None = field(default=None, repr=False)
    changes: tuple[Source, ...] = ()

    @cached_property
    def run_names(self) -> dict[str, str]:
        """The name of the run of each fingerprint: that of its first member."""
        names: dict[str, str] = {}
        for member in self.members:
            names.setdefault(member.fingerprint, member.name)
        return names


def load_sweep(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    quantities: Collection[str] | None = None,
    max_members: int = MAX_MEMBERS,
) -> Sweep:
    """The sweep of a shipped name or of a file. Overrides change every member; `seeds=`, `name=`, ... the sweep itself.

    quantities: the names that its claims may use; None leaves them unchecked. Raises `InputError` if the sweep cannot
    be read, has more than `max_members`, or contains the same run twice. The faults of all members are listed in one
    error, each once, with its axis and variant; so are those of the reference and the claims.
    """
    own, changes = _split(parse_overrides(overrides))
    return sweep_of(read_sweep_file(name_or_path, own), changes, quantities=quantities, max_members=max_members)


def sweep_of(
    given: SweepSources,
    changes: Sequence[Source],
    *,
    quantities: Collection[str] | None = None,
    max_members: int | None = MAX_MEMBERS,
) -> Sweep:
    """The sweep of a file that was read, and of `changes` to all of its members; see `load_sweep`."""
    axes = _read_axes(given, quantities or ())
    num_draws = given.file.num if samples(given) else None
    _require_at_most(max_members, given.file, axes, num_draws or 1, str(given.path))
    values: Mapping[str, Mapping[str, Any]] = {}
    if samples(given):
        draws = read_draws(given, axes, changes)
        axes, values = {**axes, DRAW: draws.variants}, draws.values
    elif given.file.num is not None and not any("sample" in source.patch for source in given.sources):
        place = given.place(given.last_with("num"), "num")
        raise as_error([f"num{place} is a number of draws, and there is no sample to draw from"], str(given.path))
    members = _members(given.file, given.base, axes, changes, str(given.path))
    if values:
        members = tuple(replace(member, sampled=values[member.axes[DRAW]]) for member in members)
    reference, parts = _check_what_is_said(given, members, quantities)
    if parts:
        members = tuple(replace(member, parts=_parts_of(member, parts)) for member in members)
    variants = {axis: tuple(of_axis) for axis, of_axis in axes.items()}
    return Sweep(
        given.file.name, given.path, variants, members, reference, given.claims, given.file.rank, given, tuple(changes)
    )


def _require_at_most(limit: int | None, file: SweepFile, axes: Mapping[str, Axis], num_draws: int, where: str) -> None:
    """`InputError` when there are more members than `limit`, before any is made; None: any number."""
    number = math.prod(len(axis) for axis in axes.values()) * num_draws * len(file.seeds or (None,))
    if limit is not None and number > limit:
        factors = [f"{len(variants)} of {axis}" for axis, variants in axes.items()]
        factors += [f"{num_draws:,} draws"] if num_draws > 1 else []
        factors += [f"{len(file.seeds)} seeds"] if file.seeds else []
        raise InputError(
            f"has {number:,} members ({some(factors, ' x ', limit=8)}), more than {limit:,}",
            where=where,
            remedy="Give fewer variants, draws or seeds, or allow more with --max-members N.",
        )


def _split(overrides: Sequence[Override]) -> tuple[list[Source], list[Source]]:
    """Separate the overrides of the sweep from those of its members."""
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
    """The reference and the parts, for existing rows; one error for all their faults and those of the claims."""
    rows = {member.row: member.axes for member in members}
    # A draw is built from no parts.
    of_axes = {
        member.row: {axis: variant for axis, variant in member.axes.items() if not (member.sampled and axis == DRAW)}
        for member in members
    }
    controls = {member.row for member in members if is_negative_control(member.recipe)}
    reference, faults = check_reference(given, rows, [member.recipe for member in members])
    claimed = {row: axes for row, axes in rows.items() if row not in controls}
    parts, of_parts = check_parts(given, of_axes, controls)
    faults += of_parts + check_claims(given, claimed, controls, quantities)
    if faults:
        raise as_error(faults, str(given.path))
    return reference, parts


def _parts_of(member: Member, parts: Parts) -> dict[str, frozenset[str]]:
    """The parts of the member's variants, by axis; negative controls may have none."""
    return {axis: of_axis[member.axes[axis]] for axis, of_axis in parts.items() if member.axes[axis] in of_axis}


# ---------------------------------------------------------------------------------------------------------------- axes
def _read_axes(given: SweepSources, quantities: Collection[str]) -> dict[str, Axis]:
    """The variants of each axis; one error for all faults in their form."""
    faults: list[str] = []
    found: dict[str, Axis] = {}
    lists: set[str] = set()  # lists are single values: another file replaces the whole list
    for source in given.sources:
        axes = source.patch.get("axes", ...)
        if not axes:  # null, or an empty block
            found.clear()
        for axis, content in axes.items() if isinstance(axes, Mapping) else ():
            if content is None and axis in found:
                del found[axis]
                continue
            try:
                _check_axis_name(axis, quantities)
                variants = dict(_variants(axis, content, source, given.prefix(source)))
                replaced = axis in lists or isinstance(content, list)
                found[axis] = _changed({} if replaced else found.get(axis, {}), variants, content)
                lists = lists | {axis} if isinstance(content, list) else lists - {axis}
                if not found[axis]:
                    raise _AxisFault("has no variant left; null in place of its variants takes the axis away")
            except _AxisFault as fault:
                faults.append(f"axes.{dotted((axis,))}{given.place(source, 'axes', axis)} {fault}")
    if faults:
        raise as_error(faults, str(given.path))
    return found


class _AxisFault(Exception):
    """A fault of an axis, as the rest of a sentence that begins with its name."""


def _check_axis_name(axis: str, quantities: Collection[str]) -> None:
    quantity, _, part = axis.rpartition("_")
    if axis in _COLUMNS or axis in quantities or (part in ("mean", "sd", "n") and quantity in quantities):
        raise _AxisFault("is called like a column of the table; give the axis another name")
    if not axis.strip() or not axis.isprintable() or len(axis) > MAX_NAME_LENGTH:
        raise _AxisFault(f"needs a name of 1 to {MAX_NAME_LENGTH} printable characters")


def _check_values(axis: str, values: Sequence[Any]) -> None:
    """Check a list axis: its values are for a field; changes of a block are mappings, which can also be named."""
    info = schema.field_at(Recipe, {}, tuple(axis.split(".")))
    plain = [value for value in values if value is not None and not isinstance(value, Mapping)]
    if info is not None and schema.block_types(info.annotation) and plain:
        nested = "".join(f"{{{key}: " for key in axis.split(".")) + "{...}" + "}" * (axis.count(".") + 1)
        raise _AxisFault(
            f"is a list with {show(plain[0])}, and {axis} is a block; "
            f"give a mapping of named variants, such as {{first: {nested}, second: ...}}"
        )


def _variants(axis: str, content: Any, source: Source, prefix: str) -> Iterator[tuple[str, Source]]:
    if not content or not isinstance(content, Mapping | list):
        raise _AxisFault(f"is {show(content)}; must be a mapping of variants, or a list of values of the field {axis}")
    if isinstance(content, list):
        _check_values(axis, content)
        names = [re.sub(r"[^a-z0-9._]+", "-", show(value).lower()).strip("-._") for value in content]
        patches = [Override("", tuple(axis.split(".")), value).patch for value in content]
    else:
        names, patches = list(content), [{} if patch is None else patch for patch in content.values()]
    for position, (name, patch) in enumerate(zip(names, patches, strict=True)):
        if not re.fullmatch(NAME_PATTERN, name):
            if isinstance(content, list):
                raise _AxisFault(f"has a value {show(content[position])}, which gives no name; name its variants")
            raise _AxisFault(f"has a variant {name[:60]!r}; a name takes a-z 0-9 . _ -, the first a letter or digit")
        if name in names[:position]:
            raise _AxisFault(f"has two variants {name[:60]!r}; give the values names of their own, as a mapping")
        if not isinstance(patch, Mapping):
            raise _AxisFault(f"has a variant {name[:60]!r} that is {show(patch)}; must be a mapping of what it changes")
        taken = [key for key in ("name", "seed") if key in patch]
        if taken:
            raise _AxisFault(f"changes {' and '.join(taken)}, which the sweep sets itself: use seeds")
        yield name, Source(f"{prefix}axis {axis}, variant {name}", patch, lines_below(source, ("axes", axis, name)))


def _changed(inherited: Axis, variants: Mapping[str, Source], content: Any) -> Axis:
    """An axis as changed by a further file: null removes an inherited variant, {} empties it."""
    changed = dict(inherited)
    for name, source in variants.items():
        if name in inherited and content[name] is None:
            del changed[name]
        else:
            changed[name] = (*(inherited.get(name, ()) if source.patch else ()), source)
    return changed


# ------------------------------------------------------------------------------------------------------------- members
def _members(
    file: SweepFile, base: Sequence[Source], axes: Mapping[str, Axis], changes: Sequence[Source], where: str
) -> tuple[Member, ...]:
    members: list[Member] = []
    faults: dict[str, None] = {}  # in order, each once
    of_draws: set[KeyPath] = set()  # sampled fields with a fault: the first of their values will do
    fingerprints = Fingerprints()
    first, *more = file.seeds or (None,)
    for made in combinations(axes, base, changes, row=file.name, seed=first):
        for fault in made.faults:
            source = fault.source(made.sources)
            if source is not None and source.label.startswith(f"{DRAW} "):
                if fault.path in of_draws:
                    continue
                of_draws.add(fault.path)
            faults[fault.line(made.sources, where)] = None
        if made.recipe is None:
            continue
        row, variants = made.recipe.name, dict(zip(axes, made.variants, strict=True))
        for seed in (made.recipe.seed, *more):
            name = f"{row}-seed{seed}"
            if len(name) > MAX_NAME_LENGTH:
                faults[f"the name {name} has {len(name)} characters, more than {MAX_NAME_LENGTH}"] = None
            recipe = made.recipe.model_copy(update={"name": name, "seed": seed})
            members.append(Member(name, row, variants, recipe.seed, recipe, fingerprints.of(recipe)))
    if faults:
        raise as_error(list(faults), where)
    _check_distinct(members, where)
    return tuple(members)


def _check_distinct(members: Sequence[Member], where: str) -> None:
    by_name, by_run = defaultdict(list), defaultdict(list)
    measured = _Numbers()
    for member in members:
        by_name[member.name].append(member)
        blocks = measured.of(member.recipe.probe), measured.of(member.recipe.analyze)
        by_run[member.fingerprint, *blocks].append(member.name)
    clashes = [
        f"{' and '.join(_variants_of(member) for member in same)} are both called {name}"
        for name, same in by_name.items()
        if len(same) > 1
    ]
    clashes += [f"{some(same, ' and ', limit=8)} are the same run" for same in by_run.values() if len(set(same)) > 1]
    if clashes:
        remedy = "Each variant needs a name and a change of its own, which no later axis and no override undoes."
        raise as_error(clashes, where, remedy)


def _variants_of(member: Member) -> str:
    return ", ".join(f"{axis} {variant}" for axis, variant in member.axes.items())


class _Numbers:
    """A number for each block, the same for equal blocks, so that shared blocks are compared once."""

    def __init__(self) -> None:
        self._by_identity: dict[int, int] = {}
        self._by_content: dict[Any, int] = {}

    def of(self, block: Block) -> int:
        """The number of a block; the caller must keep the block alive."""
        if id(block) not in self._by_identity:
            self._by_identity[id(block)] = self._by_content.setdefault(block, len(self._by_content))
        return self._by_identity[id(block)]
