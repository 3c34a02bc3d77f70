"""Reads, merges and validates a sweep file and its bases, and finds its base recipe. Axes are read elsewhere.

A sweep file may change another one. Its blocks are merged by the rules for recipes (recipe/merge.py), with two
additions: null removes an inherited axis or variant, and a base that is a mapping without `based_on` changes the
inherited base. The name is not inherited. Every fault names its file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationError, model_validator

from cssl_cli.errors import InputError
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.faults import Fault, as_error, faults_of
from cssl_cli.recipe.field_types import Name, Seed
from cssl_cli.recipe.files import SWEEP_FIELDS, Source, base_path, find, follow
from cssl_cli.recipe.merge import merge
from cssl_cli.recipe.ranges import Allowed, Count
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.validators import refuse
from cssl_cli.sweep.cluster.settings import Launcher

MAX_SEEDS = 1000
LEAST_RANKED = 40  # images, two for each group that the jackknife leaves out


def _listed(seeds: Any) -> Any:
    """A number n stands for the seeds 0 to n - 1."""
    counted = isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MAX_SEEDS
    return tuple(range(seeds)) if counted else seeds


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(items)) < len(items):
        raise refuse()
    return items


def _one_or_more(names: Any) -> Any:
    return (names,) if isinstance(names, str) else names


Seeds = Annotated[
    tuple[Seed, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(_distinct),
    BeforeValidator(_listed),
    Allowed(f"a list of different seeds, or a number n from 1 to {MAX_SEEDS} for the seeds 0 to n - 1"),
]
Text = Annotated[str, MinLen(1), Allowed("text", "TEXT")]
NamesOrOne = Annotated[
    tuple[Annotated[str, MinLen(1)], ...],
    Strict(False),
    MinLen(1),
    AfterValidator(_distinct),
    BeforeValidator(_one_or_more),
]


class Reference(Block):
    """Published accuracies that the report sets beside ours."""

    source: Text
    """where the values are from: paper and table"""
    accuracy: Literal["linear", "knn", "nearest_center"]
    """the classifier whose accuracies they are"""
    selection: Literal["best_epoch", "last_epoch"]
    """the epoch that they are of: the best on the test images, or the last"""
    protocol: Annotated[dict[str, Any], Allowed("a mapping of dotted keys of a recipe to values")] = Field(default={})
    """how the values were come by: the report says where our recipes differ"""
    seeds: Count | None = None
    """runs behind each value; null: not known"""
    values: Annotated[dict[str, Any], MinLen(1), Allowed("a mapping of rows to accuracies in per cent")]
    """the accuracies in per cent, by row"""


class Claim(Block):
    """A sentence about the rows of a sweep that the report answers with yes or no."""

    says: Text
    """the claim in words"""
    rows: Annotated[NamesOrOne, Allowed("a row or a list of rows; * and ? match")] | None = None
    """the rows that are said to be ahead of all others, in no order among themselves"""
    smallest: Annotated[NamesOrOne, Allowed("a quantity or a list of quantities")] | None = None
    """quantities that are smallest there"""
    largest: Annotated[NamesOrOne, Allowed("a quantity or a list of quantities")] | None = None
    """quantities that are largest there"""
    order: Annotated[NamesOrOne, MinLen(2), Allowed("at least two rows; * and ? match")] | None = None
    """rows in the order that is claimed"""
    by: Annotated[NamesOrOne, Allowed("a quantity or a list of quantities")] | None = None
    """quantities that have this order"""
    increasing: bool = True
    """whether they rise along `order`, or fall"""
    within: Annotated[str, Allowed("an axis")] | None = None
    """axis for each of whose variants the claim is made; null: method where a row has * or ?, else all rows at once"""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Claim:
        ahead, ordered = (self.rows, self.smallest or self.largest), (self.order, self.by)
        if all(ahead) and not any(ordered) and "increasing" not in self.model_fields_set:
            return self
        if all(ordered) and not any(ahead):
            return self
        raise ValueError("must have either rows with smallest or largest, or order with by (and increasing)")


class SweepFile(Block):
    """The fields of a sweep file."""

    name: Name
    """what the sweep is called"""
    base: Annotated[str | dict[str, Any], Allowed("the name or the path of a recipe, or a recipe's own fields", "")]
    """the recipe that the variants change"""
    axes: Annotated[dict[str, Any], Allowed("a mapping of axes")] = Field(default={})
    """what varies: for each axis its variants and their changes, or a dotted key and a list of its values"""
    sample: Annotated[dict[str, Any], Allowed("a mapping of dotted keys to distributions")] = Field(default={})
    """what is drawn at random: for each dotted key log_uniform, uniform, int_uniform or choice"""
    num: Count | None = None
    """how many draws of `sample` there are, each crossed with the axes"""
    sample_seed: Seed = 0
    """the seed of the draws"""
    seeds: Seeds | None = None
    """the seeds of each variant; null: the base's one"""
    rank: Annotated[int, Ge(LEAST_RANKED)] | None = None
    """training images to rank the augmentations on before training, for share, shared and about_class; null: none"""
    parts: Annotated[dict[str, Any], Allowed("a mapping of axes to their variants' lists of parts")] = Field(default={})
    """what the variants of an axis are built from, where they share parts: p-values are then over the parts"""
    reference: Reference | None = None
    """published accuracies to show beside ours"""
    claims: Annotated[list[Any], Allowed("a list of claims")] = Field(default=[])
    """sentences about the rows that the report answers with yes or no"""
    launcher: Launcher | None = None
    """what the sweep's jobs ask of a cluster"""


# What an override may change of the sweep itself.
OWN_FIELDS = ("name", *(field for field in SWEEP_FIELDS if field not in ("base", "axes")))


@dataclass(frozen=True)
class SweepSources:
    """The merged fields of a sweep, and their sources: the furthest base first, overrides last."""

    file: SweepFile
    claims: tuple[Claim, ...]
    path: Path
    sources: tuple[Source, ...]
    base: tuple[Source, ...]  # of the recipe that the variants change

    def inherits(self, *path: str) -> bool:
        """Whether `path` is set only in files that the sweep is based on."""
        own = [source.label for source in self.sources].index(str(self.path))
        return not any(has(source.patch, path) for source in self.sources[own:])

    def last_with(self, *path: str) -> Source:
        """The last source that sets `path`."""
        return next(source for source in reversed(self.sources) if has(source.patch, path))

    def prefix(self, source: Source) -> str:
        """The name of the source's file and a comma; empty for the sweep's own file."""
        return "" if source.label == str(self.path) else f"{source.label}, "

    def place(self, source: Source, *path: str) -> str:
        """Where the source sets `path`, to follow a name in a message: the line, and the file unless the sweep's."""
        lines = [source.lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in source.lines]
        parts = [source.label] if source.label != str(self.path) else []
        parts += [f"line {lines[0]}"] if lines else []
        return f" ({', '.join(parts)})" if parts else ""


def has(patch: Any, path: Sequence[str]) -> bool:
    """Whether a mapping contains the nested keys of the path."""
    for key in path:
        if not isinstance(patch, Mapping) or key not in patch:
            return False
        patch = patch[key]
    return True


def read_sweep_file(name_or_path: str, changes: Sequence[Source] = ()) -> SweepSources:
    """The sweep of a shipped name or of a file, with its bases and with `changes` to its own fields.

    Raises InputError if it cannot be read, is a recipe, is circular, or has faults (all field faults in one error).
    """
    path = find(name_or_path, "sweep")
    chain = follow(path)
    chain.require("sweep", name_or_path)
    return sweep_of_sources(path, (*chain.sources, *changes), tuple(_base_sources(chain.sources)))


def sweep_of_sources(path: Path, sources: tuple[Source, ...], base: tuple[Source, ...]) -> SweepSources:
    """The sweep that `sources` make, validated, with those of its base recipe; see `read_sweep_file`."""
    file, claims = _validated(sources, str(path))
    return SweepSources(file, claims, path, sources, base)


def _base_sources(files: Sequence[Source]) -> list[Source]:
    """The recipe that the variants change, as sources: the last named base, then the changes to it.

    A base that is a name, or null, discards the inherited base.
    """
    root: list[Source] = []
    changes: list[Source] = []
    for source in files:
        if "base" not in source.patch:
            continue
        base = source.patch["base"]
        if not isinstance(base, Mapping):
            root, changes = [], []
        if isinstance(base, str):
            root = _named_base(replace(source, patch={"based_on": base}))
        elif isinstance(base, Mapping):
            own = replace(source, patch=base, lines=lines_below(source, ("base",)))
            root = _named_base(own) or root
            changes.append(own.without("based_on"))
    return [*root, *changes]


def _named_base(source: Source) -> list[Source]:
    """The recipe that a source is based on; empty if it names none. A sweep cannot be a base."""
    path = base_path(source, "recipe")
    if path is None:
        return []
    chain, name = follow(path), source.patch["based_on"]
    if chain.kind == "sweep":
        raise InputError(
            f"its base {name} is a sweep, not a recipe",
            where=source.label,
            remedy=f"To change that sweep, write based_on: {name} beside name. As base, name a recipe.",
        )
    return [base.without("name") for base in chain.sources]


def lines_below(source: Source, path: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """The line numbers of everything below `path`, by relative path."""
    return {key[len(path) :]: line for key, line in source.lines.items() if key[: len(path)] == path}


# ---------------------------------------------------------------------------------------------------------- validation
def _validated(sources: Sequence[Source], where: str) -> tuple[SweepFile, tuple[Claim, ...]]:
    mapping: dict[str, Any] = {}
    for source in sources:
        mapping = merge(mapping, source.patch)
    lines: list[str] = []
    try:
        file = SweepFile.model_validate(mapping)
    except ValidationError as error:
        faults_of_file = [_of_a_recipe(fault, sources) for fault in faults_of(error, SweepFile, mapping)]
        lines = [fault.line(sources, where) for fault in faults_of_file]
    claims, faults = _claims(mapping.get("claims"), sources, where)
    if lines or faults:
        raise as_error([*lines, *faults], where)
    return file, claims


def _of_a_recipe(fault: Fault, sources: Sequence[Source]) -> Fault:
    """For a field that belongs to a recipe, a fault that says where it goes; any other unchanged."""
    (key, *below), source = fault.path, fault.source(sources)
    if below or key not in Recipe.model_fields or key in SweepFile.model_fields or key == "seed" or source is None:
        return fault
    named = source.patch.get("base")
    base = f"based_on: {named}, " if isinstance(named, str) else ""
    return replace(fault, problem=f"is a field of a recipe; write it within base: {{{base}{key}: ...}}")


def _claims(items: Any, sources: Sequence[Source], where: str) -> tuple[tuple[Claim, ...], list[str]]:
    """The claims, each validated separately so that a fault can name its item."""
    found, faults = [], []
    for position, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, Mapping):
            faults.append(f"claims[{position}] must be a mapping with says, and either rows or order")
            continue
        try:
            found.append(Claim.model_validate(item))
        except ValidationError as error:
            origin = next(source for source in reversed(sources) if "claims" in source.patch)
            own = replace(origin, patch={"claims": {str(position): item}})
            for fault in faults_of(error, Claim, item):
                path = (f"claims[{position}]", *fault.path)
                blame = tuple(("claims", str(position), *blamed) for blamed in fault.blame)
                faults.append(replace(fault, path=path, blame=blame).line([own], where))
    return tuple(found), faults
