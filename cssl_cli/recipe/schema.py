"""Describes the blocks: which fields there are, and what each allows, in words."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.ranges import Allowed
from cssl_cli.recipe.yaml_text import KeyPath


def keys_of(block: type[Block]) -> dict[str, FieldInfo]:
    """The fields of a block by their names in a file."""
    return {info.alias or name: info for name, info in block.model_fields.items()}


def block_types(annotation: Any) -> list[type[Block]]:
    """The blocks an annotation names: none for a plain value, several for a block chosen by its `name`."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return block_types(get_args(annotation)[0])
    if _is_union(annotation):
        return [block for option in get_args(annotation) for block in block_types(option)]
    return []


def names_of(block: type[Block]) -> tuple[str, ...]:
    """The values of `name` by which a block is chosen; none for a block that is not one of several."""
    info = block.model_fields.get("name")
    return get_args(info.annotation) if info is not None and get_origin(info.annotation) is Literal else ()


def choose(blocks: list[type[Block]], value: Any) -> list[type[Block]]:
    """Those of `blocks` that `value` may be: the one of its name, or all of them if it has no known name."""
    name = value.get("name") if isinstance(value, Mapping) else None
    chosen = [block for block in blocks if name in names_of(block)]
    return chosen or blocks


def field_at(root: type[Block], document: Any, path: KeyPath) -> FieldInfo | None:
    """The field at `path` in a document, None when the path leads nowhere."""
    owners = blocks_at(root, document, path[:-1])
    return next((keys_of(block)[path[-1]] for block in owners if path[-1] in keys_of(block)), None)


def blocks_at(root: type[Block], document: Any, path: KeyPath) -> list[type[Block]]:
    """The blocks that the document's value at `path` may be; none when no block belongs there."""
    blocks, value = [root], document
    for key in path:
        infos = [keys_of(block)[key] for block in blocks if key in keys_of(block)]
        value = value.get(key) if isinstance(value, Mapping) else None
        blocks = choose([found for info in infos for found in block_types(info.annotation)], value)
    return blocks


def paths(root: type[Block], document: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of every field that a document of these names may have, a block before what it holds."""
    for key, info in keys_of(root).items():
        yield (*path, key)
        value = document.get(key) if isinstance(document, Mapping) else None
        for block in choose(block_types(info.annotation), value):
            yield from paths(block, value, (*path, key))


def allowed(info: FieldInfo) -> str:
    """What a field takes, in words that follow "must be"."""
    return _allowed(info.annotation, info.metadata)


def placeholder(info: FieldInfo) -> str:
    """What stands for the field's value in a hint."""
    return next((item.placeholder for item in info.metadata if isinstance(item, Allowed)), "VALUE")


def takes_text(annotation: Any) -> bool:
    """Whether a field may be text of its user's, or a list of such texts."""
    if get_origin(annotation) is Literal:
        return False
    return annotation is str or any(takes_text(inner) for inner in get_args(annotation) if not isinstance(inner, str))


def show(value: Any, limit: int = 60) -> str:
    """A value on one line, as a file could hold it, cut to `limit` characters."""
    if isinstance(value, str):  # may be as long as its file
        value = value[: limit + 1]
    text = json.dumps(value, ensure_ascii=False, default=lambda item: item.model_dump(mode="json", by_alias=True))
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        if isinstance(item, Allowed):
            return item.text
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _allowed(inner, more)
    blocks = block_types(annotation)
    if blocks:
        names = [name for block in blocks for name in names_of(block)]
        fields = f"a block of {', '.join(keys_of(blocks[0]))}"
        return f"a block whose name is one of {', '.join(names)}" if names else fields
    if _is_union(annotation):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return " or ".join(_allowed(option, []) for option in options)
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    if annotation is bool:
        return "true or false"
    return {int: "a whole number", float: "a number"}[annotation] + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    for item in metadata:
        if isinstance(item, Ge | Gt):
            low = f"[{item.ge}" if isinstance(item, Ge) else f"({item.gt}"
        if isinstance(item, Le | Lt):
            high = f"{item.le}]" if isinstance(item, Le) else f"{item.lt})"
    if low and high:
        return f" in {low}, {high}"
    return f" >{'=' if low[0] == '[' else ''} {low[1:]}" if low else ""


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
