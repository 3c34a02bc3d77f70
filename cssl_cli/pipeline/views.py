"""What a recipe does to the images, as a picture."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from cssl_cli.errors import InputError
from cssl_cli.files import require_writable
from cssl_cli.pipeline.setup import choose_device, make_augmentation, prepare_data
from cssl_cli.plot.contact_sheet import contact_sheet
from cssl_cli.progress import Reporter
from cssl_cli.randomness import stream
from cssl_cli.recipe import Recipe

MAX_ROWS = 10


def draw_views(
    recipe: Recipe, path: Path, *, reporter: Reporter, device_name: str | None = None, num_views: int = 8
) -> None:
    """Write a PNG of original images, one of each class where there are labels, and `num_views` views of each."""
    _require_outside_the_images(path, recipe)
    require_writable(path.parent, "Give another --views FILE.png.")
    device = choose_device(device_name)
    dataset = prepare_data(recipe, reporter)
    shown = dataset.pretrain if dataset.train is None else dataset.train
    if shown.labels is None:
        indices = torch.arange(min(MAX_ROWS, len(shown.images)))
        captions = None
    else:
        classes = [label for label in range(len(dataset.class_names)) if (shown.labels == label).any()][:MAX_ROWS]
        indices = torch.tensor([int((shown.labels == label).nonzero()[0]) for label in classes])
        captions = [dataset.class_names[label] for label in classes]
    images = shown.images[indices]
    augmentation = make_augmentation(recipe, images.shape[-1])
    theta = augmentation.draw(len(images) * num_views, stream(recipe.seed, "contact sheet"))
    views = augmentation.apply(images.repeat_interleave(num_views, dim=0).to(device), theta.to(device))
    contact_sheet(
        images, views.unflatten(0, (len(images), num_views)).cpu(), path, class_names=captions, title=recipe.name
    )


def _require_outside_the_images(path: Path, recipe: Recipe) -> None:
    """A picture among a user's images would be one of them from then on."""
    data = recipe.settings("data")
    if data["name"] == "folder" and _is_inside(path, data["root"]):
        raise InputError(
            "this is in the folder of the images, and would be taken for one of them",
            where=str(path),
            remedy="Give another --views FILE.png.",
        )


def _is_inside(path: Path, folder: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real
