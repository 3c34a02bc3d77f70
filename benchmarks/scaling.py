"""How cost grows: pretraining against batch size and width, memory against batch size, analysis against images, views.

    python benchmarks/scaling.py [--threads 2] [--device cpu] [--quick] [--figure PATH.svg] [--json PATH]

Images/s of pretraining (SimCLR, ResNet-18, drawn images of 32×32): all sizes take turns in one process. Memory: each
size trains for some steps in its own process, which counts what it takes beyond the loaded images and libraries; on a
GPU, the peak of what torch allocated. Analysis: all terms of a table of features (benchmarks/terms.py), in its own
process for each size. The ratios are those of the largest size to the smallest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

import measuring
import terms
import torch
from contenders import Training, compete, cssl_steps
from drawn_images import simclr_recipe, write_images
from scaling_figure import Panel, draw

from cssl_cli.data import load_dataset
from cssl_cli.runs.device import choose_device

MEMORY_STEPS = 3
LEAST_IMAGES = 20  # some of every class
OTHER_VIEWS, OTHER_IMAGES = 8, 1000  # of an analysis where the number of the other grows


def main() -> None:
    options = parse()
    device = choose_device(measuring.prepare(options).type)
    report = measuring.Report(measuring.machine(device))
    with tempfile.TemporaryDirectory() as name:
        root = write_images(Path(name), max(*options.batch_sizes, options.turn_images, LEAST_IMAGES))
        panels = [*speed(report, options, root, device), memory(report, options, root)]
    panels += analysis(report, options)
    for panel in panels:
        add_ratio(report, panel)
    if options.figure is not None:
        for path in draw(panels, report.machine, options.figure):
            print(f"figure {path}")
    report.finish(options.json)


def parse() -> argparse.Namespace:
    parser = measuring.option_parser(__doc__, cuda=True)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--batch-size", type=int, default=128, help="where the width grows")
    parser.add_argument("--width", type=int, default=16, help="where the batch size grows")
    parser.add_argument("--turn-images", type=int, default=1024, help="images of a turn")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--analysis-images", type=int, nargs="+", default=[300, 1000, 3000], help="with 8 views")
    parser.add_argument("--analysis-views", type=int, nargs="+", default=[4, 8, 16], help="of 1,000 images")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    parser.add_argument("--figure", type=Path, metavar="PATH.svg", help="draw a figure, as SVG and PNG")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the recipe; repeatable"
    )
    options = parser.parse_args()
    if options.quick:
        options.batch_sizes, options.widths = options.batch_sizes[:3:2], options.widths[:2]
        options.analysis_images, options.analysis_views = options.analysis_images[:2], options.analysis_views[:2]
    return options


# ------------------------------------------------------------------------------------------------------- pretraining
def speed(report: measuring.Report, options: argparse.Namespace, root: Path, device: torch.device) -> list[Panel]:
    of_batch = [(batch_size, options.width) for batch_size in options.batch_sizes]
    of_width = [(options.batch_size, width) for width in options.widths]
    sizes = {f"batch {batch_size}, width {width}": (batch_size, width) for batch_size, width in of_batch + of_width}
    contenders = {}
    for name, (batch_size, width) in sizes.items():
        recipe = simclr_recipe(root, encoder="resnet18", width=width, batch_size=batch_size, overrides=options.set)
        dataset = load_dataset(recipe.settings("data"), cache_dir=root.parent / "cache", progress=None)
        num_steps = max(1, options.turn_images // batch_size)
        steps = cssl_steps(recipe, dataset, device)
        contenders[name] = Training(steps, device, num_steps=num_steps, untimed=1)
    seconds = compete(contenders, repetitions=options.repetitions, rest=False)
    speeds = {
        sizes[name]: [sizes[name][0] / spent for spent in values] for name, values in seconds.items()
    }  # images/s of each turn
    rows = []
    for name, size in sizes.items():
        report.numbers[f"images/s: {name}"] = statistics.median(speeds[size])
        rows.append([name, f"{statistics.median(speeds[size]):,.0f}"])
    print("pretraining, SimCLR, ResNet-18")
    measuring.print_table(["", "images/s"], rows)
    return [
        Panel("Pretraining, images/s", "batch size", options.batch_sizes, [speeds[size] for size in of_batch], (0,)),
        Panel("Pretraining, images/s", "width", options.widths, [speeds[size] for size in of_width], (-2,)),
    ]


def memory(report: measuring.Report, options: argparse.Namespace, root: Path) -> Panel:
    bytes_of = [measuring.in_own_process(peak_of_training, options, root, size) for size in options.batch_sizes]
    print(f"\nmemory of pretraining, width {options.width}")
    rows = [[f"batch {size}", f"{held / 2**20:,.0f}"] for size, held in zip(options.batch_sizes, bytes_of, strict=True)]
    measuring.print_table(["", "MiB"], rows)
    for size, held in zip(options.batch_sizes, bytes_of, strict=True):
        report.numbers[f"bytes of training: batch {size}, width {options.width}"] = held
    values = [[held / 2**20] for held in bytes_of]
    return Panel("Memory of pretraining, MiB", "batch size", options.batch_sizes, values, (1,))


def peak_of_training(options: argparse.Namespace, root: Path, batch_size: int) -> int:
    """Bytes that a few training steps take beyond images and libraries."""
    device = choose_device(measuring.prepare(options).type)
    recipe = simclr_recipe(root, encoder="resnet18", width=options.width, batch_size=batch_size, overrides=options.set)
    dataset = load_dataset(recipe.settings("data"), cache_dir=root.parent / "cache", progress=None)
    if device.type == "cpu":
        measuring.reset_peak_memory()
    before = held_at_most(device)
    for _ in islice(cssl_steps(recipe, dataset, device), MEMORY_STEPS):
        pass
    return max(1, held_at_most(device) - before)


def held_at_most(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else measuring.peak_memory()


# ---------------------------------------------------------------------------------------------------------- analysis
def analysis(report: measuring.Report, options: argparse.Namespace) -> list[Panel]:
    of_images = [(images, OTHER_VIEWS) for images in options.analysis_images]
    of_views = [(OTHER_IMAGES, views) for views in options.analysis_views]
    seconds: dict[tuple[int, int], list[float]] = {size: [] for size in of_images + of_views}
    for _, size in product(range(options.repetitions), seconds):
        images, views = size
        table = argparse.Namespace(threads=options.threads, classes=10, views=views, width=512, bootstrap=200)
        seconds[size].append(measuring.in_own_process(terms.measure, table, -(-images // 10))["seconds"])
    rows = []
    for (images, views), values in seconds.items():
        name = f"{images:,} images, {views} views"
        report.numbers[f"seconds of all terms: {name}"] = statistics.median(values)
        rows.append([name, f"{statistics.median(values):.2f}"])
    print("\nanalysis, all terms of features of width 512, 10 classes")
    measuring.print_table(["", "seconds"], rows)
    return [
        Panel("Analysis, seconds", "images", options.analysis_images, [seconds[size] for size in of_images], (1, 2)),
        Panel("Analysis, seconds", "views", options.analysis_views, [seconds[size] for size in of_views], (1, 2)),
    ]


def add_ratio(report: measuring.Report, panel: Panel) -> None:
    """The largest size over the smallest, within each round."""
    ends: Sequence[Sequence[float]] = (panel.values[-1], panel.values[0])
    better = "higher" if panel.title.endswith("images/s") else "lower"
    name = f"{panel.title.partition(',')[0]}, {panel.sizes[-1]} over {panel.sizes[0]}: {panel.axis}"
    report.ratios[name] = measuring.ratio(*ends, better=better)


if __name__ == "__main__":
    main()
