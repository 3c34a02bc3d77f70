"""A sweep file's axes to an ordered list of validated recipes. Nothing runs here.

A sweep has a base recipe, named axes and seeds. An axis is a mapping of variants, each a patch that follows the rules
of `based_on`, or a list of values for one dotted key. The members are the product of the axes in their order, the last
axis changing fastest, each with every seed.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationError

from cssl_cli.errors import InputError
from cssl_cli.recipe.blocks import Block, Recipe
from cssl_cli.recipe.faults import Source, as_error, faults_of
from cssl_cli.recipe.field_types import MAX_NAME_LENGTH, NAME_PATTERN, Allowed, Name, Seed, refuse
from cssl_cli.recipe.load import file_sources, find, find_base, is_sweep, mapping_sources, read, read_base, resolve
from cssl_cli.recipe.merge import Override, merge, parse_overrides
from cssl_cli.recipe.schema import show

MAX_SEEDS = 1000


@dataclass(frozen=True)
class Member:
    """One run of a sweep: `row` names its variants, `name` its seed as well."""

    name: str
    row: str
    axes: Mapping[str, str]
    seed: int
    recipe: Recipe

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

    @cached_property
    def run_names(self) -> dict[str, str]:
        """What the run of each fingerprint is called: as the first member that has it."""
        names: dict[str, str] = {}
        for member in self.members:
            names.setdefault(member.fingerprint, member.name)
        return names


def _listed(seeds: Any) -> Any:
    """A number n stands for the seeds 0 to n - 1."""
    counted = isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MAX_SEEDS
    return tuple(range(seeds)) if counted else seeds


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise refuse()
    return seeds


Seeds = Annotated[
    tuple[Seed, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(_distinct),
    BeforeValidator(_listed),
    Allowed(f"a list of different seeds, or a number n from 1 to {MAX_SEEDS} for the seeds 0 to n - 1"),
]


class SweepFile(Block):
    """The fields of a sweep file."""

    name: Name
    """what the sweep is called"""
    base: Annotated[str | dict[str, Any], Allowed("the name or the path of a recipe, or a recipe's own fields", "")]
    """the recipe that the variants change"""
    axes: Annotated[dict[str, Any], Allowed("a mapping of axes")] = Field(default={})
    """what varies: for each axis its variants and their changes, or a dotted key and a list of its values"""
    seeds: Seeds | None = None
    """the seeds of each variant; null: the base's one"""


_OWN_KEYS = ("name", "seeds")
_Axis = Mapping[str, Source]


def load_sweep(name_or_path: str, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a shipped name or of a file. Overrides change every member; `seeds=` and `name=` the sweep itself.

    Raises `InputError` when the sweep cannot be read or two members are the same run; the faults of all members are
    listed in one error, each once, with the axis and the variant that made it.
    """
    path = find(name_or_path, "sweep")
    document = read(path)
    if not is_sweep(document.value):
        raise InputError(
            f"{name_or_path} is a recipe, not a sweep", remedy=f"Run it with: cssl pretrain {name_or_path}"
        )
    own, changes = _split(parse_overrides(overrides))
    source = Source(str(path), document.value, document.lines)
    file = _read_file([source, *own])
    axes = _read_axes(file.axes, source)
    members = _members(file, _base_sources(file, source, path), axes, changes, str(path))
    return Sweep(file.name, path, {axis: tuple(variants) for axis, variants in axes.items()}, members)


def _split(overrides: Sequence[Override]) -> tuple[list[Source], list[Source]]:
    """The overrides of the sweep itself and those of its members."""
    for override in overrides:
        if override.path[0] in ("base", "axes", "based_on"):
            remedy = "Override fields of the members, such as train.epochs=2, or seeds=[0, 1]."
            raise InputError(f"a sweep's {override.path[0]} cannot be overridden", where=override.label, remedy=remedy)
        if override.path[0] == "seed":
            raise InputError("a sweep has several seeds", where=override.label, remedy="Write seeds=[0, 1].")
    sources = [(override.path[0] in _OWN_KEYS, Source(override.label, override.patch)) for override in overrides]
    return [source for own, source in sources if own], [source for own, source in sources if not own]


def _read_file(sources: Sequence[Source]) -> SweepFile:
    mapping: dict[str, Any] = {}
    for source in sources:
        mapping = merge(mapping, source.patch)
    try:
        return SweepFile.model_validate(mapping)
    except ValidationError as error:
        where = sources[0].label
        lines = [fault.line(sources, where) for fault in faults_of(error, SweepFile, mapping)]
        raise as_error(lines, where) from error


def _base_sources(file: SweepFile, source: Source, path: Path) -> list[Source]:
    if isinstance(file.base, str):
        base_path = find_base(file.base, source.label, path.parent)
        return file_sources(base_path, read_base(base_path, source.label))
    inline = Source(source.label, file.base, _lines_below(source, ("base",)))
    return mapping_sources(inline, folder=path.parent)


# ---------------------------------------------------------------------------------------------------------------- axes
def _read_axes(axes: Mapping[str, Any], source: Source) -> dict[str, _Axis]:
    """The variants of each axis; one error for all that is wrong with their form."""
    faults: list[str] = []
    found: dict[str, _Axis] = {}
    for axis, content in axes.items():
        try:
            found[axis] = dict(_variants(axis, content, source))
        except _AxisFault as fault:
            line = source.lines.get(("axes", axis))
            faults.append(f"axes.{axis}{f' (line {line})' if line else ''} {fault}")
    if faults:
        raise as_error(faults, source.label)
    return found


class _AxisFault(Exception):
    """What is wrong with an axis, as the rest of a sentence that begins with its name."""


def _variants(axis: str, content: Any, source: Source) -> Iterator[tuple[str, Source]]:
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
        yield name, Source(f"axis {axis}, variant {name}", patch, _lines_below(source, ("axes", axis, name)))


def _lines_below(source: Source, path: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """The lines of what stands below `path`, by their paths from there."""
    return {key[len(path) :]: line for key, line in source.lines.items() if key[: len(path)] == path}


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
        sources = [*base, *(source for _, source in combination), *changes, Source("variant names", {"name": row})]
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
        measured = repr([member.recipe.settings(block) for block in ("probe", "analyze")])
        by_run[member.fingerprint, measured].append(member.name)
    clashes = [f"{' and '.join(same)} are both called {name}" for name, same in by_name.items() if len(same) > 1]
    clashes += [f"{' and '.join(same)} are the same run" for same in by_run.values() if len(set(same)) > 1]
    if clashes:
        remedy = "Each variant needs a name and a change of its own, which no later axis and no override undoes."
        raise as_error(clashes, where, remedy)
