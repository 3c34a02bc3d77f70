"""What lies in the cache, and what was removed of it, as a table or as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cssl_cli.errors import shown_path
from cssl_cli.report.layout import console, note, plural, print_json, table
from cssl_cli.runs.cache import CacheEntry, Pruned

_KINDS = {
    "images": "prepared images",
    "left_over": "left over by a killed process",
    "compiled": "compiled training steps",
    "other": "a download, or not of cssl: never removed",
}


def show_cache(folder: Path, entries: Sequence[CacheEntry], as_json: bool) -> None:
    """Print the entries, the latest used first."""
    total = sum(entry.num_bytes for entry in entries)
    if as_json:
        return print_json(
            {"folder": str(folder), "num_bytes": total, "entries": [_as_json(entry) for entry in entries]}
        )
    out = console()
    if not entries:
        return out.print(f"the cache is empty: {shown_path(folder)}", soft_wrap=True)
    _print(entries)
    note(out, f"{size(total)} in {shown_path(folder)}. Remove some: cssl cache prune --older-than 30d, --max-size 5GB")
    return None


def show_pruned(folder: Path, pruned: Pruned, as_json: bool, *, dry_run: bool) -> None:
    """Print what was removed."""
    if as_json:
        return print_json(
            {
                "folder": str(folder),
                "dry_run": dry_run,
                "num_bytes": pruned.num_bytes,
                "removed": [_as_json(entry) for entry in pruned.removed],
                "in_use": [_as_json(entry) for entry in pruned.in_use],
            }
        )
    if pruned.removed:
        _print(pruned.removed)
    done = "would be removed" if dry_run else "removed"
    print(f"{plural(len(pruned.removed), 'item')} {done}: {size(pruned.num_bytes)}")
    if pruned.in_use:
        print(f"{plural(len(pruned.in_use), 'item')} in use, and kept")
    return None


def size(num_bytes: float) -> str:
    """Bytes in a unit that gives few digits."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


def _print(entries: Sequence[CacheEntry]) -> None:
    grid = table("what", "images", "last used", "size", text_columns=1)
    for entry in entries:
        shape = " x ".join(map(str, entry.shape or ()))
        used = "in use" if entry.in_use else _ago(time.time() - entry.used)
        grid.add_row(entry.source or f"{entry.name} ({_KINDS[entry.kind]})", shape, used, size(entry.num_bytes))
    console().print(grid)


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "just now"


def _as_json(entry: CacheEntry) -> dict[str, Any]:
    return {**asdict(entry), "paths": [str(path) for path in entry.paths]}
