"""How near views of different classes come: on tables made by hand, against loops, and on images that fade away."""

import math

import numpy as np
import pytest
import torch

from cssl_cli.augment import build_augmentation
from cssl_cli.data.shapes import draw_shapes
from cssl_cli.features.extractor import stored_views
from cssl_cli.host.randomness import stream
from cssl_cli.theory.class_geometry import class_geometry
from cssl_cli.theory.concentration.class_overlap import QUANTITIES, class_overlap
from cssl_cli.theory.concentration.pixel_vectors import pixels
from cssl_cli.theory.concentration.sigma import concentration
from cssl_cli.theory.estimate import Absent, Sample
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_certificates as reference

DELTAS = (0.0, 0.1, 0.5, 1.0)


def measure(features, labels, *, deltas=DELTAS, delta=0.5, max_images=1000):
    names = [f"class {label}" for label in range(int(max(labels)) + 1)]
    table = FeatureTable.build(torch.as_tensor(features), torch.as_tensor(labels), names)
    generator = stream(0, "overlap")
    return class_overlap(class_geometry(table), deltas, delta, max_images=max_images, generator=generator)


@pytest.mark.parametrize("seed", range(16))
def test_it_agrees_with_loops(seed):
    features, labels = reference.random_instance(seed)
    found = measure(features, labels)
    nearest, pairs = [], {}
    for i, image in enumerate(features):
        others = {j: reference.augmented_distance(image, features[j]) for j in np.flatnonzero(labels != labels[i])}
        nearest.append(min(others.values()))
        for j, distance in others.items():
            pairs[labels[i], labels[j]] = min(distance, pairs.get((labels[i], labels[j]), math.inf))
    assert found["least_distance"].value == pytest.approx(min(nearest), abs=1e-9)
    named = tuple(int(name.split()[1]) for name in found["least_distance"].classes)
    assert pairs[named] == pytest.approx(min(nearest), abs=1e-9)
    assert found["share_within"].value == [np.mean(np.array(nearest) <= delta) for delta in DELTAS]
    assert found["share_within_delta"].value == found["share_within"].value[2]
    assert {found[name].errs for name in ("share_within", "share_within_delta", "share_coinciding")} == {"low"}
    assert found["least_distance"].errs == "high"


def test_a_table_by_hand():
    """Class 0 at 0 and 1; class 1 at 5, with a view at 1.1, and at 9; class 2 at 9 exactly."""
    views = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 1.1], [9.0, 9.0], [9.0, 9.5]])
    found = measure(views[:, :, None], [0, 0, 1, 1, 2])
    assert (found["least_distance"].value, found["least_distance"].classes) == (0.0, ("class 1", "class 2"))
    assert found["share_coinciding"].value == 2 / 5
    assert found["share_within"].value == [2 / 5, 4 / 5, 4 / 5, 4 / 5]
    without = measure(views[:, :, None], [0, 0, 1, 1, 2], deltas=(), delta=None)
    assert isinstance(without["share_within"], Absent)
    assert isinstance(without["share_within_delta"], Absent)
    assert without["share_coinciding"].value == 2 / 5


def test_a_part_of_the_images_errs_to_the_side_it_says():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(90, 3, 4)), np.arange(90) % 3
    whole, part = measure(features, labels), measure(features, labels, max_images=30)
    assert part["least_distance"].sample == Sample(30, 3)
    assert part["least_distance"].value >= whole["least_distance"].value
    assert part["share_within_delta"].value < whole["share_within_delta"].value


def test_what_cannot_be_said():
    table = FeatureTable.build(torch.ones(3, 2, 2), None, ["a", "b"])
    generator = stream(0, "overlap")
    found = class_overlap(class_geometry(table), DELTAS, 0.5, max_images=10, generator=generator)
    assert found == dict.fromkeys(QUANTITIES, Absent("the images have no labels"))


@pytest.mark.parametrize(("fade", "share"), [(None, 0.0), ({"p": 1.0, "contrast": [0.0, 0.003]}, 1.0)])
def test_faded_shapes_of_different_classes_coincide(fade, share):
    images, labels = draw_shapes(60, size=32, split="test", progress=None)
    augmentation = build_augmentation({"flip": {"p": 0.5}, "fade": fade}, image_size=images.shape[-1])
    theta = augmentation.draw(60 * 7, stream(0, "views")).unflatten(0, (60, 7))
    views = stored_views(images, augmentation, theta)
    found = concentration(
        lambda rows: pixels(views[rows].flatten(0, 1)).unflatten(0, views[rows].shape[:2]),
        labels,
        [str(label) for label in range(int(labels.max()) + 1)],
        num_views=8,
        deltas=(0.1, 0.5),
        between_images=60,
        generator=stream(0, "concentration"),
    )
    assert found["share_meeting_other_class"].value == share
    assert (found["least_between"].value == 0) == (share > 0)
