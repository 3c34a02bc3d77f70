"""Named image sources: each gives uint8 images, labels or none, class names, channel statistics and a content key."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cssl_cli.data.image_set import Dataset, ImageSet, KnownImages, Notice, ProgressCallback, finish_dataset
from cssl_cli.errors import InputError, unknown_name

__all__ = [
    "SOURCES",
    "Dataset",
    "ImageSet",
    "KnownImages",
    "Notice",
    "ProgressCallback",
    "known_images",
    "load_dataset",
]

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
(recipe/declared.py): what the class uses is imported, and loads no torch. Where the number of images, their channels
and their shorter side can be told without reading them, `shape_of(settings, own=)` does, with None for what cannot."""


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
    source = _module(settings).load(settings, cache_dir=cache_dir, progress=progress, notice=notice, own=own)
    return finish_dataset(
        source,
        limit=settings["limit"],
        limit_test=settings["limit_test"],
        mean=settings.get("mean"),
        std=settings.get("std"),
        image_size=settings.get("size"),
    )


def known_images(settings: Mapping[str, Any], *, own: Iterable[Path] = ()) -> KnownImages:
    """What can be told of the images that a recipe's `data` block names, without reading them.

    Nothing is downloaded. What is missing or cannot be used is not told: `load_dataset` will.
    """
    module = _module(settings)
    number = channels = side = None
    if hasattr(module, "shape_of"):
        with contextlib.suppress(InputError, OSError):
            number, channels, side = module.shape_of(settings, own=own)
    size = settings.get("size") or side
    return KnownImages(number, settings.get("channels") or channels, size, settings.get("store_size") or size)


def _module(settings: Mapping[str, Any]) -> Any:
    name = settings["name"]
    if name not in SOURCES:
        raise unknown_name("data set", name, SOURCES, where="data.name")
    return importlib.import_module(SOURCES[name])
