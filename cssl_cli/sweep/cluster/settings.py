"""What a sweep's jobs ask of the cluster: the `launcher` block of its file, then the user's file, then overrides.

None of it is part of a recipe, so no fingerprint depends on it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, Field, ValidationError

from cssl_cli.errors import InputError
from cssl_cli.host.files import exists
from cssl_cli.host.paths import user_path
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.faults import as_error, faults_of
from cssl_cli.recipe.files import Source, read_text
from cssl_cli.recipe.merge import merge
from cssl_cli.recipe.ranges import Allowed, Count
from cssl_cli.recipe.validators import refuse
from cssl_cli.sweep.duration import seconds_of

if TYPE_CHECKING:
    from cssl_cli.sweep.file import SweepSources

KEY = "launcher"
USER_FILE = Path("cssl", "launcher.yaml")  # below the user's folder of settings
# Options of sbatch that have a field of their own, and those that are ours to set.
_FIELDS = {
    "partition": "partition",
    "gpus-per-node": "gpus",
    "time": "time",
    "mem": "memory",
    "cpus-per-task": "cpus",
    "array": "at_once",
    "signal": "notice",
}
OURS = (
    *("array", "clusters", "error", "job-name", "nodes", "no-requeue", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "parsable", "quiet", "requeue", "signal", "test-only", "wait", "wrap"),
)


def _duration(text: str) -> str:
    if seconds_of(text) is None:
        raise refuse()
    return text


def _memory(text: str) -> str:
    if re.fullmatch(r"[1-9]\d*[KMGT]", text) is None:
        raise refuse()
    return text


def _options(options: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        if re.fullmatch(r"[a-z]+(-[a-z]+)*", name) is None:
            raise ValueError(f"names {name[:40]!r}; write an option of sbatch as on its page, without --: mail-type")
        if name in _FIELDS:
            raise ValueError(f"names {name}, which {KEY}.{_FIELDS[name]} sets")
        if name in OURS:
            raise ValueError(f"names {name}, which cssl sets itself")
        text = isinstance(value, str) and value.isprintable()
        if value is not True and (isinstance(value, bool) or not (text or isinstance(value, int))):
            raise ValueError(f"has a value of {name} that is no text on one line, no whole number and not true")
    return options


class Launcher(Block):
    """What each job of a sweep asks of SLURM."""

    partition: Annotated[str, MinLen(1), Allowed("text", "NAME")] | None = None
    """the partition; null: the cluster's default"""
    gpus: Annotated[int, Ge(0)] = 0
    """GPUs of a job"""
    time: Annotated[str, AfterValidator(_duration), Allowed("a duration such as 30m, 4h, 1h30m or 2d")] | None = None
    """the time limit of a job; null: the partition's"""
    memory: Annotated[str, AfterValidator(_memory), Allowed("a size such as 500M or 16G")] | None = None
    """memory of a job; null: the partition's"""
    cpus: Count | None = None
    """cores of a job; null: the partition's, usually one"""
    at_once: Count | None = None
    """jobs of one submission that run at the same time, at most; null: as many as the cluster lets"""
    pack: Count = 1
    """runs that share a job, all at the same time"""
    notice: Annotated[int, Ge(1), Le(3600)] = 120
    """seconds before the time limit at which a job is told to save and is queued again"""
    sbatch: Annotated[dict[str, Any], AfterValidator(_options), Allowed("a mapping of options of sbatch to values")] = (
        Field(default={})
    )
    """other options of sbatch, such as account, constraint, qos"""

    def options(self) -> dict[str, Any]:
        """The options of sbatch, by their names without dashes in front."""
        given = {
            "partition": self.partition,
            "gpus-per-node": self.gpus or None,
            "time": None if self.time is None else math.ceil((seconds_of(self.time) or 0) / 60),
            "mem": self.memory,
            "cpus-per-task": self.cpus,
        }
        asked = {name: value for name, value in given.items() if value is not None}
        return {**asked, **self.sbatch, "signal": f"USR1@{self.notice}", "requeue": True}

    def require_time_to_save(self) -> None:
        """`InputError` if the notice would come as soon as a job begins: SLURM may send it a minute early."""
        least = self.notice + 60
        if self.time is not None and (seconds_of(self.time) or 0) <= least:
            raise InputError(
                f"is {self.time}, and a job is told to save {self.notice} s before its end, or a minute earlier",
                where=f"{KEY}.time",
                remedy=f"Give it more than {least} s, or {KEY}.notice less.",
            )


class _File(Block):
    launcher: Launcher = Field(default=Launcher())


def read_launcher(given: SweepSources | None, environment: Mapping[str, str] = os.environ) -> Launcher:
    """The settings of a sweep: its file and those that it is based on, the user's file, overrides; later ones win.

    `InputError` for a fault, with its file and line.
    """
    sources = [] if given is None else list(given.sources)
    own = [source.label for source in sources].index(str(given.path)) + 1 if given is not None else 0
    ordered = [*sources[:own], *_of_user(environment), *sources[own:]]
    return _validated(
        [replace(source, patch={KEY: source.patch[KEY]}) for source in ordered if KEY in source.patch],
        "" if given is None else str(given.path),
    )


def _of_user(environment: Mapping[str, str]) -> list[Source]:
    from cssl_cli.recipe.yaml_text import parse

    folder = environment.get("XDG_CONFIG_HOME") or "~/.config"
    path = user_path(folder) / USER_FILE
    if not exists(path):
        return []
    document = parse(read_text(path), where=str(path))
    if document.value is None:
        return []
    lines: dict[tuple[str, ...], int] = {(KEY, *key): line for key, line in document.lines.items()}
    return [Source(str(path), {KEY: document.value}, lines, path.parent)]


def _validated(sources: Sequence[Source], where: str) -> Launcher:
    mapping: dict[str, Any] = {}
    for source in sources:
        mapping = merge(mapping, source.patch)
    try:
        return _File.model_validate(mapping).launcher
    except ValidationError as error:
        raise as_error([fault.line(sources, where) for fault in faults_of(error, _File, mapping)], where) from error
