"""Frozen features: an encoder in eval mode on clean images (N, D) and on their views (N, V, D)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.augment import Augmentation, clean_views, normalize
from cssl_cli.features.geometry import require_finite
from cssl_cli.features.precision import RoughEncoder
from cssl_cli.nn.folding import folded
from cssl_cli.nn.ranks import ALONE, Ranks

PIXEL_SIDE = 32  # the linear probe's cost grows with the cube of the number of features

Given = TypeVar("Given")
Advance = Callable[[int], None]  # called with the number of images processed since the last call


class FeatureExtractor:
    """An encoder in eval mode, with the side and the normalisation of its images.

    Runs in float32 whatever the training precision was, or in bfloat16 or TF32 where that is asked for, on a copy
    of the encoder as it is now, with the batch norms folded into the convolutions. `encoder=None` stands for pixels:
    the normalised image, averaged down to `PIXEL_SIDE` where it is larger, and flattened.

    Several `ranks` with extractors that are alike take turns with the batches, and all have all features then.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
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

        def encoded(rows: slice, _: None) -> Tensor:
            return self._encode(clean_views(images[rows].to(self.device), self.image_size))

        blocks = ((rows, None) for rows in _blocks(len(images), self.batch_size))
        return _joined(self._in_turns(blocks, encoded, advance))

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

        def drawn() -> Iterator[tuple[slice, Tensor]]:
            for rows in _blocks(len(images), max(1, self.batch_size // num_views)):
                yield rows, augmentation.draw((rows.stop - rows.start) * num_views, generator)

        def encoded(rows: slice, theta: Tensor) -> Tensor:
            block = images[rows].to(self.device).repeat_interleave(num_views, dim=0)
            views = augmentation.apply(block, theta.to(self.device))
            return self._encode(views).unflatten(0, (-1, num_views))

        return self._in_turns(drawn(), encoded, advance)

    def view_table(
        self, images: Tensor, augmentation: Augmentation, theta: Tensor, *, advance: Advance | None = None
    ) -> Tensor:
        """Features (N, V, D), on the CPU: view 0 is the clean image, the others are those of theta (N, V − 1, P)."""

        num_views = 1 + theta.shape[1]

        def encoded(rows: slice, theta: Tensor) -> Tensor:
            views = stored_views(images[rows].to(self.device), augmentation, theta.to(self.device))
            return self._encode(views.flatten(0, 1)).unflatten(0, views.shape[:2])

        blocks = ((rows, theta[rows]) for rows in _blocks(len(images), max(1, self.batch_size // num_views)))
        counted = None if advance is None else lambda num: advance(num * num_views)
        return _joined(self._in_turns(blocks, encoded, counted))

    def _in_turns(
        self,
        blocks: Iterable[tuple[slice, Given]],
        encoded: Callable[[slice, Given], Tensor],
        advance: Advance | None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows and their features (B, …), in order, on the CPU: what `encoded` makes of what it is given."""
        coming, (rank, size) = iter(blocks), (self.ranks.rank, self.ranks.size)
        while together := list(islice(coming, size)):
            # Where there are fewer blocks than ranks, the last ones repeat a block, and nobody takes their rows.
            own = encoded(*together[min(rank, len(together) - 1)]).cpu()
            longest = together[0][0].stop - together[0][0].start
            every = [own] if size == 1 else self.ranks.rows_of_all(_padded(own, longest)).split(longest)
            for (rows, _), features in zip(together, every, strict=False):
                yield rows, features[: rows.stop - rows.start]
                if advance:
                    advance(rows.stop - rows.start)


def _blocks(num: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, num)) for start in range(0, num, size))


def _joined(blocks: Iterable[tuple[slice, Tensor]]) -> Tensor:
    return torch.cat([features for _, features in blocks])


def _padded(features: Tensor, length: int) -> Tensor:
    """The features (B, …) with rows of zeros behind them, so that there are `length`."""
    return torch.cat([features, features.new_zeros((length - len(features), *features.shape[1:]))])


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
