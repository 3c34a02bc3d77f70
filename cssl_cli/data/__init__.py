"""Named image sources: each gives uint8 images, labels or none, class names, channel statistics and a content key."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cssl_cli.data.image_set import Dataset, ImageSet, Notice, ProgressCallback, finish_dataset
from cssl_cli.errors import unknown_name

__all__ = ["SOURCES", "Dataset", "ImageSet", "Notice", "ProgressCallback", "load_dataset"]

SOURCES = {
    "shapes": "cssl_cli.data.shapes",
    "cifar10": "cssl_cli.data.torchvision_sets",
    "cifar100": "cssl_cli.data.torchvision_sets",
    "stl10": "cssl_cli.data.torchvision_sets",
    "svhn": "cssl_cli.data.torchvision_sets",
    "torchvision": "cssl_cli.data.torchvision_by_name",
    "folder": "cssl_cli.data.folder",
    "arrays": "cssl_cli.data.arrays",
    "huggingface": "cssl_cli.data.huggingface",
}
"""The table of sources: `data.name` -> the module that reads it.

The module has `load(settings, cache_dir=, progress=, notice=, own=)`, and a class `Settings` that declares what a
recipe's `data` block may say of it. Recipes read that class and this table without importing either
(recipe/declared.py): what the class uses is imported, and loads no torch."""


def load_dataset(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,
    notice: Notice | None = None,
    own: Iterable[Path] = (),
) -> Dataset:
    """The images that a recipe's `data` block names.

    `settings` is that block, fully resolved; `cache_dir` takes downloads and decoded images, and is created when
    needed. `progress` is called during slow steps, `notice` with how the images were found. `own` are folders that the
    caller writes to: nothing in them counts as an image. Raises InputError when the images are missing or cannot be
    used.
    """
    name = settings["name"]
    if name not in SOURCES:
        raise unknown_name("data set", name, SOURCES, where="data.name")
    module = importlib.import_module(SOURCES[name])
    source = module.load(settings, cache_dir=cache_dir, progress=progress, notice=notice, own=own)
    return finish_dataset(
        source,
        limit=settings["limit"],
        limit_test=settings["limit_test"],
        mean=settings.get("mean"),
        std=settings.get("std"),
        image_size=settings.get("size"),
    )
