"""Seconds of a whole `cssl analyze` of an encoder, stage by stage, and the memory of the process at its largest.

    python benchmarks/analysis.py [--encoder resnet18] [--width 16] [--images 10000] [--views 8]
        [--distances pixels,trained] [--pairs 0] [--threads 2] [--json PATH]

Trains SimCLR for one step on drawn shapes of 32×32 pixels in ten classes to get a run, and analyses it: the cost of an
analysis hardly depends on what the encoder has learnt. The time of a stage starts at the end of the one before. The
ratio is the time that the forward passes of the two encoders would take at the machine's float32 matrix rate, over that
of the whole analysis. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import measuring

from cssl_cli.host.progress import Silent
from cssl_cli.nn.encoder import build_encoder
from cssl_cli.nn.flops import forward_flops
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.pretrain import pretrain


class Stopwatch(Silent):
    """Prints how long each task took when it ends."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        if done >= total:
            now = time.perf_counter()
            self.stages[task] = self.stages.get(task, 0.0) + now - self.last
            print(f"  {task:44s} {now - self.last:7.1f} s", flush=True)
            self.last = now


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--encoder", default="resnet18", choices=["resnet18", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--distances", default="pixels,trained", help="of concentration")
    parser.add_argument("--pairs", type=int, default=0, help="searched for nearer views")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    recipe = load_recipe(
        "simclr-cifar10",
        [
            f"data={{name: shapes, num_train: 512, num_test: {options.images}}}",
            f"encoder={{name: {options.encoder}, width: {options.width}}}",
            "train={steps: 1, batch_size: 64, precision: float32}",
            f"analyze={{num_images: {options.images}, num_views: {options.views}, refine_pairs: {options.pairs}, "
            f"distances: [{options.distances}]}}",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(recipe, out=Path(folder), reporter=Silent())
        print(
            f"{options.encoder} of width {options.width}, {options.images} images, {options.views} views, "
            f"{options.threads} threads"
        )
        measuring.reset_peak_memory()  # of measuring the rates and of training
        watch = Stopwatch()
        analyze(run.path, reporter=watch)
        seconds = time.perf_counter() - watch.began
        print(f"  {'in all':44s} {seconds:7.1f} s")
    memory = measuring.peak_memory()
    print(f"  {'memory of the process':44s} {memory / 2**30:7.2f} GiB")
    sizes = f"width {options.width}, {options.images:,} images, {options.views} views"
    case = f"{options.encoder} {sizes}, {options.distances}"
    report.numbers |= {f"seconds, {stage}: {case}": spent for stage, spent in watch.stages.items()}
    report.numbers |= {f"seconds in all: {case}": seconds, f"bytes of the process: {case}": memory}
    passes = 2 * options.images * options.views * forward_flops(build_encoder(recipe.settings("encoder")), 32)
    floor = passes / report.machine["matrix_product"]["float32"]
    report.ratios[f"floor of the forward passes over the analysis: {case}"] = measuring.ratio([floor], [seconds])
    report.finish(options.json)


if __name__ == "__main__":
    main()
