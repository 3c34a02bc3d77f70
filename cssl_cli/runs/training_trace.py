"""What is recorded during training: cheap terms, and k-NN accuracies on the test images.

Measuring does not change training: the terms use random streams of their own, k-NN uses none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset
from cssl_cli.data.image_set import ImageSet, subset
from cssl_cli.errors import RunError
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.probe import knn_probe
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.images import has_labels
from cssl_cli.runs.run_dir import EPOCH_KNN, TRACE
from cssl_cli.runs.setup import make_augmentation, make_extractor
from cssl_cli.theory.alignment.alignment import alignment
from cssl_cli.theory.alignment.r_epsilon import r_epsilon
from cssl_cli.theory.certificates.augmented_error import augmented_error
from cssl_cli.theory.class_geometry import class_geometry
from cssl_cli.theory.companions.effective_rank import effective_rank
from cssl_cli.theory.companions.uniformity import uniformity
from cssl_cli.theory.divergence.class_centers import class_centers
from cssl_cli.theory.divergence.spread import spread
from cssl_cli.theory.estimate import Quantity
from cssl_cli.theory.table import FeatureTable

NUM_IMAGES, NUM_VIEWS, NUM_NEIGHBOURS = 500, 5, 5000  # for the terms
EPSILON = 0.5


def make_recorders(recipe: Recipe, dataset: Dataset, device: torch.device, reporter: Reporter) -> list[Recorder]:
    """The recorders that the recipe asks for, as far as the images have labels for them."""
    recorders: list[Recorder] = []
    if recipe.analyze.every is not None:
        recorders.append(TermTrace(recipe, dataset, device, every=recipe.analyze.every))
    if recipe.probe.every is not None:
        if has_labels(dataset):
            recorders.append(KnnTrace(recipe, dataset, device, every=recipe.probe.every))
        else:
            reporter.notice("the images have no labels: there are no k-NN accuracies through training")
    return recorders


class Recorder(ABC):
    """Measures the encoder every `every` epochs of training and at its end, into the run's file `file`."""

    file: ClassVar[str]
    at_start: ClassVar[bool]  # also before the first step

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, *, every: int) -> None:
        self.recipe, self.dataset, self.device, self.every = recipe, dataset, device, every

    def due(self, epoch: int, *, last: bool) -> bool:
        return last or (epoch % self.every == 0 if epoch else self.at_start)

    def measure(self, encoder: nn.Module, *, epoch: int, step: int) -> dict[str, Any]:
        """The record of the encoder at `epoch` and `step`; leaves it in training mode.

        Non-finite features give a record with an `error`.
        """
        extractor = make_extractor(
            encoder,
            mean=self.dataset.mean,
            std=self.dataset.std,
            image_size=self.dataset.image_size,
            device=self.device,
        )
        try:
            return {"epoch": epoch, "step": step, **self._facts(extractor)}
        except RunError as error:  # training itself reports what is wrong with the encoder
            return {"epoch": epoch, "step": step, "error": error.what}
        finally:
            encoder.train()

    @abstractmethod
    def _facts(self, extractor: FeatureExtractor) -> dict[str, Any]:
        """The content of a record."""

    def _knn(self, extractor: FeatureExtractor, train: ImageSet, features: Tensor, test: ImageSet) -> dict[str, Any]:
        """k-NN of the `features` (N, D) of labelled test images among labelled training images, as in `cssl probe`."""
        assert train.labels is not None
        assert test.labels is not None
        # Moved to the device for the votes, which take most of the time.
        return knn_probe(
            extractor.clean(train.images).to(self.device),
            train.labels.to(self.device),
            features.to(self.device),
            test.labels.to(self.device),
            class_names=self.dataset.class_names,
            settings=self.recipe.settings("probe"),
        )


class TermTrace(Recorder):
    """The cheap terms: alignment, divergence and accuracy of the current encoder.

    Uses the images of `cssl analyze`, but fewer images and views: always the same ones. An unavailable number is None.
    """

    file = TRACE
    at_start = True

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, *, every: int) -> None:
        super().__init__(recipe, dataset, device, every=every)
        self.images = self._part(dataset.test or dataset.pretrain, NUM_IMAGES)
        self.neighbours = None
        if has_labels(dataset) and dataset.train is not None:
            self.neighbours = self._part(dataset.train, NUM_NEIGHBOURS)
        self.augmentation = make_augmentation(recipe, dataset)
        drawn = self.augmentation.draw(len(self.images.images) * (NUM_VIEWS - 1), stream(recipe.seed, "trace"))
        self.theta = drawn.unflatten(0, (len(self.images.images), NUM_VIEWS - 1))

    def _part(self, images: ImageSet, limit: int) -> ImageSet:
        num_classes = len(self.dataset.class_names)
        return subset(images, max(limit, num_classes), num_classes=num_classes, where="analyze.every")

    def _facts(self, extractor: FeatureExtractor) -> dict[str, Any]:
        features = extractor.view_table(self.images.images, self.augmentation, self.theta)
        labels, class_names = self.images.labels, self.dataset.class_names
        table = FeatureTable.build(unit_norm(features.double()), labels, class_names)
        raw = FeatureTable.build(features, labels, class_names)
        sample = {"num_images": table.num_images, "num_views": table.num_views, "epsilon": EPSILON}
        facts = {**sample, **_terms(table, raw)}
        if self.neighbours is not None:
            facts["knn"] = self._knn(extractor, self.neighbours, features[:, 0], self.images)["accuracy"]
        return facts


class KnnTrace(Recorder):
    """The k-NN accuracy on all test images, under the protocol of `cssl probe`. The data must have labels.

    Published numbers are often those of the best epoch on the test images, which makes them too high. We record that
    number only to compare like with like, under its own name; it decides nothing.
    """

    file = EPOCH_KNN
    at_start = False  # the best epoch must be a trained one

    def _facts(self, extractor: FeatureExtractor) -> dict[str, Any]:
        train, test = self.dataset.train, self.dataset.test
        assert train is not None
        assert test is not None
        found = self._knn(extractor, train, extractor.clean(test.images), test)
        return {"knn": found["accuracy"], **{name: found[name] for name in ("num_images", "k", "temperature")}}


def _terms(table: FeatureTable, raw: FeatureTable) -> dict[str, float | None]:
    """The terms of unit-norm features; RankMe uses the `raw` ones."""
    centers, spreads = class_centers(table, None), spread(table, None)
    # The same halves at every epoch: one for the centres, one to test.
    error = _value(augmented_error(class_geometry(table), generator=stream(0, "halves"))["clean"])
    curve = r_epsilon(table, [EPSILON])["curve"].to_dict()["value"]
    return {
        "alignment": _value(alignment(table, None, None)["unbiased"]),
        "mean_inner_product": _value(centers["mean_inner_product"]),
        "within_over_between": _value(spreads["ratio"]),
        "R_epsilon": None if curve is None else curve[0],
        "uniformity": _value(uniformity(table)["uniformity"]),
        "rankme": _value(effective_rank(raw)["rankme"]),
        "nearest_center": None if error is None else 1 - error,
    }


def _value(quantity: Quantity) -> float | None:
    value: float | None = quantity.to_dict()["value"]
    return value
