"""Images and augmentations of every kind, and how samples of their parameters are compared."""

import torch
from scipy import stats
from torch import Tensor

from cssl_cli.augment import OPERATIONS, Augmentation, build_augmentation
from cssl_cli.host.randomness import stream

SIDE = 32
JITTER = {"strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}
NAMED = {
    "crop": {"scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, **JITTER},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": [0.1, 2.0], "kernel_size": None},
    "solarize": {"p": 0.2, "threshold": 0.5},
    "cutout": {"p": 0.5, "scale": [0.02, 0.2]},
    "fade": {"p": 0.3, "contrast": [0.1, 0.6]},
}
EVERYTHING: dict[str, dict] = {name: NAMED.get(name, {}) for name in OPERATIONS}  # a new one with its defaults
# Less likely than this under a correct implementation; the draws are seeded, so a test passes always or never.
SIGNIFICANCE = 1e-4


def random_images(num: int, *, side: int = SIDE, seed: int = 0) -> Tensor:
    """Smooth and noisy, gray, black, white and saturated images, float32 (num, 3, side, side) in [0, 1]."""
    images = torch.rand((num, 3, side, side), generator=stream(seed, "images"))
    images[1::4] = torch.nn.functional.avg_pool2d(images[1::4], 5, stride=1, padding=2)
    images[2::8] = images[2::8, :1]
    images[3::8] = images[3::8].round()
    if num > 16:
        images[-1], images[-2] = 0.0, 1.0
    return images


def uniform(num: int, low: float, high: float, seed: int = 1) -> Tensor:
    """`num` numbers in [low, high], both ends among them."""
    values = low + (high - low) * torch.rand(num, generator=stream(seed, "parameters"))
    values[0], values[1] = low, high
    return values


def theta_of(augmentation: Augmentation, num: int, seed: int = 0) -> Tensor:
    return augmentation.draw(num, stream(seed, "theta"))


def everything(**changes: dict | None) -> Augmentation:
    return build_augmentation({**EVERYTHING, **changes}, image_size=SIDE)


def parameters_of(name: str, num: int, **changes: object) -> dict[str, Tensor]:
    augmentation = build_augmentation({name: {**EVERYTHING[name], **changes}}, image_size=SIDE)
    return augmentation.parameters(theta_of(augmentation, num))[name]


def assert_same_distribution(sample: Tensor, other: Tensor) -> None:
    """Two samples of whole numbers, by a chi-squared test on their counts, rare values pooled."""
    values, inverse = torch.cat([sample, other]).unique(return_inverse=True)
    counts = torch.stack([torch.bincount(part, minlength=len(values)) for part in inverse.split(len(sample))])
    common = counts.sum(0) >= 20
    table = torch.cat([counts[:, common], counts[:, ~common].sum(1, keepdim=True)], dim=1)
    assert stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue > SIGNIFICANCE


def smooth_images(num: int, side: int) -> Tensor:
    """Float64 images whose channels are far apart, so that no kink of a maximum or a clamp lies within reach."""
    noise = torch.rand((num, 3, side, side), generator=stream(2, "images"), dtype=torch.double)
    return 0.05 * noise + torch.tensor([0.55, 0.4, 0.25], dtype=torch.double)[:, None, None]
