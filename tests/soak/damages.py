"""Ways in which a file comes to hold something else than what was written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from .mutate import (
    append,
    change_digit,
    change_tree,
    delete_span,
    flip_bit,
    random_bytes,
    repeat_span,
    truncate,
    zero_block,
)

DAMAGES: dict[str, tuple[int, Callable[[bytes, random.Random], bytes]]] = {
    "a bit flipped": (6, flip_bit),
    "cut off": (2, truncate),
    "a block of zeros": (2, zero_block),
    "bytes missing": (1, delete_span),
    "bytes twice": (1, repeat_span),
    "random bytes": (1, random_bytes),
    "more at the end": (1, append),
    "empty": (1, lambda data, chance: b""),
    "all zeros": (1, lambda data, chance: bytes(len(data))),
}
TEXT = (".json", ".jsonl", ".yaml", ".csv", "status")


def damage_of(data: bytes, chance: random.Random, *, other: bytes | None, name: str) -> tuple[str, bytes]:
    """A kind of damage and the damaged bytes, never equal to `data`. other: the file of this name of another run."""
    for _ in range(20):
        kind, damaged = _once(data, chance, other, name)
        if damaged != data:
            return kind, damaged
    return "a bit flipped", flip_bit(data, chance)


def _once(data: bytes, chance: random.Random, other: bytes | None, name: str) -> tuple[str, bytes]:
    if other is not None and chance.random() < 0.12:
        return "another run's file", other
    if name.endswith(TEXT) and chance.random() < 0.6:
        if chance.random() < 0.4:
            return "a digit changed", change_digit(data, chance)
        changed = _with_another_field(data, chance, name)
        if changed is not None:
            return "a field changed", changed
    kind = chance.choices(list(DAMAGES), [weight for weight, _ in DAMAGES.values()])[0]
    return kind, DAMAGES[kind][1](data, chance)


def _with_another_field(data: bytes, chance: random.Random, name: str) -> bytes | None:
    """The same JSON, or lines of JSON, with one thing in it changed."""
    try:
        if name.endswith((".json", "status")):
            return json.dumps(change_tree(json.loads(data), chance), indent=2).encode() + b"\n"
        if name.endswith(".jsonl"):
            records: Any = change_tree([json.loads(line) for line in data.splitlines()], chance)
            return "".join(json.dumps(record) + "\n" for record in records).encode()
    except (ValueError, TypeError):
        return None
    return None
