"""Seconds and peak memory of the losses at scale: in blocks, as cssl computes them, against plain dense formulas.

    python benchmarks/losses.py [--threads 2] [--batches 512 2048 8192] [--widths 512 2048 8192] [--rounds 3]
        [--json PATH]

NT-Xent of B images in two views, P = 128, and Barlow Twins of 256 images at P columns; float32, forward and backward.
Each measurement is in a process of its own: the median time of a few repetitions, and by how much the process grew at
its largest over what it was with its input and after the same on a few images. The two ways take turns, and their
ratios are the medians over the rounds.

Beside them stand the floor: the products that the dense way needs (3: scores or correlation, and their gradient for
both factors), timed at the rate of a large matrix product in the same run, and the share of it reached; and the memory
in units of one whole matrix, (2B)² or P² numbers. The share may exceed 1: in blocks NT-Xent makes use of the symmetry
and takes 2 products. At B = 8,192 the dense formula takes 4.3 matrices of 1 GiB.
Threads wait for one another: measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.methods.barlow_twins import VARIANCE_FLOOR, barlow_twins_loss
from cssl_cli.methods.simclr import nt_xent_loss
from cssl_cli.randomness import stream

TEMPERATURE, LAMBDA = 0.5, 0.005
NT_XENT_WIDTH = 128
BARLOW_TWINS_BATCH = 256
SECONDS = 2.0  # over which a measurement is repeated, and at least twice
TO_MEBIBYTES = 2**20 if sys.platform == "darwin" else 2**10  # the unit of ru_maxrss
RATE_SIDE = 2048


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


LOSSES: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "nt_xent": {"blocks": lambda a, b: nt_xent_loss(a, b, temperature=TEMPERATURE), "dense": dense_nt_xent},
    "barlow_twins": {"blocks": lambda a, b: barlow_twins_loss(a, b, lambda_=LAMBDA), "dense": dense_barlow_twins},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[512, 2048, 8192], help="of NT-Xent")
    parser.add_argument("--widths", type=int, nargs="*", default=[512, 2048, 8192], help="of Barlow Twins")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the numbers as {name: number}")
    options = parser.parse_args()

    print(f"{options.threads} threads, {options.rounds} rounds; dense → in blocks; seconds of forward and backward")
    print(f"{'':22s} {'seconds':>16s} {'ratio':>6s} {'of floor':>8s} {'MiB':>16s} {'ratio':>6s} {'matrices':>14s}")
    numbers: dict[str, float] = {}
    for name, sizes in (("nt_xent", options.batches), ("barlow_twins", options.widths)):
        for size in sizes:
            numbers |= compare(name, size, options)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def compare(name: str, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Measure one loss at one size in turns, print a line, and return its numbers."""
    rounds = [
        {way: in_its_own_process(measure, options.threads, name, way, size) for way in ("dense", "blocks")}
        for _ in range(options.rounds)
    ]
    rate = statistics.median(in_its_own_process(matrix_rate, options.threads) for _ in rounds)
    side, depth = (2 * size, NT_XENT_WIDTH) if name == "nt_xent" else (size, BARLOW_TWINS_BATCH)
    seconds = {way: statistics.median(turn[way][0] for turn in rounds) for way in ("dense", "blocks")}
    memory = {way: statistics.median(turn[way][1] for turn in rounds) for way in ("dense", "blocks")}
    found = {
        "seconds": seconds["blocks"],
        "seconds_ratio": statistics.median(turn["blocks"][0] / turn["dense"][0] for turn in rounds),
        "of_floor": 3 * 2 * side**2 * depth / rate / seconds["blocks"],
        "mebibytes": memory["blocks"],
        "mebibytes_ratio": statistics.median(turn["blocks"][1] / turn["dense"][1] for turn in rounds),
        "matrices": memory["blocks"] / (4 * side**2 / 2**20),
    }
    dense_matrices = memory["dense"] / (4 * side**2 / 2**20)
    print(
        f"{name + (' B = ' if name == 'nt_xent' else ' P = ') + format(size, ','):22s} "
        f"{seconds['dense']:7.3f} {seconds['blocks']:8.3f} {found['seconds_ratio']:6.2f} {found['of_floor']:8.2f} "
        f"{memory['dense']:7.0f} {memory['blocks']:8.0f} {found['mebibytes_ratio']:6.2f} "
        f"{dense_matrices:6.1f} {found['matrices']:7.2f}",
        flush=True,
    )
    return {f"{name}_{size}_{key}": value for key, value in found.items()}


def in_its_own_process(function: Callable, *arguments: object):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(threads: int, name: str, way: str, size: int) -> tuple[float, float]:
    """Seconds of forward and backward, and MiB by which the process grew at its largest."""
    torch.set_num_threads(threads)
    shape = (size, NT_XENT_WIDTH) if name == "nt_xent" else (BARLOW_TWINS_BATCH, size)
    generator = stream(0, "benchmark")
    views = [torch.randn(shape, generator=generator) for _ in range(2)]
    step(name, way, [view[:32, :64].clone() for view in views])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = [step(name, way, views)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        seconds.append(step(name, way, views))
    return statistics.median(seconds[1:]), grown / TO_MEBIBYTES


def step(name: str, way: str, views: list[Tensor]) -> float:
    inputs = [view.requires_grad_() for view in views]
    started = time.perf_counter()
    torch.autograd.grad(LOSSES[name][way](*inputs), inputs)
    return time.perf_counter() - started


def matrix_rate(threads: int) -> float:
    """Operations a second of a large product of float32 matrices."""
    torch.set_num_threads(threads)
    factor = torch.randn(RATE_SIDE, RATE_SIDE, generator=stream(0, "benchmark"))
    seconds = []
    while len(seconds) < 3 or sum(seconds) < SECONDS:
        started = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - started)
    return 2 * RATE_SIDE**3 / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
