"""Seconds and peak memory of the concentration terms: classes of pixel views, and of features, of growing size.

    python benchmarks/concentration.py [--threads 2] [--classes 10] [--images 100 300 1000] [--views 8] [--side 32]
        [--width 512] [--pairs 500] [--repetitions 1] [--json PATH]

Images are smooth random fields of random contrast with a little noise, and features are clusters, so that the graphs of
augmented distances are as structured as those of photographs; bounding a clique takes longer on unstructured graphs.
Each measurement runs in its own process; its memory counts what concentration takes beyond the data. The ratios
are the time that the distances of all views within classes would take at the machine's float32 matrix rate, measured in
the same process, over the whole. Threads wait for one another: measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import measuring
import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.augment import build_augmentation
from cssl_cli.features.extractor import stored_views
from cssl_cli.host.randomness import stream
from cssl_cli.runs.machine import matrix_rate
from cssl_cli.theory.concentration.pixel_vectors import pixels, standardized_pixels
from cssl_cli.theory.concentration.refined_distance import refined_concentration
from cssl_cli.theory.concentration.sigma import concentration

AUGMENT: dict[str, dict[str, Any]] = {
    "crop": {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
}
DELTAS = [round(0.1 * step, 1) for step in range(1, 16)]
DISTANCES = {"pixels": pixels, "standardized_pixels": standardized_pixels}


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000], help="of each class")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=500, help="searched for nearer views; 0 for none")
    parser.add_argument("--repetitions", type=int, default=1)
    options = parser.parse_args()
    found = measuring.Report(measuring.machine(measuring.prepare(options)))
    print(f"{options.classes} classes, {options.views} views, {len(DELTAS)} deltas, {options.threads} threads")
    for images in options.images:
        for name in (*DISTANCES, "features"):
            add(found, f"{images} images a class, {name}", options, name, images)
    if options.pairs:
        for name in DISTANCES:
            add(found, f"search over {options.pairs} + {options.pairs} pairs, {name}", options, f"search {name}", 100)
    found.finish(options.json)


def add(found: measuring.Report, title: str, options: argparse.Namespace, name: str, images: int) -> None:
    runs = [measuring.in_own_process(measure, options, name, images) for _ in range(options.repetitions)]
    seconds, cpu_seconds, memory, _ = (statistics.median(values) for values in zip(*runs, strict=True))
    print(f"  {title:58s} {seconds:7.1f} s {cpu_seconds:7.1f} CPU s {memory / 2**20:7.0f} MiB", flush=True)
    found.numbers |= {f"seconds: {title}": seconds, f"bytes: {title}": memory}
    if not name.startswith("search"):
        dimension = options.width if name == "features" else 3 * options.side**2
        operations = options.classes * (images * options.views) ** 2 * dimension
        found.ratios[f"floor of the distances over concentration: {title}"] = measuring.ratio(
            [operations / rate for *_, rate in runs], [spent for spent, *_ in runs]
        )


def measure(options: argparse.Namespace, name: str, images_of_each: int) -> tuple[float, float, float, float]:
    """Seconds, seconds of all cores together, bytes by which the process grew at its largest, and the matrix rate."""
    torch.set_num_threads(options.threads)
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    labels = torch.arange(options.classes).repeat_interleave(images_of_each)
    run = features_run(options, labels) if name == "features" else pixel_run(options, labels, name)
    measuring.reset_peak_memory()
    before = measuring.peak_memory()
    cpu_start = time.process_time()
    seconds = measuring.seconds_of(run)
    return seconds, time.process_time() - cpu_start, measuring.peak_memory() - before, rate


def pixel_run(options: argparse.Namespace, labels: Tensor, name: str) -> Callable[[], object]:
    generator = stream(0, "benchmark")
    images = random_images(len(labels), options.side, generator)
    augmentation = build_augmentation(AUGMENT, image_size=options.side)
    theta = augmentation.draw(len(labels) * (options.views - 1), generator).unflatten(0, (len(labels), -1))
    to_vectors = DISTANCES[name.removeprefix("search ")]
    if name.startswith("search"):
        return lambda: refined_concentration(
            images,
            labels,
            class_names(options),
            augmentation,
            theta,
            to_vectors=to_vectors,
            num_pairs=options.pairs,
            steps=60,
            deltas_absolute=[20 * delta for delta in DELTAS],
            generator=generator,
            device=torch.device("cpu"),
        )

    def vectors_of(rows: Tensor) -> Tensor:
        views = stored_views(images[rows], augmentation, theta[rows])
        return to_vectors(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    return concentration_run(options, labels, vectors_of)


def features_run(options: argparse.Namespace, labels: Tensor) -> Callable[[], object]:
    generator = stream(0, "benchmark")
    centers = torch.randn(options.classes, 1, options.width, generator=generator)
    table = torch.randn(len(labels), options.views, options.width, generator=generator).mul_(0.5)
    table += centers[labels] + torch.randn(len(labels), 1, options.width, generator=generator)
    table = F.normalize(table, dim=2)
    return concentration_run(options, labels, lambda rows: table[rows])


def concentration_run(
    options: argparse.Namespace, labels: Tensor, vectors_of: Callable[[Tensor], Tensor]
) -> Callable[[], object]:
    return lambda: concentration(
        vectors_of,
        labels,
        class_names(options),
        num_views=options.views,
        deltas=DELTAS,
        between_images=1000,
        generator=stream(0, "concentration"),
    )


def class_names(options: argparse.Namespace) -> list[str]:
    return [f"class {label}" for label in range(options.classes)]


def random_images(num: int, side: int, generator: torch.Generator) -> Tensor:
    """Smooth uint8 fields (N, 3, side, side) of random brightness and contrast, with noise."""
    coarse = torch.randn(num, 3, 4, 4, generator=generator) + torch.randn(num, 1, 1, 1, generator=generator)
    contrast = 0.05 + 0.25 * torch.rand(num, 1, 1, 1, generator=generator)
    fields = [
        F.interpolate(some, size=side, mode="bicubic")
        + 0.2 * torch.randn(len(some), 3, side, side, generator=generator)
        for some in coarse.split(1000)
    ]
    parts = zip(fields, contrast.split(1000), strict=True)
    return torch.cat([(255 * (0.5 + some * scale)).clamp(0, 255).byte() for some, scale in parts])


if __name__ == "__main__":
    main()
