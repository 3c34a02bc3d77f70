"""Standard output and standard error that are closed, full, without a reader or ASCII.

No traceback and no hang; what a command writes is as it would be otherwise; a bad stderr changes nothing else.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from . import command
from .command import Hang, described
from .compare import files_in, leftovers
from .findings import Fault, Outcome
from .material import Scenario, own_cache, shared, write_recipe

AN_ERROR = "an error"
KINDS = ("file", "closed", "full", "broken", "ascii")
ODD_CLASSES = (b"caf\xe9", "klaßse".encode(), b"\x1b[31mred", b"[bold]x", b":smile:", "e\u0301".encode(), b"a\nb")


class Streams:
    """See the module."""

    name, cases, batch, limit, memory = "streams", 160, 8, 300.0, None

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material = found.folder
        if not (self.material / "odd").exists():
            self._make_odd_classes()
        pair, odd, tiny = (str(self.material / f"{name}.yaml") for name in ("pair", "odd", "tiny"))
        out = ("--out", "runs")
        measured = found.measured(
            Scenario("pretrain, odd names", ("pretrain", odd, *out), weight=2),
            Scenario("analyze, odd names", ("analyze", odd), "begun-trained", weight=2),
            Scenario("sweep --report", ("sweep", pair, *out, "--report"), "swept", weight=2),
            Scenario("recipes", ("recipes",), "begun", weight=2),
            Scenario("recipes NAME", ("recipes", "simclr-shapes"), "begun", weight=2),
            Scenario("--dry-run", ("pretrain", tiny, *out, "--dry-run"), "begun", weight=2),
            Scenario("sweep --dry-run", ("sweep", pair, *out, "--dry-run"), "begun", weight=2),
            Scenario("--help", ("--help",), "begun", weight=2),
            folder=folder,
        )
        self.scenarios = [*measured, Scenario(AN_ERROR, ("probe", "runs/nowhere-é"), "begun", weight=2)]

    def _make_odd_classes(self) -> None:
        root = self.material / "odd"
        for place, name in enumerate(ODD_CLASSES):
            folder = command.path_of(root, name)
            folder.mkdir(parents=True)
            for number in range(6):
                values = np.random.default_rng([place, number]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
                with (folder / f"{number}.png").open("wb") as file:
                    Image.fromarray(values).save(file, "PNG")
        write_recipe(self.material / "odd.yaml", f"{{name: folder, root: {root}, size: 8}}", "0")

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        scenario = chance.choices(self.scenarios, [scenario.weight for scenario in self.scenarios])[0]
        kinds = chance.choice([(out, err) for out in KINDS for err in KINDS if (out, err) != ("file", "file")])
        case = folder / "case"
        scenario.lay_out(self.material, case)
        outcome = Outcome(Counter({f"stdout {kinds[0]}": 1, f"stderr {kinds[1]}": 1}))
        state = f"stdout {kinds[0]}, stderr {kinds[1]}"

        def wrong(kind: str, signature: str, detail: str) -> Outcome:
            files = {"story.txt": f"{scenario.name}: {state}\n{detail}".encode()}
            outcome.faults.append(Fault(kind, signature, f"{scenario.name}: {state}\n{detail}", files))
            return outcome

        try:
            ended = command.run(case, *scenario.arguments, start=replace(own_cache(case), streams=kinds))
        except Hang as hang:
            return wrong("hang", state, str(hang))
        told = described(list(scenario.arguments), ended)
        due = 2 if scenario.name == AN_ERROR else 0
        if ended.traceback:
            last = ended.traceback.strip().splitlines()[-1].split(":")[0]
            return wrong("traceback", f"stdout {kinds[0]}: {last}" if kinds[0] != "file" else f"{state}: {last}", told)
        if kinds[0] in ("file", "ascii") and ended.code != due:
            wrong("exit code", f"{ended.code} in place of {due}: {state}", told)
        elif ended.code not in (due, 1, 141):
            wrong("exit code", f"{ended.code}: {state}", told)
        if kinds[0] == "file" and due == 0 and not ended.stdout.strip():
            wrong("lost", f"nothing on stdout: {state}", told)
        raw = {byte for byte in ended.stdout + ended.stderr if byte < " " and byte not in "\n\t\r"}
        if raw:
            wrong("control characters", f"{scenario.name} prints {sorted(raw)} raw", told)
        if due == 0:
            differences = scenario.reference.differences(case / "runs")
            if differences:
                wrong(
                    "lost", f"{scenario.name}: {state}: {files_in(differences)}", "\n".join([*differences[:20], told])
                )
        left = leftovers(case)
        if left:
            wrong("leftover", f"{scenario.name}: {state}", "\n".join(left))
        return outcome
