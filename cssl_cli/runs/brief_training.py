"""Brief training: a tiny encoder of each set of augmentations, and how well neighbours in its features agree.

It ranks augmentations at ten seconds of one core a set and seed. The settings are fixed; docs/predictors.md says what
they were chosen on, and how well the order agrees with encoders that were trained for longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtr
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.augment import Augmentation, build_augmentation, clean_views
from cssl_cli.data import Dataset
from cssl_cli.data.batches import ResidentImages
from cssl_cli.errors import RunError
from cssl_cli.features.patches import at_a_time
from cssl_cli.features.probe.knn import effective_k, knn_predict
from cssl_cli.host.randomness import stream
from cssl_cli.methods import build_method
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.recipe import Recipe
from cssl_cli.runs.setup import make_extractor
from cssl_cli.theory.estimate import Estimate, Sample
from cssl_cli.theory.spectrum.jackknife import student_interval
from cssl_cli.train.loop import Plan, Trainer

STEPS, WARMUP_STEPS, BATCH = 240, 10, 128
SIDE = 16  # pixels; larger images are averaged down to it
ENCODER = {"name": "small", "width": 8}
METHOD = {"name": "simclr", "temperature": 0.2, "projector": (64, 32)}
OPTIM = {
    "name": "adamw",
    "lr": 3e-3,
    "schedule": "cosine",
    "betas": (0.9, 0.999),
    "weight_decay": 1e-4,
    "decay_norm_and_bias": True,
}
KNN_K, KNN_TEMPERATURE = 20, 0.1
REMEDY = "Its settings are fixed. Rank without --train, or leave this set of augmentations out."
ROLES = 2  # of an image: it is classified, and is a neighbour of others


@dataclass(frozen=True)
class BriefTraining:
    """Images (N, C, H, H), uint8, of at most SIDE pixels a side, to train on with each set of augmentations.

    mean, std: of the images' channels. labelled: the images whose classes are used, with these `labels`. seeds: of the
    trainings, the same for all sets.
    """

    images: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labelled: Tensor
    labels: Tensor
    num_classes: int
    original_side: int
    seeds: Sequence[int]
    device: torch.device

    @classmethod
    def on(
        cls,
        images: Tensor,
        labelled: Tensor,
        labels: Tensor,
        dataset: Dataset,
        seeds: Sequence[int],
        device: torch.device,
    ) -> BriefTraining:
        """On images (N, C, H, H) of the data set, of which `labelled` have the `labels`, as many."""
        return cls(
            _averaged(images, dataset.image_size),
            dataset.mean,
            dataset.std,
            labelled,
            labels,
            len(dataset.class_names),
            dataset.image_size,
            seeds,
            device,
        )

    def right(self, recipe: Recipe, name: str) -> Tensor:
        """(S, L), bool: whether each labelled image gets its class, after training with each of the seeds.

        Raises RunError for `name` where a loss or a weight becomes infinite or undefined.
        """
        augmentation = self._augmentation(recipe.settings("augment"))
        try:
            return torch.stack([self._right(augmentation, seed) for seed in self.seeds])
        except RunError as error:
            raise RunError(f"brief training failed: {error.what}", where=name, remedy=REMEDY) from error

    def _augmentation(self, settings: Mapping[str, Any]) -> Augmentation:
        """That of the recipe at this size: only a blur is told in pixels."""
        side = self.images.shape[-1]
        factor = side / self.original_side
        if factor < 1:
            settings = _blurred_less(settings, factor, side)
            if settings.get("view_2") is not None:
                settings = {**settings, "view_2": _blurred_less(settings["view_2"], factor, side)}
        return build_augmentation(settings, image_size=side, channels=self.images.shape[1])

    def _right(self, augmentation: Augmentation, seed: int) -> Tensor:
        with torch.device("meta"):
            method = build_method(METHOD, build_encoder(ENCODER, self.images.shape[1]))
        materialize(method, stream(seed, "brief training/init"))
        trainer = Trainer(
            method,
            augmentation,
            ResidentImages(self.images.to(self.device)),
            mean=self.mean,
            std=self.std,
            optim=OPTIM,
            plan=Plan(len(self.images), min(BATCH, len(self.images)), STEPS, WARMUP_STEPS),
            precision=torch.float32,
            device=self.device,
            order=stream(seed, "brief training/order"),
            augment=stream(seed, "brief training/augment"),
        )
        for _ in trainer.run():
            pass
        extractor = make_extractor(
            method.encoder, mean=self.mean, std=self.std, image_size=self.images.shape[-1], device=self.device
        )
        features = extractor.clean(self.images[self.labelled]).to(self.device)
        return self._classified(features).cpu() == self.labels

    def _classified(self, features: Tensor) -> Tensor:
        """The classes (L,) by the nearest images of the other half."""
        halves = (
            torch.randperm(len(features), generator=stream(0, "brief training/halves")).to(features.device).chunk(2)
        )
        labels, found = self.labels.to(features.device), torch.empty_like(self.labels, device=features.device)
        for own, other in (halves, halves[::-1]):
            found[own] = knn_predict(
                features[other],
                labels[other],
                features[own],
                k=effective_k(KNN_K, len(other), self.num_classes),
                temperature=KNN_TEMPERATURE,
                num_classes=self.num_classes,
            )
        return found


def _averaged(images: Tensor, image_size: int) -> Tensor:
    """What the encoder of a recipe sees, at `image_size`, of the images; averaged down to SIDE where that is less."""
    if images.shape[-1] == image_size <= SIDE:
        return images
    side = min(SIDE, image_size)
    blocks = images.split(at_a_time(images.shape[-1]))
    return torch.cat(
        [F.adaptive_avg_pool2d(255 * clean_views(block, image_size), side).round().byte() for block in blocks]
    )


# ---------------------------------------------------------------------- noise
class Accuracies:
    """k-NN accuracies of sets of augmentations, from `right` (S, L) of each, S seeds and L images the same for all.

    The deviation between seeds is taken to be the same for all sets, and so is estimated from all of them together.
    """

    def __init__(self, right: Mapping[str, Tensor]) -> None:
        self.right = {name: one.double() for name, one in right.items()}
        of_seed = torch.stack([one.mean(dim=1) for one in self.right.values()])  # (C, S)
        num_sets, self.num_seeds = of_seed.shape
        self.degrees = num_sets * (self.num_seeds - 1)
        squares = (of_seed - of_seed.mean(dim=1, keepdim=True)).square().sum()
        self.variance = squares.item() / self.degrees  # of one training, on the same images

    def estimate(self, name: str, sample: Sample) -> Estimate:
        """The accuracy, the mean over the seeds, with its 95 % interval over seeds and images."""
        right = self.right[name]
        value = right.mean().item()
        error, degrees = self._error(right, trainings=1)
        low, high = student_interval(value, error, degrees=degrees, least=0.0)
        return Estimate(
            value=value,
            estimator=f"k-NN accuracy (k = {KNN_K}) of clean images, neighbours from their other half, in the features "
            f"of a tiny encoder after {STEPS} steps, {self.num_seeds} seeds",
            errs="either",  # low by neighbours from half the images, high since the encoder has seen them all
            sample=sample,
            interval=(low, min(1.0, high)),
        )

    def difference(self, better: str, worse: str) -> dict[str, float]:
        """`difference` of two sets, its standard `error`, and the two-sided `p` of none (Student's t)."""
        of_both = self.right[better] - self.right[worse]
        difference = of_both.mean().item()
        error, degrees = self._error(of_both, trainings=2)
        ratio = abs(difference) / error if error > 0 else float("inf") if difference else 0.0
        return {"difference": difference, "error": error, "p": 2 * float(stdtr(degrees, -ratio))}

    def _error(self, values: Tensor, *, trainings: int) -> tuple[float, float]:
        """The standard error of the mean of values (S, L) that each are of so many trainings; its degrees of freedom.

        Of two parts, that of the seeds and that of the images (Satterthwaite). What an image's value varies by between
        seeds is in the former already, and so is taken out of the latter. That counts the images as classified ones; in
        simulations of k-NN (tests/runs/test_brief_training.py) it is doubled by their being neighbours, too.
        """
        num_images = values.shape[1]
        of_seeds = trainings * self.variance / self.num_seeds
        between = values.mean(dim=0).var() - values.var(dim=0).mean() / self.num_seeds
        of_images = ROLES * max(0.0, between.item()) / num_images
        whole = of_seeds + of_images
        if not whole > 0:
            return 0.0, self.degrees
        return whole**0.5, whole**2 / (of_seeds**2 / self.degrees + of_images**2 / (num_images - 1))


def _blurred_less(settings: Mapping[str, Any], factor: float, side: int) -> dict[str, Any]:
    """Operations with the blur of images that are `factor` as large, of `side` pixels."""
    blur = settings.get("blur")
    if blur is None:
        return dict(settings)
    kernel = blur["kernel_size"]
    smaller = None if kernel is None else 2 * min(max(1, round(factor * (kernel // 2))), side - 1) + 1
    blur = {**blur, "sigma": tuple(factor * sigma for sigma in blur["sigma"]), "kernel_size": smaller}
    return {**settings, "blur": blur}
