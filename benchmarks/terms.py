"""Seconds and peak memory of all terms of a table of features, term by term, for tables of growing size.

    python benchmarks/terms.py [--threads 2] [--classes 10] [--images 100 300 1000] [--views 8] [--width 512]
        [--bootstrap 200] [--repetitions 1] [--json PATH]

Features are clusters on the unit sphere with views around each image. Each size runs in its own process; its memory is
that of the whole process, table and libraries included. The ratio is the time that the distances within classes
alone (N² V² D / K operations) would take at the machine's float32 matrix rate, measured in the same process, over that
of all terms. Threads wait for one another: measure on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import measuring
import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.randomness import stream
from cssl_cli.runs.machine import matrix_rate
from cssl_cli.theory.analysis import LossSettings, analyze_table


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000], help="of each class")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=1)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    print(f"{options.classes} classes, {options.views} views, width {options.width}, {options.threads} threads")
    for images in options.images:
        runs = [measuring.in_own_process(measure, options, images) for _ in range(options.repetitions)]
        num_images = options.classes * images
        case = f"{num_images:,} images, {options.views} views, width {options.width}"
        seconds = statistics.median(run["seconds"] for run in runs)
        memory = statistics.median(run["memory"] for run in runs)
        print(f"\n{num_images:,} images: {seconds:.1f} s, process at most {memory / 2**30:.2f} GiB")
        slowest = sorted(runs[-1]["of_terms"].items(), key=lambda item: -item[1])[:6]
        print("   " + ", ".join(f"{name} {spent:.1f} s" for name, spent in slowest), flush=True)
        report.numbers |= {f"seconds: {case}": seconds, f"bytes of the process: {case}": memory}
        operations = (num_images * options.views) ** 2 * options.width / options.classes
        report.ratios[f"floor of the distances over all terms: {case}"] = measuring.ratio(
            [operations / run["rate"] for run in runs], [run["seconds"] for run in runs]
        )
    report.finish(options.json)


def measure(options: argparse.Namespace, images: int) -> dict[str, Any]:
    """Total seconds and those of each term, peak bytes, and the rate of matrix products just before."""
    torch.set_num_threads(options.threads)
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    measuring.reset_peak_memory()
    features, labels = table(options.classes, images, options.views, options.width)
    seconds: list[float] = []
    started = time.perf_counter()
    last = started

    def advance(_done: int, _total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds.append(now - last)
        last = now

    found = analyze_table(
        features,
        labels,
        class_names=[f"class {label}" for label in range(options.classes)],
        epsilons=[round(0.1 * step, 1) for step in range(1, 16)],
        bootstrap=options.bootstrap,
        loss=LossSettings(temperature=0.5, batch_size=256),
        theta=torch.rand(len(features), options.views - 1, 12, generator=stream(0, "theta")),
        baseline=features,
        generator=stream(0, "bootstrap"),
        advance=advance,
    )
    total = time.perf_counter() - started
    of_terms = dict(zip(found, seconds, strict=True))
    return {"seconds": total, "of_terms": of_terms, "memory": measuring.peak_memory(), "rate": rate}


def table(num_classes: int, images: int, num_views: int, width: int) -> tuple[Tensor, Tensor]:
    """Unit-norm features (N, V, D), float32, and labels (N,)."""
    generator = stream(0, "table")
    labels = torch.arange(num_classes).repeat_interleave(images)
    centers = torch.randn(num_classes, width, generator=generator)
    per_image = torch.randn(len(labels), width, generator=generator)
    views = torch.randn(len(labels), num_views, width, generator=generator)
    return unit_norm((centers[labels] + 0.7 * per_image).unsqueeze(1) + 0.3 * views), labels


if __name__ == "__main__":
    main()
