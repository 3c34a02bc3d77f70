"""The cheap terms through training: alignment, divergence and accuracy of the encoder as it stands, every few epochs.

Measured on the images that `cssl analyze` measures on, fewer of them and with fewer views, from random streams of its
own: training goes on as if nothing had been measured. Every measurement uses the same images and the same views.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset
from cssl_cli.data.image_set import ImageSet, subset
from cssl_cli.errors import RunError
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.probe import knn_probe
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
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

NUM_IMAGES, NUM_VIEWS, NUM_NEIGHBOURS = 500, 5, 5000
EPSILON = 0.5


class Trace:
    """Measures an encoder in training; one record a call of `measure`."""

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        self.recipe, self.dataset, self.device = recipe, dataset, device
        self.images = self._part(dataset.test or dataset.pretrain, NUM_IMAGES)
        labelled = dataset.train is not None and dataset.train.labels is not None and dataset.test is not None
        self.neighbours = self._part(dataset.train, NUM_NEIGHBOURS) if labelled and dataset.train is not None else None
        self.augmentation = make_augmentation(recipe, self.images.images.shape[-1])
        drawn = self.augmentation.draw(len(self.images.images) * (NUM_VIEWS - 1), stream(recipe.seed, "trace"))
        self.theta = drawn.unflatten(0, (len(self.images.images), NUM_VIEWS - 1))

    def _part(self, images: ImageSet, limit: int) -> ImageSet:
        num_classes = len(self.dataset.class_names)
        return subset(images, max(limit, num_classes), num_classes=num_classes, where="analyze.every")

    def measure(self, encoder: nn.Module, *, epoch: int, step: int) -> dict[str, Any]:
        """The record of the encoder at `epoch` and `step`; a number that cannot be had is None. Leaves it in training
        mode."""
        extractor = make_extractor(encoder, mean=self.dataset.mean, std=self.dataset.std, device=self.device)
        try:
            features = extractor.view_table(self.images.images, self.augmentation, self.theta)
            labels, class_names = self.images.labels, self.dataset.class_names
            table = FeatureTable.build(unit_norm(features.double()), labels, class_names)
            raw = FeatureTable.build(features, labels, class_names)
            sample = {"num_images": table.num_images, "num_views": table.num_views, "epsilon": EPSILON}
            record = {"epoch": epoch, "step": step, **sample, **_terms(table, raw)}
            if self.neighbours is not None:
                record["knn"] = self._knn(extractor, features[:, 0])
        except RunError as error:  # training itself will say what is wrong with the encoder
            return {"epoch": epoch, "step": step, "error": error.what}
        finally:
            encoder.train()
        return record

    def _knn(self, extractor: FeatureExtractor, features: Tensor) -> float:
        assert self.neighbours is not None
        assert self.neighbours.labels is not None
        assert self.images.labels is not None
        accuracy: float = knn_probe(
            extractor.clean(self.neighbours.images),
            self.neighbours.labels,
            features,
            self.images.labels,
            class_names=self.dataset.class_names,
            settings=self.recipe.settings("probe"),
        )["accuracy"]
        return accuracy


def _terms(table: FeatureTable, raw: FeatureTable) -> dict[str, float | None]:
    """The terms of unit-norm features; RankMe's of the `raw` ones."""
    centers, spreads = class_centers(table, None), spread(table, None)
    # The same halves at every epoch, one for the centres and one to test.
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
