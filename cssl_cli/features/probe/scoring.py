"""What a classifier's predictions come to: accuracy, top-5 accuracy, and both over draws of few labelled images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.intervals import mean_interval
from cssl_cli.features.proportions import clopper_pearson

TOP = 5
MOST_WITHOUT_TOP = 10  # classes: of so many, the first five are half


def score(
    predictions: Tensor, labels: Tensor, class_names: Sequence[str], in_top: Tensor | None = None
) -> dict[str, Any]:
    """Scores predictions (N,) against labels (N,), both 0 … K − 1; a negative prediction is an error.

    `accuracy` (0 to 1), its 95 % Clopper–Pearson `interval` over the test images, `num_images`, and by class name
    `images_per_class` and `per_class`, the accuracy, None for a class without a test image. With `in_top` (N,), whether
    an image's class is among the first five, `top_5` with its `accuracy` and `interval`.
    """
    predictions, labels = predictions.cpu(), labels.cpu()  # a GPU would be waited for at each look at them
    right = predictions == labels
    sizes = labels.bincount(minlength=len(class_names)).tolist()
    hits = labels[right].bincount(minlength=len(class_names)).tolist()
    return {
        **_share(right),
        "num_images": len(labels),
        **({} if in_top is None else {"top_5": _share(in_top.cpu())}),
        "per_class": {
            name: hit / size if size else None for name, hit, size in zip(class_names, hits, sizes, strict=True)
        },
        "images_per_class": dict(zip(class_names, sizes, strict=True)),
    }


def _share(right: Tensor) -> dict[str, Any]:
    num_right, num_images = int(right.sum()), len(right)
    return {"accuracy": num_right / num_images, "interval": list(clopper_pearson(num_right, num_images))}


def among_first(
    scores: Tensor, labels: Tensor, num_classes: int, *, tied_are_ahead: bool = False, least: float = -torch.inf
) -> Tensor | None:
    """Whether the class of each image is among the five of the greatest scores (N, K); None for up to 10 classes.

    Of classes with equal scores the first is ahead, or, if `tied_are_ahead`, all others of them. A class whose score is
    not above `least` is not among them.
    """
    if num_classes <= MOST_WITHOUT_TOP:
        return None
    labels = labels.to(scores.device)
    own = scores.gather(1, labels.unsqueeze(1))
    level = scores == own
    if tied_are_ahead:
        tied = level.sum(dim=1) - 1
    else:
        tied = (level & (torch.arange(num_classes, device=scores.device) < labels.unsqueeze(1))).sum(dim=1)
    return ((scores > own).sum(dim=1) + tied < TOP) & (own.squeeze(1) > least)


def over_draws(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean `accuracy` of `score`s that differ in their labelled images, and of their `top_5` if they have it.

    `accuracies` of the n draws, their sample standard deviation `sd`, and the 95 % `interval` of their expectation over
    draws (Student's t): None where there are too few draws or they are equal.
    """
    found = _mean([one["accuracy"] for one in scores])
    if "top_5" in scores[0]:
        found["top_5"] = _mean([one["top_5"]["accuracy"] for one in scores])
    return found


def _mean(values: list[float]) -> dict[str, Any]:
    interval = mean_interval(values)
    return {
        "accuracy": values[0] if len(values) == 1 else statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "interval": None if interval is None else [max(0.0, interval[0]), min(1.0, interval[1])],
        "accuracies": values,
    }
