"""Damaged files under whole commands: each is noticed, by an error that names the file, or does no harm.

To do no harm is to end with the results and the printed numbers of an undamaged run.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from . import command
from .command import Hang, described
from .compare import files_in, leftovers
from .damages import damage_of
from .findings import Fault, Outcome
from .material import Scenario, keep_stdout, measure, own_cache, shared


@dataclass(eq=False)
class Ruin(Scenario):
    """A command on files that are there already; `files` of them, by pattern, are damaged."""

    files: str = "runs/**/*"


class Damage:
    """See the module."""

    name, cases, batch, limit, memory = "damage", 240, 4, 300.0, None

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material, name = found.folder, found.run
        tiny, photos, pair = (str(self.material / f"{name}.yaml") for name in ("tiny", "photos", "pair"))
        run, out = f"runs/{name}", ("--out", "runs", "--json")
        self.ruins = [
            Ruin("pretrain, half done", ("pretrain", tiny, *out), "half", weight=6),
            Ruin("pretrain, finished", ("pretrain", tiny, *out), "begun", weight=2),
            Ruin("probe", ("probe", run, "--json"), "begun", weight=4),
            Ruin("analyze", ("analyze", run, "--json", "--no-figures"), "begun", weight=4),
            Ruin("analyze --again", ("analyze", run, "--json", "--no-figures", "--again"), "begun", weight=1),
            Ruin("sweep", ("sweep", pair, *out, "--no-figures"), "swept", weight=4),
            Ruin("sweep --report", ("sweep", pair, *out, "--report"), "swept", weight=3),
            Ruin("pretrain, cached images", ("pretrain", photos, *out), None, 5, "cached", files="cache/*"),
        ]
        for ruin in self.ruins:
            measure(ruin, self.material, folder)

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        ruin = chance.choices(self.ruins, [ruin.weight for ruin in self.ruins])[0]
        case = folder / "case"
        ruin.lay_out(self.material, case)
        there = [
            path for path in sorted(case.glob(ruin.files)) if path.is_file() and path.name not in ("lock", ".lock")
        ]
        path = chance.choice(there)
        kind, damaged = self._damage(path, ruin, chance)
        name = path.name if ruin.cache is None else f"cached {path.suffix}"
        outcome = Outcome()

        def wrong(fault: str, what: str, detail: str) -> Outcome:
            signature = f"{ruin.name}, {name}: {what}"
            outcome.faults.append(Fault(fault, signature, f"{path.name}, {kind}\n{detail}", {path.name: damaged}))
            return outcome

        try:
            ended = command.run(case, *ruin.arguments, start=own_cache(case))
        except Hang as hang:
            return wrong("hang", "no end", str(hang))
        told = described(list(ruin.arguments), ended)
        left = leftovers(case)
        if left:
            wrong("leftover", "afterwards", "\n".join(left))
        if ended.traceback:
            return wrong("traceback", ended.traceback.strip().splitlines()[-1][:80], told)
        if ended.code != 0:
            outcome.counts["noticed"] = 1
            if path.name not in ended.stderr and path.parent.name not in ended.stderr:
                wrong("message", "the file is not named", told)
            return outcome if ended.code in (1, 2) else wrong("exit code", str(ended.code), told)
        keep_stdout(case, ended)
        differences = ruin.reference.differences(case / "runs")
        if path.exists() and path.read_bytes() == damaged and path.is_relative_to(case / "runs"):  # nothing read it
            untouched = path.relative_to(case / "runs").as_posix()
            differences = [line for line in differences if not line.startswith(f"{untouched} ")]
        if differences:
            outcome.counts["silent"] = 1
            return wrong("silent", f"changes {files_in(differences)}", "\n".join([*differences[:20], told]))
        outcome.counts["harmless"] = 1
        return outcome

    def _damage(self, path: Path, ruin: Ruin, chance: random.Random) -> tuple[str, bytes]:
        """Damage the file in place, half of the time without a trace in its times."""
        others = list(self.material.glob(f"other/*/{path.name}"))
        other = others[0].read_bytes() if others and ruin.cache is None else None
        kind, damaged = damage_of(path.read_bytes(), chance, other=other, name=path.name)
        before = path.stat()
        with path.open("r+b") as file:
            file.write(damaged)
            file.truncate()
        if chance.random() < 0.5:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return kind, damaged
