"""What an augmentation operation is, and the maps from a coordinate of the unit cube to the quantities it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Operation(ABC):
    """One augmentation of square images of side `image_size`; its other fields are the `Settings` of its file.

    The class `Settings` declares what a recipe's `augment` block may say of the operation. Recipes read it without
    importing the file (recipe/declared.py): what it uses is imported, and loads no torch.

    Drawing and applying are apart: `parameters` turns points of the unit cube into named quantities, one per image,
    and `apply` carries them out. Both are pure functions. An operation that concerns some images only says so in the
    boolean parameter `applied` (N,), which the `Augmentation` heeds; its `apply` transforms every image it is given.

    `states` names the parameters that take a few values only, the outcome of a coin or an order. Given these, the view
    varies with the coordinates that `continuous` lists, and with no other. `coin` is the place of the coordinate that
    is spent on the coin too (see `chance`), which has probability `p`.
    """

    image_size: int

    num_parameters: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("applied",)
    coin: ClassVar[int | None] = 0

    @property
    @abstractmethod
    def continuous(self) -> tuple[int, ...]:
        """The places, among its coordinates, of those that a view varies with continuously, but for whole pixels."""

    @abstractmethod
    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Named parameters, each (N,), from theta (N, num_parameters) in [0, 1), on theta's device."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Transformed images (N, C, H, W), floating point in [0, 1], from images of the same shape, type and range."""


def chance(u: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Spend one coordinate u on two things: whether an event of probability p happens, and a fresh coordinate.

    Given that u < p, u / p is again uniform on [0, 1), so an operation that is applied with probability p needs no
    coordinate of its own for that: the unit cube stays small. Returns (happens: bool, fresh coordinate).
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


def on_cpu(images: Tensor) -> bool:
    """Whether an operation may look at the parameters to save work; an accelerator would have to be waited for."""
    return images.device.type == "cpu"
