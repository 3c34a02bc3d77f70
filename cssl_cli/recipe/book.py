"""The recipes that ship with the package: found, listed and read without parsing them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists, replacing
from cssl_cli.host.paths import is_override, user_path

MAX_BYTES = 300_000  # of a file; the longest that ships has some 10,000. PyYAML may take ten seconds for so many
_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Listing:
    """A shipped file by its header: what it is, how long it takes, what comes of it."""

    name: str
    path: Path
    kind: str  # "recipe" or "sweep"
    summary: str
    time: str
    result: str
    source: str


def recipes_folder() -> Path:
    """Inside the package where it is installed from a wheel, beside it in a source checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


@cache
def list_recipes() -> tuple[Listing, ...]:
    """The shipped recipes and sweeps, by name."""
    return tuple(_listing(path) for path in sorted(recipes_folder().glob("*.yaml"), key=lambda path: path.stem))


def shipped_names(kind: str | None = None) -> list[str]:
    """The names of the shipped files, of one kind or of both."""
    return [listing.name for listing in list_recipes() if kind in (None, listing.kind)]


def shipped_path(name: str) -> Path | None:
    """The file of the shipped recipe or sweep, None when there is none of that name."""
    return next((listing.path for listing in list_recipes() if listing.name == name), None)


def read_recipe_text(name: str) -> str:
    """The text of a shipped recipe or sweep; `InputError` when there is none of that name."""
    path = shipped_path(name)
    if path is None:
        raise unknown_name("recipe", name, shipped_names())
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def read_file(path: Path) -> bytes:
    """What a recipe's or a sweep's file holds; raises `OSError`, or `InputError` when it is too long for one.

    A named pipe that nobody writes to is empty, and does not wait.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        os.set_blocking(file.fileno(), True)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("is longer than 300 kB, which no recipe or sweep is", where=str(path))
    return content


def copy_recipe(name: str, target: Sequence[str]) -> Path:
    """Write the text of a shipped recipe or sweep to the file that is the one item of `target`, or to NAME.yaml.

    Raises `InputError` when a file is there already, or `target` is no single file name.
    """
    text = read_recipe_text(name)
    if len(target) > 1 or any(is_override(argument) for argument in target):
        raise InputError(
            f"--copy writes a recipe as it is: {' '.join(target)!r} is not the name of one file",
            remedy="Copy it first and edit the copy, or give the overrides to the command that runs it. "
            "A path with = needs a slash before it: ./lr=1.yaml.",
        )
    path = user_path(target[0]) if target else Path(f"{name}.yaml")
    if exists(path):
        raise InputError("there is a file already", where=str(path), remedy="Give the copy another name.")
    with replacing(path, "Give the copy another place.") as partial:
        partial.write_text(text, encoding="utf-8")
    return path


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


_SWEEP_KEY = re.compile(r"^(base|axes|seeds|reference|claims):", re.MULTILINE)
_BASED_ON = re.compile(r"^based_on: *['\"]?([^\s#'\"]+)", re.MULTILINE)


def kind_of(text: str, folder: Path | None = None, depth: int = 20) -> str:
    """What a file is by its keys, or by those of what it is based on: "sweep" or "recipe".

    A path in `based_on` starts from `folder`, a name is a shipped one; chains are followed to a `depth`.
    """
    if _SWEEP_KEY.search(text):
        return "sweep"
    named = _BASED_ON.search(text)
    if named is None or not depth:
        return "recipe"
    shipped = recipes_folder() / f"{named[1]}.yaml"
    base = shipped if exists(shipped) else (folder or recipes_folder()) / named[1]
    try:
        return kind_of(read_file(base).decode(), base.parent, depth - 1)
    except (OSError, ValueError, InputError):  # who reads the file as what it is says that its base is missing
        return "recipe"


def _listing(path: Path) -> Listing:
    text = path.read_text(encoding="utf-8")
    header = read_header(text)
    return Listing(
        name=path.stem,
        path=path,
        kind=kind_of(text, path.parent),
        summary=header.get("what", ""),
        time=header.get("time", ""),
        result=header.get("result", ""),
        source=header.get("source", ""),
    )
