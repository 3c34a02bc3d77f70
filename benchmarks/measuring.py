"""Shared by the benchmarks: taking turns, ratios with their spread, the machine's own rates, tables and `--json`.

A ratio is taken within each round, in which every candidate has one turn; the median over the rounds is reported.
Whatever disturbs the machine for longer than a round disturbs both sides. Its spread is half the
interquartile range over the rounds, relative to the median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cssl_cli.runs.device import choose_precision
from cssl_cli.runs.machine import copy_rate, matrix_rate, synchronize

CPU = torch.device("cpu")
Turn = Callable[[], object]


# ----------------------------------------------------------------------------------------------- options of a script
def option_parser(description: str | None, *, threads: int = 2, cuda: bool = False) -> argparse.ArgumentParser:
    """A parser with the common options; its description is the first paragraph of the script's docstring."""
    assert description is not None
    parser = argparse.ArgumentParser(description=description.partition("\n\n")[0])
    parser.add_argument("--threads", type=int, default=threads, help="of this process on the CPU")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the numbers to this file, too")
    if cuda:
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser


def prepare(options: argparse.Namespace) -> torch.device:
    """Sets the number of threads and returns the device to measure."""
    torch.set_num_threads(options.threads)
    device = torch.device(getattr(options, "device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device that torch can use")
    return device


# --------------------------------------------------------------------------------------------------------- measuring
def seconds_of(function: Turn, device: torch.device = CPU) -> float:
    """Seconds of a call, from an idle device until it has finished everything."""
    synchronize(device)
    began = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - began


def alternate(
    candidates: Mapping[str, Turn],
    repetitions: int,
    *,
    warm_up: int = 1,
    device: torch.device = CPU,
) -> dict[str, list[float]]:
    """Seconds of each candidate's turns, round after round, without the `warm_up` first rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(warm_up + repetitions):
        for name, function in candidates.items():
            spent = seconds_of(function, device)
            if repetition >= warm_up:
                seconds[name].append(spent)
    return seconds


def with_threads(threads: int, function: Turn) -> Turn:
    """Runs the function with this many threads."""

    def run() -> None:
        torch.set_num_threads(threads)
        function()

    return run


def relative_spread(values: Sequence[float]) -> float | None:
    """Half the interquartile range over the median; None for a single value, which does not show its noise."""
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)


def ratio(numerators: Sequence[float], denominators: Sequence[float], *, better: str = "higher") -> dict[str, Any]:
    """The median over the rounds of a ratio taken within each, with its spread; which way it is `better`."""
    assert better in ("higher", "lower")
    of_rounds = [above / below for above, below in zip(numerators, denominators, strict=True)]
    return {"ratio": statistics.median(of_rounds), "spread": relative_spread(of_rounds), "better": better}


# ----------------------------------------------------------------------------------------------- processes of their own
def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs the function in its own process, so that its memory is its own."""
    with process_of_its_own() as process:
        return process.submit(function, *arguments).result()


def process_of_its_own() -> Executor:
    """A process that executes what is submitted to it, in order."""
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))


def reset_peak_memory() -> None:
    """Resets `peak_memory` to what the process holds now, if the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Peak memory of this process in bytes, since the last reset or the start."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    # Linux counts in a child's rusage what its parent held when it was started.
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -------------------------------------------------------------------------------------------------------- the machine
def precision_of(device: torch.device) -> torch.dtype:
    """What `train.precision: auto` means here."""
    return choose_precision("auto", device)


def short_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def machine(device: torch.device) -> dict[str, Any]:
    """The conditions that numbers of a run depend on, and the rates that this machine reaches now.

    Matrix products are measured in bfloat16 only where the device has instructions for it: elsewhere it is emulated.
    """
    precision = precision_of(device)
    rates = {short_name(dtype): matrix_rate(device, dtype) for dtype in dict.fromkeys([torch.float32, precision])}
    return {
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "precision": short_name(precision),
        "torch": torch.__version__,
        "matrix_product": rates,
        "copy": copy_rate(device),
    }


def processor() -> str:
    """The maker's name of the processor, if the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# --------------------------------------------------------------------------------------------------- what is reported
@dataclass
class Report:
    """The results of a script: ratios within this run, comparable with other runs, and plain numbers."""

    machine: dict[str, Any]
    ratios: dict[str, dict[str, Any]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def print_machine(self) -> None:
        found = self.machine
        rates = ", ".join(f"{1e-9 * rate:,.0f} GFLOP/s in {name}" for name, rate in found["matrix_product"].items())
        print(f"\n{found['processor']}, {found['threads']} threads, torch {found['torch']}")
        print(f"matrix products {rates}; copies {1e-9 * found['copy']:,.1f} GB/s")

    def print_ratios(self) -> None:
        for name, found in self.ratios.items():
            spread = "measured once" if found["spread"] is None else f"± {100 * found['spread']:.1f} %"
            print(f"{name}: {found['ratio']:.3g} ({spread})")

    def finish(self, path: Path | None) -> None:
        """Prints the ratios and the machine; writes everything to `path`, if given."""
        print()
        self.print_ratios()
        self.print_machine()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = {"ratios": self.ratios, "numbers": self.numbers, "machine": self.machine}
            path.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints columns at their natural width, the first left-aligned, the others right-aligned."""
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    for line in lines:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip(), flush=True)
