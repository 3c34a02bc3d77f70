"""Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cssl_cli.augment.op import Operation, between, chance, per_image
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import KernelSize, PositiveRange, Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Gaussian blur"""

    p: Probability = 0.5
    """probability of Gaussian blur"""
    sigma: PositiveRange = (0.1, 2.0)
    """standard deviation of the blur in pixels"""
    kernel_size: KernelSize | None = None
    """side of the kernel in pixels; null: the odd number nearest to a tenth of the image's side, at least 3"""


@dataclass(frozen=True, kw_only=True)
class Blur(Settings, Operation):
    """Convolution with a Gaussian of random width, with probability `p`; borders are reflected.

    `sigma` is the range of the Gaussian's standard deviation in pixels. `kernel_size` (odd) is the number of pixels
    after which it is cut off; None takes the odd number nearest to a tenth of the image side, at least 3.

    Parameters: `applied`, `sigma`. `apply` is differentiable in `sigma`.
    """

    num_parameters: ClassVar[int] = 1
    of_all_images: ClassVar[tuple[str, ...]] = ("kernel_size",)

    @property
    def continuous(self) -> tuple[int, ...]:
        return (0,) if self.sigma[0] < self.sigma[1] else ()

    def __post_init__(self) -> None:
        if self.radius >= self.image_size:
            raise InputError(
                f"a kernel of {2 * self.radius + 1} pixels is too large for images of side {self.image_size}",
                where="augment.blur.kernel_size",
                remedy=f"At most {2 * self.image_size - 1}.",
            )

    @property
    def radius(self) -> int:
        """Pixels on each side of a pixel that enter its average."""
        return max(1, self.image_size // 20) if self.kernel_size is None else self.kernel_size // 2

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        applied, u = chance(theta[:, 0], self.p)
        return {"applied": applied, "sigma": between(u, *self.sigma)}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        offsets = torch.arange(self.radius + 1, device=images.device)
        taps = torch.exp(-0.5 * (offsets / parameters["sigma"][:, None]) ** 2)
        taps = (taps / (2 * taps.sum(dim=1, keepdim=True) - 1)).to(images.dtype)  # the middle tap, 1, counts once
        padded = F.pad(images, (self.radius,) * 4, mode="reflect")
        return _symmetric_filter(_symmetric_filter(padded, taps, dim=2), taps, dim=3)


def _symmetric_filter(padded: Tensor, taps: Tensor, *, dim: int) -> Tensor:
    """Filter along `dim` with a symmetric kernel per image, `taps` (N, radius + 1) from its middle outwards.

    Returns only the positions whose neighbours all exist: `dim` is shorter by 2 · radius.
    """
    radius = taps.shape[1] - 1
    length = padded.shape[dim] - 2 * radius
    filtered = padded.narrow(dim, radius, length) * per_image(taps[:, 0])
    for offset in range(1, radius + 1):
        neighbours = padded.narrow(dim, radius - offset, length) + padded.narrow(dim, radius + offset, length)
        filtered = filtered.addcmul_(neighbours, per_image(taps[:, offset]))
    return filtered
