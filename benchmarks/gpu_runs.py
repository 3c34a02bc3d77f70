"""The stages of gpu_check.py that do whole runs: interrupted and resumed, by the command line, for accuracy."""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measuring
import streaming
import torch
from contenders import Contender, Training, compete
from drawn_images import simclr_recipe
from gpu_equality import relative, weights_of
from gpu_findings import Findings, Setting
from gpu_speed import begin, speed_of

from cssl_cli.data.batches import ResidentImages, StreamedImages
from cssl_cli.errors import Interrupted
from cssl_cli.host.progress import Silent
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.finished import trained_part
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import Baselines, probe
from cssl_cli.runs.run_dir import ANALYSIS, METRICS, PROBE, RunDir

SMALL_RUN = ("data.num_train=200", "data.num_test=60", "encoder.width=2", "train={epochs: 2, batch_size: 32}")
ANALYSIS_OF = ("analyze.num_images=300", "analyze.num_views=4", "analyze.bootstrap=100")
SMALL_ANALYSIS = (
    "probe.penalties=[0.1]",
    "analyze={num_images: 20, num_views: 2, classes: [bar, ring], epsilons: [0.2], deltas: [0.5, 1]}",
    "analyze={bootstrap: 0, refine_pairs: 1, distances: [pixels, trained]}",
)
SAME, MOST_OTHERS = 1e-2, 0.05  # relative difference of a number, and the share of them that may differ by more
AT_LEAST_RIGHT = 0.5  # linear accuracy of simclr-shapes; its file says 57 to 62 %
PUBLISHED = {"abcde": 0.8976, "a": 0.6274}  # k-NN after 800 epochs on CIFAR-10: arXiv 2111.00743, Table 1
AUGMENTATIONS = {"abcde": [], "a": [f"augment.{name}=null" for name in ("flip", "jitter", "gray", "blur")]}
MOST_EPOCHS = 100
SHARE_OF_TRAINING = 0.75  # of the time left; the rest is for probes


# --------------------------------------------------------------------------- (d) streamed images, interruption
def streams_and_interruption(findings: Findings, setting: Setting) -> None:
    device = begin(setting)
    streamed(findings, setting, device)
    interrupted(findings, setting)
    streaming_speed(findings, setting, device)


def streamed(findings: Findings, setting: Setting, device: torch.device) -> None:
    """Batches copied while the device is busy equal the resident ones."""
    number, batch, rounds, side = (40, 8, 2, 32) if setting.small else (20_000, 512, 4, 4096)
    generator = stream(0, "benchmark")
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=generator)
    orders = [part for _ in range(rounds) for part in torch.randperm(number, generator=generator).split(batch)]
    work = torch.ones(side, side, device=device)
    equal = torch.ones((), dtype=torch.bool, device=device)
    pairs = zip(
        ResidentImages(images.to(device)).batches(orders), StreamedImages(images, device).batches(orders), strict=True
    )
    for resident, sent in pairs:
        work = (work @ work).clamp(max=1)
        equal &= (resident == sent).all()
    findings.check(f"{len(orders)} streamed batches are the resident ones", bool(equal))


def streaming_speed(findings: Findings, setting: Setting, device: torch.device) -> None:
    """SimCLR on streamed and on resident images, in turns."""
    number, batch, encoder, width = (12, 4, "small", 1) if setting.small else (20_000, 512, "resnet18", 64)
    path = streaming.write_random_images(setting.folder / "images.npy", number, 32)
    recipe = simclr_recipe(setting.folder, encoder=encoder, width=width, batch_size=batch)
    turns: dict[str, Contender] = {
        way: Training(
            streaming.steps_of(way, recipe, path, device), device, num_steps=1 if setting.small else 30, untimed=4
        )
        for way in (streaming.RESIDENT, streaming.FROM_MEMORY)
    }
    seconds = compete(turns, repetitions=2, rest=False)
    for way, spent in seconds.items():
        findings.number(f"SimCLR, {encoder}, {way}, images/s", batch / statistics.median(spent))
    ratio = measuring.ratio(seconds[streaming.RESIDENT], seconds[streaming.FROM_MEMORY])["ratio"]
    findings.number("streamed over resident", ratio)


class Interrupting(Silent):
    """Asks the process to end once training has reached a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        if task == "pretrain" and done == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupted(findings: Findings, setting: Setting) -> None:
    """A run that is interrupted and resumed ends like an uninterrupted one."""
    recipe = load_recipe(
        "simclr-shapes", ["optim.warmup_epochs=0", *(SMALL_RUN if setting.small else ("train.epochs=3",))]
    )
    dataset = prepare_data(recipe, Silent())
    steps = len(dataset.pretrain) // recipe.train.batch_size * (recipe.train.epochs or 0)
    common: dict[str, Any] = {"device_name": setting.device, "dataset": dataset}
    whole = pretrain(recipe, out=setting.folder / "whole", reporter=Silent(), **common)
    stopped = False
    try:
        pretrain(recipe, out=setting.folder / "resumed", reporter=Interrupting(steps // 2), **common)
    except Interrupted:
        stopped = True
    findings.check("SIGTERM interrupts a run", stopped)
    resumed = pretrain(recipe, out=setting.folder / "resumed", reporter=Silent(), **common)
    one, two = last_loss(whole), last_loss(resumed)
    findings.at_most("interrupted and resumed: difference of the last loss", abs(one - two) / abs(one), 1e-2)
    weights = [weights_of(trained_part(run, recipe, "encoder")) for run in (whole, resumed)]
    findings.number("interrupted and resumed: difference of the weights", relative(*weights))
    same = "" if torch.equal(*weights) else "not "
    findings.note(f"an interrupted and resumed run is {same}the run without interruption bit for bit")


def last_loss(run: RunDir) -> float:
    loss: float = json.loads(run.file(METRICS).read_text(encoding="utf-8").splitlines()[-1])["terms"]["loss"]
    return loss


# ------------------------------------------------------------------------------------------ (e) the command line
def commands(findings: Findings, setting: Setting) -> None:
    begin(setting)
    settings = [*ANALYSIS_OF, *(("optim.warmup_epochs=0", *SMALL_RUN, *SMALL_ANALYSIS) if setting.small else ())]
    where = ["--device", setting.device]
    out = setting.folder / "runs"
    command(findings, setting, "pretrain", "simclr-shapes", *settings, "--out", str(out), *where)
    (run,) = out.glob("simclr-shapes-*")
    scores = json.loads(command(findings, setting, "probe", str(run), *where, "--json"))["trained"]
    command(findings, setting, "analyze", str(run), *where, "--json", *(["--no-figures"] if setting.small else []))
    for name, found in scores.items():
        findings.number(f"simclr-shapes, {name}, %", 100 * found["accuracy"])
    if not setting.small:
        linear = scores["linear"]["accuracy"]
        findings.check("simclr-shapes: linear accuracy", linear >= AT_LEAST_RIGHT, f"{100 * linear:.1f} %")
    copied = shutil.copytree(run, setting.folder / "on the CPU")
    probe(copied, reporter=Silent(), device_name="cpu")
    analyze(copied, reporter=Silent(), device_name="cpu", again=True)
    for name in (PROBE, ANALYSIS):
        results = [json.loads((folder / name).read_text(encoding="utf-8")) for folder in (run, copied)]
        pairs = list(numbers_of(*results, name))
        others = [pair for pair in pairs if differ(*pair[1:])]
        for place, one, two in others[:10]:
            findings.note(f"{place}: {one}, on the CPU {two}")
        case = f"share of the {len(pairs)} numbers of {name} that the CPU has otherwise"
        findings.at_most(case, len(others) / len(pairs), MOST_OTHERS)


def command(findings: Findings, setting: Setting, *arguments: str) -> str:
    """What a command prints; checks that it succeeds."""
    began = time.monotonic()
    line = [sys.executable, "-m", "cssl_cli", *arguments]
    if setting.small:
        done = in_a_copy(line, setting.folder)
    else:
        done = subprocess.run(line, capture_output=True, text=True, timeout=setting.seconds_left, check=False)
    print(done.stderr, file=sys.stderr)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    findings.check(f"cssl {arguments[0]}", done.returncode == 0, f"exit code {done.returncode}, {last}")
    findings.number(f"cssl {arguments[0]}, s", time.monotonic() - began)
    return done.stdout


def in_a_copy(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The same in a fork of this process, which has imported everything: a third of the processor time."""
    out, errors = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        for path, number in ((out, 1), (errors, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = line[2:]
        code = 1
        try:
            runpy.run_module("cssl_cli", run_name="__main__")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return subprocess.CompletedProcess(line, code, out.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8"))


def numbers_of(one: Any, two: Any, where: str) -> Iterator[tuple[str, float, float]]:
    """Pairs of corresponding numbers of two results."""
    if isinstance(one, dict):
        for name in one.keys() & two.keys():
            yield from numbers_of(one[name], two[name], f"{where}.{name}")
    elif isinstance(one, list):
        for number, (first, second) in enumerate(zip(one, two, strict=False)):
            yield from numbers_of(first, second, f"{where}[{number}]")
    elif isinstance(one, int | float) and isinstance(two, int | float):
        yield where, one, two


def differ(one: float, two: float) -> bool:
    if not (math.isfinite(one) and math.isfinite(two)):
        return repr(one) != repr(two)
    return abs(one - two) > SAME * max(abs(one), abs(two), 1e-2)


# ------------------------------------------------------------------------------------------------- (j) accuracy
def accuracy(findings: Findings, setting: Setting) -> None:
    """k-NN and linear accuracy of SimCLR under all augmentations and under crops alone, after as many epochs as fit."""
    device = begin(setting)
    recipe = recipe_on(setting, [])
    dataset = prepare_data(recipe, Silent())
    speed = speed_of(recipe, dataset, device)["images_per_second"]
    seconds = SHARE_OF_TRAINING * setting.seconds_left / len(AUGMENTATIONS)
    epochs = max(1, min(MOST_EPOCHS, int(seconds * speed / len(dataset.pretrain))))
    if setting.small:
        epochs = 1
    published = f"; published after 800: {100 * PUBLISHED['abcde']:.1f} and {100 * PUBLISHED['a']:.1f}"
    findings.note(f"{dataset.name}, {len(dataset.pretrain):,} images, {epochs} epochs{published}")
    baselines: Baselines = {}
    for name, overrides in AUGMENTATIONS.items():
        trained = recipe_on(setting, [f"train.epochs={epochs}", *overrides])
        began = time.monotonic()
        run = pretrain(trained, out=setting.folder, reporter=Silent(), device_name=setting.device, dataset=dataset)
        findings.number(f"SimCLR {name}, {epochs} epochs, s", time.monotonic() - began)
        common: dict[str, Any] = {"reporter": Silent(), "device_name": setting.device, "dataset": dataset}
        scores = probe(run.path, baselines=baselines, **common)["trained"]
        for classifier in ("knn", "linear"):
            findings.number(f"SimCLR {name}, {epochs} epochs, {classifier}, %", 100 * scores[classifier]["accuracy"])


def recipe_on(setting: Setting, overrides: list[str]) -> Recipe:
    """simclr-cifar10 on the available images."""
    data = data_block(setting)
    if setting.small:
        overrides = ["encoder={name: small, width: 2}", "train.batch_size=16", "optim.warmup_epochs=0", *overrides]
        overrides += ["method.projector=[16, 8]", "probe.penalties=[0.1]"]
    return load_recipe("simclr-cifar10", ["probe.center_views=1", f"data={data}", *overrides])


def data_block(setting: Setting) -> str:
    """The recipe's `data` block: of CIFAR-10 in Python's batches, of class folders, or of drawn shapes."""
    if setting.images is None:
        train, test = (200, 50) if setting.small else (50_000, 10_000)
        return f"{{name: shapes, num_train: {train}, num_test: {test}}}"
    folder = setting.images
    if not folder.is_dir():
        folder = setting.folder / "images"
        if not folder.exists():
            shutil.unpack_archive(setting.images, folder, filter="data")
    return block_of(folder)


def block_of(folder: Path) -> str:
    if (batches := next(folder.rglob("cifar-10-batches-py"), None)) is not None:
        return json.dumps({"name": "cifar10", "root": str(batches.parent)})
    trained = folder if (folder / "train").is_dir() else next((at.parent for at in folder.glob("*/train")), folder)
    return json.dumps({"name": "folder", "root": str(trained), "size": 32})
