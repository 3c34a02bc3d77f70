"""Frozen features: what an encoder in eval mode says of clean images (N, D) and of their views (N, V, D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.augment import Augmentation, normalize
from cssl_cli.geometry import require_finite

PIXEL_SIDE = 32  # the linear probe's cost grows with the cube of the number of features

Advance = Callable[[int], None]  # called with the number of images done since the last call


class FeatureExtractor:
    """An encoder held in eval mode, with the normalisation its images need.

    Runs in float32 whatever the training precision was. `encoder=None` stands for pixels: the normalised image,
    averaged down to `PIXEL_SIDE` where it is larger, and flattened.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.encoder = None if encoder is None else encoder.to(device).eval()
        self.mean, self.std = mean, std
        self.batch_size = batch_size
        self.device = device

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
        """Features (N, D) of uint8 images (N, C, H, W) as they are; on the CPU."""
        blocks = []
        for block in images.split(self.batch_size):
            blocks.append(self._encode(block.to(self.device).float() / 255).cpu())
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
        include_clean: bool,
        advance: Advance | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of view features: (which images, features (B, V, D)), in order, on the CPU.

        With `include_clean`, view 0 is the clean image and the other V − 1 are augmented; without, all V are. An
        image's views do not depend on the batch size: its parameters are drawn one image after another.
        """
        num_augmented = num_views - 1 if include_clean else num_views
        block_images = max(1, self.batch_size // num_views)
        for start in range(0, len(images), block_images):
            block = images[start : start + block_images].to(self.device)
            theta = augmentation.draw(len(block) * num_augmented, generator).to(self.device)
            views = augmentation.apply(block.repeat_interleave(num_augmented, dim=0), theta)
            views = views.unflatten(0, (len(block), num_augmented))
            if include_clean:
                views = torch.cat([block.float().unsqueeze(1) / 255, views], dim=1)
            features = self._encode(views.flatten(0, 1)).unflatten(0, (len(block), num_views))
            yield slice(start, start + len(block)), features.cpu()
            if advance:
                advance(len(block))

    def view_table(
        self,
        images: Tensor,
        augmentation: Augmentation,
        *,
        num_views: int,
        generator: torch.Generator,
        advance: Advance | None = None,
    ) -> Tensor:
        """Features (N, V, D) of V views of each image, view 0 the clean one."""
        blocks = self.views(
            images, augmentation, num_views=num_views, generator=generator, include_clean=True, advance=advance
        )
        return torch.cat([features for _, features in blocks])
