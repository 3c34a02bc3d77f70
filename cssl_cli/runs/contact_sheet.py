"""The contact sheet: a picture of images and their augmented views under a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cssl_cli.errors import InputError, escaped
from cssl_cli.host.files import replacing, require_writable
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.setup import make_augmentation

MAX_ROWS = 10
CELL = 96  # least side of an enlarged image, in pixels
MARGIN = 8
BACKGROUND, INK = "white", "#222222"


def draw_views(
    recipe: Recipe, path: Path, *, reporter: Reporter, device_name: str | None = None, num_views: int = 8
) -> None:
    """Write a PNG of original images, one of each class where there are labels, and `num_views` views of each.

    Of views of two kinds the first half are those of first views of a pair, and the others those of second ones.
    """
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
    augmentation = make_augmentation(recipe, dataset)
    theta = augmentation.draw(len(images) * num_views, stream(recipe.seed, "contact sheet"))
    kinds = ""
    if recipe.augment.view_2 is not None:
        num_first = -(-num_views // 2)
        of_second = (torch.arange(len(theta)) % num_views >= num_first).unsqueeze(1)
        theta = torch.where(of_second, augmentation.of_side(theta, 1), augmentation.of_side(theta, 0))
        kinds = f" (from view {num_first + 1} on: second views of pairs)"
    views = augmentation.apply(images.repeat_interleave(num_views, dim=0).to(device), theta.to(device))
    clean = augmentation.clean(images).unsqueeze(1)
    views = torch.cat([clean, views.unflatten(0, (len(images), num_views)).cpu()], dim=1)
    contact_sheet(views, path, class_names=captions, title=recipe.name + kinds + _shown_of(dataset.channels))


def _shown_of(channels: int) -> str:
    """Which channels are drawn, where that is not all."""
    return {1: "", 2: " (the first of 2 channels)", 3: ""}.get(channels, f" (the first three of {channels} channels)")


def _require_outside_the_images(path: Path, recipe: Recipe) -> None:
    """`InputError` if the picture would lie among the user's images, and so become one of them."""
    data = recipe.settings("data")
    folder = data["root"] if data["name"] == "folder" else data["path"] if data["name"] == "huggingface" else ""
    if folder.startswith("/") and _is_inside(path, folder):  # others are names on the Hub
        raise InputError(
            "this is in the folder of the images, and would be taken for one of them",
            where=str(path),
            remedy="Give another --views FILE.png.",
        )


def _is_inside(path: Path, folder: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real


def contact_sheet(views: Tensor, path: Path, *, class_names: Sequence[str] | None, title: str) -> None:
    """Draw each original and its views in a row, enlarged without smoothing, as a PNG file at `path`.

    `views`: floating point in [0, 1], (N, 1 + V, C, H, W), the original first. One channel, or the first of two, is
    drawn gray; of more than three, the first three as red, green and blue. `class_names`: N captions, one per row, or
    None. The file appears whole or not at all; raises InputError or RunError if it cannot be written.
    """
    num_views = views.shape[1] - 1
    height, width = views.shape[-2:]
    tiles = views[:, :, : 3 if views.shape[2] >= 3 else 1].mul(255).round().clamp(0, 255).byte()
    tiles = tiles.expand(-1, -1, 3, -1, -1).permute(0, 1, 3, 4, 2).contiguous()
    zoom = max(1, -(-CELL // max(height, width)))
    cell_width, cell_height = width * zoom, height * zoom
    font, title_font = _font(12), _font(15)
    captions = list(map(escaped, class_names)) if class_names is not None else [""] * len(views)
    label_width = max((int(font.getlength(caption)) + MARGIN for caption in captions if caption), default=0)
    left, top = MARGIN + label_width, 3 * MARGIN + 16 + 13
    # A wider gap separates the originals from their views.
    columns = [left + column * (cell_width + MARGIN) + (MARGIN if column else 0) for column in range(num_views + 1)]
    sheet_width = max(columns[-1] + cell_width, MARGIN + int(title_font.getlength(title))) + MARGIN
    sheet = Image.new("RGB", (sheet_width, top + len(views) * (cell_height + MARGIN)), BACKGROUND)

    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, title_font)
    for column, x in enumerate(columns):
        draw.text((x, top - MARGIN // 2), f"view {column}" if column else "original", INK, font, anchor="ls")
    for row, caption in enumerate(captions):
        y = top + row * (cell_height + MARGIN)
        draw.text((MARGIN, y + cell_height // 2), caption, INK, font, anchor="lm")
        for x, pixels in zip(columns, tiles[row], strict=True):
            tile = Image.fromarray(pixels.numpy())
            sheet.paste(tile.resize((cell_width, cell_height), Image.Resampling.NEAREST), (x, y))
    with replacing(path, "Give the picture another place.") as partial:
        sheet.save(partial, format="PNG")


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, of `size` pixels: Pillow's own has the letters of English only."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
