"""YAML text to plain Python and back, by YAML 1.2's rules for scalars and with nothing executed or guessed.

PyYAML follows YAML 1.1, where `5e-4` is text, `on` is true and `1:30` is ninety; and it keeps the last of two equal
keys. Here a file is composed into nodes by PyYAML and read from them: numbers, booleans and null as in YAML 1.2, every
key is text, and tags, aliases and duplicate keys are faults that name their line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from cssl_cli.errors import InputError

_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset(["str", *(kind for kind, _, _ in _SCALARS)])

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """A parsed text: its value (dicts with text keys, lists, scalars) and the line on which each path's key stands.

    In a path the items of a list are "0", "1", ...
    """

    value: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own way of setting it)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something other than text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Line breaks that are not "\n" would come back as spaces; double quotes escape them.
        return self.represent_scalar(_TAG + "str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)

for _kind, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _first_characters = ["" if character == "\0" else character for character in _first]
        _class.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first_characters)


def parse(text: str, *, where: str) -> Document:
    """Read one YAML document. All its tags, aliases and duplicate keys are reported in one `InputError`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        reader = _NodeReader()
        value = None if node is None else reader.read(node, ())
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {_syntax_problem(error)}", where=where) from error
    except RecursionError as error:
        raise InputError("nested too deeply", where=where) from error
    if reader.faults:
        raise InputError("\n".join(reader.faults), where=where)
    return Document(value, reader.lines)


def dump(value: Mapping[str, Any]) -> str:
    """YAML text that `parse` reads back to an equal value; innermost collections on one line, order kept."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=200)


class _NodeReader:
    def __init__(self) -> None:
        self.faults: list[str] = []
        self.lines: dict[KeyPath, int] = {}
        self._seen: set[int] = set()

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        # An alias gives the same node a second time; a node that contains itself would never end.
        if id(node) in self._seen:
            return self._fault(node, "aliases (*name) are not allowed; write the value out, or use based_on")
        self._seen.add(id(node))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self._read_item(item, (*path, str(position))) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _PLAIN:
            return self._read_scalar(node, kind)
        shown = f"!!{kind}" if node.tag.startswith(_TAG) else node.tag
        return self._fault(node, f"the tag {shown} is not allowed: a recipe holds plain values only")

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.removeprefix(_TAG) not in _PLAIN:
                self._fault(key_node, "a key must be text")
                continue
            key = key_node.value
            if key in first_lines:
                self._fault(key_node, f"the key {key!r} is given twice (first on line {first_lines[key]})")
                continue
            first_lines[key] = self.lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = self.read(value_node, (*path, key))
        return mapping

    def _read_item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self.read(node, path)

    def _read_scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        text = node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            if kind == "int":
                base = {"0o": 8, "0x": 16}.get(text[:2], 10)
                return int(text, base)
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:
            return self._fault(node, f"{text[:40]!r} is not a number that can be read")

    def _fault(self, node: yaml.Node, problem: str) -> None:
        self.faults.append(f"line {node.start_mark.line + 1}: {problem}")


def _syntax_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character {chr(error.character)!r} at position {error.position} is not allowed"
    return str(error)
