"""Recipe and sweep files: found by name or path, read, followed along `based_on`, and told apart.

A file with a field that only sweeps have (`SWEEP_FIELDS`) is a sweep, and so is one that is based on a sweep. Every
other file is a recipe. A sweep is based on sweeps alone: the recipe that it varies is its `base`. No other module
follows `based_on` or decides which of the two a file is.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists
from cssl_cli.host.paths import UnknownPath, expand

if TYPE_CHECKING:
    from cssl_cli.recipe.yaml_text import KeyPath

Kind = Literal["recipe", "sweep"]

# That a sweep may have and a recipe may not.
SWEEP_FIELDS = (
    "base",
    "axes",
    "sample",
    "num",
    "sample_seed",
    "seeds",
    "rank",
    "parts",
    "reference",
    "claims",
    "launcher",
)
COMMANDS: dict[Kind, str] = {"recipe": "cssl pretrain", "sweep": "cssl sweep"}
MAX_BYTES = 300_000  # of a file; the longest that ships has some 10,000. PyYAML may take ten seconds for so many
_PACKAGE = Path(__file__).parent.parent


# ------------------------------------------------------------------------------------------------------- shipped files
def recipes_folder() -> Path:
    """Inside the package where it is installed from a wheel, beside it in a source checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def shipped_paths() -> list[Path]:
    """The files of the shipped recipes and sweeps, by name."""
    return sorted(recipes_folder().glob("*.yaml"), key=lambda path: path.stem)


def shipped_names(kind: Kind | None = None) -> list[str]:
    """The names of the shipped files, of one kind or of both."""
    return [path.stem for path in shipped_paths() if kind in (None, shipped_kind(path))]


def shipped_path(name: str) -> Path | None:
    """The file of the shipped recipe or sweep, None when there is none of that name."""
    return next((path for path in shipped_paths() if path.stem == name), None)


_FIELD = re.compile(r"^(\w+):(?: *['\"]?([^\s#'\"]+))?", re.MULTILINE)


def shipped_kind(path: Path) -> Kind:
    """What `follow` says of a shipped file, without YAML, so that the list of recipes appears at once.

    In shipped files each field begins a line, and a base is another shipped file.
    """
    seen = set()
    while path not in seen and exists(path):
        seen.add(path)
        fields = dict(_FIELD.findall(path.read_text(encoding="utf-8")))
        if any(field in fields for field in SWEEP_FIELDS):
            return "sweep"
        path = path.with_name(f"{fields.get('based_on')}.yaml")
    return "recipe"


# ------------------------------------------------------------------------------------------------------ find and read
def find(name_or_path: str, kind: Kind | None, *, folder: Path = Path(), where: str | None = None) -> Path:
    """The file that is meant: a path (relative to `folder`), or the name of a shipped recipe or sweep.

    kind: which of the two an `InputError` for an unknown name lists; None: both.
    """
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
    raise unknown_name(kind or "recipe or sweep", name_or_path, shipped_names(kind), where=where)


def read_text(path: Path) -> str:
    """What a file holds; `InputError` when it cannot be read or is no text in UTF-8."""
    where = str(path)
    try:
        content = read_bytes(path)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        shipped = ", ".join(shipped_names())
        raise InputError("there is no such file", where=where, remedy=f"Recipes found by name: {shipped}.") from error
    except IsADirectoryError as error:
        raise InputError("is a folder, not a recipe file", where=where) from error
    except UnicodeDecodeError as error:
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is in UTF-16; save it as UTF-8" if utf_16 else f"not a text file in UTF-8 (byte {error.start})"
        raise InputError(what, where=where, remedy="Recipes and sweeps are text, in YAML.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=where) from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; raises `OSError`, or `InputError` when it is too long for a recipe or a sweep.

    A named pipe that nobody writes to is empty, and does not wait.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        os.set_blocking(file.fileno(), True)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("is longer than 300 kB, which no recipe or sweep is", where=str(path))
    return content


def _read(path: Path) -> Source:
    from cssl_cli.recipe.yaml_text import parse  # here, as what lists the shipped files needs no YAML

    where = str(path)
    document = parse(read_text(path), where=where)
    if document.value is None:
        raise InputError("the file is empty", where=where, remedy="`cssl recipes NAME --copy` writes one to edit.")
    if not isinstance(document.value, Mapping):
        raise InputError("not a recipe: the file must be a mapping, `key: value` on each line", where=where)
    return Source(where, document.value, document.lines, path.parent)


def _looks_like_path(text: str) -> bool:
    separators = {os.sep, os.altsep} - {None}
    return text.endswith((".yaml", ".yml")) or any(separator in text for separator in separators if separator)


# ------------------------------------------------------------------------------------------------------------ based_on
@dataclass(frozen=True)
class Source:
    """A mapping that goes into a recipe or a sweep, and where it came from.

    lines: the line of each of its keys, if it has lines. folder: from which relative paths to a base start.
    """

    label: str
    patch: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    folder: Path = Path()

    def without(self, key: str) -> Source:
        """The same but for one key."""
        return replace(self, patch={name: value for name, value in self.patch.items() if name != key})


@dataclass(frozen=True)
class Chain:
    """A file and all that it is based on, the furthest base first, the file itself last; a base gives no name."""

    path: Path
    sources: tuple[Source, ...]

    @property
    def kind(self) -> Kind:
        """What the file is."""
        return "sweep" if any(_sweep_fields(source) for source in self.sources) else "recipe"

    def require(self, kind: Kind, given: str) -> None:
        """`InputError` unless the file, called `given`, is of that kind: why it is not, and which command takes it."""
        if self.kind == kind:
            return
        why = ""
        if self.kind == "sweep":
            source = next(source for source in reversed(self.sources) if _sweep_fields(source))
            base = "" if source is self.sources[-1] else f"is based on {source.label}, which "
            why = f"; it {base}has {_told(source, *_sweep_fields(source)[:1])}"
        raise InputError(
            f"{given} is a {self.kind}, not a {kind}{why}", remedy=f"Run it with: {COMMANDS[self.kind]} {given}"
        )


def follow(path: Path) -> Chain:
    """The file and all that it is `based_on`.

    Raises `InputError` when one of the files cannot be read, a base does not exist, the files go in a circle, or a
    sweep is based on a recipe.
    """
    files = [_read(path)]
    while (base := base_path(files[0], "sweep" if any(map(_sweep_fields, files)) else None)) is not None:
        if any(base.resolve() == Path(file.label).resolve() for file in files):
            circle = " -> ".join([*(file.label for file in reversed(files)), str(base)])
            raise InputError(f"based_on goes in a circle: {circle}", where=files[0].label)
        files.insert(0, _read(base))
    _require_sweeps_below(files)
    *bases, own = (source.without("based_on") for source in files)
    return Chain(path, (*(base.without("name") for base in bases), own))


def base_path(source: Source, kind: Kind | None = None) -> Path | None:
    """The file that a mapping is based on, None where it is on none; `InputError` when there is no such file."""
    name = source.patch.get("based_on")
    if name is None:
        return None
    if not isinstance(name, str):
        what = f"based_on must be the name or the path of a {kind or 'recipe or of a sweep'}"
        raise InputError(what, where=source.label)
    path = find(name, kind, folder=source.folder, where=source.label)
    if not exists(path):
        raise InputError(f"its base {name} does not exist", where=source.label, remedy=f"Looked for {path}.")
    return path


def _require_sweeps_below(files: Sequence[Source]) -> None:
    """`InputError` when a file with the fields of a sweep is based on a recipe. files: the furthest base first."""
    first = next((place for place, source in enumerate(files) if _sweep_fields(source)), 0)
    if first == 0:
        return
    source, fields = files[first], _sweep_fields(files[first])
    name, base = source.patch["based_on"], source.patch.get("base")
    if base is None:
        change = f"write base: {name} in place of based_on: {name}"
    else:
        change = f"move based_on: {name} into base" if isinstance(base, Mapping) else "take based_on out"
    raise InputError(
        f"{_told(source, *fields)} make{'s' if len(fields) == 1 else ''} it a sweep, but it is based on {name}, "
        "which is a recipe",
        where=source.label,
        remedy=f"For a sweep, {change}. For a recipe, take {' and '.join(fields)} out.",
    )


def _sweep_fields(source: Source) -> list[str]:
    return [field for field in SWEEP_FIELDS if field in source.patch]


def _told(source: Source, *fields: str) -> str:
    """The fields with their lines."""
    return " and ".join(f"{field} (line {source.lines[(field,)]})" for field in fields)
