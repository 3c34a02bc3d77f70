"""Frozen features: an encoder in eval mode on clean images (N, D) and on their views (N, V, D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.augment import Augmentation, clean_views, normalize
from cssl_cli.features.geometry import require_finite
from cssl_cli.features.precision import RoughEncoder
from cssl_cli.nn.folding import folded

PIXEL_SIDE = 32  # the linear probe's cost grows with the cube of the number of features

Advance = Callable[[int], None]  # called with the number of images processed since the last call


class FeatureExtractor:
    """An encoder in eval mode, with the side and the normalisation of its images.

    Runs in float32 whatever the training precision was, or in bfloat16 or TF32 where that is asked for, on a copy
    of the encoder as it is now, with the batch norms folded into the convolutions. `encoder=None` stands for pixels:
    the normalised image, averaged down to `PIXEL_SIDE` where it is larger, and flattened.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int,
        batch_size: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.encoder: nn.Module | RoughEncoder | None = None
        if encoder is not None:
            self.encoder = _on_device(encoder, device)
            if precision != "float32":
                self.encoder = RoughEncoder(self.encoder, partial(_on_device, encoder, device), precision)
        self.mean, self.std, self.image_size = mean, std, image_size
        self.batch_size = batch_size
        self.device = device

    @property
    def error(self) -> dict[str, float | int | None] | None:
        """Error of the features so far in lower precision (`RoughEncoder.error`); None for float32 and pixels."""
        return self.encoder.error if isinstance(self.encoder, RoughEncoder) else None

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, C, H, W), float in [0, 1]."""
        normalized = normalize(images, self.mean, self.std)
        if self.encoder is None:
            if max(normalized.shape[-2:]) > PIXEL_SIDE:
                normalized = F.adaptive_avg_pool2d(normalized, PIXEL_SIDE)
            return normalized.flatten(1)
        features = self.encoder(normalized.contiguous(memory_format=torch.channels_last)).float()
        require_finite(features, "the encoder's features")
        return features

    def clean(self, images: Tensor, *, advance: Advance | None = None) -> Tensor:
        """Features (N, D) of uint8 images (N, C, S, S), to which nothing is done but to resize them; on the CPU."""
        blocks = []
        for block in images.split(self.batch_size):
            blocks.append(self._encode(clean_views(block.to(self.device), self.image_size)).cpu())
            if advance:
                advance(len(block))
        return torch.cat(blocks)

    def views(
        self,
        images: Tensor,
        augmentation: Augmentation,
        *,
        num_views: int,
        generator: torch.Generator,
        advance: Advance | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of features of augmented views: (which images, features (B, V, D)), in order, on the CPU.

        An image's views do not depend on the batch size: parameters are drawn image by image.
        """
        block_images = max(1, self.batch_size // num_views)
        for start in range(0, len(images), block_images):
            block = images[start : start + block_images].to(self.device)
            theta = augmentation.draw(len(block) * num_views, generator).to(self.device)
            views = augmentation.apply(block.repeat_interleave(num_views, dim=0), theta)
            features = self._encode(views).unflatten(0, (len(block), num_views))
            yield slice(start, start + len(block)), features.cpu()
            if advance:
                advance(len(block))

    def view_table(
        self, images: Tensor, augmentation: Augmentation, theta: Tensor, *, advance: Advance | None = None
    ) -> Tensor:
        """Features (N, V, D), on the CPU: view 0 is the clean image, the others are those of theta (N, V − 1, P)."""
        block_images = max(1, self.batch_size // (1 + theta.shape[1]))
        blocks = []
        for start in range(0, len(images), block_images):
            rows = slice(start, start + block_images)
            views = stored_views(images[rows].to(self.device), augmentation, theta[rows].to(self.device))
            blocks.append(self._encode(views.flatten(0, 1)).unflatten(0, views.shape[:2]).cpu())
            if advance:
                advance(len(views) * views.shape[1])
        return torch.cat(blocks)


def _on_device(encoder: nn.Module, device: torch.device) -> nn.Module:
    return folded(encoder).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def stored_views(images: Tensor, augmentation: Augmentation, theta: Tensor) -> Tensor:
    """Views (N, V, C, H, W), float in [0, 1], of uint8 images (N, C, S, S).

    View 0 is the clean image, the others are those of theta (N, V − 1, P).
    """
    clean = augmentation.clean(images).unsqueeze(1)
    if theta.shape[1] == 0:
        return clean
    views = augmentation.apply(images.repeat_interleave(theta.shape[1], dim=0), theta.flatten(0, 1))
    return torch.cat([clean, views.unflatten(0, theta.shape[:2])], dim=1)
