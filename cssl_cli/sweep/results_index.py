"""The numbers of a sweep's members in one file, so that a report need not read every analysis.json again.

An analysis.json has half a megabyte; a thousand of them take twenty seconds to read. For each member the index keeps
which results exist and what the report took from them. An entry is valid while its files are unchanged by time, size
and inode, and the whole index while the package's code is unchanged, so no list of modules needs upkeep. If the index
is missing, damaged or from other code, the files are read. It only saves time: to trace a number, skip this file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import cssl_cli
from cssl_cli.errors import CsslError, DamagedError, shown_path
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.runs.run_dir import (
    ANALYSIS,
    ENCODER,
    ENVIRONMENT,
    EPOCH_KNN,
    PROBE,
    STATUS,
    RunDir,
    kept_name,
)

INDEX = "results-index.txt"
Result = Mapping[str, Any]
State = list[int] | None


class StoredResult(Result):
    """A result on disk, read on first access."""

    def __init__(self, run: RunDir, name: str, settings: Mapping[str, Any]) -> None:
        self.run, self.name, self.settings = run, name, settings

    @cached_property
    def content(self) -> dict[str, Any]:
        return self.run.read_result(self.name, self.settings) or {}

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        return self.content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Wanted:
    """Which results of a run to read: those with these settings."""

    path: Path
    probe: Mapping[str, Any]
    analysis: Mapping[str, Any]


class Measured(Protocol):
    """A run directory and its results, None if missing; and what a ranking says of its augmentations."""

    @property
    def path(self) -> Path: ...
    @property
    def probe(self) -> Result | None: ...
    @property
    def analysis(self) -> Result | None: ...
    @property
    def ranked(self) -> Result | None: ...


@dataclass(frozen=True)
class Found:
    """The results of a run (None if missing), and what was taken from them (None if nothing).

    damage: one sentence for each file that was ignored because it is damaged. failure: why the run failed, if it did.
    stopped: where successive halving stopped it, if it did.
    """

    path: Path
    probe: Result | None = None
    analysis: Result | None = None
    taken: Any = None
    damage: tuple[str, ...] = ()
    failure: str | None = None
    ranked: Result | None = None  # known to the sweep alone
    stopped: Mapping[str, Any] | None = None


def read_results(wanted: Wanted) -> Found:
    """Read the results of a run from its files."""
    run, damage = RunDir(wanted.path), []
    try:
        if not run.finished:
            return Found(wanted.path, failure=run.failure(), stopped=run.status().get("stopped"))
    except DamagedError as error:
        return Found(wanted.path, damage=(str(error),))

    def read(name: str, settings: Mapping[str, Any]) -> Result | None:
        try:
            return run.read_result(name, settings)
        except DamagedError as error:
            damage.append(str(error))
            return None

    probe, analysis = read(PROBE, wanted.probe), read(ANALYSIS, wanted.analysis)
    try:
        run.read_records(EPOCH_KNN)
    except DamagedError as error:
        damage.append(str(error))
    return Found(wanted.path, probe, analysis, damage=tuple(dict.fromkeys(damage)))


Take = Callable[[Measured], Any]
"""What a report takes from a finished run, as JSON types.

Besides the results it may read only knn.jsonl of the run directory: the index notices no other file's changes.
"""


@cache
def code_digest() -> str:
    """A digest of the package's code, computed once."""
    digest = hashlib.sha256(cssl_cli.__version__.encode())
    for source in sorted(Path(cssl_cli.__file__).parent.rglob("*.py")):
        with suppress(OSError):  # without sources, the version identifies the package
            digest.update(source.read_bytes())
    return digest.hexdigest()


class _Home(SealedFolder):
    """The folder of the index; every index of this format has a checksum."""

    def needs_checksum(self, name: str) -> bool:  # noqa: ARG002
        return True


class ResultsIndex:
    """The index of the sweep whose run directories are under `home`."""

    def __init__(self, home: Path, take: Take | None = None) -> None:
        self.file, self.take = _Home(home), take
        # By run directory and results: states of the files, whether probe and analysis exist, what was taken.
        self.lines: dict[str, tuple[list[State], bool, bool, Any]] = {}
        with suppress(CsslError):  # a damaged one is rebuilt
            content = self.file.read_json(INDEX) or {}
            if content.get("code") == code_digest():
                self.lines = content["lines"]
        self.changed = False

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """The results of each run; updates the index."""
        kept: dict[int, str] = {}  # by identity: most members share one settings mapping
        for one in wanted:
            for name, settings in ((PROBE, one.probe), (ANALYSIS, one.analysis)):
                if id(settings) not in kept:
                    kept[id(settings)] = kept_name(name, settings)
        results = [self._read(one, (kept[id(one.probe)], kept[id(one.analysis)])) for one in wanted]
        if self.changed:
            self._save()
        return results

    def _read(self, wanted: Wanted, kept: tuple[str, str]) -> Found:
        run = RunDir(wanted.path)
        names = (STATUS, ENVIRONMENT, PROBE, kept[0], ANALYSIS, kept[1], EPOCH_KNN, ENCODER)
        try:
            *states, of_encoder = _states(wanted.path, names)
        except OSError as error:
            return Found(wanted.path, damage=(f"{shown_path(wanted.path)}: cannot be read: {error.strerror}",))
        if states[0] is None:
            return Found(wanted.path)
        if of_encoder is None:
            return read_results(wanted)
        key = "/".join([wanted.path.name, *kept])
        if key in self.lines:
            known, has_probe, has_analysis, taken = self.lines[key]
            if known == states and (self.take is None or taken is not None):
                return Found(
                    wanted.path,
                    StoredResult(run, PROBE, wanted.probe) if has_probe else None,
                    StoredResult(run, ANALYSIS, wanted.analysis) if has_analysis else None,
                    None if self.take is None else taken,
                )
        found = read_results(wanted)
        if found.damage or not run.finished:
            return found
        if self.take is not None:
            found = replace(found, taken=self.take(found))
        self.lines[key] = states, found.probe is not None, found.analysis is not None, found.taken
        self.changed = True
        return found

    def _save(self) -> None:
        with suppress(CsslError, OSError):  # a read-only sweep can still be read
            there = {path.name for path in self.file.path.iterdir()}
            lines = {key: line for key, line in self.lines.items() if key.split("/")[0] in there}
            self.file.write_json(INDEX, {"code": code_digest(), "lines": lines}, indent=None)


def _states(folder: Path, names: Sequence[str]) -> list[State]:
    """What changes when a file of the folder is rewritten; None for missing files.

    `OSError` if the folder exists but cannot be listed.
    """
    states: dict[str, State] = dict.fromkeys(names)
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in states:
                with suppress(OSError):
                    found = entry.stat()
                    states[entry.name] = [found.st_mtime_ns, found.st_size, found.st_ino]
    return list(states.values())
