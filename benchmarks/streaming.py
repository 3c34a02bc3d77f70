"""Images that do not fit on the device: images per second of training when they are streamed to it, and when they fit.

    python benchmarks/streaming.py [--device cpu] [--threads 2] [--encoder resnet18] [--width 16] [--batch-size 128]
        [--images 4096] [--size 32] [--steps 16] [--repetitions 5] [--json PATH]

SimCLR on random images, trained as `cssl pretrain` does it, its images once resident on the device, once streamed from
host memory, and once streamed from a memory-mapped file (written to a temporary folder just before, so that most of it
is still in the system's cache: this measures the mapping, not the disk). For comparison, a plain training loop gathers
each batch on the host and copies it. Each has its own process, and they take turns.

On a CPU there is nothing to copy: only the overhead of the gathering thread remains.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import measuring
import numpy as np
import torch
from contenders import TrainingOfItsOwn, compete, cssl_steps
from drawn_images import simclr_recipe
from torch import Tensor

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.data.batches import AHEAD, Images, ResidentImages, StreamedImages
from cssl_cli.data.image_set import summarize
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device

RESIDENT = "resident"
FROM_MEMORY = "streamed from host memory"
FROM_FILE = "streamed from a mapped file"
PLAIN = "plain copies in the loop"
WAYS = (RESIDENT, FROM_MEMORY, FROM_FILE, PLAIN)


class PlainImages:
    """Images (N, C, H, W), uint8, in host memory, gathered and copied to the device when they are needed."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device

    def batches(self, orders: Iterable[Tensor]) -> Iterator[Tensor]:
        for indices in orders:
            yield self.images[indices].to(self.device)


def write_random_images(path: Path, num_images: int, size: int) -> Path:
    shape = (num_images, 3, size, size)
    np.save(path, torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(0, "benchmark")).numpy())
    return path


def images_of(way: str, path: Path, device: torch.device) -> Images:
    """The images of a file, provided in this `way`."""
    images = torch.from_numpy(np.load(path, mmap_mode="c" if way == FROM_FILE else None))
    if way == RESIDENT:
        return ResidentImages(images.to(device))
    return PlainImages(images, device) if way == PLAIN else StreamedImages(images, device)


def steps_of(way: str, recipe: Recipe, path: Path, device: torch.device) -> Iterator[None]:
    """Yields once for each training step on the images of a file."""
    choose_device(device.type)
    return cssl_steps(recipe, mapped_dataset(path), device, images_of(way, path, device))


def mapped_dataset(path: Path) -> Dataset:
    """The data set that a trainer needs, for the images of a file."""
    images = torch.from_numpy(np.load(path, mmap_mode="c"))
    summary = summarize(images)
    pretrain = ImageSet(images, None, summary)
    return Dataset("random", (), pretrain, None, None, summary.mean, summary.std, summary.digest, images.shape[-1])


def main() -> None:
    parser = measuring.option_parser(__doc__, cuda=True)
    parser.add_argument("--encoder", default="resnet18", choices=["resnet18", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=32, help="side of an image, in pixels")
    parser.add_argument("--steps", type=int, default=16, help="timed in a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the recipe; repeatable"
    )
    options = parser.parse_args()
    device = choose_device(measuring.prepare(options).type)
    report = measuring.Report(measuring.machine(device))
    with tempfile.TemporaryDirectory() as name:
        path = write_random_images(Path(name) / "images.npy", options.images, options.size)
        recipe = simclr_recipe(
            Path(name),
            encoder=options.encoder,
            width=options.width,
            batch_size=options.batch_size,
            overrides=options.set,
        )
        contenders = {
            way: TrainingOfItsOwn(
                steps_of, way, recipe, path, device,
                threads=options.threads, device=device, num_steps=options.steps, untimed=AHEAD + 1,
            )
            for way in WAYS
        }  # fmt: skip
        seconds = compete(contenders, repetitions=options.repetitions, rest=False)
        for contender in contenders.values():
            contender.process.shutdown()
    show(report, seconds, options)
    report.finish(options.json)


def show(report: measuring.Report, seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    case = f"{options.encoder} width {options.width}, batch {options.batch_size}, side {options.size}"
    print(f"{case}, {options.images:,} images, {options.threads} threads")
    rows = []
    for way, values in seconds.items():
        speed = options.batch_size / statistics.median(values)
        report.numbers[f"{way}, images/s: {case}"] = speed
        rows.append([way, f"{speed:,.0f}", f"{measuring.ratio(seconds[RESIDENT], values)['ratio']:.3f}"])
    measuring.print_table(["", "images/s", "of resident"], rows)
    for way in (FROM_MEMORY, FROM_FILE):
        report.ratios[f"{way} over resident: {case}"] = measuring.ratio(seconds[RESIDENT], seconds[way])
    report.ratios[f"{FROM_MEMORY} over {PLAIN}: {case}"] = measuring.ratio(seconds[PLAIN], seconds[FROM_MEMORY])
    if options.device == "cpu":
        print("\non a CPU nothing is copied to a device: this shows only the overhead of the gathering thread")


if __name__ == "__main__":
    main()
