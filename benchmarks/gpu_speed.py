"""The stages of gpu_check.py that measure speed: the machine's rates, training steps eager, compiled and as a graph."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import measuring
import torch
import torchvision
from contenders import cssl_steps
from gpu_findings import Findings, Setting

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.recipe.blocks import Train
from cssl_cli.runs import machine as rates
from cssl_cli.runs import profile as profiling
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.trainer import make_trainer
from cssl_cli.train import loop as train

WATCHED_STEPS = 10  # during which waits are counted
SETTLING_STEPS = 5
ROUNDS = 3
SECONDS_OF_A_ROUND = 0.5
COMPILED = {"eager": "false", "compiled": "true", "CUDA graph": "graph"}
# Where the time on the device goes, by parts of the kernels' names; the first match counts.
KINDS = {
    "batch norms": ("batch_norm", "batchnorm", "bn_fw", "bn_bw", "bnfw", "bnbw"),
    "products and convolutions": ("gemm", "conv", "cutlass", "xmma", "cudnn", "wgrad", "dgrad", "sm90_", "sm80_"),
    "fused by the compiler": ("triton",),
    "optimizer": ("multi_tensor", "foreach", "fusedsgd", "fused_sgd", "adam"),
}


# ------------------------------------------------------------------------------------------------------ (a) the machine
def machine(findings: Findings, setting: Setting) -> None:
    device = begin(setting)
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    if device.type == "cuda":
        versions |= {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
        findings.note(f"{torch.cuda.get_device_name(device)}, capability {torch.cuda.get_device_capability(device)}")
        findings.number("memory of the device, GiB", torch.cuda.mem_get_info(device)[1] / 2**30)
    findings.note(", ".join(f"{name} {version}" for name, version in versions.items()))
    findings.note(f"{measuring.processor()}, {os.cpu_count()} cores")
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        rate = rates.matrix_rate(device, dtype)
        findings.number(f"matrix products in {measuring.short_name(dtype)}, TFLOP/s", 1e-12 * rate)
    findings.number("copies, GB/s", 1e-9 * rates.copy_rate(device))
    ones = torch.ones(64, 64, device=device)
    findings.check("a product of ones is exact", bool((ones @ ones == 64).all()))


# ----------------------------------------------------------------------------------------- (f), (g), (h) training steps
def resnet18(findings: Findings, setting: Setting) -> None:
    device = begin(setting)
    network, encoder, batch = large_encoder(setting)
    dataset = random_dataset(setting)
    settings = [encoder, f"train.batch_size={batch}"]
    both_ways(findings, setting, f"SimCLR, {network}, batch {batch}", "simclr-cifar10", settings, dataset)
    if "micro_batch" not in Train.model_fields:
        findings.note("micro-batches are not in this version")
        return
    many = (2 if setting.small else 8) * batch
    wide = f"train={{batch_size: {many}, micro_batch: {batch}, checkpoint_activations: true, compile: false}}"
    found = speed_of(recipe_of("simclr-cifar10", [encoder, wide]), dataset, device)
    findings.speed(f"SimCLR, {network}, batch {many:,} in micro-batches of {batch}", found)


def moco(findings: Findings, setting: Setting) -> None:
    begin(setting)
    network, encoder, batch = large_encoder(setting)
    settings = [
        encoder,
        f"train.batch_size={batch}",
        *(["method={queue: 64, projector: [16, 8]}"] if setting.small else []),
    ]
    both_ways(findings, setting, f"MoCo, {network}, batch {batch}", "moco-cifar10", settings, random_dataset(setting))


def large_encoder(setting: Setting) -> tuple[str, str, int]:
    """The large encoder as an override of a recipe, and its batch size."""
    if setting.small:
        return "smallest encoder", "encoder={name: small, width: 2}", 16
    return "ResNet-18", "encoder={name: resnet18, width: 64}", 512


def small_encoder(findings: Findings, setting: Setting) -> None:
    device = begin(setting)
    width, batch = (2, 16) if setting.small else (16, 128)
    dataset = random_dataset(setting)
    eager = None
    for way, compiled in COMPILED.items():
        overrides = [f"encoder.width={width}", f"train.batch_size={batch}", f"train.compile={compiled}"]
        case = f"SimCLR, small encoder, batch {batch}, {way}"
        try:
            recipe = recipe_of("simclr-shapes", overrides)
            found = speed_of(recipe, dataset, device)
        except InputError as error:
            findings.note(f"{case}: not measured ({error.what})")
            continue
        if way != "eager":
            findings.check(f"{case}: was possible", bool(found["compiled"]))
        else:
            findings.speed(case, profiled(findings, setting, case, recipe, dataset)[1])
        eager = eager or found
        findings.speed(case, found | break_even(eager, found))
        if way != "compiled":
            findings.speed(case, {"waits": waits_of(recipe, dataset, device)})


def both_ways(
    findings: Findings, setting: Setting, case: str, name: str, settings: list[str], dataset: Dataset
) -> None:
    """Profile a recipe eager and compiled: speed, share of the matrix rate, parts, kernels, waits, memory."""
    eager = None
    for way in ("eager", "compiled"):
        recipe = recipe_of(name, [*settings, f"train.compile={COMPILED[way]}"])
        found, columns = profiled(findings, setting, f"{case}, {way}", recipe, dataset)
        if way == "compiled":
            findings.check(f"{case}: compiles", not found["compiling_failed"])
        else:
            columns["waits"] = waits_of(recipe, dataset, choose_device(setting.device))
            if setting.device != "cpu":
                findings.at_most(f"{case}: waits a step", columns["waits"], 0)
        eager = eager or columns
        findings.speed(f"{case}, {way}", columns | break_even(eager, columns))


def profiled(
    findings: Findings, setting: Setting, case: str, recipe: Recipe, dataset: Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `cssl pretrain --profile` reports for a recipe, and the columns of its row."""
    if setting.small:
        profiling.SECONDS, profiling.ROUNDS, profiling.WARM_UP_STEPS, profiling.TRACED_STEPS = 0.01, 1, 2, 1
    clock = FirstStep()
    run, found = profiling.profile(
        recipe, out=setting.folder, reporter=clock, device_name=setting.device, dataset=dataset
    )
    parts = {part: spent for part, spent in found["parts"].items() if spent is not None}
    findings.number(f"{case}: parts after one another, ms", 1e3 * sum(parts.values()))
    for part, spent in parts.items():
        findings.number(f"{case}: {part}, ms", 1e3 * spent)
    columns = {
        "images_per_second": recipe.train.batch_size / found["seconds"],
        "milliseconds": 1e3 * found["seconds"],
        "share_of_matrix_rate": found["flops"] / found["seconds"] / found["matrix_rate"],
        "augmentation_share": parts["augmentation"] / found["seconds"],
        "memory_mb": found["device_memory_mb"],
        "first_step_seconds": clock.seconds,
    }
    columns |= on_the_device(findings, case, run.file(profiling.STEP_TRACE))
    return found, columns


def break_even(eager: dict[str, Any], found: dict[str, Any]) -> dict[str, float]:
    """Seconds of compiling or recording, and the steps after which they pay off; nothing for the eager step."""
    if found is eager:
        return {}
    compiling = max(0.0, found["first_step_seconds"] - eager["first_step_seconds"])
    saved = 1e-3 * (eager["milliseconds"] - found["milliseconds"])
    return {"compile_seconds": compiling} | ({"break_even_steps": compiling / saved} if saved > 0 else {})


class FirstStep(Silent):
    """Times a profile's first step, in which everything is compiled and selected."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds = 0.0

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        if task == "warm up" and done == 0:
            self.began = time.perf_counter()
        elif task == "warm up" and done == 1 and self.began is not None:
            self.seconds = time.perf_counter() - self.began


def speed_of(recipe: Recipe, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """The columns of a row, from a separate training loop; `compiled` as it turned out."""
    trainer = make_trainer(recipe, dataset, device, notice=print)
    steps = trainer.run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = measuring.seconds_of(lambda: next(steps), device)
    settling = measuring.seconds_of(lambda: advance(steps, SETTLING_STEPS), device)  # during which a graph is recorded
    one = measuring.seconds_of(lambda: advance(steps, SETTLING_STEPS), device) / SETTLING_STEPS
    number = max(2, min(200, round(SECONDS_OF_A_ROUND / one)))
    spent = [measuring.seconds_of(lambda: advance(steps, number), device) / number for _ in range(ROUNDS)]
    seconds = statistics.median(spent)
    compiled = trainer.training_step.compiled
    return {
        "images_per_second": recipe.train.batch_size / seconds,
        "milliseconds": 1e3 * seconds,
        "memory_mb": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        "first_step_seconds": first + (settling - SETTLING_STEPS * one),
        "compiled": compiled,
    }


def advance(steps: Iterator[object], number: int) -> None:
    for _ in range(number):
        next(steps)


# ---------------------------------------------------------------------------------------------- waits and kernels
def waits_of(recipe: Recipe, dataset: Dataset, device: torch.device) -> float:
    """How often a step waits for the device, after the first ones and before the loss is read."""
    if device.type != "cuda":
        return 0.0
    steps = cssl_steps(recipe, dataset, device)
    advance(steps, SETTLING_STEPS)
    with mock.patch.object(train, "CHECK_SECONDS", math.inf), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            advance(steps, WATCHED_STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    told = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
    for sentence, times in Counter(told).items():
        print(f"{times} times: {sentence}")
    return len(told) / WATCHED_STEPS


def on_the_device(findings: Findings, case: str, trace: Path) -> dict[str, float]:
    """Kernels of a step, the share of time in which one is running, and where their time goes."""
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    if not kernels:
        return {}
    spent: Counter[str] = Counter()
    of_kernels: Counter[str] = Counter()
    for event in kernels:
        spent[kind_of(event["name"])] += event["dur"]
        of_kernels[event["name"][:90]] += event["dur"]
    in_all, steps = sum(spent.values()), profiling.TRACED_STEPS
    for kind, microseconds in spent.most_common():
        findings.number(f"{case}: {kind}, ms on the device", 1e-3 * microseconds / steps)
    for name, microseconds in of_kernels.most_common(8):
        findings.note(f"{case}: {100 * microseconds / in_all:.1f} % in {name}")
    begin, end = min(e["ts"] for e in kernels), max(e["ts"] + e["dur"] for e in kernels)
    return {"kernels": len(kernels) / steps, "busy": in_all / (end - begin)}


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "everything else")


# ------------------------------------------------------------------------------------------------------ (i) lightly
def against_lightly(findings: Findings, setting: Setting) -> None:
    begin(setting)
    sizes: tuple[object, ...] = ("--width", 64, "--batch-size", 512, "--images", 15_000, "--steps", 15)
    if setting.small:
        sizes = ("--encoder", "small", "--width", 2, "--batch-size", 8, "--images", 40, "--steps", 1)
        sizes += ("--set", "method.projector=[8, 4]", "--workers", 0, "--no-bf16-lightly")
    missing = importlib.util.find_spec("lightly") is None
    if missing:
        findings.note("lightly is not there: make gpu-check-wheels, where there is a network")
    alone = ("--no-lightly",) if missing or setting.small else ()
    script(findings, setting, "pretrain_vs_lightly", *sizes, *alone, "--repetitions", 1 if setting.small else 2)


# ------------------------------------------------------------------------------------------------------------ shared
def begin(setting: Setting) -> torch.device:
    """The device. For the smallest sizes, rates and speeds are measured roughly and nothing is compiled."""
    global SECONDS_OF_A_ROUND
    device = choose_device(setting.device)
    if setting.small:
        SECONDS_OF_A_ROUND = 0.01
        torch.set_num_threads(1)
        rates.MATRIX_SIDE = dict.fromkeys(rates.MATRIX_SIDE, 64)
        rates.COPY_BYTES = dict.fromkeys(rates.COPY_BYTES, 2**16)
        torch.compile = lambda function, **_: function
        measuring.process_of_its_own = lambda: ThreadPoolExecutor(1)  # type: ignore[assignment]
    return device


def recipe_of(name: str, overrides: list[str]) -> Recipe:
    """A shipped recipe that runs longer than it is measured."""
    return load_recipe(name, ["train.epochs=1000", "optim.warmup_epochs=0", *overrides])


def random_dataset(setting: Setting) -> Dataset:
    """Random images: none is drawn or read."""
    number = 512 if setting.small else 32_768
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = ImageSet(images, None)
    return Dataset("random", (), part, None, None, (0.5,) * 3, (0.29,) * 3, "random", images.shape[-1])


def script(findings: Findings, setting: Setting, name: str, *arguments: object) -> None:
    """Runs a benchmark of this folder in this process; its numbers and ratios become findings."""
    path = setting.folder / f"{name}.json"
    device = setting.device.partition(":")[0]
    sys.argv = [f"{name}.py", "--device", device, *map(str, arguments), "--json", str(path)]
    importlib.import_module(name).main()
    written = json.loads(path.read_text(encoding="utf-8"))
    for what, value in written["numbers"].items():
        findings.number(what, value)
    for what, ratio in written["ratios"].items():
        findings.number(what, ratio["ratio"])
