"""Seconds of a whole `cssl analyze` of a ResNet-18, stage by stage, and the memory of the process at its largest.

    python benchmarks/analysis.py [--width 16] [--images 10000] [--views 8] [--distances pixels,trained] [--pairs 0]
        [--threads 2]

Trains SimCLR for one step on drawn shapes of 32×32 pixels in ten classes, so that there is a run, and analyses it: what
an analysis costs hardly depends on what the encoder has learnt. A stage's time runs from the end of the one before.
Measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from cssl_cli.pipeline.analyze import analyze
from cssl_cli.pipeline.pretrain import pretrain
from cssl_cli.progress import Silent
from cssl_cli.recipe import load_recipe


class Stopwatch(Silent):
    """Prints how long each task took when it ends."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        if done >= total:
            now = time.perf_counter()
            print(f"  {task:44s} {now - self.last:7.1f} s", flush=True)
            self.last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--distances", default="pixels,trained", help="of concentration")
    parser.add_argument("--pairs", type=int, default=0, help="searched for nearer views")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(
        "simclr-cifar10",
        [
            f"data={{name: shapes, num_train: 512, num_test: {options.images}}}",
            f"encoder.width={options.width}",
            "train={steps: 1, batch_size: 64, precision: float32}",
            f"analyze={{num_images: {options.images}, num_views: {options.views}, refine_pairs: {options.pairs}, "
            f"distances: [{options.distances}]}}",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(recipe, out=Path(folder), reporter=Silent())
        print(
            f"resnet18 of width {options.width}, {options.images} images, {options.views} views, "
            f"{options.threads} threads"
        )
        watch = Stopwatch()
        analyze(run.path, reporter=watch)
        print(f"  {'in all':44s} {time.perf_counter() - watch.began:7.1f} s")
    print(f"  {'memory of the process':44s} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:7.2f} GiB")


if __name__ == "__main__":
    main()
