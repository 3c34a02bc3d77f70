"""Where runs were made: each environment once, with what tells it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.errors import DamagedError
from cssl_cli.report.document.blocks import Block, Cell, Facts, Grid, Head, Line, Paragraph
from cssl_cli.report.layout import plural
from cssl_cli.runs.run_dir import RunDir

# In order; the folder of the images is left out, which means nothing elsewhere.
NAMES = {
    "cssl": "cssl",
    "commit": "commit",
    "python": "Python",
    "torch": "torch",
    "platform": "platform",
    "device": "device",
    "device_type": "kind of device",
    "precision": "precision of training",
    "threads": "threads",
    "compiled": "compiled",
}
Environment = tuple[str, ...]  # a value for each of NAMES


def environments_of(run: RunDir) -> list[Environment]:
    """Those of the processes that worked on a run, each once; none where its file is missing or damaged."""
    try:
        processes: Sequence[Mapping[str, Any]] = (run.environment() or {}).get("processes", [])
    except DamagedError:
        return []
    return list(dict.fromkeys(tuple(_shown(process.get(name)) for name in NAMES) for process in processes))


def _shown(value: Any) -> str:
    return {None: "–", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)


def environment_blocks(counted: Counter[Environment], noun: str) -> list[Block]:
    """What all have in common, then how they differ, with the number of `noun`s of each."""
    if not counted:
        return [Paragraph("Nothing was recorded of where this was run.", "note")]
    environments = list(counted)
    values = dict(zip(NAMES, zip(*environments, strict=True), strict=True))
    common = tuple((NAMES[name], found[0]) for name, found in values.items() if len(set(found)) == 1)
    differing = [name for name, found in values.items() if len(set(found)) > 1]
    if not differing:
        return [Facts(common)]
    lines = [
        Line((Cell(plural(count, noun)), *(Cell(values[name][place]) for name in differing)))
        for place, count in enumerate(counted.values())
    ]
    heads = (Head("", numeric=False), *(Head(NAMES[name], numeric=False) for name in differing))
    return [
        Facts(common),
        Paragraph("These differ, so results may differ in their last digits."),
        Grid(heads, tuple(lines)),
    ]
