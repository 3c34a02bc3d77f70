"""Climbing the share of a recipe's augmentation over its continuous settings, before any training.

The climb is on one half of the images. It finds the settings that are best there, in part by the luck of those images
and views; so start and finding are compared on the other half, with filters and views of its own.

The halves are of one size, and so share what the number of images does to the score: the fewer they are, the more of
what views seem to share is noise, which favours weak augmentations. So the two are also compared on both halves
together, where a difference that is due to the number of images shrinks or turns round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from cssl_cli.data import Dataset
from cssl_cli.data.image_set import ImageSet
from cssl_cli.errors import InputError
from cssl_cli.features.patches import PatchFeatures
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.recipe.searched import SearchedField, Values, overrides, with_values
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.rank import (
    GROUPS,
    LEAST_IMAGES,
    NUM_IMAGES,
    NUM_VIEWS,
    images_to_rank,
    share_of,
    view_features,
)
from cssl_cli.runs.run_dir import RESULTS_FORMAT
from cssl_cli.runs.setup import make_augmentation
from cssl_cli.theory.estimate import Sample
from cssl_cli.theory.spectrum.class_share import ClassShare, share_quantities
from cssl_cli.theory.spectrum.jackknife import difference_of, jackknife_interval, jackknife_p

LEVEL = 0.05  # at which a gain on new images counts
EVALUATIONS = 40
FIRST_STEP, LAST_STEP = 0.25, 0.02  # of a field's range
TASK = "climb the share"

Settings = Mapping[SearchedField, Values]
Score = Callable[[Settings], float | None]
"""What is climbed, None where it has no value; the same for the same settings."""


# ---------------------------------------------------------------------- the climb
@dataclass(frozen=True)
class Climb:
    """The best settings among the `num_evaluations` that were scored; `converged`: not for want of evaluations."""

    settings: Settings
    score: float
    start_score: float
    num_evaluations: int
    converged: bool


def climb(
    score: Score, fields: Sequence[SearchedField], *, evaluations: int, progress: Callable[[int, float], None]
) -> Climb:
    """Climbs the score from the fields' starts, within their ranges, by at most so many evaluations of it.

    By COBYQA (Ragonneau and Zhang; trust regions, without derivatives), in the unit cube of the fields' places, to a
    local maximum. What is tried has few digits, as a recipe would; settings without a score count as the worst.
    progress: called after each evaluation with their number and the best score. Raises InputError if the start has no
    score.
    """
    starts = tuple(field.start for field in fields)
    scores: dict[tuple[Values, ...], float] = {}  # of what was tried

    def scored(tried: tuple[Values, ...]) -> float:
        if tried not in scores:
            found = score(dict(zip(fields, tried, strict=True)))
            if found is None and tried == starts:
                raise InputError("the augmentation to start from has no share", where="augment")
            scores[tried] = min(scores.values()) if found is None else found
            progress(len(scores), max(scores.values()))
        return scores[tried]

    scored(starts)
    ends = np.cumsum([len(start) for start in starts])[:-1]
    outcome = minimize(
        lambda point: (
            -scored(tuple(field.values(own.tolist()) for field, own in zip(fields, np.split(point, ends), strict=True)))
        ),
        [field.place(value) for field in fields for value in field.start],
        method="COBYQA",
        bounds=[(0, 1)] * sum(map(len, starts)),
        options={"maxfev": evaluations - 1, "initial_tr_radius": FIRST_STEP, "final_tr_radius": LAST_STEP},
    )
    best = max(scores, key=lambda tried: scores[tried])  # of equals the first: the start, if nothing is better
    settings = dict(zip(fields, best, strict=True))
    return Climb(settings, scores[best], scores[starts], len(scores), bool(outcome.success))


# ---------------------------------------------------------------------- of a recipe
@dataclass(frozen=True)
class _Sample:
    """Images on which augmentations are measured, all with the same filters and from the same random numbers."""

    images: ImageSet
    dataset: Dataset  # that they are of
    features: PatchFeatures
    seed: int
    views: str  # the stream they are drawn from
    device: torch.device

    def measure(self, recipe: Recipe, *, groups: int = 1) -> ClassShare | None:
        """The share of the recipe's augmentation, with its noise if in groups; None where views do not vary."""
        augmentation = make_augmentation(recipe, self.dataset)
        views = view_features(
            self.images.images, augmentation, self.features, stream(self.seed, self.views), self.device
        )
        return share_of(views, self.images.labels, len(self.dataset.class_names), groups=groups)


def optimise(
    recipe: Recipe,
    fields: Sequence[SearchedField],
    *,
    reporter: Reporter,
    num_images: int = NUM_IMAGES,
    evaluations: int = EVALUATIONS,
    device_name: str | None = None,
    data_root: str | None = None,
) -> dict[str, Any]:
    """What climbing the share over the `fields` of the recipe's augmentation found, and what of it new images confirm.

    Climbs on `num_images` training images and judges on as many others; where there are not so many, on half of what
    there is. "proposal" is None unless the share is greater on the new images, beyond noise, and on all together.
    Raises InputError for images without labels (what views share alone is least where nothing is left of the images),
    and too few of them.
    """
    device = choose_device(device_name)
    dataset = prepare_data(recipe, reporter, data_root=data_root)
    if dataset.train is None:
        raise InputError(
            "the images have no labels, and without them a climb ends where the augmentation leaves nothing",
            where="--optimise",
            remedy="Rank sets of your choice instead: cssl rank.",
        )
    seen, unseen, both = _samples(dataset, num_images, recipe.seed, device)
    found = _climbed(recipe, fields, seen, evaluations, reporter)
    return {
        "format": RESULTS_FORMAT,
        "content_key": dataset.content_key,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "num_images": {
            "asked": num_images,
            "climbed_on": len(seen.images),
            "judged_on": len(unseen.images),
            "together": len(both.images),
        },
        "num_views": NUM_VIEWS,
        "evaluations": {"allowed": evaluations, "made": found.num_evaluations, "converged": found.converged},
        "fields": [_field(field, values) for field, values in found.settings.items()],
        "climbed_on": {"start": found.start_score, "found": found.score},
        **_judged(recipe, found, unseen, both, reporter),
    }


def _climbed(
    recipe: Recipe, fields: Sequence[SearchedField], seen: _Sample, evaluations: int, reporter: Reporter
) -> Climb:
    """The climb of the share on the images that it sees."""

    def score(settings: Settings) -> float | None:
        try:
            return _share(seen.measure(with_values(recipe, settings)))
        except InputError:  # such as a crop that fits in no image
            if all(values == field.start for field, values in settings.items()):
                raise
            return None

    def progress(number: int, best: float) -> None:
        if number < evaluations:  # which would end the task, as it ends below
            told = f"evaluation {number} of at most {evaluations}, best share {100 * best:.1f} %"
            reporter.advance(TASK, number, evaluations, told)

    found = climb(score, fields, evaluations=evaluations, progress=progress)
    told = f"{found.num_evaluations} evaluations, best share {100 * found.score:.1f} %"
    reporter.advance(TASK, evaluations, evaluations, told)
    return found


def _judged(recipe: Recipe, found: Climb, unseen: _Sample, both: _Sample, reporter: Reporter) -> dict[str, Any]:
    """What the images that the climb did not see, and then all of them together, say of what it found."""
    proposed = with_values(recipe, found.settings)
    start = after = unseen.measure(recipe, groups=GROUPS)
    difference = together = None
    if found.score > found.start_score:
        reporter.advance("compare with the start", 1, 4)
        after = unseen.measure(proposed, groups=GROUPS)
        difference = _difference(start, after)
    gained = difference is not None and difference["value"] > 0 and difference["p"] <= LEVEL
    if gained:
        reporter.advance("compare with the start", 2, 4)
        together = {"start": _share(both.measure(recipe)), "found": _share(both.measure(proposed))}
        gained = (together["found"] or 0.0) > (together["start"] or 0.0)
    reporter.advance("compare with the start", 4, 4)
    return {
        "judged_on": {name: _told(share, len(unseen.images)) for name, share in (("start", start), ("found", after))},
        "difference": difference,
        "together": together,
        "proposal": _proposal(recipe, found.settings) if gained else None,
    }


def _samples(dataset: Dataset, num_images: int, seed: int, device: torch.device) -> tuple[_Sample, _Sample, _Sample]:
    """Two disjoint samples of the labelled images, of `num_images` each where there are so many, and both together."""
    chosen = images_to_rank(dataset, 2 * num_images, least=2 * LEAST_IMAGES)
    assert chosen.labels is not None
    order = torch.randperm(len(chosen), generator=stream(seed, "rank/halves"))
    dealt = order[chosen.labels[order].argsort(stable=True)]  # class by class: each goes to both halves

    def sample(rows: Tensor, name: str) -> _Sample:
        images = ImageSet(chosen.images[rows], chosen.labels[rows] if chosen.labels is not None else None)
        generator = stream(seed, f"patches{name}")
        filters = PatchFeatures.fit(images.images, generator, image_size=dataset.image_size).to(device)
        return _Sample(images, dataset, filters, seed, f"rank{name}", device)

    first, second = (dealt[half::2].sort().values for half in range(2))
    return sample(first, ""), sample(second, "/unseen"), sample(dealt.sort().values, "/together")


def _difference(start: ClassShare | None, after: ClassShare | None) -> dict[str, Any] | None:
    """By how much the share is greater than that of the start; None where one of the two has none."""
    if start is None or after is None or start.share is None or after.share is None:
        return None
    value, without = difference_of((after.share, after.share_without), (start.share, start.share_without))
    interval = jackknife_interval(value, without)
    assert interval is not None
    return {"value": value, "interval": list(interval), "p": jackknife_p(value, without)}


def _share(found: ClassShare | None) -> float | None:
    return None if found is None else found.share


def _told(share: ClassShare | None, num_images: int) -> dict[str, Any]:
    told = share_quantities(share, Sample(num_images, NUM_VIEWS), has_labels=True)
    return {name: quantity.to_dict() for name, quantity in told.items()}


def _field(field: SearchedField, values: Values) -> dict[str, Any]:
    return {
        "field": field.name,
        "start": field.written(field.start),
        "found": field.written(values),
        "range": [field.low, field.high],
        "scale": "log" if field.logarithmic else "linear",
        "at_ends": field.ends(values),
    }


def _proposal(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    proposed = with_values(recipe, settings)
    return {
        "overrides": overrides(recipe, settings),
        "augment": proposed.augment.model_dump(mode="json", exclude_none=True),
    }
