"""What the table of a sweep needs of its members' results, in one file that is quick to read.

An analysis.json has half a megabyte, most of it words, intervals, and tables of single images and classes; a thousand
of them take many seconds to read. The index keeps the values, a line for each result: the names, which most members
share, are said once, and what is never asked for is never decoded. A line counts as long as the files it was read from
are unchanged, by time, size and inode; without an index, or with one that is damaged, the files are read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError
from cssl_cli.run_dir import ANALYSIS, ENCODER, PROBE, RESULTS_FORMAT, STATUS, RunDir, kept_name

INDEX = "results-index.txt"
FORMAT = [2, RESULTS_FORMAT]  # raise the first when what is kept changes
MAX_LENGTH = 64  # of lists that are kept
KEPT_MAPPINGS = ("between_quantiles",)  # 1−σ rel. has no meaning where the median is 0
SECTION_DEPTH = 2  # an encoder and a term: what is decoded at a time
PART, SECTION = "\x1e", "\x1f"  # ASCII's separators, which JSON does not use

Place = list[int]  # in the index: the section of a value, and its position there


class Summary(Mapping[str, Any]):
    """The values of a result, nested as in its file: of a quantity its `value` alone, and a mapping, which mostly has
    a number a class, only of `KEPT_MAPPINGS`; no list that is long or has lists in it.

    `tree` has the names, with the places of the values; `sections` the values as JSON texts, until they are asked for.
    """

    __slots__ = ("sections", "tree")

    def __init__(self, tree: Mapping[str, Any], sections: list[Any]) -> None:
        self.tree, self.sections = tree, sections

    def __getitem__(self, name: str) -> Any:
        found = self.tree[name]
        if isinstance(found, Mapping):
            return Summary(found, self.sections)
        section, position = found
        values = self.sections[section]
        if isinstance(values, str):
            values = self.sections[section] = json.loads(values)
        return values[position]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self.tree else default

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def __repr__(self) -> str:
        return f"Summary({dict(self)!r})"


def summarize(content: Mapping[str, Any]) -> Summary:
    """The summary of a result as it is in its file."""
    sections: list[list[Any]] = [[]]
    return Summary(_tree(content, sections, 0, ""), [json.dumps(values) for values in sections])


def _tree(content: Mapping[str, Any], sections: list[list[Any]], depth: int, called: str) -> dict[str, Any]:
    """The names of what is kept of `content`, which is `called` so in its file, with the places of its values.

    The values are appended to the last section.
    """
    tree: dict[str, Any] = {}
    is_quantity = "value" in content and "estimator" in content
    for name in ("value",) if is_quantity else content:
        value = content[name]
        if isinstance(value, Mapping):
            if is_quantity and called not in KEPT_MAPPINGS:
                continue
            if depth < SECTION_DEPTH:
                sections.append([])
            tree[name] = _tree(value, sections, depth + 1, name)
            if depth < SECTION_DEPTH:
                sections.append([])
        elif not _is_long(value):
            tree[name] = [len(sections) - 1, len(sections[-1])]
            sections[-1].append(value)
    return tree


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and (len(value) > MAX_LENGTH or any(isinstance(item, list | dict) for item in value))


@dataclass(frozen=True)
class Wanted:
    """The results of a run that are asked for: those of these settings."""

    path: Path
    probe: Mapping[str, Any]
    analysis: Mapping[str, Any]


Results = tuple[Summary | None, Summary | None]


class ResultsIndex:
    """The index of the sweep whose run directories are under `home`."""

    def __init__(self, home: Path) -> None:
        self.file = RunDir(home)
        self.trees: list[dict[str, Any]] = []
        self.numbers: dict[str, int] = {}
        self.lines: dict[str, list[str]] = {}  # by run directory and results: states of the files, probe, analysis
        with suppress(OSError, ValueError, LookupError, TypeError):
            self._load()
        self.changed = False

    def _load(self) -> None:
        head, body = self.file.file(INDEX).read_text(encoding="utf-8").split("\n", 1)
        content = json.loads(head)
        if content["format"] == FORMAT and content["checksum"] == zlib.crc32(body.encode()):
            self.trees = content["trees"]
            self.numbers = {json.dumps(tree): number for number, tree in enumerate(self.trees)}
            for line in body.split("\n")[:-1]:
                key, *rest = line.split(PART)
                self.lines[key] = rest

    def read(self, wanted: Sequence[Wanted]) -> list[Results]:
        """The summaries of probe and analysis of each, None for what is not there; keeps the index up to date."""
        kept: dict[int, str] = {}  # by identity: most members share one mapping of settings
        for one in wanted:
            for name, settings in ((PROBE, one.probe), (ANALYSIS, one.analysis)):
                if id(settings) not in kept:
                    kept[id(settings)] = kept_name(name, settings)
        results = [self._read(one, (kept[id(one.probe)], kept[id(one.analysis)])) for one in wanted]
        if self.changed:
            self._save()
        return results

    def _read(self, wanted: Wanted, kept: tuple[str, str]) -> Results:
        run = RunDir(wanted.path)
        states = [_state(run.file(name)) for name in (STATUS, PROBE, kept[0], ANALYSIS, kept[1])]
        if states[0] is None or not run.file(ENCODER).exists():
            return None, None
        key, signature = "/".join([wanted.path.name, *kept]), json.dumps(states)
        if key in self.lines and self.lines[key][0] == signature:
            return self._decode(self.lines[key][1]), self._decode(self.lines[key][2])
        if not run.finished:
            return None, None
        probe = run.read_result(PROBE, wanted.probe)
        analysis = run.read_result(ANALYSIS, wanted.analysis)
        results = (
            None if probe is None else summarize(probe),
            None if analysis is None else summarize(analysis),
        )
        self.lines[key] = [signature, *(self._encode(result) for result in results)]
        self.changed = True
        return results

    def _encode(self, summary: Summary | None) -> str:
        """The number of the tree and the sections, or nothing."""
        if summary is None:
            return ""
        number = self.numbers.setdefault(json.dumps(summary.tree), len(self.trees))
        if number == len(self.trees):
            self.trees.append(dict(summary.tree))
        return SECTION.join([str(number), *summary.sections])

    def _decode(self, line: str) -> Summary | None:
        if not line:
            return None
        number, *sections = line.split(SECTION)
        return Summary(self.trees[int(number)], sections)

    def _save(self) -> None:
        there = {path.name for path in self.file.path.iterdir()}
        lines = [PART.join([key, *parts]) for key, parts in self.lines.items() if key.split("/")[0] in there]
        body = "".join(f"{line}\n" for line in lines)
        head = json.dumps({"format": FORMAT, "checksum": zlib.crc32(body.encode()), "trees": self.trees})
        with suppress(CsslError):  # a sweep that only may be read is read all the same
            self.file.write_text(INDEX, f"{head}\n{body}")


def _state(path: Path) -> list[int] | None:
    """What changes when a file is written again; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size, found.st_ino]
