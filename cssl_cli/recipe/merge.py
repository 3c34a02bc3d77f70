"""Merging of settings: `based_on`, a sweep's variants and overrides all follow `merge`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cssl_cli.errors import InputError
from cssl_cli.recipe.yaml_text import parse_value

# A duration is one number in either unit: giving one takes the place of the other.
_EITHER = ("epochs", "steps")
_DIGEST = ("weights_sha256",)  # is of the file that it was given with


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the patch applied, key by key and block by block.

    A block whose `name` changes replaces the base's block, and so does an empty one; null takes away what the base
    gives; a duration replaces a duration in the other unit, and a file of weights the digest of another. Neither
    argument is changed.
    """
    return {**base, **{key: _merged(base.get(key), value) for key, value in patch.items()}}


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)) or not new:
        return new
    if "name" in old and "name" in new and old["name"] != new["name"]:
        return new
    given = [unit for unit in _EITHER if new.get(unit) is not None]
    gone = {*(_EITHER if given else ()), *(_DIGEST if "weights" in new else ())}
    kept = {key: value for key, value in old.items() if key not in gone}
    return merge(kept, new)


@dataclass(frozen=True)
class Override:
    """One `key.sub=value` or `~key.sub` (then the value is None) of the command line."""

    text: str
    path: tuple[str, ...]
    value: Any

    @property
    def patch(self) -> dict[str, Any]:
        """The mapping that holds the value at the path, and nothing else."""
        patch: Any = self.value
        for key in reversed(self.path):
            patch = {key: patch}
        return dict(patch)

    @property
    def label(self) -> str:
        return _label(self.text)


_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_KEYS = 20  # more than the deepest field of a recipe or a sweep has
_FORM = "Write key.sub=value, or ~key.sub to delete; for example optim.lr=0.03."


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Overrides in the order in which they apply: first those that choose a block's `name`, then as given."""
    overrides = [_parse(text) for text in texts]
    given = {override.path: override for override in overrides if override.value is not None}
    durations = [given[path] for path in (("train", unit) for unit in _EITHER) if path in given]
    if len(durations) > 1:
        both = " and ".join(repr(override.text) for override in durations)
        raise InputError(f"{both} exclude each other", where="overrides", remedy="Give one of them.")
    return sorted(overrides, key=lambda override: not (len(override.path) == 2 and override.path[1] == "name"))


def _parse(text: str) -> Override:
    key, equals, value = text.partition("=")
    where = _label(text)
    if key.startswith("~"):
        if equals:
            raise InputError("a deletion takes no value", where=where, remedy=f"Write {key}, or {key[1:]}={value}.")
        _check_key(key[1:], where)
        return Override(text, tuple(key[1:].split(".")), None)
    if not equals:
        raise InputError("no value is given", where=where, remedy=_FORM)
    _check_key(key, where)
    if not value.strip():
        raise InputError("no value is given", where=where, remedy=f"Write {key}=null or ~{key} to delete it.")
    return Override(text, tuple(key.split(".")), parse_value(value, where=where))


def _label(text: str) -> str:
    return f"override {text if len(text) <= 200 else text[:197] + '...'!r}"


def _check_key(key: str, where: str) -> None:
    if not _KEY.fullmatch(key) or key.count(".") >= _MAX_KEYS:
        shown = key if len(key) <= 60 else f"{key[:57]}..."
        raise InputError(f"{shown!r} is not a key", where=where, remedy=_FORM)
