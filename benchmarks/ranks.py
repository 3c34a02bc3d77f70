"""Ranks: throughput of one process and of several for one run, and what a step exchanges, measured and on paper.

    python benchmarks/ranks.py [--recipes simclr-shapes ...] [--ranks 1 2 4] [--steps 15] [--repetitions 5]
    python benchmarks/ranks.py --batch-size 1024 --steps 2 --repetitions 1      # for memory
    python benchmarks/ranks.py --paper [--bandwidth 25e9]

The ways take turns, each of so many steps of the same batches; ranks have one thread each. What is exchanged is
counted: the numbers that a rank gives into sums and gathers in a step; memory is the most that a rank held beyond what
it held before its first step. On paper: the same for a ResNet-50 at 224
pixels, and how long it takes at a bandwidth and a latency, one exchange after the other, against the operations of the
network and the loss.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring

RECIPES = ["simclr-shapes", "barlow_twins-shapes"]

# ---------------------------------------------------------------------- on paper
PIXELS, FORWARD = 224, 8.2e9  # operations of a ResNet-50 for one image
WEIGHTS, NORMS, CHANNELS = 23.5e6, 53, 26_560  # batch norms, and their channels in all
RATE, LATENCY = 300e12, 20e-6  # operations/s of a GPU; seconds of an exchange, for each doubling of the ranks
BATCH = 4096
LOSSES = {"SimCLR, P = 128": 128, "Barlow Twins, P = 8,192": 8192}


def on_paper(width: int, size: int, batch: int, bandwidth: float) -> dict[str, float]:
    """What a rank of `size` sends in a step, in bytes and exchanges, and the seconds of exchanges and of operations."""
    wide = width > 128
    passes = 2 if wide else 1  # each view by itself, or both at once
    weights = WEIGHTS + (2048 * width + 2 * width**2 if wide else 2048 * 512 + 512 * width)
    of_sum, of_rows = 2 * (size - 1) / size, size - 1  # what is sent of each byte of a sum, and of a rank's rows
    sent = 4 * weights * of_sum + passes * 8 * CHANNELS * (of_rows + of_sum)
    exchanges = 1 + passes * 2 * NORMS
    if wide:  # blocks of the cross-correlation, and moments of the columns
        sent += 4 * width**2 * of_sum
        exchanges += math.ceil(width / max(2**24 // width, 128)) + 8
        of_loss = 6 * batch * width**2 / size
    else:  # projections of all, their log-sum-exps and gradients
        sent += (8 * batch * width + 16 * batch) / size * of_rows
        exchanges += 2
        of_loss = 6 * (2 * batch) ** 2 * width / size
    seconds = sent / bandwidth + exchanges * LATENCY * math.log2(size)
    computed = (3 * 2 * batch / size * FORWARD + of_loss) / RATE
    return {"MB": sent / 1e6, "exchanges": exchanges if size > 1 else 0, "seconds": seconds, "computed": computed}


def show_paper(bandwidth: float) -> None:
    rows = []
    for loss, width in LOSSES.items():
        for size in (1, 2, 8, 64, 256, 1024):
            found = on_paper(width, size, BATCH, bandwidth)
            share = found["seconds"] / (found["seconds"] + found["computed"])
            times = f"{1e3 * found['seconds']:.1f}", f"{1e3 * found['computed']:.1f}", f"{100 * share:.0f} %"
            rows.append([loss, f"{size:,}", f"{found['MB']:,.0f}", f"{found['exchanges']:.0f}", *times])
    head = [f"a batch of {BATCH:,}", "GPUs", "MB sent", "exchanges", "exchanges, ms", "operations, ms", "share"]
    measuring.print_table(head, rows)


# ---------------------------------------------------------------------- measured
def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--recipes", nargs="*", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--ranks", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15, help="of a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--paper", action="store_true", help="what it would be on many GPUs")
    parser.add_argument("--bandwidth", type=float, default=25e9, help="on paper: bytes/s of each GPU")
    parser.add_argument("--rank-of", metavar="RECIPE", help=argparse.SUPPRESS)  # as a process of a way
    options = parser.parse_args()
    if options.rank_of:
        return be_a_rank(options)
    if options.paper:
        return show_paper(options.bandwidth)
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    for recipe in options.recipes:
        measure(recipe, report, options)
    return report.finish(options.json)


def measure(recipe: str, report: measuring.Report, options: argparse.Namespace) -> None:
    ways = {f"1 process, {options.threads} threads": (1, options.threads, False)}
    ways |= {f"{size} {'rank' if size == 1 else 'ranks'} of {one} threads": (size, one, True)
             for size in options.ranks for one in ([options.threads, 1] if size == 1 else [1])}  # fmt: skip
    first = next(iter(ways))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    exchanged: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        teams = {name: started(recipe, folder, options, *way) for name, way in ways.items()}
        for repetition in range(options.repetitions + 1):  # the first warms up
            for name, team in teams.items():
                seconds, exchanged[name] = turn(team)
                if repetition:
                    rates[name].append(options.steps * options.batch_size / seconds)
        for team in teams.values():
            for process in team:
                process.kill()
    rows = []
    for name, found in rates.items():
        against = measuring.ratio(found, rates[first])
        report.numbers[f"{recipe}, {name}, images/s"] = statistics.median(found)
        report.ratios[f"{recipe}, {name} over {first}"] = against
        spread = "" if against["spread"] is None else f" ± {100 * against['spread']:.0f} %"
        rows.append([name, f"{statistics.median(found):.0f}", f"{against['ratio']:.2f}{spread}", *exchanged[name]])
        report.numbers[f"{recipe}, {name}, peak MiB"] = float(exchanged[name][1])
    head = [f"{recipe}, batch {options.batch_size}", "images/s", "ratio", "exchanged in a step", "peak MiB of a rank"]
    measuring.print_table(head, rows)


def started(
    recipe: str, folder: str, options: argparse.Namespace, size: int, threads: int, launched: bool
) -> list[subprocess.Popen[str]]:
    """The processes of a way, ready to train on request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if launched:
            environment |= {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        words = ["--rank-of", recipe, "--steps", str(options.steps), "--batch-size", str(options.batch_size)]
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, *words, "--threads", str(threads)],
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    return processes


def turn(team: list[subprocess.Popen[str]]) -> tuple[float, list[str]]:
    """The seconds of the slowest process of a way, what a rank exchanged in a step, and the most MiB of one."""
    for process in team:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [process.stdout.readline().strip().split("; ") for process in team if process.stdout is not None]
    return max(float(line[0]) for line in lines), [lines[0][1], f"{max(float(line[2]) for line in lines):.0f}"]


class Counting:
    """A process group that counts what it is given."""

    def __init__(self, group: Any) -> None:
        self.group, self.num, self.bytes = group, 0, 0

    def allreduce(self, tensors: list[Any], operation: Any) -> Any:
        self._count(tensors)
        return self.group.allreduce(tensors, operation)

    def allgather(self, outputs: list[list[Any]], inputs: list[Any]) -> Any:
        self._count(inputs)
        return self.group.allgather(outputs, inputs)

    def _count(self, tensors: list[Any]) -> None:
        self.num += 1
        self.bytes += sum(tensor.nbytes for tensor in tensors)


def be_a_rank(options: argparse.Namespace) -> None:
    """Train for some steps whenever a line comes, and print the seconds and what was exchanged."""
    import torch

    from cssl_cli.data import load_dataset
    from cssl_cli.nn import ranks as exchanges
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.team import team_of
    from cssl_cli.runs.trainer import make_trainer

    torch.set_num_threads(options.threads)
    sizes = ["data.num_train=1024", "data.num_test=10", "train.epochs=100000", f"train.batch_size={options.batch_size}"]
    recipe = load_recipe(options.rank_of, [*sizes, "train.precision=float32"])
    dataset = load_dataset(recipe.settings("data"), cache_dir=Path.cwd(), progress=None)
    with team_of() as team:
        counting = Counting(None)
        if not team.ranks.alone:
            exchange = exchanges._EXCHANGES[team.ranks.key]
            counting.group, exchange.group = exchange.group, counting  # type: ignore[assignment]
        steps = make_trainer(recipe, dataset, torch.device("cpu"), ranks=team.ranks).run()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        held = resident("VmRSS")
        for _ in range(3):
            next(steps)
        print("ready", flush=True)
        for _ in sys.stdin:
            counting.num = counting.bytes = 0
            began = time.perf_counter()
            for _ in range(options.steps):
                next(steps)
            seconds = time.perf_counter() - began
            num, sent = counting.num / options.steps, counting.bytes / options.steps
            said = f"{num:.0f} exchanges, {sent / 1e3:,.0f} kB" if num else "nothing"
            print(f"{seconds}; {said}; {resident('VmHWM') - held:.1f}", flush=True)


def resident(name: str) -> float:
    """MiB of memory that this process holds (VmRSS), or held at most (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 2**10


if __name__ == "__main__":
    main()
