"""The recipe of a run, and what the recipes of a sweep have in common and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.recipe import Recipe
from cssl_cli.recipe.schema import show
from cssl_cli.recipe.yaml_text import dump
from cssl_cli.report.document.blocks import (
    Block,
    Cell,
    Code,
    Grid,
    Head,
    Heading,
    Line,
    Paragraph,
    folded_where_long,
)

OWN = ("name", "seed")  # of each member
ABSENT = "–"
Leaves = dict[tuple[str, ...], Any]


def recipe_blocks(recipe: Recipe) -> list[Block]:
    """The whole recipe, with the settings left at their defaults."""
    return [Code(recipe.to_yaml())]


def recipes_of_rows(recipes: Mapping[str, Recipe]) -> list[Block]:
    """What the recipes of all rows have in common as a recipe, and a table of the fields in which they differ."""
    leaves = {
        row: _leaves(recipe.model_dump(mode="json", by_alias=True, exclude=set(OWN))) for row, recipe in recipes.items()
    }
    keys = list(dict.fromkeys(key for of_row in leaves.values() for key in of_row))
    first = next(iter(leaves.values()), {})
    common = [key for key in keys if all(key in of_row and of_row[key] == first.get(key) for of_row in leaves.values())]
    same = set(common)
    differing = [key for key in keys if key not in same]
    blocks: list[Block] = [Heading("The same in all rows"), Code(dump(_nested({key: first[key] for key in common})))]
    if differing:
        table = folded_where_long([Heading("Where the rows differ"), _differences(leaves, differing)])
        blocks = [*table, *blocks]
    elif len(recipes) > 1:
        blocks.append(Paragraph("The rows differ in nothing but how they are called.", "note"))
    return blocks


def _differences(leaves: Mapping[str, Leaves], keys: Sequence[tuple[str, ...]]) -> Grid:
    numeric = [all(_is_number(of_row[key]) for of_row in leaves.values() if key in of_row) for key in keys]
    heads = [Head(".".join(key), numeric=in_numbers) for key, in_numbers in zip(keys, numeric, strict=True)]
    lines = [Line((Cell(row), *(_cell(of_row.get(key)) for key in keys))) for row, of_row in leaves.items()]
    return Grid((Head("", numeric=False), *heads), tuple(lines), sortable=len(lines) > 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Cell:
    """A field's value; None where a recipe has no such field."""
    return Cell(ABSENT if value is None else _shown(value), value if _is_number(value) else None)


def _leaves(content: Mapping[str, Any], *path: str) -> Leaves:
    """The fields by their path; an empty block, and one that is null, is a field itself."""
    found: Leaves = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, *path, key)
        elif value is not None:
            found[(*path, key)] = value
    return found


def _nested(leaves: Leaves) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for path, value in leaves.items():
        block = content
        for key in path[:-1]:
            block = block.setdefault(key, {})
        block[path[-1]] = value
    return content


def _shown(value: Any) -> str:
    return show(value, limit=200).strip('"') if isinstance(value, str) else show(value, limit=200)
