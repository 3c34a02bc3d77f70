"""Random axes: values of recipe fields drawn from distributions, the same ones on every machine.

The n-th value of a key is a function of `sample_seed`, the key and n alone, by a hash. So drawing more keeps the first
draws, and another sampled key changes none of the values. A draw takes the n-th value of every key; it is one variant,
`s00`, `s01`, ..., of the axis `draw`, which is crossed with the other axes. A draw that repeats an earlier one (of
whole numbers, of choices) is left out, with its number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import reduce
from typing import Any

from cssl_cli.errors import did_you_mean, nearest
from cssl_cli.recipe import schema
from cssl_cli.recipe.faults import as_error, dotted
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.merge import Override, merge
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.schema import show
from cssl_cli.recipe.yaml_text import KeyPath
from cssl_cli.sweep.checks import plain_fields, unknown_key
from cssl_cli.sweep.file import SweepSources
from cssl_cli.sweep.members import Axis

DRAW = "draw"  # the axis of the draws
DISTRIBUTIONS = ("uniform", "log_uniform", "int_uniform", "choice")
STEPS = 1000  # about so many values lie between the ends of a range, at least
MAX_REPEATED = 100  # draws that are looked at for each one that is asked for
LARGEST = 2**53  # end of a range: a whole number below it is a float, too
BITS = 64  # of a random number
_EXACT = Context(prec=40)  # decimal arithmetic is the same everywhere, which math.exp is not
_FORM = "{log_uniform: [low, high]}, uniform, int_uniform, or {choice: [...]}"


@dataclass(frozen=True)
class Draws:
    """The variants of the axis `draw`, and the values of each by dotted key."""

    variants: Axis
    values: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Sampled:
    """What a source says about a field: its distribution, or a list with distributions among its items.

    place: the keys under which the source has it, below `sample`.
    """

    path: KeyPath
    content: Any
    source: Source
    place: KeyPath


def samples(given: SweepSources) -> bool:
    """Whether the sweep has a random axis."""
    return bool(_sampled(given))


def read_draws(given: SweepSources, axes: Mapping[str, Axis], changes: Sequence[Source]) -> Draws:
    """The draws of a sweep that samples; one `InputError` for all faults of what it says about that.

    axes, changes: what the variants and the overrides set, which a draw may not set again.
    """
    found = _sampled(given)
    faults = [
        f"sample.{dotted(one.path)}{given.place(one.source, 'sample', *one.place)} {problem}"
        for one in found
        if (problem := _problem(one, [other.path for other in found], axes, changes)) is not None
    ]
    if DRAW in axes:
        faults.append(f"axes.{DRAW} is called like the axis of the draws; give it another name")
    if given.file.num is None:
        faults.append("num is required beside sample: how many draws there are, such as num: 20")
    if faults or given.file.num is None:
        raise as_error(faults, str(given.path))
    chosen = dict(_distinct(found, given.file.sample_seed, given.file.num))
    if len(chosen) < given.file.num:
        place = given.place(given.last_with("num"), "num")
        raise as_error([f"num{place} is {given.file.num:,}, and only {len(chosen):,} draws differ"], str(given.path))
    lines = {one.path: line for one in found if (line := one.source.lines.get(("sample", *one.place))) is not None}
    variants = {}
    for name, values in chosen.items():
        patches = [Override("", one.path, values[".".join(one.path)]).patch for one in found]
        variants[name] = (Source(f"{DRAW} {name}", reduce(merge, patches, {}), lines),)
    return Draws(variants, chosen)


def _sampled(given: SweepSources) -> list[_Sampled]:
    """What is sampled, the last word of all sources on each field."""
    found: dict[KeyPath, _Sampled] = {}
    for source in given.sources:
        content = source.patch.get("sample", ...)
        if not content:  # null, or an empty block
            found.clear()
        for one in _fields(content, source) if isinstance(content, Mapping) else ():
            if one.content is None:  # takes away the field, or all fields of a block
                found = {path: other for path, other in found.items() if path[: len(one.path)] != one.path}
            else:
                found[one.path] = one
    return list(found.values())


def _fields(content: Mapping[str, Any], source: Source, path: KeyPath = (), place: KeyPath = ()) -> Iterator[_Sampled]:
    """The fields below a block: keys may be dotted, as in a file, or nested, as overrides make them."""
    for key, inner in content.items():
        below, inside = (*path, *key.split(".")), (*place, key)
        if isinstance(inner, Mapping) and inner and not any(kind in inner for kind in DISTRIBUTIONS):
            yield from _fields(inner, source, below, inside)
        else:
            yield _Sampled(below, inner, source, inside)


# --------------------------------------------------------------------------------------------------------------- faults
def _problem(
    one: _Sampled, paths: Sequence[KeyPath], axes: Mapping[str, Axis], changes: Sequence[Source]
) -> str | None:
    """What is wrong with a sampled field, as the rest of a sentence; None if nothing is."""
    items = one.content if isinstance(one.content, list) else [one.content]
    of_items = [_distribution_problem(item) for item in items if isinstance(item, Mapping)]
    if not of_items:
        # {optim.lr: {log_unifrom: [...]}} reads as a field of that name.
        guess = nearest(one.path[-1], DISTRIBUTIONS)
        return f"is {show(one.content)}; must be a distribution: {_FORM}{did_you_mean(guess)}"
    key, known = ".".join(one.path), [".".join(path) for path in schema.paths(Recipe, {})]
    plain = known if "choice" in one.content else plain_fields(Recipe)  # a block may be chosen as a whole
    if one.path[0] in ("name", "seed"):
        return "is set by the sweep itself; use seeds"
    if (unknown := unknown_key(key, plain)) is not None:
        return unknown
    for axis, variants in axes.items():
        if axis == key or any(_sets(source.patch, one.path) for sources in variants.values() for source in sources):
            return f"is set by the axis {axis}, too"
    for change in changes:
        if _sets(change.patch, one.path):
            return f"is set by {change.label}, too; take it out with ~sample.{key}"
    inside = [".".join(path) for path in paths if path != one.path and path[: len(one.path)] == one.path]
    if doubled := [other for other in inside if other in known]:
        return f"contains {doubled[0]}, which is sampled, too"
    return next((problem for problem in of_items if problem is not None), None)


def _sets(patch: Any, path: KeyPath) -> bool:
    """Whether a patch sets a field, or takes it or a block around it away."""
    for key in path:
        if not isinstance(patch, Mapping) or key not in patch:
            return False
        patch = patch[key]
        if patch is None:
            return True
    return True


def _distribution_problem(content: Mapping[str, Any]) -> str | None:
    if len(content) != 1 or next(iter(content)) not in DISTRIBUTIONS:
        return f"is {show(content)}; must be one distribution: {_FORM}"
    ((kind, given),) = content.items()
    if kind == "choice":
        different = {show(item, limit=10**6) for item in given} if isinstance(given, list) else set()
        if not isinstance(given, list) or len(different) < max(2, len(given)):
            return f"has a choice of {show(given)}; must be a list of two or more different values"
        return None
    numbers = int if kind == "int_uniform" else (int, float)
    if (
        not isinstance(given, list)
        or len(given) != 2
        or not all(isinstance(end, numbers) and not isinstance(end, bool) and abs(end) < LARGEST for end in given)
    ):
        whole = "whole numbers" if kind == "int_uniform" else "numbers"
        return f"has {kind} {show(given)}; must be [low, high], two {whole} below 2**53"
    low, high = given
    if low >= high:
        return f"has {kind} {show(given)}; must be [low, high] with low < high"
    if kind == "log_uniform" and low <= 0:
        return f"has log_uniform {show(given)}; must be [low, high] with 0 < low, since the logarithm is uniform"
    return None


# ---------------------------------------------------------------------------------------------------------------- draws
def _distinct(found: Sequence[_Sampled], seed: int, num: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first `num` draws that differ from those before, by name; fewer if there are no more."""
    seen = set()
    most = min(num, math.prod(_num_values(one.content) for one in found))
    for number in range(num * MAX_REPEATED):
        keys = [".".join(one.path) for one in found]
        values = {key: _value(one.content, seed, key, number) for key, one in zip(keys, found, strict=True)}
        text = show(values, limit=10**6)
        if text not in seen:
            seen.add(text)
            yield f"s{number:02d}", values
        if len(seen) == most:
            return


def _num_values(content: Any) -> float:
    """How many different values there are to draw, at most."""
    if isinstance(content, list):
        return math.prod(_num_values(item) for item in content if isinstance(item, Mapping))
    ((kind, given),) = content.items()
    if kind == "choice":
        return float(len(given))
    return float(given[1] - given[0] + 1) if kind == "int_uniform" else math.inf


def _value(content: Any, seed: int, key: str, number: int) -> Any:
    """The value of a distribution, or a list with the values of those among its items."""
    if isinstance(content, list):
        return [
            _value(item, seed, f"{key}[{position}]", number) if isinstance(item, Mapping) else item
            for position, item in enumerate(content)
        ]
    ((kind, given),) = content.items()
    digest = hashlib.sha256(f"{seed}\n{key}\n{number}".encode()).digest()
    random = int.from_bytes(digest[: BITS // 8], "big")
    if kind == "choice":
        return given[random * len(given) >> BITS]
    low, high = given
    if kind == "int_uniform":
        return low + (random * (high - low + 1) >> BITS)
    return _between(low, high, Decimal(random) / 2**BITS, logarithmic=kind == "log_uniform")


def _between(low: float, high: float, share: Decimal, *, logarithmic: bool) -> float:
    """The number at `share` of the way, rounded to a thousandth of the range, or to three significant digits."""
    a, b = Decimal(repr(low)), Decimal(repr(high))
    if logarithmic:
        log_a, log_b = _EXACT.ln(a), _EXACT.ln(b)
        value = _EXACT.exp(_EXACT.fma(share, log_b - log_a, log_a))
        finest = value * (log_b - log_a) / 100
    else:
        value, finest = _EXACT.fma(share, b - a, a), (b - a) / STEPS
    unit = min(finest.adjusted(), value.adjusted() - 2 if logarithmic else finest.adjusted())
    rounded = float(_EXACT.quantize(value, Decimal(1).scaleb(unit)))
    return min(max(rounded, float(low)), float(high)) + 0.0  # no -0.0
