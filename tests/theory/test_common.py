"""What holds of every term of an analysis, whatever it computes: a new term is covered by existing.

Each check takes one term on a few tables of features. Where a check cannot hold, `EXCEPTIONS` says why; that it fails
there is checked as well, so that no exception outlives its reason.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from cssl_cli.host.randomness import stream
from cssl_cli.runs.stored_analysis import SHAPES, _require_quantity
from cssl_cli.theory.analysis import LossSettings, ViewParameters, analyze_table
from cssl_cli.theory.estimate import Absent, Estimate

EPSILONS = (0.3, 0.6, 1.0, 1.5)


@dataclass(frozen=True)
class Table:
    """What an analysis reads, of N images in V views; `raw` are the features as the encoder gives them."""

    raw: np.ndarray  # (N, V, D)
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    theta: np.ndarray  # (N, V − 1, P), the last parameter a coin
    baseline: np.ndarray  # (N, V, D)
    norm: float = 1.0  # of the features that the theory is to speak of

    @classmethod
    def draw(
        cls, seed: int, *, sizes: tuple[int, ...], num_views: int = 4, width: int = 5, noise: float = 0.3
    ) -> Table:
        """Classes with their own means, images with their own offsets, and shuffled labels."""
        random = np.random.default_rng(seed)
        labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
        images = random.normal(size=(len(sizes), width))[labels] + 0.5 * random.normal(size=(len(labels), width))
        raw = images[:, None] + noise * random.normal(size=(len(labels), num_views, width))
        theta = random.uniform(size=(len(labels), num_views - 1, 3))
        theta[..., 2] = theta[..., 2] < 0.5
        names = tuple(f"class {label}" for label in range(len(sizes)))
        return cls(raw, labels, names, theta, random.normal(size=raw.shape))

    def of_images(self, rows: np.ndarray) -> Table:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, raw=self.raw[rows], labels=labels, theta=self.theta[rows], baseline=self.baseline[rows])

    def of_views(self, views: list[int]) -> Table:
        """The clean view, 0, comes first."""
        theta = self.theta[:, [view - 1 for view in views[1:]]]
        return replace(self, raw=self.raw[:, views], theta=theta, baseline=self.baseline[:, views])


def unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(norms > 0, norms, 1)


def measure(table: Table, term: str | None = None, *, bootstrap: int = 0) -> dict:
    """One term, or all."""
    found = analyze_table(
        torch.as_tensor(table.norm * unit(table.raw)),
        None if table.labels is None else torch.as_tensor(table.labels),
        class_names=table.class_names,
        epsilons=[table.norm * epsilon for epsilon in EPSILONS],
        bootstrap=bootstrap,
        loss=LossSettings(temperature=0.5 * table.norm**2, batch_size=8),
        generator=stream(0, "bootstrap"),
        raw=torch.as_tensor(table.raw),
        theta=ViewParameters(
            torch.as_tensor(table.theta[..., :2]), torch.as_tensor(table.theta[..., 2:]).long(), ("coin",)
        ),
        baseline=torch.as_tensor(table.norm * unit(table.baseline)),
        only=None if term is None else (term,),
    )
    return found if term is None else found[term]


TABLES = (
    Table.draw(0, sizes=(6, 5, 7)),
    Table.draw(1, sizes=(9, 6), num_views=3, width=8, noise=0.8),
    Table.draw(2, sizes=(4, 5, 4, 6), num_views=5, width=2),
)
# The terms there are: what an analysis of any table returns.
TERMS = tuple(measure(TABLES[0]))


# ---------------------------------------------------------------------- what changes nothing
def rotated(table: Table, random: np.random.Generator) -> Table:
    """Distances and inner products stay."""
    rotation, _ = np.linalg.qr(random.normal(size=(table.raw.shape[-1],) * 2))
    return replace(table, raw=table.raw @ rotation, baseline=table.baseline @ rotation)


def views_in_another_order(table: Table, random: np.random.Generator) -> Table:
    return table.of_views([0, *range(table.raw.shape[1] - 1, 0, -1)])


def images_in_another_order(table: Table, random: np.random.Generator) -> Table:
    return table.of_images(random.permutation(len(table.raw)))


def scaled(table: Table, random: np.random.Generator) -> Table:
    """Twice as long, which rounds nothing; with thresholds twice, and temperatures four times as large."""
    return replace(table, raw=2 * table.raw, norm=2 * table.norm)


def every_image_twice(table: Table, random: np.random.Generator) -> Table:
    return table.of_images(random.permutation(np.repeat(np.arange(len(table.raw)), 2)))


def classes_in_another_order(table: Table, random: np.random.Generator) -> Table:
    """The same names for the same images."""
    assert table.labels is not None
    last = len(table.class_names) - 1
    return replace(table, labels=last - table.labels, class_names=table.class_names[::-1])


def with_an_empty_class(table: Table, random: np.random.Generator) -> Table:
    assert table.labels is not None
    return replace(table, labels=table.labels + 1, class_names=("empty", *table.class_names))


CHANGES: dict[str, Callable[[Table, np.random.Generator], Table]] = {
    change.__name__: change
    for change in (
        rotated,
        views_in_another_order,
        images_in_another_order,
        scaled,
        every_image_twice,
        classes_in_another_order,
        with_an_empty_class,
    )
}
CLASSES_MOVE = ("classes_in_another_order", "with_an_empty_class")

STANDARDIZED = "standardises every coordinate on its own"
FIRST_VIEWS = "which views come first decides it"
DRAWN = "draws views, batches or labelled images at random"
HALVES = "splits each class at random"
IN_ORDER = "takes each class in two halves, in the order of its images"
IN_GROUPS = "deals the images to groups, class by class and in their order"
ONE_OF_SEVERAL = "counts the views of one of several largest sets"
COUNTS = "numbers of transformations beside a Lipschitz constant"
UNIT_NORM = "is stated for features of norm 1"
AT_ONE = "is measured at temperature 1"
RIDGE = "adds a constant to the variances of the features as they are"
DISTINCT = "over pairs of distinct images, and a copy counts as one"
LEVELS = "at quantiles of the distances between distinct images"
OWN_SHARE = "without the image's own share, 1/n, in its centre"
EMPTY = "the share of a class without images is 0"
STRATA = "weighs pairs of images by the shares of the classes, which are taken as fixed"

# By check, then by TERM or TERM.QUANTITY: why it does not hold.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "rotated": {
        "cross_correlation": STANDARDIZED,
        "explicit_tau": STANDARDIZED,
        "lemma_3_1.cross_correlation_bound": STANDARDIZED,
        "risk_decomposition": STANDARDIZED,
    },
    "views_in_another_order": {
        "certificate_c.by_views": FIRST_VIEWS,
        "population.by_views": FIRST_VIEWS,
        "nt_xent": DRAWN,
    },
    "images_in_another_order": {
        "lemma_3_1.counted_bound": ONE_OF_SEVERAL,
        "population": HALVES,
        "augmented_error": HALVES,
        "nt_xent": DRAWN,
        "few_labels": DRAWN,
        "few_shot_bound": IN_ORDER,
        "positive_pairs": IN_GROUPS,
        "risk_decomposition.probe_generalization": HALVES,
        "risk_decomposition.probe_risk": HALVES,
    },
    "scaled": {
        "lidar": RIDGE,
        "R_epsilon_bounds.theorem_2_constants": COUNTS,
        "info_nce.theorem_3": UNIT_NORM,
        "info_nce_paper": AT_ONE,
    },
    "every_image_twice": {
        "R_epsilon.diameter_quantiles": LEVELS,
        "class_centers": DISTINCT,
        "spread": DISTINCT,
        "mean_feature": DISTINCT,
        "theorem_1": LEVELS,
        "lemma_3_1": LEVELS,
        "certificate_a": LEVELS,
        "certificate_b": OWN_SHARE,
        "certificate_c": OWN_SHARE,
        "combined": OWN_SHARE,
        "population": HALVES,
        "info_nce": DISTINCT,
        "nt_xent": DISTINCT,
        "cross_correlation.invariance": DISTINCT,
        "cross_correlation.redundancy_loss": DISTINCT,
        "cross_correlation.within_covariance_norm_unbiased": DISTINCT,
        "explicit_tau": LEVELS,
        "uniformity": DISTINCT,
        "chaos": DISTINCT,
        "class_overlap": LEVELS,
        "connected_parts": LEVELS,
        "info_nce_paper": DISTINCT,
        "augmented_error": HALVES,
        "few_labels": DRAWN,
        "few_shot_bound": IN_ORDER,
        "positive_pairs": DISTINCT,
        "risk_decomposition": HALVES,
        "trade_off.trade_off": DISTINCT,
        "trade_off.same_class": DISTINCT,
    },
    "classes_in_another_order": {
        "population": HALVES,
        "augmented_error": HALVES,
        "few_labels": DRAWN,
        "positive_pairs": IN_GROUPS,
        "risk_decomposition.probe_generalization": HALVES,
        "risk_decomposition.probe_risk": HALVES,
    },
    "with_an_empty_class": {"class_centers.priors": EMPTY},
    "without_labels": {
        "mean_feature": STRATA,
        "info_nce.divergence_part": STRATA,
        "info_nce.loss": STRATA,
        "info_nce_paper.divergence_part": STRATA,
        "info_nce_paper.loss": STRATA,
        "nt_xent": DRAWN,
        "cross_correlation.invariance": STRATA,
        "cross_correlation.redundancy_loss": STRATA,
        "uniformity": STRATA,
        "positive_pairs": IN_GROUPS,
    },
}


def excepted(check: str, term: str) -> set[str]:
    """The quantities of the term that the check leaves out; "" stands for all."""
    names = (name.partition(".") for name in EXCEPTIONS[check])
    return {quantity for of_term, _, quantity in names if of_term == term}


def numbers(value: object) -> list[float]:
    """All numbers of a value, in a fixed order; NaN where there is none."""
    if isinstance(value, dict):
        return [number for name in sorted(value) for number in numbers(value[name])]
    if isinstance(value, list | tuple):
        return [number for entry in value for number in numbers(entry)]
    return [math.nan if value is None else float(value)]  # type: ignore[arg-type]


def same(one: Estimate | Absent, other: Estimate | Absent, change: str = "") -> bool:
    """The same numbers: in another order where classes move, in another unit of length or its square where scaled."""
    if isinstance(one, Absent) or isinstance(other, Absent):
        return isinstance(one, Absent) and isinstance(other, Absent)
    before, after = (np.array(numbers(quantity.value)) for quantity in (one, other))
    if change in CLASSES_MOVE:
        before, after = (values[~np.isnan(values)] for values in (before, after))
        if not isinstance(one.value, dict):  # which has the names of classes
            before, after = np.sort(before), np.sort(after)
    if before.shape != after.shape:
        return False
    units = (1, 2, 4) if change == "scaled" else (1,)
    return any(np.allclose(unit * before, after, rtol=1e-6, atol=1e-8, equal_nan=True) for unit in units)


@functools.cache
def unchanged(number: int, term: str) -> dict:
    return measure(TABLES[number], term)


def changed_by(change: str, term: str) -> set[str]:
    """The quantities that are not the same on every table."""
    moved = set()
    for number, table in enumerate(TABLES):
        after = measure(CHANGES[change](table, np.random.default_rng(number)), term)
        assert after.keys() == unchanged(number, term).keys()
        moved |= {name for name, before in unchanged(number, term).items() if not same(before, after[name], change)}
    return moved


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("change", CHANGES)
def test_it_changes_nothing(change: str, term: str) -> None:
    moved, left_out = changed_by(change, term), excepted(change, term)
    assert "" in left_out or moved <= left_out
    assert moved or not left_out, "the exception has no reason any more"


def test_exceptions_are_of_terms_there_are() -> None:
    assert {name.partition(".")[0] for names in EXCEPTIONS.values() for name in names} <= set(TERMS)


# ---------------------------------------------------------------------- what a table cannot give
def degenerate() -> dict[str, Table]:
    some, clean = TABLES[0], TABLES[0].of_views([0])
    assert some.labels is not None
    by_class = np.random.default_rng(0).normal(size=(3, 5))[some.labels]
    return {
        "clean images alone": clean,
        "one augmented view": some.of_views([0, 1]),
        "one image": some.of_images(np.array([0])),
        "one class": replace(some, labels=np.zeros_like(some.labels)),
        "a class of one image": some.of_images(np.r_[some.labels.argsort()[:7], some.labels.argmax()]),
        "no labels": replace(some, labels=None),
        "zeros": replace(some, raw=np.zeros_like(some.raw)),
        "one point": replace(some, raw=np.ones_like(some.raw)),
        "every class a point": replace(some, raw=np.repeat(by_class[:, None], 4, axis=1)),
        "one zero": replace(some, raw=some.raw * (np.arange(len(some.raw)) > 0).reshape(-1, 1, 1)),
        "one coordinate": replace(some, raw=some.raw[..., :1], baseline=some.baseline[..., :1]),
        "more coordinates than images": Table.draw(3, sizes=(4, 4), width=40),
        "every image twice": some.of_images(np.repeat(np.arange(len(some.raw)), 2)),
        "very long": replace(some, raw=1e6 * some.raw, norm=1e6),
    }


WITHOUT_INTERVALS = ("one image", "no labels", "more coordinates than images")  # measured without resamples, too


@pytest.mark.parametrize("term", TERMS)
def test_it_is_strict_json_with_a_reason_for_what_is_absent(term: str) -> None:
    names = unchanged(0, term).keys()
    for what, table in degenerate().items():
        for bootstrap in (0, 10) if what in WITHOUT_INTERVALS else (10,):
            found = measure(table, term, bootstrap=bootstrap)
            assert found.keys() == names, what
            views, classes = table.raw.shape[1], 0 if table.labels is None else len(table.class_names)
            sizes = {"classes": classes, "views": views, "further views": views - 1, "epsilons": len(EPSILONS)}
            for name, quantity in found.items():
                entry = quantity.to_dict()
                assert json.loads(json.dumps(entry, allow_nan=False)) == entry, (what, name)
                _require_quantity(entry, SHAPES[term][name], sizes, f"{what}: {name}")  # or the run could not be read
                if isinstance(quantity, Absent):
                    assert quantity.reason, (what, name)
                else:
                    assert quantity.estimator, (what, name)
                    assert quantity.sample <= table.raw.shape[:2], (what, name)


@pytest.mark.parametrize("term", TERMS)
def test_without_labels_what_needs_none_stays_and_the_rest_says_so(term: str) -> None:
    moved = set()
    for number, table in enumerate(TABLES):
        for name, quantity in measure(replace(table, labels=None), term).items():
            before = unchanged(number, term)[name]
            if isinstance(quantity, Absent) and not isinstance(before, Absent):
                assert quantity.reason == "the images have no labels", name
            elif not same(before, quantity):
                moved.add(name)
    left_out = excepted("without_labels", term)
    assert "" in left_out or moved <= left_out
    assert moved or not left_out, "the exception has no reason any more"


@pytest.mark.parametrize("term", TERMS)
def test_of_one_class_what_needs_no_labels_is_as_without_and_the_rest_says_so(term: str) -> None:
    for table in TABLES:
        assert table.labels is not None
        of_one = measure(replace(table, labels=np.zeros_like(table.labels)), term)
        for name, quantity in measure(replace(table, labels=None), term).items():
            if isinstance(quantity, Estimate):
                assert same(quantity, of_one[name]), name
            elif isinstance(of_one[name], Absent):
                assert of_one[name].reason in (quantity.reason, "the images are all of one class"), name


@pytest.mark.parametrize("num_augmented", [0, 1])
@pytest.mark.parametrize("term", TERMS)
def test_what_few_views_cannot_give_names_the_views(term: str, num_augmented: int) -> None:
    for number, table in enumerate(TABLES):
        for name, quantity in measure(table.of_views([0, 1][: 1 + num_augmented]), term).items():
            if isinstance(quantity, Absent) and isinstance(unchanged(number, term)[name], Estimate):
                assert "view" in quantity.reason, name


@pytest.mark.parametrize("term", TERMS)
def test_the_same_table_and_seed_give_the_same(term: str) -> None:
    once, again = (measure(TABLES[0], term, bootstrap=20) for _ in range(2))
    assert once == again
