"""The recipes that ship with the package: listed by their headers, printed and copied, without parsing them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists, replacing
from cssl_cli.host.paths import is_override, user_path
from cssl_cli.recipe.files import (
    Kind,
    read_text,
    shipped_kind,
    shipped_names,
    shipped_path,
    shipped_paths,
)

# What editors with yaml-language-server look for; a name in it is of a file beside the one that it is in.
MODELINE = "# yaml-language-server: $schema="


@dataclass(frozen=True)
class Listing:
    """A shipped file by its header: what it is, how long it takes, what comes of it."""

    name: str
    path: Path
    kind: Kind
    summary: str
    time: str
    result: str
    source: str


@cache
def list_recipes() -> tuple[Listing, ...]:
    """The shipped recipes and sweeps, by name."""
    return tuple(_listing(path) for path in shipped_paths())


def read_recipe_text(name: str) -> str:
    """The text of a shipped recipe or sweep; `InputError` when there is none of that name."""
    path = shipped_path(name)
    if path is None:
        raise unknown_name("recipe or sweep", name, shipped_names())
    return read_text(path)


def copy_recipe(name: str, target: Sequence[str], *, schema_of: Callable[[Kind], Mapping[str, Any]]) -> Path:
    """Write the text of a shipped recipe or sweep to the file that is the one item of `target`, or to NAME.yaml.

    Beside it goes the schema of its kind, to which its first line leads editors. Raises `InputError` when a file is
    there already, or `target` is no single file name.
    """
    text, source = read_recipe_text(name), shipped_path(name)
    assert source is not None
    if len(target) > 1 or any(is_override(argument) for argument in target):
        raise InputError(
            f"--copy writes a recipe as it is: {' '.join(target)!r} is not the name of one file",
            remedy="Copy it first and edit the copy, or give the overrides to the command that runs it. "
            "A path with = needs a slash before it: ./lr=1.yaml.",
        )
    path = user_path(target[0]) if target else Path(f"{name}.yaml")
    if exists(path):
        raise InputError("there is a file already", where=str(path), remedy="Give the copy another name.")
    kind = shipped_kind(source)
    schema = path.with_name(schema_name(kind))
    _write(schema, json.dumps(schema_of(kind), indent=1) + "\n")
    _write(path, f"{MODELINE}{schema.name}\n{text}")
    return path


def schema_name(kind: Kind) -> str:
    """What the schema is called that lies beside copies; the same for all of a kind, and ours to replace."""
    return f".cssl-{kind}.schema.json"


def _write(path: Path, text: str) -> None:
    with replacing(path, "Give the copy another place.") as partial:
        partial.write_text(text, encoding="utf-8")


def read_header(text: str) -> dict[str, str]:
    """The entries `# Key: value` of the comment a file begins with, keys in lower case; indented lines continue one."""
    header: dict[str, str] = {}
    key = None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        entry = re.match(r"# ([A-Z]\w*): +(.+)", line)
        if entry:
            key = entry[1].lower()
            header[key] = entry[2].strip()
        elif key and line.startswith("#  "):
            header[key] += " " + line[1:].strip()
        else:
            key = None
    return header


def _listing(path: Path) -> Listing:
    header = read_header(path.read_text(encoding="utf-8"))
    return Listing(
        name=path.stem,
        path=path,
        kind=shipped_kind(path),
        summary=header.get("what", ""),
        time=header.get("time", ""),
        result=header.get("result", ""),
        source=header.get("source", ""),
    )
