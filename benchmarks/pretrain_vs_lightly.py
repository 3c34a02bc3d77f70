"""SimCLR pretraining: images per second of cssl and of the same SimCLR written with lightly, in one run.

Both train the same encoder and projector with the same batch size on the same image files, which this script draws
into a temporary folder. lightly: its SimCLR transform and loss, torch's DataLoader with two workers, float32, as its
examples have it. cssl: as `cssl pretrain` does it, precision `auto`. The two take turns; the ratio is that of the
medians over the repetitions. Loading the files once, which cssl does before it trains, is timed and printed apart.

    pip install 'cssl[benchmark]'
    python benchmarks/pretrain_vs_lightly.py --width 16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from cssl_cli.data import load_dataset
from cssl_cli.encoder import MLP, build_encoder, materialize
from cssl_cli.pipeline.pretrain import make_trainer
from cssl_cli.pipeline.setup import choose_precision
from cssl_cli.recipe import Recipe, load_recipe


def write_images(folder: Path, num_images: int) -> None:
    """Class folders of JPEG files, drawn by the `shapes` source."""
    settings = {
        "name": "shapes",
        "num_train": num_images,
        "num_test": 10,
        "size": 32,
        "limit": None,
        "limit_test": None,
    }
    drawn = load_dataset(settings, cache_dir=folder / "cache", progress=None)
    assert drawn.train is not None
    assert drawn.train.labels is not None
    for number, (image, label) in enumerate(zip(drawn.train.images, drawn.train.labels.tolist(), strict=True)):
        target = folder / "images" / drawn.class_names[label] / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(target, quality=90)


def recipe_for(arguments: argparse.Namespace, folder: Path) -> Recipe:
    return load_recipe(
        "simclr-folder",
        [
            f"data.root={folder / 'images'}",
            f"encoder={{name: {arguments.encoder}, width: {arguments.width}}}",
            f"train={{epochs: 1000, batch_size: {arguments.batch_size}}}",
        ],
    )


def lightly_steps(recipe: Recipe, folder: Path, workers: int) -> Iterator[None]:
    """One item a training step, for ever."""
    torch.manual_seed(0)
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.5)
    loader = DataLoader(
        ImageFolder(str(folder / "images"), transform=transform),
        batch_size=recipe.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    encoder = build_encoder(recipe.settings("encoder"))
    with torch.device("meta"):
        projector = MLP(encoder.num_features, [512, 128], batch_norm=False)  # type: ignore[arg-type]
    model = materialize(nn.Sequential(encoder, projector), torch.Generator().manual_seed(0))
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    model.train()
    while True:
        for (view_1, view_2), _ in loader:
            loss = criterion(model(view_1), model(view_2))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            yield


def cssl_steps(recipe: Recipe, folder: Path) -> Iterator[None]:
    """The same with this package."""
    began = time.perf_counter()
    dataset = load_dataset(recipe.settings("data"), cache_dir=folder / "cache", progress=None)
    print(f"cssl: {len(dataset.pretrain):,} files loaded in {time.perf_counter() - began:.1f} s, once")
    trainer = make_trainer(recipe, dataset, torch.device("cpu"))
    for _ in trainer.run():
        yield


def images_per_second(steps: Iterator[None], num_steps: int, batch_size: int) -> float:
    began = time.perf_counter()
    for _ in range(num_steps):
        next(steps)
    return num_steps * batch_size / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="resnet18", choices=["resnet18", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=15, help="steps in a repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="lightly's DataLoader workers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.images)
        recipe = recipe_for(arguments, folder)
        contenders: dict[str, Iterator[None]] = {
            "lightly": lightly_steps(recipe, folder, arguments.workers),
            "cssl": cssl_steps(recipe, folder),
        }
        speeds = compete(contenders, arguments)
    precision = str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    medians = {contender: statistics.median(values) for contender, values in speeds.items()}
    for contender, values in speeds.items():
        print(f"{contender:8} {medians[contender]:8.0f} images/s  ({min(values):.0f} to {max(values):.0f})")
    print(
        f"ratio    {medians['cssl'] / medians['lightly']:8.2f}  {arguments.encoder} width {arguments.width}, batch "
        f"{arguments.batch_size}, {arguments.threads} threads, cssl in {precision}, lightly in float32"
    )


def compete(contenders: dict[str, Iterator[None]], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of each contender, taking turns after a warm-up."""
    speeds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for repetition in range(arguments.repetitions + 1):
        for contender, steps in contenders.items():
            speed = images_per_second(steps, arguments.steps, arguments.batch_size)
            if repetition > 0:
                speeds[contender].append(speed)
    return speeds


if __name__ == "__main__":
    main()
