"""Classifiers on frozen features: features and labels in, accuracies with their uncertainty out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import require_finite
from cssl_cli.features.probe.few_labels import FOLDS, MOST_IN_FOLDS, FewLabels
from cssl_cli.features.probe.knn import effective_k, knn_votes
from cssl_cli.features.probe.linear import fit_linear
from cssl_cli.features.probe.nearest_center import CenterAccumulator, center_distances, nearest_center_predict
from cssl_cli.features.probe.scoring import MOST_WITHOUT_TOP, among_first, score

__all__ = [
    "CenterAccumulator",
    "FewLabels",
    "among_first",
    "center_probe",
    "feature_probes",
    "few_center_probes",
    "knn_probe",
    "score",
]


def feature_probes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    class_names: Sequence[str],
    settings: Mapping[str, Any],
    generator: torch.Generator,
    few: FewLabels | None = None,
) -> dict[str, dict[str, Any]]:
    """Scores of `linear` and `knn`, each with its own details beside the entries of `score`.

    train_features (M, D) and test_features (N, D) are raw encoder outputs of clean images on one device; labels run
    over 0 … K − 1; `settings` is the recipe's probe block: knn_k, knn_temperature, penalties, validation_fraction. The
    test set is used only for the score. With `few`, each has its `few_labels` (`FewLabels.scores`). Raises RunError for
    infinite or NaN features, InputError for labels that do not fit.
    """
    require_finite(train_features, "the features of the training images")
    require_finite(test_features, "the features of the test images")
    device, num_classes = train_features.device, len(class_names)
    _check_labels(train_labels, len(train_features), "training", num_classes)
    _check_labels(test_labels, len(test_features), "test", num_classes)
    _check_classes(train_labels, test_labels, class_names)
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)

    def linear(rows: Tensor | slice, generator: torch.Generator, folds: int = 0) -> dict[str, Any]:
        classifier, facts = fit_linear(
            train_features[rows],
            train_labels[rows],
            penalties=settings["penalties"],
            validation_fraction=settings["validation_fraction"],
            generator=generator,
            folds=folds,
        )
        logits = classifier.logits(test_features)
        of_all = logits.new_full((len(logits), num_classes), -torch.inf)
        of_all[:, classifier.classes] = logits
        in_top = among_first(of_all, test_labels, num_classes)
        return {**score(classifier.classes[logits.argmax(dim=1)], test_labels, class_names, in_top), **facts}

    def linear_of_few(rows: Tensor, generator: torch.Generator) -> dict[str, Any]:
        return linear(rows.to(device), generator, FOLDS if len(rows) <= MOST_IN_FOLDS else 0)

    def knn(rows: Tensor | slice) -> dict[str, Any]:
        return knn_probe(
            train_features[rows],
            train_labels[rows],
            test_features,
            test_labels,
            class_names=class_names,
            settings=settings,
        )

    found = {"linear": linear(slice(None), generator), "knn": knn(slice(None))}
    if few is not None:
        found["linear"] |= few.scores(train_labels, found["linear"], linear_of_few, ["penalty"])
        found["knn"] |= few.scores(train_labels, found["knn"], lambda rows, _: knn(rows.to(device)), ["k"])
    return found


def knn_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    class_names: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Score of the weighted k-NN classifier, with its `k` and `temperature`; arguments as those of `feature_probes`.

    A class without a vote is not among the first five.
    """
    num_classes = len(class_names)
    k, temperature = effective_k(settings["knn_k"], len(train_labels), num_classes), settings["knn_temperature"]
    votes = knn_votes(
        train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=num_classes
    )
    in_top = among_first(votes, test_labels, num_classes, least=0)
    return {**score(votes.argmax(dim=1), test_labels, class_names, in_top), "k": k, "temperature": temperature}


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
    in_top = None
    if len(class_names) > MOST_WITHOUT_TOP:
        distances = center_distances(test_features, centers)
        in_top = among_first(-distances, test_labels, len(class_names), tied_are_ahead=True)
    return {**score(predictions, test_labels, class_names, in_top), "center_views": center_views}


def few_center_probes(
    few: FewLabels,
    centers: CenterAccumulator,
    whole: Mapping[str, Any],
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The `few_labels` of nearest-class-centre classifiers, whose score with all images is `whole`.

    `centers` was made with `keep`, and given the views of all training images in the order of train_labels (M,).
    """

    def fit(rows: Tensor, _: torch.Generator) -> dict[str, Any]:
        return center_probe(
            centers.centers_of(rows),
            test_features,
            test_labels,
            class_names=class_names,
            center_views=whole["center_views"],
        )

    return few.scores(train_labels, whole, fit)


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
