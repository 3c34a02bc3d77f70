"""Threads: a small encoder's steps by threads, by how these wait for one another, and by processes.

    python benchmarks/threads.py [--seconds 3] [--repetitions 5] [--threads 2] [--spins 0 1000 ...] [--json PATH]

Each way of running has processes of its own, which take turns: some seconds alone, then some beside a neighbour that
keeps one core busy. Threads that wait spin for so many rounds before they sleep (`GOMP_SPINCOUNT`; unset, OpenMP's
runtime chooses). All ways with the same number of threads compute the same numbers, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import measuring

SPIN = "GOMP_SPINCOUNT"
BUSY = "while True: pass"
DEFAULT = "as the runtime chooses"


@dataclass(frozen=True)
class Way:
    """So many processes of so many threads, with additions to their environment."""

    processes: int
    threads: int
    environment: Mapping[str, str]


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--spins", nargs="*", default=["0", "1000", "10000", "100000"], metavar="N")
    parser.add_argument("--steps-of", metavar="CACHE", help=argparse.SUPPRESS)  # as a process of a way
    options = parser.parse_args()
    if options.steps_of:
        return take_turns(options)
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    measure(report, options)
    return report.finish(options.json)


def measure(report: measuring.Report, options: argparse.Namespace) -> None:
    ways = {f"{options.threads} threads, {DEFAULT}": Way(1, options.threads, {})}
    ways |= {f"{options.threads} threads, {n} spins": Way(1, options.threads, {SPIN: n}) for n in options.spins}
    ways |= {"1 thread": Way(1, 1, {}), f"{options.threads} processes of 1 thread": Way(options.threads, 1, {})}
    first = next(iter(ways))
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, neighbour() as busy:
        teams = {name: [process_of(way, folder, options) for _ in range(way.processes)] for name, way in ways.items()}
        for repetition in range(options.repetitions + 1):  # the first warms up
            for name, team in teams.items():
                for beside in ("alone", "beside a neighbour"):
                    busy.send_signal(signal.SIGSTOP if beside == "alone" else signal.SIGCONT)
                    rate = turn(team)
                    if repetition:
                        rates.setdefault((name, beside), []).append(rate)
        for team in teams.values():
            for process in team:
                process.kill()
    rows = []
    for name in ways:
        cells: list[str] = []
        for beside in ("alone", "beside a neighbour"):
            found = rates[name, beside]
            report.numbers[f"{name}, {beside}, images/s"] = statistics.median(found)
            against = measuring.ratio(found, rates[first, beside])
            report.ratios[f"{name} over {first}, {beside}"] = against
            spread = "" if against["spread"] is None else f" ± {100 * against['spread']:.0f} %"
            cells += [f"{statistics.median(found):.0f}", f"{against['ratio']:.2f}{spread}"]
        rows.append([name, *cells])
    measuring.print_table(["images/s", "alone", "ratio", "beside a neighbour", "ratio"], rows)


@contextmanager
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps a core busy whenever it is not stopped."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield process
    finally:
        process.kill()


def process_of(way: Way, folder: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that trains on request, ready to."""
    environment = {name: value for name, value in os.environ.items() if name not in (SPIN, "OMP_WAIT_POLICY")}
    process = subprocess.Popen(
        [sys.executable, __file__, "--steps-of", folder, "--seconds", str(options.seconds)],
        env={**environment, "OMP_NUM_THREADS": str(way.threads), **way.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def turn(team: list[subprocess.Popen[str]]) -> float:
    """Images per second of all processes of a way together."""
    for process in team:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.stdout.readline()) for process in team if process.stdout is not None)


def take_turns(options: argparse.Namespace) -> None:
    """Train for some seconds whenever a line comes, and print the images per second."""
    import torch
    from contenders import cssl_steps

    from cssl_cli.data import load_dataset
    from cssl_cli.recipe import load_recipe

    recipe = load_recipe("simclr-shapes", ["data.num_train=1000", "data.num_test=10", "train.epochs=100000"])
    dataset = load_dataset(recipe.settings("data"), cache_dir=Path(options.steps_of), progress=None)
    steps = cssl_steps(recipe, dataset, torch.device("cpu"))
    for _ in range(3):
        next(steps)
    print("ready", flush=True)
    for _ in sys.stdin:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            next(steps)
            done += recipe.train.batch_size
        print(done / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
