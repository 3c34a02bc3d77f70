"""The images of a recipe or run: prepared in a cache, and placed where training reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cssl_cli.augment import require_channels
from cssl_cli.data import Dataset, load_dataset
from cssl_cli.data.batches import Images, ResidentImages, StreamedImages
from cssl_cli.errors import InputError
from cssl_cli.host.paths import cache_dir
from cssl_cli.host.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.recipe.recipe import place_of
from cssl_cli.runs import memory
from cssl_cli.runs.run_dir import ENVIRONMENT, RunDir

RESIDENT_SHARE = 0.5  # of the device's free memory that images may occupy
ELSEWHERE = "If they lie elsewhere now, give that folder with --data-root DIR."


def prepare_data(
    recipe: Recipe, reporter: Reporter, *, data_root: str | None = None, own: Iterable[Path] = ()
) -> Dataset:
    """The recipe's images, from the cache if already prepared.

    `InputError` if they cannot fit in memory, or if the recipe has them gray and augments colours.
    `data_root` is where they are, in place of what the recipe says (`Recipe.settings`); `own` are output folders, which
    hold no images.
    """
    memory.require(memory.of_images(recipe), memory.free_memory())
    if (channels := channels_of(recipe)) is not None:  # otherwise known once the images are
        require_channels(recipe.settings("augment"), channels)
    settings = recipe.settings("data", data_root=data_root)
    if data_root is not None and place_of(settings) is None:
        raise InputError(
            f"the images of {settings['name']} lie in no folder", where="--data-root", remedy="Leave it out."
        )
    return load_dataset(
        settings,
        cache_dir=Path() if settings["name"] == "shapes" else cache_dir(),  # shapes are drawn: no home folder needed
        progress=lambda done, total, what: reporter.advance(what, done, total),
        notice=reporter.notice,
        own=own,
    )


def channels_of(recipe: Recipe) -> int | None:
    """The number of channels that the recipe's images are given; None if it is theirs, and not known before."""
    channels: int | None = getattr(recipe.data, "channels", 3)
    return channels


def images_of_run(
    run: RunDir, recipe: Recipe, reporter: Reporter, *, data_root: str | None, own: Iterable[Path]
) -> Dataset:
    """`prepare_data` for a run that has begun, with advice if its images have moved."""
    try:
        return prepare_data(recipe, reporter, data_root=data_root, own=own)
    except InputError as error:
        place = recipe.place
        if data_root is None and place is not None and run.file(ENVIRONMENT).exists():
            gone = not os.path.exists(place)  # noqa: PTH110 (also false if the path cannot be looked up)
            error.remedy = f"{'The images of this run were there.' if gone else error.remedy} {ELSEWHERE}"
        raise


def has_labels(dataset: Dataset) -> bool:
    """Whether there are labelled training and test images, which classifiers need."""
    return all(images is not None and images.labels is not None for images in (dataset.train, dataset.test))


def place_images(images: Tensor, device: torch.device) -> Images:
    """The images on the device if they fit in `RESIDENT_SHARE` of its free memory, else streamed to it."""
    if device.type == "cuda" and images.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return StreamedImages(images, device)
    return ResidentImages(images.to(device))
