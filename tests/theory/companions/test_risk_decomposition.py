"""The risk decomposition: against loops, closed forms, the coverage of its interval, and what it refuses to say."""

import numpy as np
import pytest
import torch

from cssl_cli.features.probe.linear import split_validation
from cssl_cli.host.randomness import stream
from cssl_cli.theory.analysis import Pieces, measure
from cssl_cli.theory.companions.risk_decomposition import QUANTITIES, risk_decomposition
from cssl_cli.theory.estimate import Absent, Estimate
from cssl_cli.theory.table import FeatureTable
from cssl_cli.theory.terms import TERMS
from tests.support import reference_clid as reference


def build(points, labels=None):
    """A table of clean images alone."""
    labels = None if labels is None else torch.as_tensor(labels)
    names = [f"class {label}" for label in range(1 if labels is None else int(labels.max()) + 1)]
    return FeatureTable.build(torch.as_tensor(np.asarray(points, dtype=float))[:, None], labels, names)


def decompose(points, labels=None, *, seed=0):
    return risk_decomposition(build(points, labels), generator=stream(seed, "halves"))


def two_classes(random, shift):
    """20 images of each of two classes, Gaussian with means `shift` apart."""
    labels = np.arange(40) % 2
    return random.normal(size=(40, 2)) + shift * np.eye(2)[0] * labels[:, None], labels


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_a_probe_fitted_otherwise(seed):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(3), 20))
    points = random.normal(size=(3, 3))[labels] + random.normal(size=(60, 3))
    found = decompose(points, labels, seed=seed)
    generator = stream(seed, "halves")
    tested = split_validation(torch.as_tensor(labels), fraction=0.5, generator=generator).numpy()
    best = reference.logistic_errors(points, labels, points, labels, 1e-5)
    assert found["best_probe_risk"].value == pytest.approx(best / 60)
    penalty = float(found["probe_risk"].estimator.split("penalty ")[1].split(",")[0])
    trained = reference.logistic_errors(points[~tested], labels[~tested], points[tested], labels[tested], penalty)
    assert found["probe_risk"].value == pytest.approx(trained / tested.sum())
    assert found["probe_generalization"].value == pytest.approx(trained / tested.sum() - best / 60)


def test_classes_far_apart_leave_no_risk():
    found = decompose(*two_classes(np.random.default_rng(0), 100))
    assert [found[name].value for name in QUANTITIES] == [0, 0, 0]
    assert found["probe_risk"].interval == pytest.approx((0, 1 - 0.025 ** (1 / 20)))


def test_one_point_for_all_leaves_the_risk_of_chance():
    found = decompose(np.ones((20, 3)), [0] * 12 + [1] * 8)
    assert found["best_probe_risk"].value == found["probe_risk"].value == pytest.approx(0.4)
    assert found["probe_generalization"].value == pytest.approx(0)


def test_the_trained_probe_errs_on_no_side_and_its_interval_covers_and_the_best_errs_low():
    """Where features say nothing of two classes alike, every probe's risk is 1/2."""
    random = np.random.default_rng(0)
    drawn = [decompose(*two_classes(random, 0), seed=seed) for seed in range(30)]
    trained = [found["probe_risk"] for found in drawn]
    assert np.mean([found.value for found in trained]) == pytest.approx(0.5, abs=0.06)  # three standard errors
    assert np.mean([found.interval[0] <= 0.5 <= found.interval[1] for found in trained]) >= 0.93
    assert np.mean([found["best_probe_risk"].value for found in drawn]) < 0.44


def test_features_that_fit_any_labels_have_no_parts():
    random = np.random.default_rng(0)
    labels = np.arange(20) % 2
    wide = decompose(random.normal(size=(20, 9)), labels)
    for name in ("best_probe_risk", "probe_generalization"):
        assert wide[name] == Absent("a linear probe of 9 features can fit random labels of 20 images")
    assert isinstance(wide["probe_risk"], Estimate)
    assert isinstance(decompose(random.normal(size=(20, 8)), labels)["best_probe_risk"], Estimate)


@pytest.mark.parametrize(("num_classes", "fitted", "not_fitted"), [(3, 2.0, 3.0), (10, 4.0, 5.5)])
def test_more_images_of_more_classes_fit_any_labels(num_classes, fitted, not_fitted):
    """Where a probe fits random labels, its risk would be 0 for every encoder of the width."""
    random, width = np.random.default_rng(0), 12
    for images_an_axis in (fitted, not_fitted):
        labels = random.permutation(np.arange(round(images_an_axis * (width + 1))) % num_classes)
        points = random.normal(size=(len(labels), width))
        fits = reference.logistic_errors(points, labels, points, labels, 1e-5) == 0
        assert fits == (images_an_axis == fitted)
        assert isinstance(decompose(points, labels)["best_probe_risk"], Absent) == fits


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "the images have no labels"),
        ([0, 0, 0, 0], "the images are all of one class"),
        ([0, 1, 2, 3], "a split takes two images of some class"),
    ],
)
def test_what_cannot_be_split(labels, reason):
    found = decompose(np.random.default_rng(0).normal(size=(4, 2)), labels)
    assert found == dict.fromkeys(QUANTITIES, Absent(reason))


def test_a_class_of_one_image_is_only_trained_on():
    found = decompose(np.random.default_rng(0).normal(size=(9, 2)), [0] * 4 + [1] * 4 + [2])
    assert found["probe_risk"].sample.num_images == 4
    assert found["probe_risk"].absent == {"class 2": "has 1 of the 2 images needed"}


@pytest.mark.parametrize("name", ["clid", "risk_decomposition"])
def test_the_generator_of_the_other_terms_is_left_alone(name):
    """So that the numbers of what is measured later do not depend on these terms."""
    points, labels = two_classes(np.random.default_rng(0), 1)
    generator = stream(0, "analysis")
    pieces = Pieces(
        table=build(points, labels),
        unscaled=torch.as_tensor(points)[:, None],
        epsilons=[1.0],
        bootstrap=20,
        temperature=0.5,
        batch_size=8,
        generator=generator,
        parameters=None,
        baseline=None,
    )
    assert pieces.seed_of_halves
    assert pieces.class_weights is not None
    before = generator.get_state()
    found = [measure(term, pieces) for term in TERMS if term.name == name]
    assert found == [measure(term, pieces) for term in TERMS if term.name == name]
    assert torch.equal(generator.get_state(), before)
