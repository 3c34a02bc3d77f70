"""Recipes and sweeps for completion: merged, without being checked, which takes longer than a Tab may."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from itertools import islice, product
from typing import Any

from cssl_cli.errors import CsslError
from cssl_cli.recipe.files import Source, find, follow
from cssl_cli.recipe.merge import merge, parse_overrides

MOST_ROWS = 1000


def document(arguments: Sequence[str]) -> dict[str, Any]:
    """The fields of the recipe that the first of the arguments names, changed by the overrides among the others.

    Of a sweep its base; of a run its recipe. Empty where there is none that can be read.
    """
    merged: dict[str, Any] = {}
    with suppress(CsslError):
        for source in _sources(arguments[0] if arguments else ""):
            merged = merge(merged, source)
    for text in arguments[1:]:
        with suppress(CsslError):  # each by itself: one that is not finished yet costs itself only
            merged = reduce(merge, [override.patch for override in parse_overrides([text])], merged)
    return merged


def _sources(name: str) -> list[Mapping[str, Any]]:
    recipe = os.path.join(os.path.expanduser(name), "recipe.yaml")  # noqa: PTH111, PTH118 (before pathlib is needed)
    chain = follow(find(recipe if os.path.isfile(recipe) else name, None))  # noqa: PTH113
    if chain.kind == "recipe":
        return [source.patch for source in chain.sources]
    found: list[Mapping[str, Any]] = []
    for source in chain.sources:
        base = source.patch.get("base")
        named = base.get("based_on") if isinstance(base, Mapping) else base
        if isinstance(named, str):
            found = [one.patch for one in follow(find(named, "recipe", folder=source.folder)).sources]
        if isinstance(base, Mapping):
            found.append({key: value for key, value in base.items() if key != "based_on"})
    return found


def rows(name: str) -> Iterator[str]:
    """The rows of a sweep, in its order; none where it cannot be read.

    Where draws may repeat, and so lose their numbers, a pattern for all draws of a variant stands in their place.
    """
    try:
        chain = follow(find(name, "sweep"))
    except CsslError:
        return
    axes: dict[str, dict[str, None]] = {}
    for source in chain.sources:
        _change(axes, source)
    if draws := _draws(chain.sources):
        axes["draw"] = dict.fromkeys(draws)
    for variants in islice(product(*axes.values()), MOST_ROWS):
        yield "-".join(variants) or str(chain.sources[-1].patch.get("name"))


def _draws(sources: Sequence[Source]) -> list[str]:
    """The names of the draws of a random axis, or a pattern for all of them; empty without such an axis."""
    sample: dict[str, Any] = {}
    num: Any = None
    for source in sources:
        given = source.patch.get("sample", ...)
        sample = merge(sample, given) if isinstance(given, Mapping) and given else sample if given is ... else {}
        num = source.patch.get("num", num)
    if not sample or not isinstance(num, int) or num < 1:
        return []
    repeats = re.search(r'"(log_)?uniform":', json.dumps(sample, default=str)) is None
    return ["*"] if repeats else [f"s{number:02d}" for number in range(min(num, MOST_ROWS))]


def _change(axes: dict[str, dict[str, None]], source: Source) -> None:
    """Change the variants of the axes as a further file says; `sweep.sweep` does the same with what they change."""
    given = source.patch.get("axes", ...)
    if not given:
        axes.clear()
    for axis, content in given.items() if isinstance(given, Mapping) else ():
        if content is None:
            axes.pop(axis, None)
        elif isinstance(content, list):
            axes[axis] = dict.fromkeys(map(_name_of, content))
        elif isinstance(content, Mapping):
            before = axes.setdefault(axis, {})
            for variant, change in content.items():
                if change is None and variant in before:
                    del before[variant]
                else:
                    before[variant] = None


def _name_of(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
