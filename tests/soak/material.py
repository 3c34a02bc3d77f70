"""Tiny recipes, images and finished runs that the campaigns on whole commands start from."""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from . import command
from .compare import Reference

TINY = """
name: tiny
seed: 3
data: DATA
augment: {crop: {scale: [0.4, 1.0]}, flip: {p: 0.5}}
encoder: {name: small, width: 4}
method: {name: simclr, temperature: 0.5, projector: [8, 4]}
optim: {name: sgd, lr: 0.01}
train: {epochs: 4, batch_size: 16, checkpoint_minutes: CHECKPOINTS}
probe: {knn_k: 5, center_views: 1, penalties: [0.1]}
analyze:
  {num_images: 20, num_views: 2, bootstrap: 0, refine_pairs: 0, epsilons: [0.5], deltas: [0.5], distances: [pixels]}
"""
SHAPES = "{name: shapes, num_train: 64, num_test: 40, size: 8}"
SWEEP = """
name: pair
base: tiny.yaml
axes:
  optim:
    slow: {}
    fast: {optim: {lr: 0.02}}
"""


@dataclass(eq=False)
class Scenario:
    """A command with what has to be there before it; `reference` is how it ends undisturbed."""

    name: str
    arguments: tuple[str, ...]
    begins_with: str | None = None  # a folder of the material, copied to runs/
    weight: int = 1
    cache: str | None = None  # a folder of the material, copied to cache/
    reference: Reference = field(init=False)
    seconds: float = 0.0
    events: int = 0

    def lay_out(self, material: Path, case: Path) -> None:
        """Make `case` what the command expects to find."""
        case.mkdir(exist_ok=True)
        if self.begins_with is not None:
            shutil.copytree(material / self.begins_with, case / "runs")
        if self.cache is not None:
            shutil.copytree(material / self.cache, case / "cache")


@dataclass(frozen=True)
class Material:
    """What the parts share: a folder, the name of its run directory, and every command that writes, measured."""

    folder: Path
    run: str
    scenarios: tuple[Scenario, ...]

    def measured(self, *more: Scenario, folder: Path) -> list[Scenario]:
        """Its commands and further ones of a part."""
        for scenario in more:
            measure(scenario, self.folder, folder)
        return [*self.scenarios, *more]


@cache
def shared(work: Path) -> Material:
    """The material in `work`, made when it is first asked for."""
    command.preload()
    folder = work / "material"
    folder.mkdir()
    run = make(folder)
    found = Material(folder, run, tuple(scenarios(folder, run)))
    found.measured(*found.scenarios, folder=work / "material")
    return found


def make(folder: Path) -> str:
    """Recipes, images and runs in `folder`; the name of the run directory."""
    photos = folder / "photos"
    for number in range(60):
        path = photos / f"class{number % 3}" / f"{number:03}.{('png', 'jpg', 'bmp')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    write_recipe(folder / "tiny.yaml", SHAPES, "0")
    write_recipe(folder / "rare.yaml", SHAPES, "60")
    write_recipe(folder / "photos.yaml", f"{{name: folder, root: {photos}, size: 8}}", "0")
    write_recipe(folder / "other.yaml", SHAPES, "0", seed=4)
    (folder / "pair.yaml").write_text(SWEEP)
    for home, recipe in (("begun", "tiny.yaml"), ("other", "other.yaml")):
        events = succeed(folder, "pretrain", recipe, "--out", home).events
        (run,) = (folder / home).iterdir()
        if home == "begun":
            shutil.copytree(folder / home, folder / "begun-trained")
            start = command.Start(at_event=(signal.SIGTERM, events // 2))
            command.run(folder, "pretrain", recipe, "--out", "half", start=start)
        succeed(folder, "probe", run)
        succeed(folder, "analyze", run, "--no-figures")
    if not list(folder.glob("half/*/checkpoint.pt")):
        raise RuntimeError("a run that gets SIGTERM half way keeps no checkpoint")
    start = command.Start(environment={"CSSL_CACHE": str(folder / "cached")})
    succeed(folder, "pretrain", "photos.yaml", "--out", "of-photos", start=start)
    succeed(folder, "sweep", "pair.yaml", "--out", "swept", "--no-figures")
    (run,) = (folder / "begun").iterdir()
    return run.name


def write_recipe(path: Path, data: str, checkpoints: str, *, seed: int = 3) -> None:
    text = TINY.replace("DATA", data).replace("CHECKPOINTS", checkpoints).replace("seed: 3", f"seed: {seed}")
    path.write_text(text)


def succeed(folder: Path, *arguments: object, start: command.Start | None = None) -> command.Ended:
    """Run a command that the campaign depends on."""
    ended = command.run(folder, *arguments, start=start)
    if ended.code != 0:
        raise RuntimeError(command.described([str(word) for word in arguments], ended))
    return ended


def scenarios(material: Path, run: str) -> list[Scenario]:
    """Every command that writes, tiny."""
    tiny, rare, photos, pair = (str(material / f"{name}.yaml") for name in ("tiny", "rare", "photos", "pair"))
    out = ("--out", "runs")
    return [
        Scenario("pretrain", ("pretrain", tiny, *out), weight=4),
        Scenario("pretrain, saved at the end", ("pretrain", rare, *out), weight=3),
        Scenario("pretrain, images", ("pretrain", photos, *out), weight=4),
        Scenario("pretrain --restart", ("pretrain", tiny, *out, "--restart"), "begun-trained", weight=1),
        Scenario("probe", ("probe", f"runs/{run}"), "begun-trained", weight=3),
        Scenario("analyze", ("analyze", f"runs/{run}", "--no-figures"), "begun-trained", weight=2),
        Scenario("sweep", ("sweep", pair, *out, "--no-figures"), weight=2),
        Scenario("sweep --jobs 2", ("sweep", pair, *out, "--no-figures", "--jobs", "2"), weight=2),
        Scenario("concentration", ("sweep", pair, *out, "--concentration-only"), weight=3),
    ]


def measure(scenario: Scenario, material: Path, folder: Path) -> None:
    """Run it twice undisturbed: its reference, its duration, and how often it changes files."""
    cases = [folder / f"{re.sub('[^a-z0-9]+', '-', scenario.name)}-{turn}" for turn in ("one", "two")]
    for case in cases:
        scenario.lay_out(material, case)
    commands = [command.Command(case, *scenario.arguments, start=own_cache(case)) for case in cases]
    for case, process in zip(cases, commands, strict=True):
        if not process.wait(300):
            process.kill_all()
            raise RuntimeError(f"{scenario.name} does not end undisturbed")
        ended = process.ended()
        if ended.code != 0:
            raise RuntimeError(command.described(list(scenario.arguments), ended))
        keep_stdout(case, ended)
        scenario.seconds, scenario.events = ended.seconds, ended.events
    scenario.reference = Reference.of(*(case / "runs" for case in cases))


def keep_stdout(case: Path, ended: command.Ended) -> None:
    """Let what a command printed as JSON be compared like a file of its runs."""
    if "{" in ended.stdout[:2]:
        (case / "runs" / "stdout.json").write_text(ended.stdout)


def own_cache(case: Path) -> command.Start:
    """A start with a cache of the case's own."""
    return command.Start(environment={"CSSL_CACHE": str(case / "cache")})
