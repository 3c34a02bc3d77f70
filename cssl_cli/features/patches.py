"""Fixed features of an image, made without training: responses to patches of the data, pooled over quarters.

After Coates, Lee and Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011:
patches of the images are normalised in contrast and whitened (ZCA), and some of them, chosen at random, serve as
filters. A response is split into its positive and its negative part beyond a threshold, and averaged over each quarter
of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.augment import clean_views

SIDE = 32  # larger images are averaged down to it
PATCH, STRIDE = 6, 3  # pixels
NUM_FILTERS = 96
THRESHOLD = 0.25
QUARTERS = 2  # a side
CONTRAST_FLOOR = 10 / 255**2  # added to a patch's variance, on the 0 … 1 scale: 10 on that of bytes
WHITENING_FLOOR = 0.1  # added to the eigenvalues of the normalised patches' covariance
SAMPLE_IMAGES, SAMPLE_PATCHES = 2000, 20_000  # that the whitening is estimated from
BLOCK = 512  # images of SIDE at a time


@dataclass(frozen=True)
class PatchFeatures:
    """Filters (F, C, PATCH, PATCH) with whitening in them, their sums (F,) over a patch, and offsets (F,)."""

    filters: Tensor
    sums: Tensor
    offsets: Tensor

    @classmethod
    def fit(cls, images: Tensor, generator: torch.Generator, *, image_size: int) -> PatchFeatures:
        """The filters for views of side `image_size` ≥ PATCH, from uint8 images (N, C, S, S) with S ≥ `image_size`.

        `generator` chooses images and patches.
        """
        chosen = torch.randperm(len(images), generator=generator)[:SAMPLE_IMAGES]
        blocks = chosen.split(at_a_time(images.shape[-1]))
        pixels = torch.cat([shrunk(clean_views(images[block], image_size)) for block in blocks])
        channels, per_row = pixels.shape[1], pixels.shape[-1] - PATCH + 1
        number = min(SAMPLE_PATCHES, len(pixels) * per_row**2)
        places = torch.randint(len(pixels) * per_row**2, (number,), generator=generator)
        image, place = places // per_row**2, places % per_row**2
        rows = (place // per_row)[:, None] + torch.arange(PATCH)
        columns = (place % per_row)[:, None] + torch.arange(PATCH)
        patches = pixels[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (n, PATCH, PATCH, C)
        flat = patches.permute(0, 3, 1, 2).flatten(1).double()
        flat = flat - flat.mean(dim=1, keepdim=True)
        flat = flat / (flat.square().mean(dim=1, keepdim=True) + CONTRAST_FLOOR).sqrt()
        mean = flat.mean(dim=0)
        eigenvalues, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        whitening = vectors @ torch.diag((eigenvalues.clamp(min=0) + WHITENING_FLOOR).rsqrt()) @ vectors.T
        whitened = (flat - mean) @ whitening
        kept = whitened[torch.randperm(len(whitened), generator=generator)[:NUM_FILTERS]]
        lengths = torch.linalg.vector_norm(kept, dim=1, keepdim=True)
        directions = (kept / torch.where(lengths > 0, lengths, 1)) @ whitening
        return cls(
            directions.unflatten(1, (channels, PATCH, PATCH)).float(),
            directions.sum(dim=1).float(),
            -(directions @ mean).float(),
        )

    @property
    def width(self) -> int:
        """D, the number of features."""
        return 2 * len(self.filters) * QUARTERS**2

    def to(self, device: torch.device) -> PatchFeatures:
        return PatchFeatures(*(part.to(device) for part in (self.filters, self.sums, self.offsets)))

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, D), float32, of images (N, C, H, W), float in [0, 1], on the device of the filters."""
        return torch.cat([self._of_block(block) for block in images.split(BLOCK)])

    def _of_block(self, images: Tensor) -> Tensor:
        pixels = shrunk(images)
        # Patches lose their mean anyway; without the image's, little precision is lost to it where contrast is low.
        pixels = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
        # A patch's contrast is divided out of the response to it: normalised patches are never made.
        of_patch = pixels.mean(dim=1, keepdim=True), pixels.square().mean(dim=1, keepdim=True)
        mean, square = (F.avg_pool2d(part, PATCH, STRIDE) for part in of_patch)
        contrast = ((square - mean.square()).clamp(min=0) + CONTRAST_FLOOR).sqrt()
        response = F.conv2d(pixels, self.filters, stride=STRIDE) - mean * self.sums[:, None, None]
        response = response / contrast + self.offsets[:, None, None]
        both = torch.cat([(response - THRESHOLD).relu(), (-response - THRESHOLD).relu()], dim=1)
        return F.adaptive_avg_pool2d(both, QUARTERS).flatten(1)


def at_a_time(side: int) -> int:
    """How many images of so many pixels a side to hold as floats: they take as much memory as BLOCK of SIDE."""
    return max(1, BLOCK * SIDE**2 // max(SIDE, side) ** 2)


def shrunk(images: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged down to SIDE, where they are larger."""
    return F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
