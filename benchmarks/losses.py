"""Seconds and peak memory of the losses at scale: in blocks, as cssl computes them, against plain dense formulas.

    python benchmarks/losses.py [--threads 2] [--batches 512 2048 8192] [--widths 512 2048 8192] [--rounds 3]
        [--seconds 2] [--json PATH]

NT-Xent of B images in two views, P = 128, and Barlow Twins of 256 images at P columns; float32, forward and backward.
Each measurement has its own process: the median time of a few repetitions, and the peak growth of the process beyond
its input, after a run on a few images. The two implementations take turns; ratios are medians over the rounds.

For comparison: the floor, that is the products that the dense formula needs (3: scores or correlation, and their
gradient for both factors) at the rate of a large matrix product in the same run, and the share of it reached; and
memory in units of one whole matrix, (2B)² or P² numbers. The share may exceed 1: in blocks NT-Xent uses the symmetry
and takes 2 products. At B = 8,192 the dense formula takes 4.3 matrices of 1 GiB. Threads wait for one another: measure
on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import NamedTuple

import measuring
import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.host.randomness import stream
from cssl_cli.methods.barlow_twins import VARIANCE_FLOOR, barlow_twins_loss
from cssl_cli.methods.simclr import nt_xent_loss

TEMPERATURE, LAMBDA = 0.5, 0.005
NT_XENT_WIDTH = 128
BARLOW_TWINS_BATCH = 256
DENSE_PRODUCTS = 3
PLAIN, OURS = "plain formula", "cssl"


def dense_nt_xent(z_1: Tensor, z_2: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    scores = z @ z.T / TEMPERATURE
    positive = torch.cat([scores.diagonal(len(z_1)), scores.diagonal(-len(z_1))])
    others = scores.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return (others.logsumexp(dim=1) - positive).mean()


def dense_barlow_twins(z_1: Tensor, z_2: Tensor) -> Tensor:
    z_1, z_2 = ((z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + VARIANCE_FLOOR).sqrt() for z in (z_1, z_2))
    correlation = z_1.T @ z_2 / len(z_1)
    diagonal = correlation.diagonal()
    off_diagonal = correlation - torch.diag(diagonal)
    return (1 - diagonal).square().sum() + LAMBDA * off_diagonal.square().sum()


class Loss(NamedTuple):
    """A loss of two tensors in both implementations; `size` names what its matrix grows with."""

    size: str
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]]


LOSSES = {
    "NT-Xent": Loss(
        "B", {PLAIN: dense_nt_xent, OURS: lambda z_1, z_2: nt_xent_loss(z_1, z_2, temperature=TEMPERATURE)}
    ),
    "Barlow Twins": Loss(
        "P", {PLAIN: dense_barlow_twins, OURS: lambda z_1, z_2: barlow_twins_loss(z_1, z_2, lambda_=LAMBDA)}
    ),
}


class Cost(NamedTuple):
    """Seconds of forward and backward, and the peak growth of the process in bytes."""

    seconds: float
    memory: int


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=[512, 2048, 8192], help="of NT-Xent")
    parser.add_argument("--widths", type=int, nargs="*", default=[512, 2048, 8192], help="of Barlow Twins")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement, at least")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    print(f"forward and backward, {options.threads} threads, {options.rounds} rounds: {PLAIN} → {OURS}")
    headings = ["", "seconds", "ratio", "of the floor", "MiB", "ratio", "matrices"]
    rows = [compare(report, "NT-Xent", size, options) for size in options.batches]
    rows += [compare(report, "Barlow Twins", size, options) for size in options.widths]
    measuring.print_table(headings, rows)
    report.finish(options.json)


def compare(report: measuring.Report, name: str, size: int, options: argparse.Namespace) -> list[str]:
    """Measures one loss at one size in turns, adds the result to the report and returns its table row."""
    loss = LOSSES[name]
    costs: dict[str, list[Cost]] = {way: [] for way in loss.ways}
    for _ in range(options.rounds):
        for way, found in costs.items():
            found.append(measuring.in_own_process(measure, options.threads, options.seconds, name, way, size))
    case = f"{loss.size} = {size:,}"
    seconds = {way: [cost.seconds for cost in found] for way, found in costs.items()}
    memory = {way: [cost.memory for cost in found] for way, found in costs.items()}
    faster, smaller = (measuring.ratio(values[PLAIN], values[OURS]) for values in (seconds, memory))
    report.ratios[f"{name}, the plain formula's seconds over cssl's: {case}"] = faster
    report.ratios[f"{name}, the plain formula's memory over cssl's: {case}"] = smaller
    side, depth = (2 * size, NT_XENT_WIDTH) if name == "NT-Xent" else (size, BARLOW_TWINS_BATCH)
    floor = DENSE_PRODUCTS * 2 * side**2 * depth / report.machine["matrix_product"]["float32"]
    share = floor / statistics.median(seconds[OURS])
    for way in costs:
        report.numbers[f"{name}, {way}, seconds: {case}"] = statistics.median(seconds[way])
        report.numbers[f"{name}, {way}, bytes: {case}"] = statistics.median(memory[way])
    report.numbers[f"{name}, share of the floor: {case}"] = share
    return [
        f"{name}, {case}",
        " → ".join(f"{statistics.median(values):.4f}" for values in seconds.values()),
        f"{faster['ratio']:.2f}",
        f"{share:.2f}",
        " → ".join(f"{statistics.median(values) / 2**20:,.1f}" for values in memory.values()),
        f"{smaller['ratio']:.1f}",
        " → ".join(f"{statistics.median(values) / (4 * side**2):.2f}" for values in memory.values()),
    ]


def measure(threads: int, seconds: float, name: str, way: str, size: int) -> Cost:
    """The cost of one implementation, measured in this process."""
    torch.set_num_threads(threads)
    shape = (size, NT_XENT_WIDTH) if name == "NT-Xent" else (BARLOW_TWINS_BATCH, size)
    generator = stream(0, "benchmark")
    views = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(2)]
    function = LOSSES[name].ways[way]
    few = [view[:32, :64].detach().clone().requires_grad_() for view in views]
    torch.autograd.grad(function(*few), few)
    measuring.reset_peak_memory()
    before = measuring.peak_memory()

    def step() -> None:
        torch.autograd.grad(function(*views), views)

    step()
    grown = measuring.peak_memory() - before
    spent: list[float] = []
    while len(spent) < 2 or sum(spent) < seconds:
        spent.append(measuring.seconds_of(step))
    return Cost(statistics.median(spent), max(1, grown))


if __name__ == "__main__":
    main()
