"""Concentration: against loops, closed forms, invariances, and what it refuses to say."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from cssl_cli.errors import RunError
from cssl_cli.host.randomness import stream
from cssl_cli.theory.concentration.pixel_vectors import pixels, standardized_pixels
from cssl_cli.theory.concentration.sigma import QUANTITIES, concentration, sigma_bounds, yardstick
from cssl_cli.theory.estimate import Absent, Estimate
from cssl_cli.theory.subsets import balanced_subset
from tests.support.concentrations import DELTAS, all_distances, measure, names, pairs_of, values


def flat(value):
    """The numbers of a value, and the names and reasons beside them."""
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if not isinstance(value, list):
        value = [value]
    parts = [part for item in value for part in (item if isinstance(item, list) else [item])]
    numbers = [part for part in parts if isinstance(part, (int, float))]
    return np.array(numbers), [part for part in parts if not isinstance(part, (int, float))]


def assert_same_values(one, other, *, scale=1.0):
    scaled = {"yardstick", "deltas", "within_quantiles", "between_quantiles", "least_between"}
    scaled |= {"trade_off", "same_image", "same_class"}
    for name, value in values(one).items():
        (numbers, words), (same_numbers, same_words) = flat(value), flat(values(other)[name])
        assert words == same_words
        factor = scale if name in scaled else 1
        np.testing.assert_allclose(same_numbers, numbers * factor, rtol=1e-6, atol=1e-12, err_msg=name)


def random_table(seed):
    """Vectors (N, V, D) of some classes with an image or more each, of varied kinds, and shuffled labels."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 7, size=random.integers(1, 5))
    sizes[0] = max(sizes[0], 2)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    num, num_views, width = len(labels), int(random.integers(1, 5)), int(random.integers(1, 6))
    kind = ("noise", "clusters", "outliers", "antipodal", "integers")[seed % 5]
    centers = random.normal(size=(len(sizes), width)) * (3 if kind == "clusters" else 0)
    vectors = centers[labels][:, None] + random.normal(size=(num, 1, width))
    vectors = vectors + random.uniform(0, 1) * random.normal(size=(num, num_views, width))
    if kind == "outliers":
        vectors[random.random(num) < 0.3] *= 20
    if kind == "antipodal":
        vectors *= random.choice([-1, 1], size=(num, num_views, 1))
    if kind == "integers":  # ties, coinciding views
        vectors = np.rint(vectors)
    return vectors, labels


# ---------------------------------------------------------------------- the reference: loops over pairs and subsets
def largest_part(distances, delta):
    """The most images with distances ≤ δ between any two, over all subsets."""
    num = len(distances)
    for size in range(num, 1, -1):
        for part in itertools.combinations(range(num), size):
            if all(distances[i, j] <= delta for i, j in itertools.combinations(part, 2)):
                return size
    return min(num, 1)


def same_class_neighbours(distances, labels):
    total = 0.0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        least = min(distances[i, j] for j in others)
        nearest = [j for j in others if distances[i, j] <= least]
        total += sum(labels[j] == labels[i] for j in nearest) / len(nearest)
    return total / len(labels)


# ---------------------------------------------------------------------- against the reference
@pytest.mark.parametrize("seed", range(60))
def test_it_agrees_with_loops_over_pairs_and_subsets(seed):
    vectors, labels = random_table(seed)
    found = values(measure(vectors, labels))
    distances, clean = all_distances(vectors), all_distances(vectors[:, :1])
    sizes = np.bincount(labels)
    several = [k for k in range(len(sizes)) if sizes[k] >= 2]
    one_class = len(sizes) == 1

    assert found["yardstick"] == pytest.approx(np.median(pairs_of(clean, labels, same=one_class)))
    deltas = np.multiply(DELTAS, found["yardstick"])
    assert found["deltas"] == pytest.approx(list(deltas))
    within = pairs_of(distances, labels, same=True)
    levels = {"0.05": 0.05, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "0.95": 0.95}
    assert found["within_quantiles"] == {name: pytest.approx(np.quantile(within, q)) for name, q in levels.items()}

    def shares(at):
        blocks = {k: distances[np.ix_(labels == k, labels == k)] for k in several}
        return np.array([[largest_part(blocks[k], delta) / sizes[k] for delta in at] for k in several])

    def assert_between(low, high, exact):
        assert (np.array(low) <= exact + 1e-12).all()
        assert (exact <= np.array(high) + 1e-12).all()
        np.testing.assert_allclose(low, exact, atol=1e-12)  # tiny classes: the search misses nothing

    sigma, weights = shares(np.array(found["deltas"])), sizes[several] / sizes[several].sum()
    assert_between(found["sigma_low"], found["sigma_high"], sigma.min(axis=0))
    assert_between(found["mean_sigma_low"], found["mean_sigma_high"], weights @ sigma)
    for k, name in enumerate(names(len(sizes))):
        low, high = found["sigma_low_per_class"][name], found["sigma_high_per_class"][name]
        if k in several:
            assert_between(low, high, sigma[several.index(k)])
        else:
            assert low is None
            assert high is None
    if one_class:
        assert "one class" in found["between_quantiles"]
        return
    between = pairs_of(distances, labels, same=False)
    assert found["between_quantiles"] == {name: pytest.approx(np.quantile(between, q)) for name, q in levels.items()}
    if np.median(between) > 0:
        assert found["within_over_between"] == pytest.approx(np.median(within) / np.median(between))
    relative = weights @ shares(np.multiply(DELTAS, found["between_quantiles"]["0.5"]))
    assert_between(found["sigma_relative"], found["sigma_relative_high"], relative)
    assert found["nearest_same_class"] == pytest.approx(same_class_neighbours(distances, labels))
    nearest = np.array([min(row[labels != label]) for row, label in zip(distances, labels, strict=True)])
    assert found["least_between"] == pytest.approx(min(nearest), abs=1e-9)
    near = [np.mean(nearest <= delta * (1 + 1e-6)) for delta in found["deltas"]]
    assert found["share_near_other_class"] == pytest.approx(near)
    assert found["share_meeting_other_class"] == np.mean(nearest == 0)


def test_the_refusals():
    vectors, _ = random_table(0)
    nothing = measure(vectors, None)
    assert set(nothing) == set(QUANTITIES)
    assert {q.reason for q in nothing.values()} == {"the images have no labels"}
    single = measure(vectors[:3], [0, 1, 2])
    assert set(single) == set(QUANTITIES)
    assert all("two images" in q.reason for q in single.values())
    one = measure(vectors[:4], [0, 0, 0, 0])
    between = (
        "between_quantiles",
        "within_over_between",
        "sigma_relative",
        "sigma_relative_high",
        "nearest_same_class",
        "least_between",
        "share_near_other_class",
        "share_meeting_other_class",
    )
    assert {name for name, q in one.items() if isinstance(q, Absent)} == set(between)
    assert "only class" in one["yardstick"].estimator
    mixed = measure(vectors[:4], [0, 0, 2, 0], num_classes=4)
    absent = {"class 1": "has 0 of the 2 images needed", "class 2": "has 1 of the 2 images needed"}
    assert mixed["sigma_low_per_class"].absent == {**absent, "class 3": "has 0 of the 2 images needed"}
    alike = measure(np.ones((4, 2, 3)), [0, 0, 1, 1])
    assert alike["within_over_between"] == Absent("the median distance between classes is zero")
    assert alike["sigma_low"].value == [1.0] * len(DELTAS)
    with pytest.raises(RunError):
        measure(np.full((4, 2, 3), np.nan), [0, 0, 1, 1])


@pytest.mark.parametrize("seed", range(20))
def test_it_is_valid_json_and_complete(seed):
    vectors, labels = random_table(seed)
    found = measure(vectors, labels)
    assert tuple(found) == QUANTITIES
    json.dumps({name: quantity.to_dict() for name, quantity in found.items()}, allow_nan=False)
    paired = int(np.isin(labels, np.flatnonzero(np.bincount(labels) > 1)).sum())
    for name, quantity in found.items():
        if isinstance(quantity, Estimate):
            counted = paired if name in ("trade_off", "same_image", "same_class") else len(labels)
            assert quantity.sample.num_images == counted
            assert quantity.estimator


# ---------------------------------------------------------------------- inequalities and invariances
def test_sigma_grows_with_delta_and_its_bounds_do_not_cross():
    for seed in range(120):
        vectors, labels = random_table(seed)
        found = values(measure(vectors, labels, deltas=np.linspace(0, 2, 9)))
        curves = [(found["sigma_low"], found["sigma_high"]), (found["mean_sigma_low"], found["mean_sigma_high"])]
        if len(np.unique(labels)) > 1:
            curves.append((found["sigma_relative"], found["sigma_relative_high"]))
        for low, high in curves:
            assert (np.array(low) <= np.array(high) + 1e-12).all()
            assert (np.diff(low) >= -1e-12).all()
            assert (np.diff(high) >= -1e-12).all()
        assert (np.array(found["sigma_low"]) <= np.array(found["mean_sigma_low"]) + 1e-12).all()


def test_more_views_bring_images_together_at_the_same_deltas():
    for seed in range(80):
        vectors, labels = random_table(seed)
        fewer, more = values(measure(vectors[:, :1], labels)), values(measure(vectors, labels))
        assert fewer["yardstick"] == more["yardstick"]
        assert fewer["deltas"] == more["deltas"]
        assert (np.array(fewer["mean_sigma_low"]) <= np.array(more["mean_sigma_high"]) + 1e-12).all()
        for level, value in more["within_quantiles"].items():
            assert value <= fewer["within_quantiles"][level] * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_the_unit_and_the_order_of_views_do_not_matter(seed):
    vectors, labels = random_table(seed)
    found = measure(vectors, labels)
    # Powers of two are exact, so that ties stay ties.
    for scale in (2.0**-10, 2.0**7):
        assert_same_values(found, measure(vectors * scale, labels), scale=scale)
    order = np.r_[0, 1 + np.random.default_rng(seed).permutation(vectors.shape[1] - 1)].astype(int)
    assert_same_values(found, measure(vectors[:, order], labels))


def test_rotations_and_shifts_change_nothing():
    for seed in range(0, 40, 5):  # noise, without ties
        vectors, labels = random_table(seed)
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(vectors.shape[2],) * 2))[0]
        deltas = [delta + 0.0123 for delta in DELTAS]
        assert_same_values(
            measure(vectors, labels, deltas=deltas), measure(vectors @ rotation + 5, labels, deltas=deltas)
        )


def test_shrinking_everything_towards_gray_raises_sigma_but_not_relative_sigma():
    # Images of length 1 about gray (0). A view at a tenth of the contrast is 0.9 or more from every clean image, and
    # d_A becomes a tenth of the clean distance for every pair: no structure is gained.
    random = np.random.default_rng(0)
    clean = random.normal(size=(40, 1, 6))
    clean /= np.linalg.norm(clean, axis=2, keepdims=True)
    labels = np.arange(40) % 4
    deltas = np.linspace(0.05, 1.5, 12)
    plain = values(measure(clean, labels, deltas=deltas))
    gray = values(measure(np.concatenate([clean, 0.1 * clean], axis=1), labels, deltas=deltas))
    assert gray["deltas"] == plain["deltas"]
    assert gray["between_quantiles"]["0.5"] == pytest.approx(0.1 * plain["between_quantiles"]["0.5"])
    assert (np.array(gray["mean_sigma_low"]) >= np.array(plain["mean_sigma_high"])).all()
    assert gray["mean_sigma_low"][1] > plain["mean_sigma_high"][1] + 0.5
    assert gray["sigma_relative"] == pytest.approx(plain["sigma_relative"])
    assert gray["within_over_between"] == pytest.approx(plain["within_over_between"])
    assert gray["nearest_same_class"] == plain["nearest_same_class"]


# ---------------------------------------------------------------------- closed forms
def test_collapsed_classes():
    # Two classes at a distance of 3, each image at its class's point.
    labels = np.repeat([0, 1], 5)
    vectors = np.repeat(3.0 * labels[:, None, None], 2, axis=1)
    found = measure(vectors, labels)
    assert found["yardstick"].value == 3
    assert found["sigma_low"].value == found["sigma_high"].value == [1.0] * len(DELTAS)
    assert found["within_over_between"].value == 0
    assert found["nearest_same_class"].value == 1
    assert "0.4444 by chance" in found["nearest_same_class"].estimator  # 4 of the 9 others


def test_orthogonal_images_and_a_chain_of_views():
    # Orthonormal images: every pair at √2, so σ jumps from 1/n to 1 there.
    labels = np.repeat([0, 1], 4)
    found = values(measure(np.eye(8)[:, None], labels, deltas=[0.99, 1.01]))
    assert found["sigma_low"] == found["sigma_high"] == [0.25, 1.0]
    # d_A is no metric: x₁ shares a view with x₀ and another with x₂, x₀ and x₂ share none.
    chain = np.array([[[0.0], [1.0]], [[1.0], [9.0]], [[9.0], [9.5]]])
    found = values(measure(np.concatenate([chain, 100 + chain]), np.repeat([0, 1], 3), deltas=[0.0, 0.07, 0.08]))
    assert found["yardstick"] == pytest.approx(100)
    assert found["sigma_low"] == found["sigma_high"] == pytest.approx([2 / 3, 2 / 3, 1])


def test_ties_count_by_the_share_that_is_of_the_class():
    # Every image has two neighbours at distance 1, one of each class, on the corners of a square.
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])[:, None]
    found = measure(square, [0, 0, 1, 1])["nearest_same_class"]
    assert found.value == 0.5
    # One of two trials, half of the images, by the beta quantiles that define the interval.
    assert found.interval == pytest.approx((beta.ppf(0.025, 1, 2), beta.ppf(0.975, 2, 1)))


def test_the_interval_of_the_mean_is_mcdiarmids():
    vectors = np.random.default_rng(0).normal(size=(30, 2, 3))
    found = measure(vectors, np.arange(30) % 3)
    radius = math.sqrt(math.log(40) / 60)
    for name in ("mean_sigma_low", "mean_sigma_high"):
        for at, (low, high) in enumerate(found[name].interval):
            assert low == pytest.approx(max(0, found["mean_sigma_low"].value[at] - radius))
            assert high == pytest.approx(min(1, found["mean_sigma_high"].value[at] + radius))


def test_the_interval_covers_the_expected_sigma():
    # Images uniform on [0, 1]: σ(δ) of a table of 40 images, its expectation by 2,000 other tables.
    def sigma(seed):
        points = np.sort(np.random.default_rng(seed).random(40))
        return max(np.searchsorted(points, points + 0.3, side="right") - np.arange(40)) / 40

    def interval(seed):
        points = np.random.default_rng(seed).random(40)
        found = measure(points[:, None, None], np.zeros(40, dtype=int), deltas=[1.0])
        unit = 0.3 / found["yardstick"].value
        found = measure(points[:, None, None], np.zeros(40, dtype=int), deltas=[unit])
        assert found["mean_sigma_low"].value[0] == pytest.approx(sigma(seed))
        return found["mean_sigma_low"].interval[0]

    expected = np.mean([sigma(seed) for seed in range(1000, 3000)])
    covered = [low <= expected <= high for low, high in map(interval, range(100))]
    assert np.mean(covered) >= 0.95


def test_sigma_bounds_use_what_other_deltas_certify():
    random = np.random.default_rng(1)
    points = random.normal(size=(60, 8))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    low, high = sigma_bounds(distances, np.linspace(0, 8, 30).tolist())
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert low[0] == high[0] == 1 / 60
    assert low[-1] == high[-1] == 1
    assert sigma_bounds(distances, []) == ([], [])


# ---------------------------------------------------------------------- the images that stand for different classes
def test_the_nearest_is_of_the_same_class_with_more_classes_than_half_of_the_images():
    """600 tight classes of three, 500 images stand for all: one of each would find none of its class."""
    labels = torch.arange(600).repeat_interleave(3)
    vectors = torch.eye(600)[labels].unsqueeze(1) + 1e-3 * torch.randn(1800, 1, 600, generator=stream(0, "vectors"))
    found = concentration(
        lambda rows: vectors[rows],
        labels,
        [str(label) for label in range(600)],
        num_views=1,
        deltas=[0.5],
        between_images=500,
        generator=stream(0, "subset"),
    )
    assert found["nearest_same_class"].value == 1
    assert found["nearest_same_class"].sample.num_images == 500


@pytest.mark.parametrize("between_images", [6, 1000])
def test_the_yardstick_needs_the_clean_views_only(between_images):
    vectors, labels = random_table(1)
    clean, labels = torch.as_tensor(vectors)[:, :1], torch.as_tensor(labels)
    settings = {"between_images": between_images}
    found = yardstick(lambda rows: clean[rows], labels, generator=stream(0, "concentration"), **settings)
    assert found == measure(vectors, labels, **settings)["yardstick"].value
    for without in (None, torch.arange(len(clean))):
        assert yardstick(lambda rows: clean[rows], without, generator=stream(0, "concentration"), **settings) is None


def test_the_subset_is_balanced_and_random():
    labels = torch.tensor([0] * 50 + [1] * 3 + [3] * 20)
    generator = stream(0, "subset")
    rows = balanced_subset(labels, 30, generator)
    assert labels[rows].bincount().tolist() == [13, 3, 0, 13]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert balanced_subset(labels, 73, generator).tolist() == list(range(73))
    assert len(balanced_subset(labels, 2, generator)) == 2
    assert labels[balanced_subset(labels, 2, generator)].unique().numel() == 2
    few = labels[balanced_subset(labels, 5, generator)].bincount(minlength=4)
    assert sorted(few.tolist()) == [0, 1, 2, 2]  # two each of two classes, not one of each, and one to fill up
    singles = torch.cat([torch.arange(400), torch.zeros(1, dtype=torch.int64)])
    assert len(balanced_subset(singles, 300, generator)) == 300
    assert singles[balanced_subset(singles, 300, generator)].bincount().max() == 2
    assert len(balanced_subset(torch.arange(400), 300, generator)) == 300
    drawn = torch.cat([balanced_subset(labels, 6, generator) for _ in range(2000)]).bincount(minlength=73)
    # Each of the first 50 is drawn with probability 2/50; ±5 standard deviations.
    assert (drawn[:50] - 80).abs().max() < 5 * math.sqrt(80)
    assert balanced_subset(labels, 30, stream(1, "a")).tolist() == balanced_subset(labels, 30, stream(1, "a")).tolist()


def test_a_subset_changes_only_what_is_between_classes():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    vectors = random.normal(size=(90, 3, 4)) + labels[:, None, None]
    whole, part = measure(vectors, labels), measure(vectors, labels, between_images=45)
    assert part["within_quantiles"].value == pytest.approx(whole["within_quantiles"].value)
    assert part["between_quantiles"].sample.num_images == part["yardstick"].sample.num_images == 45
    assert part["yardstick"].value == pytest.approx(whole["yardstick"].value, rel=0.15)
    assert part["yardstick"].value != whole["yardstick"].value


def test_progress_counts_every_image_once():
    for between_images in (4, 1000):
        vectors, labels = random_table(3)
        done = []
        measure(vectors, labels, between_images=between_images, advance=done.append)
        assert sum(done) == len(labels)


# ---------------------------------------------------------------------- pixels
def test_pixel_vectors():
    random = torch.Generator().manual_seed(0)
    views = torch.rand(6, 3, 4, 4, generator=random)
    assert torch.equal(pixels(views), views.reshape(6, 48))
    standard = standardized_pixels(views)
    assert torch.allclose(standard.mean(dim=1), torch.zeros(6), atol=1e-6)
    assert torch.allclose(standard.norm(dim=1), torch.ones(6))
    # Brightness and contrast do not count, and squared distances are 2 (1 − correlation).
    assert torch.allclose(standardized_pixels(0.3 * views + 0.2), standard, atol=1e-5)
    correlation = np.corrcoef(views.reshape(6, 48).numpy())
    np.testing.assert_allclose(torch.cdist(standard, standard) ** 2, 2 * (1 - correlation), atol=1e-5)
    constant = (torch.arange(256) / 255).reshape(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    assert torch.equal(standardized_pixels(constant), torch.zeros(256, 3072))
    barely = constant[100:101].clone()
    barely[0, 0, 0, 0] += 1 / 255
    assert standardized_pixels(barely).norm().item() == pytest.approx(1)
