"""k-NN accuracy on all test images every few epochs of training, under the protocol of `cssl probe`.

Published numbers are often those of the epoch that did best on the test images. That choice makes them too high; it is
recorded here to be compared with them like with like, under a name of its own, and decides nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cssl_cli.data import Dataset
from cssl_cli.errors import RunError
from cssl_cli.features.probe import knn_probe
from cssl_cli.recipe import Recipe
from cssl_cli.runs.setup import make_extractor


def has_labels(dataset: Dataset) -> bool:
    """Whether there are labelled training and test images, as k-NN needs."""
    return all(images is not None and images.labels is not None for images in (dataset.train, dataset.test))


class EpochKnn:
    """Classifies the test images with an encoder in training; one record a call of `measure`. Draws nothing at random.

    The data must have labels (`has_labels`).
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        self.recipe, self.dataset, self.device = recipe, dataset, device

    def measure(self, encoder: nn.Module, *, epoch: int, step: int) -> dict[str, Any]:
        """The record of the encoder at `epoch` and `step`, its `knn` the share of the test images that are right.

        Leaves the encoder in training mode. Features that are not finite give a record with an `error`.
        """
        train, test = self.dataset.train, self.dataset.test
        assert train is not None
        assert test is not None
        assert train.labels is not None
        assert test.labels is not None
        extractor = make_extractor(encoder, mean=self.dataset.mean, std=self.dataset.std, device=self.device)
        try:
            # On the device to the votes, which is where the time goes.
            found = knn_probe(
                extractor.clean(train.images).to(self.device),
                train.labels.to(self.device),
                extractor.clean(test.images).to(self.device),
                test.labels.to(self.device),
                class_names=self.dataset.class_names,
                settings=self.recipe.settings("probe"),
            )
        except RunError as error:  # training itself will say what is wrong with the encoder
            return {"epoch": epoch, "step": step, "error": error.what}
        finally:
            encoder.train()
        facts = {name: found[name] for name in ("num_images", "k", "temperature")}
        return {"epoch": epoch, "step": step, "knn": found["accuracy"], **facts}
