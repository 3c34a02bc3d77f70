"""Is the package right on a GPU, and how fast is it? Ten stages in nine minutes, without a network.

    make gpu-check
    python benchmarks/gpu_check.py [--device cuda] [--only LETTERS] [--seconds 540] [--images FOLDER_OR_ARCHIVE]
        [--wheels gpu-check-wheels] [--out DIR] [--start forkserver] [--small]

Runs from a checkout with the installed packages; missing ones are taken from a folder of wheels (`make
gpu-check-wheels` fills it on a machine with a network). Each stage has its own process and time limit, and cannot stop
the next. After each stage the findings are in OUT/gpu-check.json, beside what the stage printed. Exit code 1 if a check
failed, or a stage raised, died or ran out of time; a speed is never a failure.

`--only fg` runs only these stages, `--device cpu --small` all of them in their smallest size, to try the script.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpu_findings import RAISED, Setting, carry_out, write_json
from gpu_tables import show

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "gpu-check"
SECONDS = 540
UNLIMITED = 3600  # for the smallest sizes, generous for a busy machine
LEAST_SECONDS = 10  # needed to start a stage


class Stage(NamedTuple):
    """A stage: `MODULE:FUNCTION`, called with its findings and setting, and the seconds it may take."""

    title: str
    function: str
    limit: float


STAGES = {
    "a": Stage("versions and rates of the machine", "gpu_speed:machine", 60),
    "b": Stage("three steps of every method, against the CPU", "gpu_equality:methods", 90),
    "c": Stage("augmentations, losses, classifiers, features, against the CPU", "gpu_equality:parts", 75),
    "d": Stage("streamed images, interruption", "gpu_runs:streams_and_interruption", 90),
    "e": Stage("pretrain, probe and analyze by the command line", "gpu_runs:commands", 90),
    "f": Stage("SimCLR, ResNet-18", "gpu_speed:resnet18", 150),
    "g": Stage("SimCLR, small encoder, compiled and as a graph", "gpu_speed:small_encoder", 90),
    "h": Stage("MoCo, ResNet-18", "gpu_speed:moco", 120),
    "i": Stage("against lightly", "gpu_speed:against_lightly", 150),
    "j": Stage("accuracy of ResNet-18, in the time left", "gpu_runs:accuracy", 600),
}


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        carried = unpack_wheels(options.wheels, Path(name) / "packages")
        find_packages([HERE.parent, HERE, carried])
        os.environ["CSSL_CACHE"] = str(Path(name) / "cache")  # no cache of an earlier run
        content = run_stages(options, Path(name))
    show(content)
    print(f"\nAll of it: {options.out / 'gpu-check.json'}")
    sys.exit(0 if is_good(content) else 1)


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="as of cssl")
    parser.add_argument("--only", default="".join(STAGES), metavar="LETTERS", help="of the stages: fg")
    parser.add_argument("--seconds", type=float, help=f"that all of it may take; {SECONDS} by default")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER_OR_ARCHIVE",
        help="of stage j: CIFAR-10 in Python's batches, or class folders in train/ and test/; drawn shapes without it",
    )  # fmt: skip
    parser.add_argument("--wheels", type=Path, default=HERE.parent / "gpu-check-wheels", metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", OUT)), metavar="DIR")
    parser.add_argument("--start", choices=["forkserver", "spawn"], default="forkserver", help="of a stage's process")
    parser.add_argument("--small", action="store_true", help="the smallest sizes, to try the script")
    options = parser.parse_args()
    unknown = sorted(set(options.only) - set(STAGES))
    if unknown:
        parser.error(f"--only: there is no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if options.seconds is None:
        options.seconds = UNLIMITED if options.small else SECONDS
    if options.images is not None and not options.images.exists():
        parser.error(f"--images: there is no {options.images}")
    return options


# ---------------------------------------------------------------------------------------------------- the packages
def unpack_wheels(wheels: Path, target: Path) -> Path:
    """Unpacks into `target` those packages of the `wheels` that are missing here or older."""
    target.mkdir()
    for wheel in sorted(wheels.glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        if installed(name) < numbers_in(version):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
    return target


def installed(name: str) -> list[int]:
    try:
        return numbers_in(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return []


def numbers_in(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def find_packages(folders: Sequence[Path]) -> None:
    """Lets this process and its children import from the folders."""
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), *([known] if known else [])])
    sys.path[:0] = map(str, folders)


# ------------------------------------------------------------------------------------------------------ the stages
def run_stages(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs all stages and returns their findings; in OUT/gpu-check.json after each."""
    ends_at = time.monotonic() + options.seconds
    content: dict[str, Any] = {"device": options.device, "small": options.small, "stages": {}}
    context = multiprocessing.get_context(options.start)
    if options.start == "forkserver":  # imports once, for all stages
        context.set_forkserver_preload(sorted({stage.function.partition(":")[0] for stage in STAGES.values()}))
    for letter, stage in STAGES.items():
        if letter not in options.only:
            continue
        print(f"({letter}) {stage.title} ...", end=" ", flush=True)
        began = time.monotonic()
        limit = min(UNLIMITED if options.small else stage.limit, ends_at - began)
        found: dict[str, Any] = {"outcome": "no time left"}
        if limit >= LEAST_SECONDS:
            own = folder / letter
            own.mkdir()
            setting = Setting(options.device, options.small, options.images, own, began + limit)
            found = run_stage(context, stage.function, setting, options.out / letter)
        seconds = time.monotonic() - began
        content["stages"][letter] = {"title": stage.title, "seconds": seconds, "limit": limit, **found}
        write_json(options.out / "gpu-check.json", content)
        print(f"{found['outcome']}, {seconds:.0f} s", flush=True)
    return content


def run_stage(context: Any, function: str, setting: Setting, out: Path) -> dict[str, Any]:
    """Runs a stage in its own process; its findings and outcome: done, failed, out of time, or how it died."""
    path, log = out.with_suffix(".json"), out.with_suffix(".log")
    for left in (path, log):
        left.unlink(missing_ok=True)
    process = context.Process(target=carry_out, args=(function, setting, path, log))
    process.start()
    try:
        process.join(max(0, setting.seconds_left))
        outcome = outcome_of(process.exitcode)
    finally:
        end(process)
    return {"outcome": outcome, **read_findings(path)}


def outcome_of(exit_code: int | None) -> str:
    if exit_code is None:
        return "out of time"
    if exit_code < 0:
        return f"died of {signal.Signals(-exit_code).name}"
    return {0: "done", RAISED: "failed"}.get(exit_code, f"died with exit code {exit_code}")


def end(process: Any) -> None:
    """Ends a stage with all processes it started; one that hangs in its driver is left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(10)


def read_findings(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_good(content: Mapping[str, Any]) -> bool:
    """Whether every stage was done and every check passed."""
    return all(
        stage["outcome"] == "done" and all(check["passed"] for check in stage["checks"].values())
        for stage in content["stages"].values()
    )


if __name__ == "__main__":
    main()
