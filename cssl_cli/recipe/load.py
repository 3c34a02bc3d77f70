"""From a name or a path, and overrides, to a recipe; or to one error that lists every fault."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists
from cssl_cli.host.paths import UnknownPath, expand
from cssl_cli.recipe.book import read_file, shipped_names, shipped_path
from cssl_cli.recipe.faults import Fault, Source, as_error, faults_of
from cssl_cli.recipe.field_types import Folder
from cssl_cli.recipe.merge import merge, parse_overrides
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.yaml_text import Document, parse


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a shipped name or of a file, with overrides `key.sub=value` and `~key.sub` applied.

    Raises `InputError` when there is no such recipe, the file cannot be read as one, or an override is malformed; all
    faults of the values are listed in one error.
    """
    path = find(name_or_path, "recipe")
    document = read(path)
    if is_sweep(document.value):
        raise InputError(f"{name_or_path} is a sweep, not a recipe", remedy=f"Run it with: cssl sweep {name_or_path}")
    sources = file_sources(path, document)
    changes = [Source(override.label, override.patch) for override in parse_overrides(overrides)]
    recipe, faults = resolve([*sources, *changes])
    if recipe is None:
        raise _error(faults, sources, changes)
    return recipe


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


def find(name_or_path: str, kind: str, *, folder: Path = Path(), where: str | None = None) -> Path:
    """The file that is meant: a path (relative to `folder`), or the name of a shipped `kind`, "recipe" or "sweep"."""
    try:
        expanded = expand(name_or_path)
    except UnknownPath as error:
        raise InputError(f"{name_or_path!r} {error}", where=where) from error
    path = folder / expanded
    if _looks_like_path(expanded):
        return path
    shipped = shipped_path(expanded)
    if shipped is not None:
        return shipped
    with suppress(OSError, ValueError):  # what cannot even be looked for is not there
        if path.is_file():
            return path
    raise unknown_name(kind, name_or_path, shipped_names(kind), where=where)


def read(path: Path) -> Document:
    """A file's mapping; `InputError` when it cannot be read or is none."""
    where = str(path)
    try:
        content = read_file(path)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        shipped = ", ".join(shipped_names())
        raise InputError("there is no such file", where=where, remedy=f"Recipes found by name: {shipped}.") from error
    except IsADirectoryError as error:
        raise InputError("is a folder, not a recipe file", where=where) from error
    except UnicodeDecodeError as error:
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is in UTF-16; save it as UTF-8" if utf_16 else f"not a text file in UTF-8 (byte {error.start})"
        raise InputError(what, where=where) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=where) from error
    document = parse(text, where=where)
    if document.value is None:
        raise InputError("the file is empty", where=where, remedy="`cssl recipes NAME --copy` writes one to edit.")
    if not isinstance(document.value, Mapping):
        raise InputError("not a recipe: the file must be a mapping, `key: value` on each line", where=where)
    return document


def is_sweep(mapping: Mapping[str, Any]) -> bool:
    """Whether a file's mapping has the keys of a sweep."""
    return "base" in mapping or "axes" in mapping


def file_sources(path: Path, document: Document) -> list[Source]:
    """A recipe file and all it is `based_on`, the furthest base first; a base's name is not inherited."""
    return mapping_sources(Source(str(path), document.value, document.lines), folder=path.parent, chain=(path,))


def mapping_sources(source: Source, *, folder: Path, chain: tuple[Path, ...] = ()) -> list[Source]:
    """The same for a mapping whose paths are relative to `folder`. `chain`: the files that led here."""
    base_name = source.patch.get("based_on")
    own = Source(source.label, {key: value for key, value in source.patch.items() if key != "based_on"}, source.lines)
    if base_name is None:
        return [own]
    if not isinstance(base_name, str):
        raise InputError("based_on must be the name or the path of a recipe", where=source.label)
    base_path = find_base(base_name, source.label, folder)
    if any(_same(base_path, earlier) for earlier in chain):
        circle = " -> ".join(str(path) for path in (*chain, base_path))
        raise InputError(f"based_on goes in a circle: {circle}", where=source.label)
    document = read_base(base_path, source.label)
    base = Source(str(base_path), document.value, document.lines)
    bases = mapping_sources(base, folder=base_path.parent, chain=(*chain, base_path))
    return [*(_unnamed(base) for base in bases), own]


def find_base(name_or_path: str, where: str, folder: Path) -> Path:
    """The file of a base that the file `where` in `folder` names."""
    path = find(name_or_path, "recipe", folder=folder, where=where)
    if not exists(path):
        raise InputError(f"its base {name_or_path} does not exist", where=where, remedy=f"Looked for {path}.")
    return path


def read_base(path: Path, where: str) -> Document:
    """The document of a base; a sweep is none."""
    document = read(path)
    if is_sweep(document.value):
        raise InputError(f"its base {path} is a sweep, not a recipe", where=where)
    return document


def resolve(sources: Sequence[Source]) -> tuple[Recipe | None, list[Fault]]:
    """The recipe that the sources make, merged in their order, or its faults."""
    merged: dict[str, Any] = reduce(merge, [source.patch for source in sources], {})
    try:
        return Recipe.model_validate(merged), []
    except ValidationError as error:
        return None, faults_of(error, Recipe, merged)


def _unnamed(source: Source) -> Source:
    return Source(source.label, {key: value for key, value in source.patch.items() if key != "name"}, source.lines)


def _error(faults: Sequence[Fault], sources: Sequence[Source], changes: Sequence[Source]) -> InputError:
    everything = [*sources, *changes]
    where = sources[-1].label
    origins = [fault.source(everything) for fault in faults]
    if all(origin in changes for origin in origins):
        labels = {origin.label for origin in origins if origin is not None}
        where = labels.pop() if len(labels) == 1 else "overrides"
    return as_error([fault.line(everything, where) for fault in faults], where)


def _looks_like_path(text: str) -> bool:
    separators = {os.sep, os.altsep} - {None}
    return text.endswith((".yaml", ".yml")) or any(separator in text for separator in separators if separator)


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()
