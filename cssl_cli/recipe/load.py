"""Loads a recipe from a name or path and overrides, or raises one error that lists every fault."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists
from cssl_cli.host.paths import UnknownPath, expand
from cssl_cli.recipe.declared import data_blocks
from cssl_cli.recipe.faults import Fault, as_error, faults_of
from cssl_cli.recipe.field_types import NAME_PATTERN
from cssl_cli.recipe.files import Source, find, follow, shipped_names
from cssl_cli.recipe.merge import merge, parse_overrides
from cssl_cli.recipe.ranges import Folder
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.schema import names_of


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped name or of a file, with overrides `key.sub=value` and `~key.sub` applied.

    Raises `InputError` when there is no such recipe, the file cannot be read as one, or an override is malformed; all
    faults of the values are listed in one error.
    """
    chain = follow(find(name_or_path, "recipe"))
    chain.require("recipe", name_or_path)
    sources = chain.sources
    changes = [Source(override.label, override.patch) for override in parse_overrides(overrides)]
    recipe, faults = resolve([*sources, *changes])
    if recipe is None:
        raise _error(faults, sources, changes)
    return recipe


def with_other_data(file: str, data: str, overrides: Sequence[str]) -> Recipe:
    """The recipe in a file with other images: the data set, or the recipe, that `data` names, changed by overrides.

    Raises `InputError` as `load_recipe` does.
    """
    if data not in data_names():
        if re.fullmatch(NAME_PATTERN, data) and data not in shipped_names() and not exists(Path(data)):
            raise unknown_name("data set or recipe", data, [*data_names(), *shipped_names("recipe")], where="--data")
        return load_recipe(file).model_copy(update={"data": load_recipe(data, overrides).data})
    sources = [source.without("data") for source in follow(find(file, "recipe")).sources]
    changes = [Source(override.label, override.patch) for override in parse_overrides(overrides)]
    named = Source(f"--data {data}", {"data": {"name": data}})
    recipe, faults = resolve([*sources, named, *changes])
    if recipe is None:
        raise _error(faults, sources, [named, *changes])
    return recipe


def data_names() -> list[str]:
    """The names of the data sets."""
    return [name for block in data_blocks() for name in names_of(block)]


def read_folder(path: str, where: str) -> str:
    """The folder that an option names, as data.root would; `InputError` when it is not there."""
    try:
        folder: str = expand(TypeAdapter(Folder).validate_python(path))
    except ValidationError as error:
        raise InputError(f"{path!r} is not the path of a folder", where=where) from error
    except UnknownPath as error:
        raise InputError(f"{path!r} {error}", where=where) from error
    if not os.path.isdir(folder):  # noqa: PTH112 (false, too, where a path cannot be looked for)
        raise InputError(f"there is no folder {folder}", where=where, remedy="Give the folder that holds the images.")
    return folder


def resolve(sources: Sequence[Source]) -> tuple[Recipe | None, list[Fault]]:
    """The recipe that the sources make, merged in their order, or its faults."""
    merged: dict[str, Any] = reduce(merge, [source.patch for source in sources], {})
    try:
        return Recipe.model_validate(merged), []
    except ValidationError as error:
        return None, faults_of(error, Recipe, merged)


def _error(faults: Sequence[Fault], sources: Sequence[Source], changes: Sequence[Source]) -> InputError:
    everything = [*sources, *changes]
    where = sources[-1].label
    origins = [fault.source(everything) for fault in faults]
    if all(origin in changes for origin in origins):
        labels = {origin.label for origin in origins if origin is not None}
        where = labels.pop() if len(labels) == 1 else "overrides"
    return as_error([fault.line(everything, where) for fault in faults], where)
