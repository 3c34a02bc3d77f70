"""A run's encoder for other programs: images in, frozen features out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Reporter
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.finished import open_finished, trained_part
from cssl_cli.runs.run_dir import ENCODER, RunDir


class LoadedEncoder(nn.Module):
    """The trained encoder, in eval mode and without gradients for its weights, with the normalisation of its images.

    Takes images (B, C, H, W), uint8 or floats in 0 … 1, and gives features (B, D), D = `num_features`, as they are,
    not scaled to unit norm. Raises ValueError for images of other shapes or types.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_features = int(encoder.num_features)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(f"images (B, {len(self.mean)}, H, W) expected, got shape {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images of uint8, or of floats in 0 … 1, expected, got {images.dtype}")
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        features: Tensor = self.encoder((floats - self.mean) / self.std)
        return features


def load_encoder(path: Path, *, reporter: Reporter, device_name: str | None = None) -> LoadedEncoder:
    """The trained encoder of the finished run at `path`, on the device; raises InputError as `open_finished` does."""
    run, recipe = open_finished(path, reporter)
    encoder = trained_part(run, recipe, "encoder")
    facts = facts_of_images(run)
    return LoadedEncoder(encoder, facts["mean"], facts["std"]).to(choose_device(device_name))


def facts_of_images(run: RunDir) -> dict[str, Any]:
    """What the encoder's file says of its images: `mean` and `std` of each channel, and unless older `image_size`."""
    facts = run.facts_of_weights(ENCODER)
    if "mean" not in facts or "std" not in facts:
        raise InputError(
            f"{ENCODER} does not say how images were normalised: an older version wrote it",
            where=str(run.path),
            remedy="Delete encoder.safetensors and projector.safetensors; cssl pretrain with the run's recipe writes "
            "them again.",
        )
    return facts
