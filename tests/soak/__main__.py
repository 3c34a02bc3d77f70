"""The campaign: `python -m tests.soak [--seed S] [--scale X] [--only PART] [--case N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads: its tensors here are tiny

from .findings import Tally
from .runner import Part, run_part

KINDS_SHOWN = 40


def parts() -> list[Part]:
    """All parts, the quick ones first."""
    from .damage import Damage
    from .disks import Disks
    from .images import Images
    from .kills import Kills
    from .ranks import Ranks
    from .readers import Readers
    from .recipes import Recipes
    from .specials import Specials
    from .streams import Streams

    return [Recipes(), Images(), Readers(), Damage(), Kills(), Ranks(), Disks(), Streams(), Specials()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and print the table; 1 if there were faults."""
    asked = _parse(arguments)
    everything = parts()
    chosen = [part for part in everything if asked.only is None or part.name in asked.only]
    if not chosen or (asked.case is not None and len(chosen) > 1):
        names = ", ".join(part.name for part in everything)
        sys.exit(f"--only takes one or more of {names}; --case goes with one of them")
    work = Path(tempfile.mkdtemp(prefix="cssl-soak-"))
    os.environ["CSSL_CACHE"] = str(work / "cache")  # never the user's
    tallies = []
    try:
        for part in chosen:
            folder = work / part.name
            folder.mkdir()
            count = max(1, round(part.cases * asked.scale))
            numbers = range(count) if asked.case is None else [asked.case]
            print(f"{part.name}: {len(numbers)} cases", file=sys.stderr, flush=True)
            tally = run_part(
                part,
                seed=asked.seed,
                numbers=numbers,
                slots=asked.jobs,
                folder=folder,
                failures=asked.keep,
                tell=lambda text: print(text, file=sys.stderr, flush=True),
            )
            tallies.append(tally)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    show(tallies, asked.seed)
    if asked.json is not None:
        content = {"seed": asked.seed, "scale": asked.scale, "parts": {t.part: t.to_json() for t in tallies}}
        asked.json.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if any(tally.num_faults for tally in tallies) else 0


def show(tallies: Sequence[Tally], seed: int) -> None:
    """The table of counts, then every kind of fault."""
    print(f"\n{'part':10} {'cases':>7} {'faults':>7} {'seconds':>8}  what happened (seed {seed})")
    for tally in tallies:
        happened = ", ".join(f"{what} {count}" for what, count in sorted(tally.counts.items()))
        print(f"{tally.part:10} {tally.cases:7} {tally.num_faults:7} {tally.seconds:8.0f}  {happened}")
    total = sum(tally.num_faults for tally in tallies)
    print(f"{'all':10} {sum(t.cases for t in tallies):7} {total:7} {sum(t.seconds for t in tallies):8.0f}")
    for tally in tallies:
        for (kind, signature), kept in tally.worst()[:KINDS_SHOWN]:
            print(f"  {tally.part}: {kind} x{kept.count}: {signature} (case {kept.case})")
    if total:
        print(f"What brings each about is in {tallies[0].folder}/.")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="all cases follow from it")
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the cases; 1: all")
    parser.add_argument("--only", action="append", metavar="PART", help="this part only; may be repeated")
    parser.add_argument("--case", type=int, help="this case of the part only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--keep", type=Path, default=Path("soak-failures"), help="folder for what fails")
    parser.add_argument("--json", type=Path, help="write the counts to this file, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
