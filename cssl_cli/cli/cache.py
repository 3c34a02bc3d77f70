"""`cssl cache`: what lies in the cache of prepared images, and removing some of it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cssl_cli.cli.options import DryRun, Json
from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.paths import cache_dir
from cssl_cli.host.streams import print_error

EXAMPLES = (
    "cssl cache",
    "cssl cache prune --older-than 30d",
    "cssl cache prune --max-size 5GB --dry-run",
    "cssl cache prune --all",
)
_ACTIONS = ("list", "prune")
_AGES = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def cache(
    action: Annotated[str, typer.Argument(metavar="[list|prune]", help="Show what is there, or remove some.")] = "list",
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Prune: what was not used for so long: 12h, 30d, 8w.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Prune: what was used longest ago, until so much is left: 5GB.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Prune: everything that can be made again.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """List what lies in the cache of prepared images, or remove some of it.

    What a running command uses is kept, and so are downloads and files that are not ours. What was removed is made
    again when it is needed.
    """
    if action not in _ACTIONS:
        raise unknown_name("action", action, _ACTIONS)
    said = older_than is not None or max_size is not None or everything
    if said != (action == "prune"):
        raise InputError(
            "says what to remove, and nothing is to be removed" if said else "nothing says what to remove",
            where="cssl cache" if said else "cssl cache prune",
            remedy="Write: cssl cache prune --older-than 30d, --max-size 5GB or --all.",
        )
    from cssl_cli.report.cache import show_cache, show_pruned
    from cssl_cli.runs.cache import entries, prune

    folder = cache_dir()
    if action == "list":
        return show_cache(folder, entries(folder), as_json)
    pruned = prune(
        folder,
        older_than=None if older_than is None else read_age(older_than),
        max_bytes=None if max_size is None else read_size(max_size),
        everything=everything,
        dry_run=dry_run,
    )
    show_pruned(folder, pruned, as_json, dry_run=dry_run)
    for error in pruned.failed:
        print_error(str(error))
    if pruned.failed:
        raise typer.Exit(1)
    return None


def read_age(text: str) -> float:
    """Seconds of 12h, 30d or 8w."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mhdw])", text.strip().lower())
    if found is None:
        raise InputError(f"{text!r} is no age", where="--older-than", remedy="Write 12h, 30d or 8w.")
    return float(found[1]) * _AGES[found[2]]


def read_size(text: str) -> int:
    """Bytes of 500MB, 5GB or 2.5GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?i?)b?", text.strip().lower())
    if found is None or found[2] not in _SIZES:
        raise InputError(f"{text!r} is no size", where="--max-size", remedy="Write 500MB, 5GB or 2.5GiB.")
    return int(float(found[1]) * _SIZES[found[2]])
