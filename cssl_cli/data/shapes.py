"""A built-in set of drawn images: ten classes of shapes, no download.

Every image shows one shape of its class on a striped background. Position, size, rotation, both colours, the stripes
of shape and background and their lighting are random and independent of the class, and the shape is as often lighter as
darker than its background, so pixels say little about the class. Two crops of one image can mostly be matched by their
colours: cropping alone leaves a shortcut, which colour distortion and grayscale remove. There are few hues, so the
shortcut is not perfect, and even with crops alone the encoder learns something about shapes.

Image i depends only on its index, its split and `size`: a larger set begins with the smaller one. Every ten consecutive
images contain each class once, so classes are balanced. Pixels are computed in float32 with sums, products, quotients
and square roots only, which IEEE 754 rounds in one way, and sines once an image in float64: they depend neither on the
number of threads nor on the processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cssl_cli.data.image_set import ImageSet, Notice, ProgressCallback, Source
from cssl_cli.host.randomness import stream
from cssl_cli.recipe.ranges import ImageCount, Size

# Difficulty. Lengths are shares of the image's side; brightness is on the 0..1 scale.
RADIUS = (0.22, 0.36)  # of the circle around the shape
MARGIN = 0.02  # between that circle and the border, at least
ROTATION = 45.0  # degrees to either side
CONTRAST = (0.25, 0.50)  # brightness of the shape against its background
NUM_HUES = 4  # of background and shape, chosen independently
SATURATION = 0.5  # of the palette, as a share of the strongest colour that fits the brightness
STRIPE_PERIOD = (0.12, 0.40)
STRIPE_DEPTH = (0.0, 0.03)  # brightness
LIGHTING = (0.0, 0.15)  # change of brightness across the image
NOISE = 0.01  # standard deviation of a pixel's brightness

_SEED = 0
_BLOCK = 500  # images drawn at a time: bounds the memory
_NUM_PARAMETERS = 18  # uniform numbers an image, in the order in which `_draw` takes them
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """ten classes of drawn shapes that need no download"""

    num_train: ImageCount = 10_000
    """training images to draw"""
    num_test: ImageCount = 2_000
    """test images to draw"""
    size: Size = 32
    """side of the images in pixels"""
    store_size: Size | None = None
    """side at which they are drawn, at least size, so that crops see more of them; null: size"""


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,  # noqa: ARG001
    progress: ProgressCallback | None,
    notice: Notice | None = None,  # noqa: ARG001
    own: Iterable[Path] = (),  # noqa: ARG001
) -> Source:
    """`num_train` and `num_test` shapes, squares of `store_size`, or `size`, pixels; nothing is read or written."""
    parts, size = {}, settings.get("store_size") or settings["size"]
    for split in ("train", "test"):
        images, labels = draw_shapes(settings[f"num_{split}"], size=size, split=split, progress=progress)
        parts[split] = ImageSet(images, labels)
    return Source("shapes", CLASS_NAMES, pretrain=parts["train"], train=parts["train"], test=parts["test"])


def shape_of(settings: Mapping[str, Any], *, own: Iterable[Path]) -> tuple[int, int, None]:  # noqa: ARG001
    """The number of images and their channels; their side is that of the settings."""
    return settings["num_train"] + settings["num_test"], 3, None


def draw_shapes(num_images: int, *, size: int, split: str, progress: ProgressCallback | None) -> tuple[Tensor, Tensor]:
    """uint8 images (N, 3, size, size) and labels (N,) of one split; see the module."""
    labels = _labels(num_images, split)
    numbers = torch.rand(num_images, _NUM_PARAMETERS, generator=stream(_SEED, f"data/shapes/{split}/parameters"))
    noise = stream(_SEED, f"data/shapes/{split}/noise")
    images = torch.empty(num_images, 3, size, size, dtype=torch.uint8)
    with _one_thread():
        for start in range(0, num_images, _BLOCK):
            block = slice(start, min(start + _BLOCK, num_images))
            images[block] = _draw(labels[block], numbers[block].double(), size, noise)
            if progress:
                progress(block.stop, num_images, f"drawing {split} images")
    return images, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    """The operations are short: on a busy machine, synchronising threads after each costs many times the work."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _labels(num_images: int, split: str) -> Tensor:
    rounds = -(-num_images // len(CLASS_NAMES))
    order = torch.rand(rounds, len(CLASS_NAMES), generator=stream(_SEED, f"data/shapes/{split}/labels"))
    return order.argsort(dim=1, stable=True).flatten()[:num_images]


def _draw(labels: Tensor, numbers: Tensor, size: int, noise: torch.Generator) -> Tensor:
    """One block of images (B, 3, size, size) from their labels (B,) and uniform numbers (B, _NUM_PARAMETERS)."""
    u = iter(numbers.unbind(1))
    radius = _between(RADIUS, next(u))
    reach = 0.5 - radius - MARGIN
    center_x, center_y = 0.5 + reach * (2 * next(u) - 1), 0.5 + reach * (2 * next(u) - 1)
    angle = math.radians(ROTATION) * (2 * next(u) - 1)
    ground, figure = _palette(*(next(u) for _ in range(4)))

    ticks = (torch.arange(size) + 0.5) / size
    y, x = ticks[:, None], ticks[None, :]
    dx, dy = x - _per_image(center_x), y - _per_image(center_y)
    cos, sin = _per_image(angle.cos() / radius), _per_image(angle.sin() / radius)
    distance = _signed_distance(labels, cos * dx + sin * dy, cos * dy - sin * dx)
    cover = (0.5 - distance * _per_image(radius * size)).clamp_(0, 1)[:, None]

    ground = ground + (_stripes(x, y, *(next(u) for _ in range(4))) + _lighting(x, y, next(u), next(u)))[:, None]
    figure = figure + _stripes(x, y, *(next(u) for _ in range(4)))[:, None]
    grain = math.sqrt(12) * NOISE * (torch.rand(len(labels), 1, size, size, generator=noise) - 0.5)
    image = ground + cover * (figure - ground) + grain
    return (image.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _between(bounds: tuple[float, float], u: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _per_image(values: Tensor) -> Tensor:
    """One number an image (B,), shaped to broadcast over pixels: float32 (B, 1, 1)."""
    return values.float()[:, None, None]


def _palette(order: Tensor, contrast: Tensor, ground_hue: Tensor, figure_hue: Tensor) -> tuple[Tensor, Tensor]:
    """Colours of background and shape (B, 3, 1, 1), of brightness around one half, from uniform numbers (B,)."""
    half = _between(CONTRAST, contrast) / 2
    signed = torch.where(order < 0.5, half, -half)
    return _color(0.5 - signed, ground_hue), _color(0.5 + signed, figure_hue)


def _color(brightness: Tensor, u: Tensor) -> Tensor:
    """RGB (B, 3, 1, 1) of a given brightness (luma): gray plus as much of a pure hue as fits into 0..1."""
    hue = (NUM_HUES * u).floor() / NUM_HUES
    thirds = torch.tensor([0.0, 1 / 3, 2 / 3], dtype=hue.dtype)
    pure = (3 * (((hue[:, None] - thirds) % 1) - 0.5).abs() - 0.5).clamp(0, 1)
    chroma = pure - (pure * torch.tensor(_LUMA, dtype=hue.dtype)).sum(1, keepdim=True)
    gray = brightness[:, None]
    fits = (torch.where(chroma > 0, 1 - gray, gray) / chroma.abs().clamp(min=1e-9)).amin(1, keepdim=True)
    return (gray + SATURATION * fits * chroma).float()[:, :, None, None]


def _stripes(x: Tensor, y: Tensor, angle: Tensor, period: Tensor, depth: Tensor, phase: Tensor) -> Tensor:
    """Brightness (B, H, W), around 0, of a smooth wave across the image."""
    angle, period = math.pi * angle, _between(STRIPE_PERIOD, period)
    along = _per_image(angle.cos() / period) * x + _per_image(angle.sin() / period) * y + _per_image(phase)
    triangle = 4 * (along - along.floor() - 0.5).abs() - 1
    return _per_image(_between(STRIPE_DEPTH, depth)) * triangle * (1.5 - 0.5 * triangle * triangle)


def _lighting(x: Tensor, y: Tensor, angle: Tensor, depth: Tensor) -> Tensor:
    """Brightness (B, H, W), around 0, that grows along a random direction."""
    angle, depth = 2 * math.pi * angle, _between(LIGHTING, depth)
    return _per_image(depth * angle.cos()) * (x - 0.5) + _per_image(depth * angle.sin()) * (y - 0.5)


def _signed_distance(labels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distance of points (B, H, W) to the outline of each image's shape, negative inside; the unit is its radius."""
    distance = torch.empty_like(x)
    for k, shape in enumerate(_SHAPES.values()):
        rows = (labels == k).nonzero()[:, 0]
        distance[rows] = shape(x[rows], y[rows])
    return distance


def _disk(x: Tensor, y: Tensor, radius: float) -> Tensor:
    return (x * x + y * y).sqrt() - radius


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _half_planes(x: Tensor, y: Tensor, num_sides: int, distance: float) -> Tensor:
    """Signed distances (num_sides, B, H, W) to lines at equal angles around the origin, one of them below it."""
    angles = [math.pi / 2 + 2 * math.pi * k / num_sides for k in range(num_sides)]
    return torch.stack([math.cos(a) * x + math.sin(a) * y - distance for a in angles])


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _half_planes(x, y, 3, 0.5).amax(0)


def _star(x: Tensor, y: Tensor) -> Tensor:
    # Inside a pentagram a point is beyond at most one of the five lines.
    return _half_planes(x, y, 5, math.cos(math.radians(72))).topk(2, dim=0).values[1]


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_disk(x, y, 0.95), -_disk(x - 0.45, y, 0.75))


def _heart(x: Tensor, y: Tensor) -> Tensor:
    side = 0.56  # half the side of a square on its corner, with a disk on each of its upper sides
    y = y - 0.12
    u, v = (x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5)
    disks = torch.minimum(_disk(u, v + side, side), _disk(u + side, v, side))
    return torch.minimum(_box(u, v, side, side), disks)


def _arrow(x: Tensor, y: Tensor) -> Tensor:
    head = _half_planes(x, y + 0.36, 3, 0.32).amax(0)
    return torch.minimum(head, _box(x, y - 0.42, 0.18, 0.5))


_SHAPES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "arrow": _arrow,
    "bar": lambda x, y: _box(x, y, 0.95, 0.26),
    "circle": lambda x, y: _disk(x, y, 0.80),
    "crescent": _crescent,
    "cross": lambda x, y: torch.minimum(_box(x, y, 0.92, 0.28), _box(x, y, 0.28, 0.92)),
    "heart": _heart,
    "ring": lambda x, y: _disk(x, y, 0.72).abs() - 0.20,
    "square": lambda x, y: _box(x, y, 0.70, 0.70),
    "star": _star,
    "triangle": _triangle,
}
CLASS_NAMES = tuple(_SHAPES)
