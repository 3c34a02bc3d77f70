"""A folder of runs as comparable values, and what of it differs from an undisturbed one.

What differs between two undisturbed executions (times, machine facts) is found out, not listed, and left out of every
comparison; encoders and projectors may never be among it.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEFTOVERS = (".partial", ".building", ".tmp")
NEVER_LEFT_OUT = (".safetensors", ".yaml", "table.csv")
IGNORED = ("lock", ".lock", "error.log")
PRESENCE_ONLY = (".pt", ".png", ".svg", ".log", "results-index.txt")

Leaf = tuple[str, str]  # a file, and where in it
Values = dict[Leaf, Any]


def values_of(folder: Path) -> Values:
    """Everything below a folder: (file, path in it) → value; ("file", "") is there for each file."""
    values: Values = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (path.is_dir() and not path.is_symlink()) or path.name in IGNORED or path.name.endswith(LEFTOVERS):
            continue
        if not stat.S_ISREG(path.lstat().st_mode):
            values[name, ""] = "no regular file"
            continue
        values[name, ""] = "there"
        if path.name.endswith(PRESENCE_ONLY):
            continue
        data = path.read_bytes()
        for place, value in _leaves(path.name, data):
            values[name, place] = value
    return values


def _leaves(name: str, data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        if name.endswith(".json") or name == "status":
            yield from _of_tree(json.loads(data), "/")
            return
        if name.endswith(".jsonl"):
            yield from _of_tree([json.loads(line) for line in data.splitlines()], "/")
            return
    except ValueError:
        pass
    yield "bytes", data


def _of_tree(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        yield place, "nan" if isinstance(tree, float) and math.isnan(tree) else tree
        return
    yield place + "#", len(tree)
    for key, item in items:
        yield from _of_tree(item, f"{place}{key}/")


def general(leaf: Leaf) -> Leaf:
    """The leaf for every item of its lists and in every run."""
    file, place = leaf
    return file.rpartition("/")[2], "/".join("*" if part.isdigit() else part for part in place.split("/"))


@dataclass(frozen=True)
class Reference:
    """Two undisturbed executions: values, and the leaves that differ between them."""

    values: Values
    volatile: frozenset[Leaf]

    @classmethod
    def of(cls, one: Path, other: Path) -> Reference:
        first, second = values_of(one), values_of(other)
        different = [leaf for leaf in first | second if first.get(leaf, _ABSENT) != second.get(leaf, _ABSENT)]
        volatile = frozenset(general(leaf) for leaf in different)
        wrong = sorted(f"{file} {place}" for file, place in volatile if file.endswith(NEVER_LEFT_OUT) or not place)
        if wrong:
            raise RuntimeError(f"two undisturbed executions differ in {wrong}")
        # Of how many processes and times a run took there is a record.
        return cls(first, volatile | {("environment.json", "/processes/#")})

    def differences(self, folder: Path) -> list[str]:
        """Where what is in `folder` differs from the undisturbed execution, in words."""
        found = values_of(folder)
        wrong = []
        for leaf in sorted(self.values | found):
            # A checksum is one of whatever else is in the file; the commands have verified it.
            if general(leaf) in self.volatile or leaf[1].startswith("/processes/") or leaf[1].endswith("/checksum/"):
                continue
            here, there = found.get(leaf, _ABSENT), self.values.get(leaf, _ABSENT)
            if here != there:
                wrong.append(f"{leaf[0]} {leaf[1]}: {_short(there)} -> {_short(here)}")
        return wrong


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _short(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:60]


def files_in(differences: list[str]) -> str:
    """The files that differ, for a signature: without what is different from run to run."""
    names = sorted({line.split(" ")[0].rpartition("/")[2] for line in differences})
    return ", ".join(names)


def leftovers(*folders: Path) -> list[str]:
    """Files and folders that are only there while something is being written."""
    return [
        str(path.relative_to(folder))
        for folder in folders
        if folder.exists()
        for path in folder.rglob("*")
        if path.name.endswith(LEFTOVERS)
    ]
