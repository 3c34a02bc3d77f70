"""Classifiers on frozen features: features and labels in, accuracies with their uncertainty out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import require_finite
from cssl_cli.features.intervals import clopper_pearson
from cssl_cli.features.probe.knn import effective_k, knn_predict
from cssl_cli.features.probe.linear import fit_linear
from cssl_cli.features.probe.nearest_center import CenterAccumulator, nearest_center_predict

__all__ = ["CenterAccumulator", "center_probe", "feature_probes", "knn_probe", "score"]


def score(predictions: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Scores predictions (N,) against labels (N,), both 0 … K − 1; a negative prediction is an error.

    `accuracy` (0 to 1), its 95 % Clopper–Pearson `interval` over the test images, `num_images`, and by class name
    `images_per_class` and `per_class`, the accuracy, None for a class without a test image.
    """
    predictions, labels = predictions.cpu(), labels.cpu()  # a GPU would be waited for at each look at them
    right = predictions == labels
    num_right, num_images = int(right.sum()), len(labels)
    sizes = labels.bincount(minlength=len(class_names)).tolist()
    hits = labels[right].bincount(minlength=len(class_names)).tolist()
    return {
        "accuracy": num_right / num_images,
        "interval": list(clopper_pearson(num_right, num_images)),
        "num_images": num_images,
        "per_class": {
            name: hit / size if size else None for name, hit, size in zip(class_names, hits, sizes, strict=True)
        },
        "images_per_class": dict(zip(class_names, sizes, strict=True)),
    }


def feature_probes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    class_names: Sequence[str],
    settings: Mapping[str, Any],
    generator: torch.Generator,
) -> dict[str, dict[str, Any]]:
    """Scores of `linear` and `knn`, each with its own details beside the entries of `score`.

    train_features (M, D) and test_features (N, D) are raw encoder outputs of clean images on one device; labels run
    over 0 … K − 1; `settings` is the recipe's probe block: knn_k, knn_temperature, penalties, validation_fraction. The
    test set is used only for the score. Raises RunError for infinite or NaN features, InputError for labels that
    do not fit.
    """
    require_finite(train_features, "the features of the training images")
    require_finite(test_features, "the features of the test images")
    device, num_classes = train_features.device, len(class_names)
    _check_labels(train_labels, len(train_features), "training", num_classes)
    _check_labels(test_labels, len(test_features), "test", num_classes)
    _check_classes(train_labels, test_labels, class_names)
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)
    classifier, linear_facts = fit_linear(
        train_features,
        train_labels,
        penalties=settings["penalties"],
        validation_fraction=settings["validation_fraction"],
        generator=generator,
    )
    return {
        "linear": {**score(classifier.predict(test_features), test_labels, class_names), **linear_facts},
        "knn": knn_probe(
            train_features, train_labels, test_features, test_labels, class_names=class_names, settings=settings
        ),
    }


def knn_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    class_names: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Score of the weighted k-NN classifier, with its `k` and `temperature`; arguments as those of `feature_probes`."""
    num_classes = len(class_names)
    k, temperature = effective_k(settings["knn_k"], len(train_labels), num_classes), settings["knn_temperature"]
    predictions = knn_predict(
        train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=num_classes
    )
    return {**score(predictions, test_labels, class_names), "k": k, "temperature": temperature}


def center_probe(
    centers: Tensor, test_features: Tensor, test_labels: Tensor, *, class_names: Sequence[str], center_views: int
) -> dict[str, Any]:
    """Score of the paper's nearest-class-centre classifier on raw encoder outputs (N, D) of clean images.

    `centers` (K, D) come from a `CenterAccumulator` over `center_views` views of each training image. Raises RunError
    for infinite or NaN features, InputError for labels that do not fit.
    """
    require_finite(test_features, "the features of the test images")
    _check_labels(test_labels, len(test_features), "test", len(class_names))
    predictions = nearest_center_predict(test_features, centers)
    return {**score(predictions, test_labels, class_names), "center_views": center_views}


def _check_labels(labels: Tensor, num_images: int, which: str, num_classes: int) -> None:
    if num_images == 0:
        raise InputError(f"there are no {which} images to probe with")
    if labels.shape != (num_images,):
        raise InputError(f"{num_images} {which} images have labels of shape {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        span = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"the {which} labels run from {span} but there are {num_classes} classes")


def _check_classes(train_labels: Tensor, test_labels: Tensor, class_names: Sequence[str]) -> None:
    unseen = [class_names[label] for label in test_labels.unique().tolist() if not (train_labels == label).any()]
    if unseen:
        raise InputError(
            f"test images of {', '.join(map(repr, unseen))}, and no training image of that class",
            remedy="Give every class training images, or leave it out of the test images.",
        )
