"""SimCLR pretraining: images per second of cssl and of the same SimCLR written with lightly, in one run.

All train the same encoder and projector with the same batch size on the same image files, which this script draws into
a temporary folder, and take turns, each in its own process. lightly: its SimCLR transform and loss and torch's
DataLoader, in float32, as in its examples; and again with bfloat16 autocast switched on by hand. cssl: as in `cssl
pretrain`. A turn begins with untimed steps, in which lightly's workers reach their usual pace. Loading the files once,
which cssl does before it trains, is timed separately. For cssl the operations of a step are counted, too, and compared
with the machine's own rate of matrix products.

    pip install -e '.[benchmark]'
    python benchmarks/pretrain_vs_lightly.py --width 16
    python benchmarks/pretrain_vs_lightly.py --device cuda --width 64 --batch-size 512 --images 50000 --steps 97
    python benchmarks/pretrain_vs_lightly.py --size 224 --file-size 300 --width 64 --batch-size 16 --images 256
        --steps 2 --set data.store_size=256 --set encoder.stem=imagenet
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measuring
import torch
from contenders import TrainingOfItsOwn, compete, cssl_steps, step_flops
from drawn_images import simclr_recipe, write_images
from torch import nn

from cssl_cli.data import load_dataset
from cssl_cli.nn.encoder import MLP, build_encoder, materialize
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device, choose_precision

PREFETCHED = 2  # batches that a DataLoader worker prefetches


def lightly_steps(recipe: Recipe, root: Path, workers: int, device: torch.device, autocast: bool) -> Iterator[None]:
    """Yields once for each training step, forever."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    torch.manual_seed(0)
    cuda = device.type == "cuda"
    transform = SimCLRTransform(input_size=recipe.settings("data")["size"], cj_strength=0.5, gaussian_blur=0.5)
    loader = DataLoader(
        ImageFolder(str(root / "train"), transform=transform),
        batch_size=recipe.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=cuda,
    )
    encoder = build_encoder(recipe.settings("encoder"))
    with torch.device("meta"):
        projector = MLP(encoder.num_features, [512, 128], batch_norm=False)
    model = materialize(nn.Sequential(encoder, projector), torch.Generator().manual_seed(0)).to(device)
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    model.train()
    total_loss = torch.zeros((), device=device)
    while True:
        for views, _ in loader:
            view_1, view_2 = (view.to(device, non_blocking=True) for view in views)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                loss = criterion(model(view_1), model(view_2))
            total_loss += loss.detach()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield


def steps_on_files(recipe: Recipe, cache: Path, device: torch.device) -> Iterator[None]:
    """The same with this package."""
    choose_device(device.type)
    began = time.perf_counter()
    dataset = load_dataset(recipe.settings("data"), cache_dir=cache, progress=None)
    print(f"cssl: {len(dataset.pretrain):,} files loaded in {time.perf_counter() - began:.1f} s, once", flush=True)
    yield from cssl_steps(recipe, dataset, device)


def parse() -> argparse.Namespace:
    parser = measuring.option_parser(__doc__, cuda=True)
    parser.add_argument("--encoder", default="resnet18", choices=["resnet18", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=32, help="side of the views")
    parser.add_argument("--file-size", type=int, help="side of the images in the files; that of the views")
    parser.add_argument("--steps", type=int, default=15, help="timed in a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--workers", type=int, help="lightly's DataLoader workers; 2, or all cores beside a GPU")
    parser.add_argument(
        "--bf16-lightly",
        action=argparse.BooleanOptionalAction,
        help="lightly with bfloat16 autocast as well; by default where the device has instructions for it",
    )
    parser.add_argument("--lightly", action=argparse.BooleanOptionalAction, default=True, help="measure lightly")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of cssl's recipe; repeatable"
    )
    options = parser.parse_args()
    if options.workers is None:
        options.workers = (os.cpu_count() or 1) if options.device == "cuda" else 2
    return options


def main() -> None:
    options = parse()
    device = measuring.prepare(options)
    device = choose_device(device.type)
    report = measuring.Report(measuring.machine(device))
    with tempfile.TemporaryDirectory() as name:
        root = write_images(Path(name), options.images, size=options.file_size or options.size)
        recipe = simclr_recipe(
            root,
            encoder=options.encoder,
            width=options.width,
            batch_size=options.batch_size,
            overrides=[f"data.size={options.size}", *options.set],
        )
        precision = choose_precision(recipe.train.precision, device)
        if options.bf16_lightly is None:
            options.bf16_lightly = measuring.precision_of(device) == torch.bfloat16
        contenders = entered(options, recipe, root, Path(name) / "cache", device)
        seconds = compete(contenders, repetitions=options.repetitions, rest=options.lightly)
        for contender in contenders.values():
            contender.process.shutdown()
    case = f"{options.encoder} width {options.width}, batch {options.batch_size}"
    case += f", {options.size} pixels" if options.size != 32 else ""
    show_speeds(report, seconds, case, options, precision)
    show_share(report, seconds["cssl"], step_flops(recipe, options.size, device), case, options, precision)
    report.finish(options.json)


def entered(
    options: argparse.Namespace, recipe: Recipe, root: Path, cache: Path, device: torch.device
) -> dict[str, TrainingOfItsOwn]:
    conditions: dict[str, Any] = {"threads": options.threads, "device": device, "num_steps": options.steps}
    contenders = {}
    for name, autocast in (("lightly", False), ("lightly, bf16 autocast", True)):
        if options.lightly and (options.bf16_lightly or not autocast):
            arguments = (recipe, root, options.workers, device, autocast)
            untimed = max(1, PREFETCHED * options.workers)
            contenders[name] = TrainingOfItsOwn(lightly_steps, *arguments, untimed=untimed, **conditions)
    contenders["cssl"] = TrainingOfItsOwn(steps_on_files, recipe, cache, device, untimed=4, **conditions)
    return contenders


def show_speeds(
    report: measuring.Report,
    seconds: dict[str, list[float]],
    case: str,
    options: argparse.Namespace,
    precision: torch.dtype,
) -> None:
    rows = []
    for name, values in seconds.items():
        median, slowest, fastest = (
            options.batch_size / spent for spent in (statistics.median(values), max(values), min(values))
        )
        digits = 0 if median >= 20 else 1
        rows.append([name, f"{median:,.{digits}f}", f"{slowest:,.{digits}f} to {fastest:,.{digits}f}"])
        report.numbers[f"{name}, images/s: {case}"] = median
        if name != "cssl":
            report.ratios[f"cssl over {name}: {case}"] = measuring.ratio(values, seconds["cssl"])
    print(
        f"{case}, {options.images:,} images, {options.threads} threads, {options.workers} workers of lightly's, "
        f"cssl in {measuring.short_name(precision)}, lightly in float32 where it says nothing else"
    )
    measuring.print_table(["", "images/s", "slowest to fastest turn"], rows)


def show_share(
    report: measuring.Report,
    seconds: list[float],
    operations: int,
    case: str,
    options: argparse.Namespace,
    precision: torch.dtype,
) -> None:
    """The share of the machine's rate of matrix products that cssl reaches from end to end."""
    name = measuring.short_name(precision)
    if name not in report.machine["matrix_product"]:
        return
    rate = report.machine["matrix_product"][name]
    reached = [operations / spent / rate for spent in seconds]
    report.ratios[f"cssl, share of the matrix rate: {case}"] = measuring.ratio(reached, [1.0] * len(reached))
    report.numbers[f"operations of a step: {case}"] = operations
    print(
        f"\ncssl: {1e-9 * operations / options.batch_size:,.2f} GFLOP an image, both views, forward and backward; "
        f"{1e-9 * operations / statistics.median(seconds):,.0f} GFLOP/s, "
        f"{100 * statistics.median(reached):.0f} % of the {1e-9 * rate:,.0f} of a matrix product in {name}"
    )


if __name__ == "__main__":
    main()
