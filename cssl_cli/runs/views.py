"""What an analysis measures on: images chosen from the recipe's data, and views drawn of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cssl_cli.augment import Augmentation
from cssl_cli.data import Dataset
from cssl_cli.data.image_set import ImageSet, chosen_rows
from cssl_cli.errors import InputError, unknown_name
from cssl_cli.features.extractor import FeatureExtractor, stored_views
from cssl_cli.host.randomness import stream
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.recipe import Recipe
from cssl_cli.runs import memory
from cssl_cli.runs.setup import make_augmentation, make_extractor
from cssl_cli.theory.analysis import ViewParameters


class Measured(Protocol):
    """What the terms of features are measured on: N images in V views, with labels and class names, on a device."""

    @property
    def labels(self) -> Tensor | None: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def num_images(self) -> int: ...
    @property
    def num_views(self) -> int: ...
    @property
    def view_parameters(self) -> ViewParameters | None: ...
    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class Material:
    """N images with labels and class names, and theta (N, V − 1, P), the parameters of each image's augmented views.

    Images are as they are stored; `views` are what an encoder sees, the clean ones, too. Every distance, encoder and
    projector is measured on the same views. Features are computed in `precision`.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    part: str
    augmentation: Augmentation
    theta: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    precision: str = "float32"

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.images)

    @property
    def channels(self) -> int:
        """C."""
        return self.images.shape[1]

    @property
    def num_views(self) -> int:
        """V, including the clean view."""
        return 1 + self.theta.shape[1]

    def views(self, rows: Tensor) -> Tensor:
        """Views (n, V, C, H, W), float in [0, 1] on the device, of the images at `rows` (n,)."""
        return stored_views(self.images[rows].to(self.device), self.augmentation, self.theta[rows].to(self.device))

    @property
    def view_parameters(self) -> ViewParameters:
        """theta, split into continuous and discrete parameters."""
        flat, shape = self.theta.flatten(0, 1), self.theta.shape[:2]
        continuous, states = self.augmentation.continuous_values(flat), self.augmentation.states(flat)
        return ViewParameters(continuous.unflatten(0, shape), states.unflatten(0, shape), self.augmentation.discrete)

    def extractor(self, encoder: nn.Module, ranks: Ranks = ALONE) -> FeatureExtractor:
        return make_extractor(
            encoder,
            mean=self.mean,
            std=self.std,
            image_size=self.augmentation.image_size,
            device=self.device,
            precision=self.precision,
            ranks=ranks,
        )


def gather(recipe: Recipe, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> Material:
    """A class-balanced subset of the test images, or of the unlabelled ones if there is no test part.

    Classes without images there are left out. Raises InputError if `settings` (the recipe's analyze block) name unknown
    classes or fewer than two, or ask for fewer images than there are classes.
    """
    part = "test" if dataset.test is not None else "pretrain"
    source: ImageSet = getattr(dataset, part)
    memory.require(memory.of_analysis(recipe, len(source), settings), memory.free_memory())
    chosen = choose(source.labels, len(source), dataset.class_names, settings)
    images = source.images if chosen.rows is None else source.images[chosen.rows]
    augmentation = make_augmentation(recipe, dataset)
    num_augmented = settings["num_views"] - 1
    theta = augmentation.draw(len(images) * num_augmented, stream(recipe.seed, "analyze"))
    return Material(
        images=images,
        labels=chosen.labels,
        class_names=chosen.class_names,
        part=part,
        augmentation=augmentation,
        theta=theta.reshape(len(images), num_augmented, augmentation.num_parameters),
        mean=dataset.mean,
        std=dataset.std,
        device=device,
        precision=settings.get("precision", "float32"),
    )


class Chosen(NamedTuple):
    """The images to measure: their rows (None: all), labels and classes, out of how many of these classes."""

    rows: Tensor | None
    labels: Tensor | None
    class_names: tuple[str, ...]
    out_of: int


def choose(labels: Tensor | None, num_images: int, class_names: tuple[str, ...], settings: Mapping[str, Any]) -> Chosen:
    """The images with `labels` that the `settings` of an analyze block choose; raises as `gather` does."""
    of_classes = rows_of_classes(labels, class_names, settings["classes"])
    if of_classes is not None:
        rows, labels, class_names = of_classes
        num_images = len(rows)
    fewer = chosen_rows(
        labels, num_images, settings["num_images"], num_classes=len(class_names), where="analyze.num_images"
    )
    if labels is None:
        return Chosen(fewer, None, (), num_images)
    if fewer is None:
        return Chosen(None if of_classes is None else rows, labels, class_names, num_images)
    return Chosen(fewer if of_classes is None else rows[fewer], labels[fewer], class_names, num_images)


def rows_of_classes(
    labels: Tensor | None, class_names: tuple[str, ...], chosen: tuple[str, ...] | None
) -> tuple[Tensor, Tensor, tuple[str, ...]] | None:
    """The rows of images with `labels` of the `chosen` classes (None: all that have an image), with labels and names.

    Labels are counted anew, in the order of `class_names`. None for all images as they are. Raises InputError for
    unknown classes, and for fewer than two.
    """
    if labels is None:
        if chosen is not None:
            raise InputError("the images have no labels to choose classes by", where="analyze.classes")
        return None
    for name in chosen or ():
        if name not in class_names:
            raise unknown_name("class", name, class_names, where="analyze.classes")
    if chosen is not None and len(set(chosen)) < 2:
        raise InputError("the theory needs at least two classes, two different ones", where="analyze.classes")
    present = labels.bincount(minlength=len(class_names)) > 0
    kept = [k for k, name in enumerate(class_names) if present[k] and (chosen is None or name in chosen)]
    if len(kept) == len(class_names):
        return None
    if not kept:
        raise InputError(f"there is no image of {' or '.join(chosen or ())}", where="analyze.classes")
    relabelled = torch.full((len(class_names),), -1)
    relabelled[kept] = torch.arange(len(kept))
    labels = relabelled[labels]
    rows = (labels >= 0).nonzero().squeeze(1)
    return rows, labels[rows], tuple(class_names[k] for k in kept)
