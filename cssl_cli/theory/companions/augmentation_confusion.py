"""Augmentation overlap seen by the encoder: ACR and GACR, and their ratios ARC and GARC. (docs/theory.md, 13.)

A view is confused if the nearest other view belongs to another image. For a view v of image i and an image j let
D(v, j) be the mean (least, largest) distance of f(v) to the stored augmented views of j, without v itself when j = i,
features scaled to unit norm. GACR is the share of views with D(v, j) ≤ D(v, i) for some j ≠ i; with the least distance
it is ACR, the share of views whose nearest other view comes from another image. A tie counts as confused. Against the
same images and views under a baseline encoder, commonly the untrained one, ARC = (1 − ACR) / (1 − ACR of the baseline),
and GARC likewise. Wang et al., "Chaos is a ladder", ICLR 2022; Zhang, Wang and Wang, arXiv 2511.03114. (The published
code takes one view of each image as v, here all are; and leaves v's place among the views out of every image.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable

SUMMARIES = ("min", "mean", "max")
BLOCK_NUMBERS = 4_000_000  # distances in memory at a time
ZERO = 1e-13  # squared distances below this are rounding
TIE = 1e-8  # distances closer than this are equal

CONFUSION_WORDS = {
    "acr": "share of augmented views whose nearest other view comes from another image",
    "gacr_min": "share of augmented views with another image nearer than their own by the least distance to its views "
    "(the same as acr)",
    "gacr_mean": "share of augmented views with another image nearer than their own by the mean distance to its views",
    "gacr_max": "share of augmented views with another image nearer than their own by the largest distance to its "
    "views",
}
RATIO_WORDS = "unconfused share ({name}) over that of the baseline encoder on the same images and views"


def chaos(
    table: FeatureTable, baseline: FeatureTable | None, *, max_images: int, generator: torch.Generator
) -> dict[str, Quantity]:
    """`acr`, `gacr_mean`, `gacr_min`, `gacr_max` in 0 … 1; `arc`, `garc_mean`, `garc_min`, `garc_max`, ≥ 0.

    At most `max_images` images are used, drawn at random from `generator`: the distances between all views grow with
    the square of the images. `baseline` holds the same images and views under another encoder; without it the ratios
    are absent.
    """
    names = {"acr": "min"} | {f"gacr_{summary}": summary for summary in SUMMARIES}
    reason = _why_absent(table, baseline)
    if reason is not None:
        return dict.fromkeys([*names, *(_ratio_name(name) for name in names)], Absent(reason))
    chosen = _subset(table.num_images, max_images, generator).to(table.features.device)
    sample = Sample(len(chosen), table.num_augmented)
    confused = _confused(table.features[chosen, 1:])
    of_baseline = None if baseline is None else _confused(baseline.features[chosen.to(baseline.features.device), 1:])
    return {name: _confusion(name, confused[summary], sample) for name, summary in names.items()} | {
        _ratio_name(name): _ratio(name, summary, confused, of_baseline, sample) for name, summary in names.items()
    }


def _ratio_name(name: str) -> str:
    return name.replace("acr", "arc")


def _why_absent(table: FeatureTable, baseline: FeatureTable | None) -> str | None:
    if table.num_augmented < 2:
        return "confusion needs at least two augmented views of an image"
    if table.num_images < 2:
        return "confusion needs two images"
    if baseline is not None and baseline.features.shape[:2] != table.features.shape[:2]:
        return "the baseline encoder has other images or views"
    return None


def _subset(num_images: int, max_images: int, generator: torch.Generator) -> Tensor:
    if num_images <= max_images:
        return torch.arange(num_images)
    return torch.randperm(num_images, generator=generator)[:max_images].sort().values


def _confused(features: Tensor) -> dict[str, float]:
    """Summary of an image's distances → share of views with another image as near, for features (n, m, D)."""
    num_images, num_views, _ = features.shape
    views = unit_norm(features).flatten(0, 1)
    squares = views.square().sum(dim=1)
    image = torch.arange(num_images, device=views.device).repeat_interleave(num_views)
    counts = dict.fromkeys(SUMMARIES, 0)
    for block in torch.arange(len(views), device=views.device).split(max(1, BLOCK_NUMBERS // len(views))):
        rows = torch.arange(len(block), device=views.device)
        distance = squares[block, None] + squares[None, :] - 2 * views[block] @ views.T
        distance = torch.where(distance < ZERO, 0, distance).sqrt_()
        distance[rows, block] = 0
        mean = distance.unflatten(1, (num_images, num_views)).mean(dim=2)
        largest = distance.unflatten(1, (num_images, num_views)).amax(dim=2)
        mean[rows, image[block]] *= num_views / (num_views - 1)  # the view itself, at distance 0, is left out
        distance[rows, block] = torch.inf
        least = distance.unflatten(1, (num_images, num_views)).amin(dim=2)
        for summary, of_images in zip(SUMMARIES, (least, mean, largest), strict=True):
            own = of_images[rows, image[block]].clone()
            of_images[rows, image[block]] = torch.inf
            counts[summary] += int((of_images.amin(dim=1) <= own + TIE).sum())
    return {summary: count / len(views) for summary, count in counts.items()}


def _confusion(name: str, value: float, sample: Sample) -> Estimate:
    words = CONFUSION_WORDS[name] + "; grows with the images and falls with the views: compare at equal numbers of both"
    return Estimate(value, words, "either", sample)


def _ratio(
    name: str, summary: str, confused: dict[str, float], baseline: dict[str, float] | None, sample: Sample
) -> Quantity:
    if baseline is None:
        return Absent("there is no baseline encoder to compare with")
    if baseline[summary] == 1:
        return Absent("every view is confused under the baseline encoder")
    value = (1 - confused[summary]) / (1 - baseline[summary])
    words = RATIO_WORDS.format(name=name) + "; compare at equal images and views"
    return Estimate(value, words, "exact for the table", sample)
