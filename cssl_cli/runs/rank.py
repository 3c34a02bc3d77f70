"""Ranking augmentations before any training, by what two views of an image share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from cssl_cli.augment import Augmentation
from cssl_cli.data import Dataset
from cssl_cli.data.image_set import ImageSet, subset
from cssl_cli.errors import InputError
from cssl_cli.features.patches import PATCH, PatchFeatures, at_a_time
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.brief_training import Accuracies, BriefTraining
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.run_dir import RESULTS_FORMAT
from cssl_cli.runs.setup import make_augmentation
from cssl_cli.theory.estimate import Quantity, Sample
from cssl_cli.theory.spectrum.class_share import ClassShare, class_share, share_quantities
from cssl_cli.theory.spectrum.jackknife import (
    Jackknifed,
    difference_of,
    jackknife_error,
    jackknife_p,
)
from cssl_cli.theory.spectrum.view_covariances import ViewMoments, view_moments

NUM_IMAGES = 4000
NUM_VIEWS = 2
RIDGE = 0.05  # of the mean eigenvalue
GROUPS = 20  # of images, left out in turn for the intervals
LEAST_IMAGES = 2 * GROUPS


@dataclass(frozen=True)
class Candidate:
    """A set of augmentations to rank: that of a recipe, by the name of its row."""

    name: str
    recipe: Recipe


def rank(
    candidates: Sequence[Candidate],
    *,
    reporter: Reporter,
    num_images: int = NUM_IMAGES,
    labels_per_class: int | None = None,
    train_seeds: int | None = None,
    device_name: str | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """The candidates' augmentations, best first, with what two views share and how much of it is about the class.

    train_seeds: also train a tiny encoder of each with so many seeds (`runs/brief_training.py`), and order the rows by
    its accuracy.

    Measured on `num_images` pretraining images in fixed features (`features/patches.py`), the same images and filters
    for all; candidates with the same augmentation are one row. labels_per_class: use the labels of so many images of
    each class only; None: of all. Without labels, rows are ordered by how little two views share. Raises InputError
    if the candidates have different training images, or there are too few, or no labels where those are needed.
    """
    first = candidates[0].recipe
    device = choose_device(device_name)
    dataset = prepare_data(first, reporter, data_root=data_root)
    _require_same_images(candidates, dataset, num_images, reporter, data_root)
    measured = SharesOn.images_of(dataset, num_images, first.seed, device)
    images = measured.images
    labels_per_class = _labels_there(images, labels_per_class)
    training = None if train_seeds is None else _training(dataset, images, labels_per_class, train_seeds, device)
    alike: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        alike.setdefault(repr(candidate.recipe.settings("augment")), []).append(candidate)
    shares: dict[str, ClassShare | None] = {}
    right: dict[str, Tensor] = {}
    for number, (same, *_) in enumerate(alike.values(), start=1):
        shares[same.name] = measured.share(same.recipe, labels_per_class)
        if training is not None:
            right[same.name] = training.right(same.recipe, same.name)
        reporter.advance("rank the augmentations", number, len(alike))
    rows = [_row(same, shares[same[0].name], len(images), images.labels is not None) for same in alike.values()]
    accuracies = None
    if training is not None:
        accuracies = Accuracies(right)
        for row in rows:
            row["brief_knn"] = accuracies.estimate(row["row"], Sample(len(training.labels), 1)).to_dict()
    rows.sort(key=_order)

    def compare(better: str, worse: str) -> dict[str, float] | None:
        if accuracies is not None:
            return accuracies.difference(better, worse)
        return _difference(shares[better], shares[worse], images.labels is not None)

    return {
        "format": RESULTS_FORMAT,
        "content_key": dataset.content_key,
        "num_images": len(images),
        "num_views": NUM_VIEWS,
        "class_names": None if images.labels is None else list(dataset.class_names),
        "labels_per_class": labels_per_class,
        "seed": first.seed,
        "train_seeds": train_seeds,
        "rows": rows,
        "differences": _differences([row["row"] for row in rows], compare),
    }


def _require_same_images(
    candidates: Sequence[Candidate], dataset: Dataset, num_images: int, reporter: Reporter, data_root: str | None
) -> None:
    """`InputError` unless all candidates have the first one's images, of class and content, to rank on.

    Data of other settings are loaded: they may differ in what a ranking does not use, such as the test images.
    """
    first, seen = images_to_rank(dataset, num_images), [candidates[0].recipe.settings("data", data_root=data_root)]
    for candidate in candidates[1:]:
        settings = candidate.recipe.settings("data", data_root=data_root)
        if settings in seen:
            continue
        seen.append(settings)
        other = prepare_data(candidate.recipe, reporter, data_root=data_root)
        same = (other.class_names, other.image_size) == (dataset.class_names, dataset.image_size)
        if not same or not _equal(first, images_to_rank(other, num_images)):
            both = f"{candidates[0].name} and {candidate.name}"
            if candidate.name == candidates[0].name:
                both = f"two candidates called {candidate.name}"
            raise InputError(
                f"{both} are of different training images",
                where="data",
                remedy="A ranking compares augmentations of the same images: rank these apart.",
            )


def _equal(one: ImageSet, other: ImageSet) -> bool:
    if (one.labels is None) != (other.labels is None) or not torch.equal(one.images, other.images):
        return False
    return one.labels is None or (other.labels is not None and torch.equal(one.labels, other.labels))


@dataclass(frozen=True)
class SharesOn:
    """Images, with the fixed features fitted to them, on which sets of augmentations are compared."""

    images: ImageSet
    dataset: Dataset  # that they are of
    features: PatchFeatures
    seed: int
    device: torch.device

    @classmethod
    def images_of(cls, dataset: Dataset, num_images: int, seed: int, device: torch.device) -> SharesOn:
        """Of so many training images; the filters and the views follow from the seed. Raises as `images_to_rank`."""
        images = images_to_rank(dataset, num_images)
        features = PatchFeatures.fit(images.images, stream(seed, "patches"), image_size=dataset.image_size)
        return cls(images, dataset, features.to(device), seed, device)

    def share(self, recipe: Recipe, labels_per_class: int | None = None) -> ClassShare | None:
        """The share of the recipe's augmentation, None where the features do not vary."""
        augmentation = make_augmentation(recipe, self.dataset)
        table = view_features(self.images.images, augmentation, self.features, stream(self.seed, "rank"), self.device)
        return share_of(table, self.images.labels, len(self.dataset.class_names), labels_per_class)

    def quantities(self, recipe: Recipe) -> dict[str, Quantity]:
        """What is told of the recipe's augmentation, with the labels of all images."""
        return share_quantities(
            self.share(recipe), Sample(len(self.images), NUM_VIEWS), has_labels=self.images.labels is not None
        )


def images_to_rank(dataset: Dataset, num_images: int, *, least: int = LEAST_IMAGES) -> ImageSet:
    """A class-balanced part of the training images, of the unlabelled ones where there are no others.

    Raises InputError for fewer than `least` images, or images too small for the features.
    """
    source = dataset.train if dataset.train is not None else dataset.pretrain
    chosen = subset(source, num_images, num_classes=len(dataset.class_names), where="--images")
    if len(chosen) < least:
        enough = len(source) >= least
        raise InputError(
            f"a ranking takes {least} images, and there are {len(chosen)}",
            where="--images" if enough else "data",
            remedy=f"Give {LEAST_IMAGES if enough else least} or more; {NUM_IMAGES:,} are the rule.",
        )
    if dataset.image_size < PATCH:
        raise InputError(f"images of fewer than {PATCH} pixels a side cannot be ranked", where="data", remedy="")
    return chosen


def _labels_there(images: ImageSet, labels_per_class: int | None) -> int | None:
    """No more than the largest class has; `InputError` for images without labels."""
    if labels_per_class is None:
        return None
    if images.labels is None:
        raise InputError("the images have no labels", where="--labels", remedy="Leave it out.")
    return min(labels_per_class, int(images.labels.bincount().max()))


def view_features(
    images: Tensor,
    augmentation: Augmentation,
    features: PatchFeatures,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Features (N, NUM_VIEWS, D) of augmented views, float32, on the CPU."""
    theta = augmentation.draw(len(images) * NUM_VIEWS, generator)
    theta = theta.reshape(len(images), NUM_VIEWS, augmentation.num_parameters)
    blocks = []
    step = at_a_time(images.shape[-1])
    for start in range(0, len(images), step):
        of_block, at = images[start : start + step].to(device), theta[start : start + step].to(device)
        sides = [augmentation.of_side(at[:, side], side) for side in range(NUM_VIEWS)]
        views = [features(augmentation.apply(of_block, one)) for one in sides]
        blocks.append(torch.stack(views, dim=1).cpu())
    return torch.cat(blocks)


def share_of(
    table: Tensor,
    labels: Tensor | None,
    num_classes: int,
    labels_per_class: int | None = None,
    *,
    groups: int = GROUPS,
) -> ClassShare | None:
    """The share of the features (N, V, D), None where they do not vary; with one group of images, without noise."""
    table = table - table[0, 0]  # about the origin, a large offset would drown small variances
    parts = view_moments(table, labels, num_classes=num_classes, groups=groups)
    labelled: list[ViewMoments] | None = None
    if labels is not None and labels_per_class is not None:
        known = _labelled(labels, num_classes, labels_per_class)
        labelled = view_moments(table[known], labels[known], num_classes=num_classes, groups=groups)
    try:
        return class_share(parts, ridge=RIDGE, labelled=labelled)
    except ValueError:
        return None


def _labelled(labels: Tensor, num_classes: int, labels_per_class: int) -> Tensor:
    """So many images of each class: drawn, the same for all candidates, as the first files of a folder may be alike."""
    order = torch.randperm(len(labels), generator=stream(0, "rank/labels"))
    return torch.cat([order[labels[order] == label][:labels_per_class] for label in range(num_classes)])


def _training(
    dataset: Dataset, images: ImageSet, labels_per_class: int | None, num_seeds: int, device: torch.device
) -> BriefTraining:
    """On all these images; `InputError` where there are no labels, or no two classes, to judge it by."""
    if images.labels is None:
        raise InputError(
            "the images have no labels to judge trained encoders by",
            where="--train",
            remedy="Leave it out: the information that views share ranks alone.",
        )
    if len(images.labels.unique()) < 2:
        raise InputError(
            "images of a single class are no judge of trained encoders", where="--train", remedy="Leave it out."
        )
    labelled = torch.arange(len(images))
    if labels_per_class is not None:
        labelled = _labelled(images.labels, len(dataset.class_names), labels_per_class)
    return BriefTraining.on(images.images, labelled, images.labels[labelled], dataset, range(num_seeds), device)


# ---------------------------------------------------------------------- rows
def _row(same: Sequence[Candidate], share: ClassShare | None, num_images: int, has_labels: bool) -> dict[str, Any]:
    recipe = same[0].recipe
    told = share_quantities(share, Sample(num_images, NUM_VIEWS), has_labels=has_labels)
    return {
        "row": same[0].name,
        "same": list(dict.fromkeys(one.name for one in same if one.name != same[0].name)),
        "augment": recipe.augment.model_dump(mode="json", exclude_none=True),
        "negative_control": recipe.augment.fade is not None,
        **{name: quantity.to_dict() for name, quantity in told.items()},
    }


def _order(row: dict[str, Any]) -> tuple[bool, float]:
    """Best first: the greatest accuracy, share, or without labels the least shared; rows without a number last."""
    if "brief_knn" in row:
        return False, -row["brief_knn"]["value"]
    share, shared = row["share"]["value"], row["shared"]["value"]
    value = -share if share is not None else shared
    return value is None, 0.0 if value is None else value


# ---------------------------------------------------------------------- noise
def _differences(names: Sequence[str], compare: Callable[[str, str], dict[str, float] | None]) -> list[dict[str, Any]]:
    """Every two rows, the better one first: what `compare` says, and its p adjusted over all pairs (Holm)."""
    found: list[dict[str, Any]] = []
    for better, worse in combinations(names, 2):
        entry = compare(better, worse)
        if entry is not None:
            found.append({"better": better, "worse": worse, **entry})
    adjusted, least = 0.0, len(found)
    for entry in sorted(found, key=lambda entry: entry["p"]):
        adjusted = max(adjusted, min(1.0, least * entry["p"]))
        entry["p_adjusted"], least = adjusted, least - 1
    return found


def _difference(better: ClassShare | None, worse: ClassShare | None, has_labels: bool) -> dict[str, float] | None:
    """That of the numbers that rows are ordered by, its standard error and the p of none; None where one is absent."""
    one, other = _compared(better, has_labels), _compared(worse, has_labels)
    if one is None or other is None:
        return None
    difference, without = difference_of(one, other)
    return {"difference": difference, "error": jackknife_error(without), "p": jackknife_p(difference, without)}


def _compared(share: ClassShare | None, has_labels: bool) -> Jackknifed | None:
    """The number that rows are ordered by, greater being better, and the same with each group left out."""
    if share is None:
        return None
    if has_labels and share.share is not None:
        return share.share, share.share_without
    return -share.shared, tuple(-value for value in share.shared_without)
