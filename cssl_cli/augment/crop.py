"""Random resized crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cssl_cli.augment.op import Operation, between, whole_number
from cssl_cli.augment.resize import resized_boxes
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import AreaRange, PositiveRange

NUM_QUANTILES = 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """random resized crop"""

    scale: AreaRange = (0.08, 1.0)
    """area of the crop as a share of the image"""
    ratio: PositiveRange = (3 / 4, 4 / 3)
    """width of the crop over its height"""


@dataclass(frozen=True, kw_only=True)
class Crop(Settings, Operation):
    """A box of random area and aspect ratio, resized to `image_size` by bilinear interpolation.

    The box is of an image of side `store_size` (None: `image_size`). If that is larger, a box may have to be reduced,
    and is resized with antialiasing (resize.py).

    `scale` is the range of the box's area as a share of the image, `ratio` that of its width over its height. Boxes are
    whole pixels, distributed as in torchvision's `RandomResizedCrop`: area and log ratio are uniform, given that the
    box fits. torchvision tries up to ten times and then falls back to a central crop; here the condition is solved
    exactly, so four coordinates (area, ratio, top, left) are enough and there is no fallback.

    Parameters: `top`, `left`, `height`, `width` in pixels. `apply` also takes fractional boxes and is differentiable
    in them.
    """

    num_parameters: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ()
    coin: ClassVar[int | None] = None
    store_size: int | None = None
    # By device; compiled code can look a table up, but would recompute one cached by a function in every step.
    _quantiles: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scale[0] > _largest_area(self.side, *map(math.log, self.ratio)):
            raise InputError(
                f"no box with an area in {list(self.scale)} and a ratio in {list(self.ratio)} fits in a square image",
                where="augment.crop",
                remedy="Lower the start of scale, or let the range of ratio include 1.",
            )

    @property
    def side(self) -> int:
        """Of the image that boxes are of, in pixels."""
        return self.store_size or self.image_size

    @property
    def continuous(self) -> tuple[int, ...]:
        if self.scale[0] >= 1:  # always the whole image
            return ()
        area = (0,) if self.scale[0] < self.scale[1] else ()
        ratio = (1,) if self.ratio[0] < self.ratio[1] else ()
        return (*area, *ratio, 2, 3)

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        area_u, ratio_u, top_u, left_u = theta.unbind(1)
        side = self.side
        log_ratio_range = (math.log(self.ratio[0]), math.log(self.ratio[1]))
        if theta.device not in self._quantiles:
            self._quantiles[theta.device] = _area_quantiles(side, self.scale, log_ratio_range).to(theta.device)
        area = _interpolate(self._quantiles[theta.device], area_u)
        room = _log_ratio_room(side) - area.log()
        log_ratio = between(ratio_u, (-room).clamp(min=log_ratio_range[0]), room.clamp(max=log_ratio_range[1]))
        width = (side * (area * log_ratio.exp()).sqrt()).round().clamp(1, side)
        height = (side * (area * (-log_ratio).exp()).sqrt()).round().clamp(1, side)
        return {
            "top": whole_number(top_u, side - height + 1),
            "left": whole_number(left_u, side - width + 1),
            "height": height,
            "width": width,
        }

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        if self.side != self.image_size:
            return resized_boxes(images, **parameters, side=self.image_size)
        rows = _sample_positions(self.image_size, parameters["top"], parameters["height"])
        columns = _sample_positions(self.image_size, parameters["left"], parameters["width"])
        shape = (len(images), self.image_size, self.image_size)
        # Stacked as planes and permuted: several times faster to write than interleaved pairs, and as fast to read.
        grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=1)
        grid = grid.permute(0, 2, 3, 1).to(images.dtype)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _sample_positions(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Where each of `side` output pixels samples the image, (N, side), from −1 (first pixel) to 1 (last pixel).

    Clamped to the box, not to the image: pixels outside the crop must not bleed into it.
    """
    start, length = start[:, None], length[:, None]
    centers = (torch.arange(side, device=start.device) + 0.5) * (length / side) - 0.5
    inside = torch.minimum(centers.clamp(min=0), length - 1)
    return (start + inside) * (2 / max(side - 1, 1)) - 1


def _log_ratio_room(side: int) -> float:
    """m such that a box of relative area a and log ratio x fits, once rounded to pixels, when |x| ≤ m − log a."""
    return 2 * math.log1p(0.5 / side)


def _largest_area(side: int, low: float, high: float) -> float:
    """The largest relative area of a box that fits with a log ratio in [low, high]."""
    return math.exp(_log_ratio_room(side) - max(low, -high, 0.0))


def _area_quantiles(side: int, scale: tuple[float, float], log_ratio_range: tuple[float, float]) -> Tensor:
    """Quantiles of the relative area of a box that fits, at NUM_QUANTILES evenly spaced probabilities from 0 to 1.

    Area and log ratio are uniform on the boxes that fit, so the density of an area is the length of the range of log
    ratios it leaves open.
    """
    low, high = log_ratio_range
    areas = torch.linspace(scale[0], min(scale[1], _largest_area(side, low, high)), 8 * NUM_QUANTILES + 1).double()
    room = _log_ratio_room(side) - areas.log()
    # A range of a single ratio has length 0 everywhere; the small constant makes its areas uniform.
    density = (room.clamp(max=high) - (-room).clamp(min=low)).clamp(min=0) + 1e-9
    cumulative = torch.cat([density.new_zeros(1), torch.cumulative_trapezoid(density)])
    probabilities = torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.double) * cumulative[-1]
    upper = torch.searchsorted(cumulative, probabilities).clamp(1, len(areas) - 1)
    part = (probabilities - cumulative[upper - 1]) / (cumulative[upper] - cumulative[upper - 1])
    return torch.lerp(areas[upper - 1], areas[upper], part).float()


def _interpolate(table: Tensor, u: Tensor) -> Tensor:
    """The value at u in [0, 1] of the piecewise linear function through `table` (its ends at 0 and 1)."""
    position = u * (len(table) - 1)
    lower = position.floor().clamp(max=len(table) - 2)
    index = lower.long()
    return torch.lerp(table[index], table[index + 1], position - lower)
