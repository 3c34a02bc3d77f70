"""The commands that repeat a run, with the settings that its results were made with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cssl_cli.recipe import Recipe
from cssl_cli.recipe.files import shipped_path
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RECIPE
from cssl_cli.sweep.sweep import Sweep

_COMMANDS = {PROBE: "probe", ANALYSIS: "analyze"}


def commands_of_run(
    path: Path, recipe: Recipe, results: Mapping[str, Mapping[str, Any] | None], *, imported: bool
) -> list[str]:
    """Those that train, probe and analyze it again; of an imported encoder only those that measure it."""
    made = [] if imported else [["cssl", "pretrain", str(path / RECIPE), "--out", str(path.parent)]]
    for name, command in _COMMANDS.items():
        found = results.get(name)
        if found is not None:
            made.append(["cssl", command, str(path), *measured_with(command, found["settings"], recipe)])
    return [shlex.join(words) for words in made]


def measured_with(block: str, settings: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """The overrides and options that turn the recipe's block into these settings."""
    own = json.loads(json.dumps(recipe.settings(block)))
    changed = {key: value for key, value in settings.items() if key in own and own[key] != value}
    overrides = [f"{block}.{key}={_written(value)}" for key, value in changed.items()]
    precision = settings.get("precision")
    return [*overrides, *(["--precision", str(precision)] if precision else [])]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def command_of_sweep(sweep: Sweep, runs: Path, eta: int | None = None) -> str:
    """The command that runs what is missing of a sweep under `runs`, and prints its table.

    eta: by which its rows were halved, None if they were not.
    """
    name = sweep.path.stem if shipped_path(sweep.path.stem) == sweep.path else str(sweep.path)
    return shlex.join(["cssl", "sweep", name, *_overrides(sweep), "--out", str(runs), *_halving(eta)])


def _halving(eta: int | None) -> list[str]:
    return [] if eta is None else ["--halve", "--eta", str(eta)]


def _overrides(sweep: Sweep) -> list[str]:
    """The overrides of the sweep itself, then those of its members."""
    if sweep.given is None:
        return []
    labels = [source.label for source in sweep.given.sources]
    own = sweep.given.sources[labels.index(str(sweep.path)) + 1 :] if str(sweep.path) in labels else ()
    return [text for source in (*own, *sweep.changes) for text in _as_overrides(source.patch)]


def _as_overrides(patch: Mapping[str, Any], *path: str) -> Iterator[str]:
    for key, value in patch.items():
        if isinstance(value, Mapping) and value:
            yield from _as_overrides(value, *path, key)
        else:
            yield f"{'.'.join((*path, key))}={_written(value)}"
