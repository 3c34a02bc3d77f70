"""Paths as their users write them: `~` and environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cssl_cli.errors import InputError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


class UnknownPath(ValueError):
    """A path that stands for no place: the rest of a sentence that begins with its name."""


def expand_home(path: str) -> str:
    """The path with a leading `~` or `~user` as the folder it stands for; raises `UnknownPath` where there is none."""
    expanded = os.path.expanduser(path)  # noqa: PTH111 (pathlib's takes "" for "." and drops a final slash)
    user = re.match(r"~[^/]*", path)
    if user and expanded == path:
        whose = f"{user[0][1:]!r} is no user with one" if user[0] != "~" else "neither HOME nor the system says which"
        raise UnknownPath(f"begins with {user[0]}, a home folder, but {whose}")
    return expanded


def user_path(path: str | Path) -> Path:
    """A path of the command line: shells leave the `~` of --out=~/runs as it is. Variables are theirs to replace."""
    try:
        return Path(expand_home(str(path)))
    except UnknownPath as error:
        raise InputError(str(error), where=str(path)) from error


def expand(path: str) -> str:
    """The path with `~`, `$NAME` and `${NAME}` replaced; raises `UnknownPath` where one of them stands for nothing.

    A path that there is as it stands, dollar signs and all, is that path.
    """
    path = expand_home(path)
    if "$" not in path or os.path.lexists(path):
        return path
    unset = [name for name in variables(path) if not os.environ.get(name)]
    if unset:
        raise UnknownPath(
            f"names the environment variable{'s' if len(unset) > 1 else ''} {' and '.join(unset)}, "
            f"which {'are' if len(unset) > 1 else 'is'} not set"
        )
    return _VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], path)


def cache_dir() -> Path:
    """The cache of prepared data: $CSSL_CACHE, or the user's cache folder. Raises InputError if neither is known.

    `~` and variables are expanded here, since systemd, SLURM or a .env file may set the variable without a shell.
    """
    for name, rest in (("CSSL_CACHE", ""), ("XDG_CACHE_HOME", "cssl")):
        if given := os.environ.get(name):
            try:
                return Path(expand(given), rest).absolute()
            except UnknownPath as error:
                raise InputError(f"{given!r} {error}", where=name, remedy="Give the folder in full.") from error
    try:
        return Path.home() / ".cache" / "cssl"
    except RuntimeError as error:
        raise InputError(
            "there is no home folder to keep prepared images in",
            where="HOME",
            remedy="Name a folder for them in $CSSL_CACHE.",
        ) from error


def variables(path: str) -> list[str]:
    """The environment variables that a path names, each once."""
    return list(dict.fromkeys(first or second for first, second in _VARIABLE.findall(path)))


def is_override(text: str) -> bool:
    """Whether an argument is meant as an override where it could also be a path: no slash before its `=`, or after `~`.

    Whether there is a file or a folder of that name is for the caller to look up first.
    """
    key, equals, _ = text.partition("=")
    return "/" not in key and (bool(equals) or key.startswith("~"))
