"""What a run would take, as far as it can be told before its images are read: their bytes, and operations an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cssl_cli.augment import require_channels
from cssl_cli.data import known_images
from cssl_cli.nn.encoder import build_encoder
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.nn.flops import forward_flops
from cssl_cli.recipe import Recipe

MOST_FOR_A_SMALL_STEM = 96  # pixels a side; it is made for 32


@dataclass(frozen=True)
class Outlook:
    """The number of images and the shape (C, S, S) of one as stored, None if unknown; GFLOP of a forward pass of one.

    `warnings` are sentences.
    """

    num_images: int | None
    stored: tuple[int, int, int] | None
    gflop: float | None
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes_of_image(self) -> int | None:
        return None if self.stored is None else self.stored[0] * self.stored[1] * self.stored[2]

    @property
    def bytes_of_images(self) -> int | None:
        each = self.bytes_of_image
        return None if each is None or self.num_images is None else each * self.num_images


def outlook(recipe: Recipe, *, data_root: str | None = None, own: Iterable[Path] = ()) -> Outlook:
    """What is known of a run of the recipe; `InputError` if augmentation or encoder do not suit such images."""
    known = known_images(recipe.settings("data", data_root=data_root), own=own)
    warnings = _of_batches(recipe, known.num_images)
    if known.channels is None:
        return Outlook(known.num_images, None, None, warnings)
    require_channels(recipe.settings("augment"), known.channels)
    if known.image_size is None or known.store_size is None:
        return Outlook(known.num_images, None, None, warnings)
    size = known.image_size
    gflop = _gflop(recipe, known.channels, size)
    if getattr(recipe.encoder, "stem", "imagenet") != "imagenet" and size > MOST_FOR_A_SMALL_STEM:
        other = _gflop(recipe, known.channels, size, stem="imagenet")
        warnings.append(
            f"encoder.stem={recipe.encoder.stem} is for images of about 32 pixels a side, and these have {size}: with "  # type: ignore[attr-defined]
            f"encoder.stem=imagenet an image would take {other:.3g} GFLOP, not {gflop:.3g}"
        )
    return Outlook(known.num_images, (known.channels, known.store_size, known.store_size), gflop, warnings)


def _of_batches(recipe: Recipe, num_images: int | None) -> list[str]:
    """That there are fewer images than a batch takes, test images included: training will refuse it."""
    batch = recipe.train.batch_size
    if num_images is None or batch <= num_images:
        return []
    fewer = 2 ** max(1, (num_images // 2).bit_length() - 1)
    return [f"a batch takes {batch} images, and there are {num_images}: give train.batch_size={fewer}, for example"]


def _gflop(recipe: Recipe, channels: int, image_size: int, **changes: object) -> float:
    encoder = build_encoder({**recipe.settings("encoder"), **changes}, channels)
    if isinstance(encoder, LibraryEncoder):
        encoder.require((channels, image_size, image_size))
    return forward_flops(encoder, image_size, channels) / 1e9
