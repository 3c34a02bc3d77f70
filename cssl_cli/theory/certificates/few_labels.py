"""The error of the nearest-centre classifier with few labelled images per class, on unlabelled images.

(docs/theory.md, 10.) A draw labels m random images of each class; a centre is the mean of their view means f̄_x, just
as the paper's μ_k is the mean over its class; the clean view of every other image is classified. The error of a draw is
the mean over classes, weighted by p_k, of the share of misclassified images. Its mean over draws and tables is the
expected error on new images with m labels per class: no image is tested by centres that it contributes to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cssl_cli.features.intervals import bootstrap_weights, percentile_interval
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.theory.certificates.conditions import ROUNDING
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Estimate, Interval, Quantity

MAX_DRAWS = 200
MIN_DRAWS = 40  # fewer do not show a 95 % range
MAX_OPERATIONS = 2_000_000_000  # multiplications for all draws of one m, which limits the draws of large tables
MAX_TESTED = 1000  # images tested at a time
BLOCK_DRAWS = 10  # draws that share the tested images, unless all are tested
MANY_DRAWS = 50  # draws at a time, if all images are tested


def few_labels(
    geometry: ClassGeometry | Absent, *, shots: Sequence[int], generator: torch.Generator
) -> dict[str, Quantity]:
    """`error_1`, `error_5`, …: the mean error with this many labelled images per class, for each of `shots`.

    The interval covers 95 % of the draws, with the noise of the tested images: it is for the population error of one
    draw of labelled images, not for the mean. None if a class has fewer than three images.
    """
    if isinstance(geometry, Absent):
        return {f"error_{count}": geometry for count in shots}
    return {f"error_{count}": _error(geometry, count, generator) for count in shots}


def _error(geometry: ClassGeometry, shots: int, generator: torch.Generator) -> Quantity:
    smallest = int(geometry.sizes.argmin())
    if len(geometry.members[smallest]) <= shots:
        name = geometry.table.class_names[geometry.classes[smallest]]
        images = f"{shots} labelled image{'s' if shots > 1 else ''} and one to test"
        return Absent(f"{images} are needed of every class, and there are {len(geometry.members[smallest])} of {name}")
    plain, resampled = errors_of_draws(geometry, shots, generator=generator)
    return Estimate(
        plain.mean().item(),
        f"mean over {len(plain)} draws of {shots} labelled images a class, whose view means give the centres, of the "
        "share of the other clean images that is not strictly nearest to its own; the interval holds 95 % of single "
        "draws, with the noise of the tested images",
        "unbiased",
        geometry.sample,
        interval=_interval(plain, resampled, geometry.table.num_images) if geometry.table.all_resampled else None,
        absent=geometry.missing,
    )


def _interval(plain: Tensor, resampled: Tensor, num_images: int) -> Interval | None:
    found = percentile_interval(resampled)
    if found is None:
        return None
    low, high = max(found[0], 0.0), min(found[1], 1.0)
    # Draws that see no error, or only errors, do not show how many images that would take.
    exact = clopper_pearson(round(plain.mean().item() * num_images), num_images)
    return (min(low, exact[0]) if high == 1 else low), (max(high, exact[1]) if low == 0 else high)


def errors_of_draws(geometry: ClassGeometry, shots: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The error of each draw (R,), and the same with the noise of tested images that the table's size leaves."""
    num_images, width = geometry.means.shape
    shares = [max(shots + 1, math.ceil(MAX_TESTED * len(images) / num_images)) for images in geometry.members]
    tested = [min(len(images), share) for images, share in zip(geometry.members, shares, strict=True)]
    operations = sum(tested) * width * len(tested)
    draws = min(MAX_DRAWS, max(MIN_DRAWS, MAX_OPERATIONS // operations))
    weights = bootstrap_weights(geometry.positions, replicates=draws, generator=generator).to(geometry.means.device)
    plain, resampled = [], []
    for rows in weights.split(MANY_DRAWS if sum(tested) == num_images else BLOCK_DRAWS):
        pool = [
            _random_places(1, len(images), size, generator)[0]
            for images, size in zip(geometry.members, tested, strict=True)
        ]
        labelled = [_random_places(len(rows), len(images), shots, generator) for images in geometry.members]
        wrong, free = _draws(geometry, labelled, pool)
        images = torch.cat([own[places.to(own.device)] for own, places in zip(geometry.members, pool, strict=True)])
        plain.append(_mean_of_classes(geometry, wrong, free, tested))
        moved = _mean_of_classes(geometry, wrong, free * rows[:, images], tested) - plain[-1]
        # Draws that test T of N images already differ by the noise of 1/T − 1/N images; 1/N is due, 1/T is drawn.
        due = (2 * free.sum(dim=1) / num_images - 1).clamp(min=0).sqrt()
        resampled.append(plain[-1] + due * moved)
    return torch.cat(plain), torch.cat(resampled)


def _draws(geometry: ClassGeometry, labelled: list[Tensor], pool: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Which pool images, class by class, are misclassified in each draw, and which are unlabelled: both (R, T)."""
    device = geometry.means.device
    centers, free, images = [], [], []
    for own, chosen, places in zip(geometry.members, labelled, pool, strict=True):
        centers.append(geometry.means[own[chosen.to(device)]].mean(dim=1))
        taken = torch.zeros(len(chosen), len(own), dtype=torch.bool).scatter_(1, chosen, True)
        free.append(~taken[:, places])
        images.append(own[places.to(device)])
    tested, stacked = torch.cat(images), torch.stack(centers, dim=1)
    # ½‖f‖² − ½‖f − μ‖²: the nearest centre has the largest. Computing distances from differences costs ten times more.
    scores = geometry.table.features[tested, 0] @ stacked.flatten(0, 1).T
    scores = scores.unflatten(1, stacked.shape[:2]) - stacked.square().sum(dim=2) / 2
    positions = geometry.positions[tested].view(-1, 1, 1).expand(-1, len(stacked), 1)
    own_scores = scores.gather(2, positions).squeeze(2)
    rivals = scores.scatter(2, positions, -torch.inf).amax(dim=2)
    right = own_scores - rivals > ROUNDING * geometry.largest_norm**2
    return (~right).T.double(), torch.cat(free, dim=1).to(device).double()


def _mean_of_classes(geometry: ClassGeometry, wrong: Tensor, weights: Tensor, sizes: list[int]) -> Tensor:
    """Σ p_k times the weighted mean of `wrong` (R, T) over class k, for consecutive classes of `sizes`: (R,)."""
    by_class = zip((wrong * weights).split(sizes, dim=1), weights.split(sizes, dim=1), strict=True)
    means = torch.stack([part.sum(dim=1) / weight.sum(dim=1) for part, weight in by_class], dim=1)
    return means @ geometry.priors


def _random_places(draws: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` distinct random positions in 0 … size − 1 per draw, (draws, count)."""
    return torch.rand(draws, size, generator=generator, dtype=torch.float64).argsort(dim=1)[:, :count]
