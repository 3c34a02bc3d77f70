"""Image files to train on and a recipe that uses them, for several benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cssl_cli.data import load_dataset
from cssl_cli.recipe import Recipe, load_recipe

NUM_TEST = 20


def write_images(folder: Path, num_images: int, *, size: int = 32) -> Path:
    """JPEG files drawn by the `shapes` source: `num_images` in class folders under train/, and a few under test/.

    Returns the folder that holds the two.
    """
    settings = {
        "name": "shapes",
        "num_train": num_images,
        "num_test": NUM_TEST,
        "size": size,
        "store_size": None,
        "limit": None,
        "limit_test": None,
    }
    drawn = load_dataset(settings, cache_dir=folder / "drawn", progress=None)
    for split, part in (("train", drawn.train), ("test", drawn.test)):
        assert part is not None
        assert part.labels is not None
        for name in drawn.class_names:
            (folder / "images" / split / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(part.images, part.labels.tolist(), strict=True)):
            target = folder / "images" / split / drawn.class_names[label] / f"{number}.jpg"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(target, quality=90)
    return folder / "images"


def simclr_recipe(root: Path, *, encoder: str, width: int, batch_size: int, overrides: Sequence[str] = ()) -> Recipe:
    """SimCLR on a folder of images, for longer than any benchmark lasts."""
    return load_recipe(
        "simclr-folder",
        [
            f"data.root={root}",
            f"encoder={{name: {encoder}, width: {width}}}",
            f"train={{epochs: 1000, batch_size: {batch_size}, compile: false}}",  # --set train.compile=true
            *overrides,
        ],
    )
