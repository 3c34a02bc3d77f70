"""YAML text to plain Python and back, by YAML 1.2's rules for scalars and without executing or guessing anything.

PyYAML follows YAML 1.1, where `5e-4` is text, `on` is true and `1:30` is ninety; and it keeps the last of two equal
keys. Here a file is composed into nodes by PyYAML and read from them: numbers, booleans and null as in YAML 1.2, every
key is text, and tags, aliases and duplicate keys are faults that name their line. The value of an override is text as
it stands, unless all of it is one scalar or one collection in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
_ALIAS = "\0"  # the tag that stands for an alias: no text of YAML can hold it

MAX_FAULTS = 50  # of one file that are listed
_MAX_DEPTH = 50
_INTEGERS = range(-(2**63), 2**63)  # what torch and numpy can hold

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

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.has_anchor = False

    def fetch_flow_collection_start(self, token: Any) -> None:
        # The scanner looks back at all open brackets at each character: many of them would take it minutes.
        if self.flow_level > _MAX_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """An alias stays one, on its own line: what it stands for is neither looked up nor copied."""
        event: Any = self.peek_event()
        self.has_anchor |= event.anchor is not None
        if self.check_event(yaml.AliasEvent):
            self.get_event()
            return yaml.ScalarNode(_ALIAS, event.anchor, event.start_mark, event.end_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


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
        node, _ = _compose(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # "\UFFFFFFFF" gives the latter two
        raise InputError(f"not valid YAML: {_syntax_problem(error, text)}", where=where) from error
    except RecursionError as error:
        raise InputError("nested too deeply", where=where) from error
    return _read(node, where)


def parse_value(text: str, *, where: str) -> Any:
    """The value of an override: what the whole text is as a YAML scalar or a collection in brackets, else the text.

    Nothing is left out: what has a comment, a tag or an anchor, text in several lines or after the end of a quotation
    is text as it stands.
    """
    if not _is_unicode(text):
        raise InputError("holds bytes that are no UTF-8", where=where, remedy="Use a name or a link without them.")
    trimmed = text.strip()
    if trimmed.startswith(("[", "{", "'", '"')):
        node = _whole(trimmed, where)
        return text if node is None else _read(node, where).value
    kind = _Loader("").resolve(yaml.ScalarNode, trimmed, (True, False)).removeprefix(_TAG)
    if kind == "str":
        return text
    return _read(yaml.ScalarNode(_TAG + kind, trimmed), where).value


def _whole(text: str, where: str) -> yaml.Node | None:
    """The node of a text that is a quoted scalar or a flow collection from its first to its last character."""
    if re.search(r"\s#.*[\n\r]", text) or (text[0] in "'\"" and len(text.splitlines()) > 1):
        return None
    try:
        node, has_anchor = _compose(text)
    except (yaml.YAMLError, ValueError, OverflowError):
        return None
    except RecursionError as error:
        raise InputError("nested too deeply", where=where) from error
    if node is None or (node.start_mark.index, node.end_mark.index) != (0, len(text)) or has_anchor:
        return None
    return node


@lru_cache(maxsize=16)  # a command reads the same file several times, and the nodes stay as they are
def _compose(text: str) -> tuple[yaml.Node | None, bool]:
    """The document's node, and whether any node in it has an anchor."""
    loader = _Loader(text)
    try:
        return loader.get_single_node(), loader.has_anchor
    finally:
        loader.dispose()


def _read(node: yaml.Node | None, where: str) -> Document:
    reader = _NodeReader()
    value = None if node is None else reader.read(node, ())
    if reader.faults:
        raise InputError("\n".join(shortened(reader.faults)), where=where)
    return Document(value, reader.lines)


def shortened(faults: Sequence[str]) -> list[str]:
    """The first faults of a long list, and how many more there are."""
    more = len(faults) - MAX_FAULTS
    return [*faults[:MAX_FAULTS], *([f"and {more} more"] if more > 0 else [])]


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; half of a pair of surrogates cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def dump(value: Mapping[str, Any]) -> str:
    """YAML text that `parse` reads back to an equal value; innermost collections on one line, order kept."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=200)


class _NodeReader:
    def __init__(self) -> None:
        self.faults: list[str] = []
        self.lines: dict[KeyPath, int] = {}

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag == _ALIAS:
            return self._fault(node, "aliases (*name) are not allowed; write the value out, or use based_on")
        if len(path) > _MAX_DEPTH:
            return self._fault(node, f"more than {_MAX_DEPTH} collections in each other")
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
            if not _is_unicode(key):
                self._fault(key_node, f"the key {key[:40]!r} holds half of a pair of surrogates, which is no character")
                continue
            if key in first_lines:
                self._fault(key_node, f"the key {key[:40]!r} is given twice (first on line {first_lines[key]})")
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
            if not _is_unicode(text):
                return self._fault(node, f"{text[:40]!r} holds half of a pair of surrogates, which is no character")
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:
            return self._fault(node, f"{text[:40]!r} is not a number that can be read")
        if number not in _INTEGERS:
            return self._fault(node, f"{_cut(text)} has more than 64 bits")
        return number

    def _fault(self, node: yaml.Node, problem: str) -> None:
        # What a recipe's text does not hold, an override, has no line.
        place = "" if node.start_mark is None else f"line {node.start_mark.line + 1}: "
        self.faults.append(place + problem)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _syntax_problem(error: Exception, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"
    if isinstance(error, yaml.reader.ReaderError):
        line = 1 + len(re.findall(r"\r\n|\r|\n", text[: error.position]))
        return f"line {line}: the character {chr(error.character)!r} is not allowed"
    if isinstance(error, ValueError | OverflowError):
        return "an escape (\\U...) or a version in it is no number that YAML knows"
    return str(error)
