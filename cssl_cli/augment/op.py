"""The interface of an augmentation operation, and maps from coordinates of the unit cube to what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

CPU_BLOCK = 3 * 2**17  # pixel values processed together on a CPU (1.5 MiB): 128 RGB images of side 32
DEVICE_BLOCK = 3 * 2**27  # the same elsewhere (1.5 GiB): 2,675 of side 224, of which several copies are made


@dataclass(frozen=True, kw_only=True)
class Operation(ABC):
    """One augmentation of square images of side `image_size`; its other fields are the `Settings` of its file.

    The class `Settings` declares what a recipe's `augment` block may say of the operation. Recipes read it without
    importing the file (recipe/declared.py): what it uses is imported, and loads no torch.

    Drawing and applying are separate: `parameters` turns points of the unit cube into named quantities, one per image,
    and `apply` transforms the images with them. Both are pure functions. An operation that applies to some images only
    says so in the boolean parameter `applied` (N,), which `Augmentation` evaluates; `apply` itself transforms every
    image it is given.

    Images may have any number of channels, unless the operation `mixes_channels`: then they have three.

    `of_all_images` names the fields that are the same for all images of a pass; the others only make `parameters`.
    `states` names the discrete parameters: the outcome of a coin, an order. Given these, the view varies only with the
    coordinates that `continuous` lists. `coin` is the index of the coordinate that also decides the coin (see
    `chance`), which has probability `p`.
    """

    image_size: int

    num_parameters: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("applied",)
    coin: ClassVar[int | None] = 0
    of_all_images: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def mixes_channels(cls, settings: Mapping[str, Any]) -> bool:  # noqa: ARG003
        """Whether with these `Settings` it is defined for red, green and blue only."""
        return False

    @property
    @abstractmethod
    def continuous(self) -> tuple[int, ...]:
        """Indices of the coordinates that a view varies with continuously, up to rounding to whole pixels."""

    @abstractmethod
    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Named parameters, each (N,), from theta (N, num_parameters) in [0, 1), on theta's device."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Transformed images (N, C, H, W), floating point in [0, 1], from images of the same shape, type and range."""


def chance(u: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Use one coordinate u twice: whether an event of probability p happens, and a fresh coordinate.

    Given u < p, u / p is again uniform on [0, 1), so an operation that is applied with probability p needs no extra
    coordinate for that: the unit cube stays small. Returns (happens: bool, fresh coordinate).
    """
    if p <= 0:
        return torch.zeros_like(u, dtype=torch.bool), u
    if p >= 1:
        return torch.ones_like(u, dtype=torch.bool), u
    return u < p, (u / p).clamp(max=1)


def between(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Uniform on [low, high) when u is uniform on [0, 1)."""
    return low + (high - low) * u


def whole_number(u: Tensor, count: int | Tensor) -> Tensor:
    """Uniform on {0, …, count − 1}, as floating point, when u is uniform on [0, 1); u = 1 gives count − 1."""
    return (u * count).floor().clamp(max=count - 1)


def per_image(values: Tensor) -> Tensor:
    """One number per image (N,), shaped (N, 1, 1, 1) to act on images."""
    return values.reshape(-1, 1, 1, 1)


def blocks_of(images: Tensor) -> list[slice]:
    """Blocks of images to process together: on a CPU, temporaries then fit its cache, and malloc can reuse them."""
    num_blocks = max(1, round(images.numel() / (CPU_BLOCK if on_cpu(images) else DEVICE_BLOCK)))
    num_rows = max(1, -(-len(images) // num_blocks))
    return [slice(start, start + num_rows) for start in range(0, max(1, len(images)), num_rows)]


def on_cpu(images: Tensor) -> bool:
    """Whether an operation may inspect the parameters to save work; on an accelerator that would wait for it."""
    return images.device.type == "cpu"
