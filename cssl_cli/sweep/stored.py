"""A sweep as its folder keeps it: `sweep.json`, from which its report is made without the file that it was run from.

It holds the merged files' contents and the overrides, not the members, so that it stays small.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, DamagedError, InputError
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.recipe.files import Source
from cssl_cli.sweep.file import sweep_of_sources
from cssl_cli.sweep.sweep import Sweep, sweep_of

NAME = "sweep.json"
_REMEDY = f"Delete {NAME}; `cssl sweep` writes it again. Until then, name the sweep or its file."


def store_sweep(sweep: Sweep, folder: Path) -> None:
    """Write `sweep.json`, unless it says the same already; raises a CsslError if that fails."""
    if sweep.given is None:
        return
    content = {
        "file": str(sweep.path),
        "sources": [_plain(source) for source in map(_of_results, sweep.given.sources) if source is not None],
        "base": [_plain(source) for source in sweep.given.base],
        "changes": [_plain(source) for source in sweep.changes],
    }
    kept = SealedFolder(folder)
    with suppress(DamagedError):
        if kept.read_json(NAME) == content:
            return
    kept.write_json(NAME, content, indent=None)


def load_stored_sweep(folder: Path, *, quantities: Collection[str] | None = None) -> Sweep:
    """The sweep whose runs are in `folder`, as it was last run; see `sweep.load_sweep`.

    Raises InputError if the folder holds no sweep, DamagedError if its file cannot be used, also by this version.
    """
    kept = SealedFolder(folder)
    content = kept.read_json(NAME)
    if content is None:
        raise InputError(
            f"holds no {NAME}, so it is no sweep's folder, or that of an earlier version",
            where=str(folder),
            remedy="Name the sweep or its file.",
        )
    try:
        sources, base, changes = (_sources(content[key]) for key in ("sources", "base", "changes"))
        given = sweep_of_sources(Path(content["file"]), sources, base)
        return sweep_of(given, changes, quantities=quantities, max_members=None)
    except (KeyError, TypeError, ValueError, CsslError) as error:
        raise DamagedError(
            f"the file cannot be used: {getattr(error, 'what', error)}", where=str(kept.file(NAME)), remedy=_REMEDY
        ) from error


def _of_results(source: Source) -> Source | None:
    """The source without what a cluster is asked for, which no result depends on; None if that is all of it."""
    kept = source.without("launcher")
    return kept if kept.patch or not source.patch else None


def _plain(source: Source) -> dict[str, Any]:
    return {"label": source.label, "patch": _as_json(source.patch)}


def _as_json(value: Any) -> Any:
    """What YAML gave, in JSON types: a date becomes text, and nothing else that a valid sweep holds needs to change."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    finite = value is None or isinstance(value, str | int) or (isinstance(value, float) and abs(value) < float("inf"))
    return value if finite else str(value)


def _sources(stored: Sequence[Mapping[str, Any]]) -> tuple[Source, ...]:
    for one in stored:
        if not isinstance(one["patch"], dict):
            raise TypeError(f"{one['label']} holds no mapping")
    return tuple(Source(one["label"], one["patch"]) for one in stored)
