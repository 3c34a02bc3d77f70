"""Seeded damage to bytes and to values of JSON or YAML."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**30, 1e9, -1e9)
FLOATS = (0.0, -0.0, 0.5, 5e-324, 1e-300, 1.7e308, float("inf"), float("-inf"), float("nan"), 0.1 + 0.2)
ODD_VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *FLOATS,
    None,
    True,
    False,
    "",
    "x",
    "0",
    "null",
    [],
    {},
    [[]],
    {"": None},
    [0],
)


def flip_bit(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flip_bits_of_the_head(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        if changed:
            changed[chance.randrange(min(len(changed), 200))] = chance.randrange(256)
    return bytes(changed)


def change_digit(data: bytes, chance: random.Random) -> bytes:
    places = [place for place, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if not places:
        return flip_bit(data, chance)
    place = chance.choice(places)
    changed = bytearray(data)
    changed[place] = chance.choice([digit for digit in range(0x30, 0x3A) if digit != data[place]])
    return bytes(changed)


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))] if data else data


def zero_block(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data)) if data else 0
    length = min(chance.choice([1, 16, 512, 4096]), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def delete_span(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data)) if data else 0
    return data[:start] + data[start + chance.choice([1, 2, 7, 64]) :]


def repeat_span(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data)) if data else 0
    span = data[start : start + chance.choice([1, 4, 32, 256])]
    return data[:start] + span * chance.choice([2, 2, 3, 50]) + data[start + len(span) :]


def random_bytes(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data)) if data else 0
    length = min(chance.choice([1, 4, 64]), len(data) - start)
    return data[:start] + chance.randbytes(length) + data[start + length :]


def append(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice([b"\0", b"\n", b"}", chance.randbytes(100), data])


BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bit,
    flip_bits_of_the_head,
    truncate,
    zero_block,
    delete_span,
    repeat_span,
    random_bytes,
    append,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a tree of mappings and lists anything stands, but for the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def change_tree(tree: Any, chance: random.Random) -> Any:
    """A copy with one thing changed: a value replaced, taken out, renamed, or swapped with another."""
    changed = copy.deepcopy(tree)
    paths = list(paths_of(changed))
    if not paths:
        return changed
    # A level first: deep lists of numbers would be nearly all there is.
    depth = chance.choice(sorted({len(path) for path in paths}))
    path = chance.choice([path for path in paths if len(path) == depth])
    parent, key = _at(changed, path[:-1]), path[-1]
    how = chance.randrange(6)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, dict):
        parent[str(key) + chance.choice(["x", "_", " ", "\0", "é"])] = parent.pop(key)
    elif how == 2:
        other = chance.choice(paths)
        parent[key] = copy.deepcopy(_at(changed, other))
    elif how == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = chance.choice([parent[key] + 1, -parent[key], parent[key] * 1000, parent[key] * 2])
    elif how == 4:
        parent[key] = chance.choice([[parent[key]], {"name": parent[key]}, str(parent[key])])
    else:
        parent[key] = chance.choice(ODD_VALUES)
    return changed
