"""The search for nearer views: what it may change, and the concentration in the distances it finds."""

import itertools
import json

import numpy as np
import pytest
import torch

from cssl_cli.augment import build_augmentation
from cssl_cli.host.randomness import stream
from cssl_cli.theory.concentration.pixel_vectors import pixels, standardized_pixels
from cssl_cli.theory.concentration.refined_distance import QUANTITIES as REFINED
from cssl_cli.theory.concentration.refined_distance import refine_distances, refined_concentration
from cssl_cli.theory.estimate import Absent
from tests.support.concentrations import all_distances, measure, names, pairs_of, values

SIDE = 8
COLORFUL = {"crop": {"scale": (0.2, 1.0), "ratio": (0.75, 1.33)}, "flip": {"p": 0.5}, "gray": {"p": 0.3}}


def random_images(num, seed=0):
    return torch.randint(0, 256, (num, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def view_distances(images, pairs, theta, augmentation, to_vectors=pixels):
    views = [to_vectors(augmentation.apply(images[pairs[:, side]], theta[:, side])).double() for side in (0, 1)]
    return (views[0] - views[1]).square().sum(dim=1).sqrt()


@pytest.mark.parametrize("to_vectors", [pixels, standardized_pixels])
def test_a_search_never_makes_a_distance_larger_and_gives_the_views_that_attain_it(to_vectors):
    augmentation = build_augmentation(COLORFUL, image_size=SIDE)
    images, pairs = random_images(6), torch.combinations(torch.arange(6))
    start = augmentation.draw(30, stream(0, "start")).unflatten(0, (15, 2))
    at_start = view_distances(images, pairs, start, augmentation, to_vectors)
    before, done = at_start, []
    for steps in (0, 5, 40):
        found, theta = refine_distances(
            images,
            pairs,
            start,
            augmentation,
            to_vectors=to_vectors,
            steps=steps,
            generator=stream(0, "search"),
            advance=done.append,
        )
        assert (found <= before * (1 + 1e-6)).all()
        assert found.dtype == torch.float64
        assert theta.shape == start.shape
        assert theta.min() >= 0
        assert theta.max() <= 1
        np.testing.assert_allclose(found, view_distances(images, pairs, theta, augmentation, to_vectors), rtol=1e-5)
        before = found
    assert sum(done) == 45
    assert found.mean() < 0.9 * at_start.mean()


def test_a_search_ends_where_no_other_view_of_either_image_is_nearer():
    # A flip and a gray: four views of an image, sixteen pairs of them.
    augmentation = build_augmentation({"flip": {"p": 0.5}, "gray": {"p": 0.5}}, image_size=SIDE)
    images, pairs = random_images(8), torch.combinations(torch.arange(8))
    start = augmentation.draw(2 * len(pairs), stream(0, "start")).unflatten(0, (len(pairs), 2))
    found, theta = refine_distances(
        images, pairs, start, augmentation, to_vectors=pixels, steps=150, generator=stream(0, "search")
    )
    for corner, side in itertools.product(itertools.product((0.25, 0.75), repeat=2), (0, 1)):
        other = theta.clone()
        other[:, side] = torch.tensor(corner)
        assert (found <= view_distances(images, pairs, other, augmentation) * (1 + 1e-6)).all()


def test_images_that_are_one_anothers_views_come_to_distance_zero():
    augmentation = build_augmentation({"flip": {"p": 0.5}}, image_size=SIDE)
    one, other = random_images(2)
    images = torch.stack([one, one.flip(-1), other, other.flip(-1)])
    pairs, start = torch.tensor([[0, 1], [2, 3], [0, 2]]), torch.full((3, 2, 1), 0.75)
    found, _ = refine_distances(
        images, pairs, start, augmentation, to_vectors=pixels, steps=100, generator=stream(0, "search")
    )
    assert found[:2].tolist() == [0, 0]
    assert found[2] > 0


def test_a_search_without_parameters_or_pairs_stays_where_it_is():
    nothing = build_augmentation({}, image_size=SIDE)
    images, pairs = random_images(3), torch.combinations(torch.arange(3))
    found, theta = refine_distances(
        images, pairs, torch.zeros(3, 2, 0), nothing, to_vectors=pixels, steps=3, generator=stream(0, "search")
    )
    assert theta.shape == (3, 2, 0)
    np.testing.assert_allclose(found, view_distances(images, pairs, theta, nothing), rtol=1e-6)
    found, theta = refine_distances(
        images, pairs[:0], torch.zeros(0, 2, 0), nothing, to_vectors=pixels, steps=3, generator=stream(0, "search")
    )
    assert found.shape == (0,)


def refined(images, labels, augmentation, theta, *, num_pairs=60, steps=10, seed=0, advance=None, deltas=(1, 2, 4, 6)):
    return refined_concentration(
        images,
        labels,
        names(4),
        augmentation,
        theta,
        to_vectors=pixels,
        num_pairs=num_pairs,
        steps=steps,
        deltas_absolute=deltas,
        generator=stream(seed, "refine"),
        device=torch.device("cpu"),
        advance=advance,
    )


@pytest.mark.parametrize("seed", range(4))
def test_refined_distances_are_smaller_and_classes_denser(seed):
    augmentation = build_augmentation(COLORFUL, image_size=SIDE)
    images, labels = random_images(40, seed), torch.arange(40) % 4
    theta = augmentation.draw(120, stream(seed, "views")).unflatten(0, (40, 3))
    done = []
    found = refined(images, labels, augmentation, theta, seed=seed, advance=done.append)
    assert tuple(found) == REFINED
    json.dumps({name: quantity.to_dict() for name, quantity in found.items()}, allow_nan=False)
    assert sum(done) == 10
    for where in ("within", "between"):
        assert 0 < found[f"refined_{where}_median"].value < found[f"sampled_{where}_median"].value
        assert found[f"refined_{where}_median"].errs == "high"
    sampled, more = (found[f"{which}_mean_sigma"].value for which in ("sampled", "refined"))
    assert (np.array(more) >= np.array(sampled)).all()
    assert (np.diff(more) >= 0).all()
    assert values(found) == values(refined(images, labels, augmentation, theta, seed=seed))


def test_the_sampled_numbers_are_those_of_the_whole_table_when_it_is_small():
    # 20 images of 4 classes have 40 pairs within classes: the sub-table is the table.
    augmentation = build_augmentation(COLORFUL, image_size=SIDE)
    images, labels = random_images(20), torch.arange(20) % 4
    theta = augmentation.draw(60, stream(0, "views")).unflatten(0, (20, 3))
    views = augmentation.apply(images.repeat_interleave(3, dim=0), theta.flatten(0, 1)).unflatten(0, (20, 3))
    vectors = pixels(torch.cat([images.unsqueeze(1) / 255, views], dim=1).flatten(0, 1)).unflatten(0, (20, 4))
    whole = measure(vectors, labels)
    deltas = whole["deltas"].value
    found = refined(images, labels, augmentation, theta, num_pairs=40, steps=0, deltas=deltas)
    distances = all_distances(vectors.double().numpy())
    within = pairs_of(distances, labels.tolist(), same=True)
    assert found["sampled_within_median"].value == pytest.approx(np.median(within), rel=1e-6)
    assert found["sampled_mean_sigma"].value == pytest.approx(whole["mean_sigma_low"].value)
    assert found["sampled_within_median"].sample == (20, 4)


def test_the_sub_table_keeps_to_its_pairs():
    augmentation = build_augmentation({"flip": {"p": 0.5}}, image_size=SIDE)
    images, labels = random_images(44), torch.tensor([0] * 20 + [1] * 20 + [2] * 3 + [3])
    theta = augmentation.draw(44, stream(0, "views")).unflatten(0, (44, 1))
    for num_pairs, most in ((1, 2), (2, 4), (3, 3), (10, 5), (19, 5), (30, 13), (1000, 43)):
        found = refined(images, labels, augmentation, theta, num_pairs=num_pairs, steps=1)
        num_images = found["refined_mean_sigma"].sample.num_images
        assert 2 <= num_images <= most
        assert "pairs of the same class" in found["refined_within_median"].estimator
    assert num_images == 43


def test_the_refusals_of_the_search():
    augmentation = build_augmentation({"flip": {"p": 0.5}}, image_size=SIDE)
    images, theta = random_images(6), torch.rand(6, 2, 1)
    for labels, points, num_pairs, reason in (
        (None, theta, 10, "no labels"),
        (torch.zeros(6, dtype=torch.int64), theta[:, :0], 10, "augmented views"),
        (torch.arange(6) % 2, theta, 0, "two images"),
        (torch.tensor([0, 1, 2, 3]), theta[:4], 10, "two images"),
    ):
        some = images if labels is None else images[: len(labels)]
        found = refined(some, labels, augmentation, points, num_pairs=num_pairs)
        assert set(found) == set(REFINED)
        assert all(reason in quantity.reason for quantity in found.values())
    one_class = refined(images, torch.zeros(6, dtype=torch.int64), augmentation, theta)
    assert {name for name, q in one_class.items() if isinstance(q, Absent)} == {
        "sampled_between_median",
        "refined_between_median",
    }
