"""Turns pydantic's errors into sentences for the user: every fault of a recipe, each with where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cssl_cli.errors import InputError, did_you_mean, nearest
from cssl_cli.recipe import schema
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.ranges import Disagreement
from cssl_cli.recipe.yaml_text import MAX_FAULTS, KeyPath, shortened


@dataclass(frozen=True)
class Fault:
    """What is wrong at `path`, worded to follow it in a sentence; `blame` are the paths to look up in the sources."""

    path: KeyPath
    problem: str
    blame: tuple[KeyPath, ...]

    def source(self, sources: Sequence[Source]) -> Source | None:
        """The last of the sources that go furthest along a path to blame, None when none has any of it."""
        depths = [max(_depth(source.patch, path) for path in self.blame) for source in sources]
        furthest = max(depths)
        return sources[len(depths) - 1 - depths[::-1].index(furthest)] if furthest else None

    def line(self, sources: Sequence[Source], where: str) -> str:
        """The fault as one line; names its source unless that is `where`."""
        source = self.source(sources)
        place = [source.label] if source is not None and source.label != where else []
        blamed = max(self.blame, key=lambda path: _depth(source.patch, path) if source is not None else 0)
        prefixes = [blamed[:length] for length in range(len(blamed), 0, -1)]
        lines = [source.lines[prefix] for prefix in prefixes if prefix in source.lines] if source is not None else []
        place += [f"line {lines[0]}"] if lines else []
        origin = f" ({', '.join(place)})" if place else ""
        return f"{dotted(self.path)}{origin} {self.problem}"


def dotted(path: KeyPath) -> str:
    """A path as it is written on one line, whatever its keys hold; a long one is cut."""
    text = ".".join(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


def faults_of(error: ValidationError, root: type[Block], document: Mapping[str, Any]) -> list[Fault]:
    """Every fault pydantic found in the document, one for each field; of what is not listed only the number."""
    found: dict[KeyPath, Fault] = {}
    for detail in error.errors(include_url=False, include_input=False):
        path = _path_in_file(root, document, detail["loc"])
        if path not in found:
            listed = len(found) < MAX_FAULTS
            found[path] = _fault(detail, root, document, path) if listed else Fault(path, "is wrong", (path,))
    return list(found.values())


def as_error(lines: Sequence[str], where: str, remedy: str | None = None) -> InputError:
    """One error for all the lines."""
    if len(lines) == 1:
        return InputError(lines[0], where=where, remedy=remedy)
    listed = "\n".join(f"  {line}" for line in shortened(lines))
    return InputError(f"{len(lines)} faults\n{listed}", where=where, remedy=remedy)


def _fault(detail: Any, root: type[Block], document: Mapping[str, Any], path: KeyPath) -> Fault:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Fault(path, _unknown_field(root, document, path), (path,))
    if kind == "union_tag_not_found" or (kind == "union_tag_invalid" and _value_at(document, (*path, "name")) is None):
        path = (*path, "name")
        kind = "missing"
    if kind == "union_tag_invalid":
        return Fault((*path, "name"), _unknown_name(root, document, path), ((*path, "name"),))
    if kind == "value_error":
        problem = detail["ctx"]["error"]
        return Fault(path, str(problem), problem.fields if isinstance(problem, Disagreement) else (path,))
    info = schema.field_at(root, document, path)
    if kind == "missing" and not isinstance(detail["loc"][-1], int):  # an int: an item that a list lacks
        # What asks for the field is the choice of its block.
        chosen = (*path[:-1], "name")
        return Fault(path, _missing(root, document, path), (chosen if len(path) > 1 else (),))
    assert info is not None, f"a fault outside the schema: {detail}"
    value = _value_at(document, path)
    return Fault(path, f"is {schema.show(value)}; must be {schema.allowed(info)}{_quotes(value, info)}", (path,))


def _quotes(value: Any, info: schema.FieldInfo) -> str:
    """A hint where YAML reads a number, true, false or null, and the field takes text."""
    unquoted = not isinstance(value, str | Mapping | list)
    of_list = isinstance(value, list) and any(not isinstance(item, str | Mapping | list) for item in value)
    if not (unquoted or of_list) or not schema.takes_text(info.annotation):
        return ""
    return "; write what is meant as text in quotes, such as '007'"


def _missing(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> str:
    dotted = ".".join(path)
    if path[-1] == "name" and len(path) > 1:
        names = ", ".join(_names_at(root, document, path[:-1]))
        return f"is required; give it as {dotted}=NAME, one of {names}"
    info = schema.field_at(root, document, path)
    assert info is not None
    hint = schema.placeholder(info)
    if schema.block_types(info.annotation) or not hint:
        return f"is required: {schema.allowed(info)}"
    return f"is required; give it as {dotted}={hint}" + ("" if hint == "PATH" else f", {schema.allowed(info)}")


def _unknown_name(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> str:
    given, known = _value_at(document, (*path, "name")), _names_at(root, document, path)
    guess = nearest(given, known) if isinstance(given, str) else None
    return f"is {schema.show(given)}; must be one of {', '.join(known)}{did_you_mean(guess)}"


def _unknown_field(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> str:
    owners = schema.blocks_at(root, document, path[:-1])
    known = [key for owner in owners for key in schema.keys_of(owner)]
    owner_name = _value_at(document, (*path[:-1], "name")) if len(path) > 1 else None
    others = _others_with(root, document, path)
    if others:
        return f"is a field of {_listed(others)}, not of {owner_name}. Known: {', '.join(known)}"
    nested = _nested(root, document, path)
    if nested:
        return f"is not a field; a dot does not nest in a file: write {nested}"
    hint = did_you_mean(_nearest_path(root, document, path, known)) or "."
    return f"is not a field{f' of {owner_name}' if owner_name else ''}{hint} Known: {', '.join(known)}"


def _nested(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> str | None:
    """How a dotted key, as of an override, is written in a file; None for a key that is not one."""
    first, *rest = path[-1].split(".")
    meant = (*path[:-1], first, *rest)
    # That what it says of a name chooses the block, its field need not be one of the block that is chosen now.
    if not rest or not any(schema.field_at(root, some, meant) is not None for some in (document, {})):
        return None
    return f"{first}: {'{'}{': {'.join(rest)}: {schema.show(_value_at(document, path))}{'}' * len(rest)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _others_with(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> list[str]:
    """The names of a block under which it would have the field."""
    owner = schema.field_at(root, document, path[:-1]) if len(path) > 1 else None
    alternatives = [] if owner is None else schema.block_types(owner.annotation)
    having = [block for block in alternatives if path[-1] in schema.keys_of(block)]
    return [name for block in having for name in schema.names_of(block)]


def _nearest_path(root: type[Block], document: Mapping[str, Any], path: KeyPath, siblings: Sequence[str]) -> str | None:
    """The field that may have been meant: the only one of that name, else a sibling, else the nearest of all.

    Of that name, those least deep; whoever named a block did not mean one further inside.
    """
    everywhere = list(schema.paths(root, document))
    elsewhere = [other for other in everywhere if other[-1] == path[-1] and (len(path) == 1 or len(path) >= len(other))]
    least = min(map(len, elsewhere), default=0)
    elsewhere = [other for other in elsewhere if len(other) == least]
    if elsewhere:
        return ".".join(elsewhere[0]) if len(elsewhere) == 1 else None
    sibling = nearest(path[-1], siblings)
    if sibling is None:
        # Not what else is in the block, which is alike by the block's name only, nor what is further inside.
        outside = [other for other in everywhere if other[: len(path) - 1] != path[:-1] and len(other) <= len(path)]
        others = everywhere if len(path) == 1 else outside
        return nearest(".".join(path), [".".join(other) for other in others])
    meant = (*path[:-1], sibling)
    below = (*meant, *_single_keys(_value_at(document, path)))
    return ".".join(below if below in everywhere else meant)


def _single_keys(value: Any) -> KeyPath:
    """The keys of nested mappings of one key each, as an override `a.b.c=1` makes them."""
    keys: KeyPath = ()
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        keys = (*keys, key)
    return keys


def _names_at(root: type[Block], document: Mapping[str, Any], path: KeyPath) -> list[str]:
    info = schema.field_at(root, document, path)
    assert info is not None
    return [name for block in schema.block_types(info.annotation) for name in schema.names_of(block)]


def _path_in_file(root: type[Block], document: Mapping[str, Any], loc: tuple[int | str, ...]) -> KeyPath:
    """pydantic's location without list positions and without the names by which blocks were chosen."""
    path: KeyPath = ()
    chosen_by_name = False
    for part in loc:
        if isinstance(part, int):
            break
        if chosen_by_name:
            chosen_by_name = False
            continue
        path = (*path, part)
        info = schema.field_at(root, document, path)
        blocks = [] if info is None else schema.block_types(info.annotation)
        if not blocks:
            break
        chosen_by_name = len(blocks) > 1
    return path


def _value_at(document: Any, path: KeyPath) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _depth(patch: Any, path: KeyPath) -> int:
    """How many keys of the path the patch has, one after the other."""
    depth = 0
    for key in path:
        if not isinstance(patch, Mapping) or key not in patch:
            break
        patch, depth = patch[key], depth + 1
    return depth
