"""Pipes, sockets, links and folders in the place of files: in run directories and among images.

Each command ends in time, without a traceback; what a link points to is never changed; a command that ends well has
the results that it has otherwise.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from dataclasses import replace
from pathlib import Path

from . import command
from .command import Ended, Hang, described
from .compare import files_in, leftovers, values_of
from .findings import Fault, Outcome
from .material import Scenario, own_cache, shared, write_recipe

KINDS = ("pipe", "socket", "link", "dangling link", "loop", "device", "folder", "full folder")
SECONDS = 60.0
PRECIOUS = b"precious\n"
OF_A_RUN = (
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "trace.jsonl",
    "knn.jsonl",
    "checkpoint.pt",
    "encoder.safetensors",
    "projector.safetensors",
    "probe.json",
    "analysis.json",
    "figures",
    "figures/figures.json",
    "status",
    "lock",
    "error.log",
)
OF_A_SWEEP = ("sweep.json", "table.csv", "table.json", "concentration.json", "results-index.txt", "logs")
# Where nothing need be written for the results to be there.
OPTIONAL = ("lock", ".log", "logs", "results-index.txt", "sweep.json")
IMAGE_NAMES = (
    "x.png",
    "\x1b[31mx.png",
    "a\nb.jpg",
    "[bold]x.png",
    ":smile:.png",
    "-x.bmp",
    "x" * 250 + ".png",
    "é.PNG",
)


class Specials:
    """See the module."""

    name, cases, batch, limit, memory = "specials", 240, 8, 400.0, None

    def prepare(self, folder: Path) -> None:
        found = shared(folder.parent)
        self.material = found.folder
        pair, out = str(self.material / "pair.yaml"), ("--out", "runs", "--no-figures")
        self.scenarios = found.measured(
            Scenario("sweep, finished", ("sweep", pair, *out), "swept", weight=2),
            Scenario("sweep --report", ("sweep", pair, *out, "--report"), "swept", weight=2),
            folder=folder,
        )
        self.members = sorted(path.name for path in (self.material / "swept" / "pair").iterdir() if path.is_dir())
        (self.key,) = _keys(self.material / "of-photos")

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        case, precious = folder / "case", folder / "precious"
        precious.write_bytes(PRECIOUS)
        case.mkdir()
        kind = chance.choice(KINDS)
        trial = self._among_images if chance.random() < 0.25 else self._among_files
        outcome = trial(case, precious, kind, chance)
        if precious.read_bytes() != PRECIOUS:
            outcome.faults.append(Fault("silent", "what a link points to is overwritten", kind))
        return outcome

    def _among_files(self, case: Path, precious: Path, kind: str, chance: random.Random) -> Outcome:
        scenario = chance.choices(self.scenarios, [scenario.weight for scenario in self.scenarios])[0]
        scenario.lay_out(self.material, case)
        place = self._place(scenario, case, chance)
        present = place.exists()
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        put(place, kind, precious)
        before = place.lstat()
        what = f"{kind} as {place.name}"
        outcome, ended = _try(case, scenario.arguments, f"{scenario.name}: {what}")
        if ended is None or ended.code != 0:
            return outcome
        differences = scenario.reference.differences(case / "runs")
        unchanged = os.path.lexists(place) and place.lstat()[:2] == before[:2]
        name = place.relative_to(case / "runs").as_posix()
        written = (name, "") in scenario.reference.values and not present and not name.endswith(OPTIONAL)
        if unchanged and not written:  # nothing needed it
            differences = [line for line in differences if not line.startswith((f"{name} ", f"{name}/"))]
        if differences:
            detail = "\n".join([*differences[:20], described(list(scenario.arguments), ended)])
            outcome.faults.append(Fault("different", f"{scenario.name}: {what}: {files_in(differences)}", detail))
        return outcome

    def _place(self, scenario: Scenario, case: Path, chance: random.Random) -> Path:
        runs = case / "runs"
        if scenario.name.startswith(("sweep", "concentration")):
            name = chance.choice((*OF_A_SWEEP, *OF_A_RUN))
            home = runs / "pair"
            if name == "logs" and chance.random() < 0.5:
                return home / "logs" / "slow-seed3.log"
            return home / name if name in OF_A_SWEEP else home / chance.choice(self.members) / name
        written = sorted({file.split("/")[0] for file, place in scenario.reference.values if not place})
        return runs / chance.choice(written) / chance.choice(OF_A_RUN)

    def _among_images(self, case: Path, precious: Path, kind: str, chance: random.Random) -> Outcome:
        root = case / "photos"
        shutil.copytree(self.material / "photos", root)
        where = chance.choice(["", "class0", "class1", "class2/deep"])
        place = root / where / chance.choice(IMAGE_NAMES)
        place.parent.mkdir(exist_ok=True)
        put(place, kind, precious)
        recipe = case / "photos.yaml"
        write_recipe(recipe, f"{{name: folder, root: {root}, size: 8}}", "0")
        what = f"images: {kind} in {'a class' if where else 'the root'}"
        outcome, ended = _try(case, ("pretrain", str(recipe), "--out", "runs"), what)
        if ended is not None and ended.code == 0 and _keys(case / "runs") != [self.key]:
            detail = described(["pretrain"], ended)
            outcome.faults.append(Fault("silent", f"{what} changes the images that are trained on", detail))
        return outcome


def _try(case: Path, arguments: tuple[str, ...], what: str) -> tuple[Outcome, Ended | None]:
    outcome = Outcome()

    def wrong(kind: str, signature: str, detail: str) -> None:
        outcome.faults.append(Fault(kind, signature, detail, {"story.txt": f"{what}\n{detail}".encode()}))

    try:
        ended = command.run(case, *arguments, limit=SECONDS, start=replace(own_cache(case)))
    except Hang as hang:
        outcome.counts["hang"] += 1
        wrong("hang", what, str(hang))
        return outcome, None
    told = described(list(arguments), ended)
    outcome.counts["done" if ended.code == 0 else "refused"] += 1
    if ended.traceback:
        wrong("traceback", f"{what}: {ended.traceback.strip().splitlines()[-1].split(':')[0]}", told)
    elif ended.code not in (0, 1, 2):
        wrong("exit code", f"{what}: {ended.code}", told)
    raw = {byte for byte in ended.stdout + ended.stderr if byte < " " and byte not in "\n\t\r"}
    if raw:
        wrong("control characters", f"{what}: {sorted(raw)}", told)
    left = leftovers(case)
    if left:
        wrong("leftover", what, "\n".join(left))
    return outcome, ended


def put(place: Path, kind: str, precious: Path) -> None:
    """Make something that is no plain file at `place`."""
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(place.parent)  # the paths of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind("s")
            Path("s").rename(place.name)
        finally:
            os.chdir(here)
    elif kind == "folder":
        place.mkdir()
    elif kind == "full folder":
        place.mkdir()
        (place / "kept").write_bytes(PRECIOUS)
    else:
        target = {"link": precious, "dangling link": Path("nowhere"), "loop": Path(place.name)}
        place.symlink_to(target.get(kind, Path("/dev/zero")))


def _keys(out: Path) -> list[object]:
    """The content keys of the runs in a folder."""
    return [
        value for (file, place), value in values_of(out).items() if place == "/content_key/" and "environment" in file
    ]
