"""The augmented distance: against differences in float64, above all where a Gram matrix cancels."""

import itertools
import math

import numpy as np
import pytest
import torch

from cssl_cli.theory import augmented_distance
from cssl_cli.theory.augmented_distance import augmented_distances

KINDS = ("noise", "near duplicates", "offset", "zeros", "one point", "two points", "scales", "outlier")


def by_differences(views, others):
    """d_A (N, N′) by loops over images and pairs of views, in float64."""
    views, others = views.double().numpy(), others.double().numpy()
    found = np.zeros((len(views), len(others)))
    for i, j in itertools.product(range(len(views)), range(len(others))):
        pairs = itertools.product(views[i], others[j])
        found[i, j] = min(math.sqrt(math.fsum((a - b) ** 2)) for a, b in pairs)
    return found


def table(kind, seed, *, num=6, num_views=3, width=5, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    noise = normal(num, num_views, width)
    made = {
        "noise": noise,
        "near duplicates": normal(1, 1, width) + 1e-4 * noise,
        "offset": 1000 + 1e-2 * noise,
        "zeros": noise * (torch.rand(num, num_views, 1, generator=random) < 0.5),
        "one point": normal(1, 1, width).expand_as(noise),
        "two points": normal(2, 1, width)[torch.arange(num) % 2].expand_as(noise),
        "scales": noise * 10 ** (4 * normal(num, 1, 1)).clamp(-6, 6),
        "outlier": torch.cat([1e6 * normal(1, num_views, width), 1e-3 * noise[1:]]),
    }[kind]
    return made.to(dtype)


@pytest.mark.parametrize("apart", [False, True], ids=["in float64", "taken apart"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_least_difference_to_a_relative_1e_6(kind, dtype, apart, monkeypatch):
    if apart:
        monkeypatch.setattr(augmented_distance, "WIDE", 1)
        monkeypatch.setattr(augmented_distance, "LEADING", 2)
    for seed in range(12):
        views = table(kind, seed, num_views=1 + seed % 4, width=1 + 3 * (seed % 5), dtype=dtype)
        others = table(kind, seed + 100, num=4, num_views=1 + seed % 3, width=views.shape[2], dtype=dtype)
        among = by_differences(views, views)
        np.fill_diagonal(among, 0)
        np.testing.assert_allclose(augmented_distances(views), among, rtol=1e-6, atol=0)
        np.testing.assert_allclose(augmented_distances(views, others), by_differences(views, others), rtol=1e-6, atol=0)
        both = augmented_distances(views, views)
        np.testing.assert_allclose(both, by_differences(views, views), rtol=1e-6, atol=0)


def test_tiny_distances_far_from_the_centre_keep_their_precision():
    # Pairs 10⁻⁹ apart at a distance of 1 from the rest: a Gram matrix in float64 sees nothing of 10⁻¹⁸.
    random = torch.Generator().manual_seed(0)
    views = torch.randn(8, 2, 64, generator=random, dtype=torch.float64)
    twins = views + 1e-9 * torch.randn(views.shape, generator=random, dtype=torch.float64)
    found = augmented_distances(torch.cat([views, twins]))
    exact = by_differences(views, twins)
    assert exact.diagonal().max() < 1e-7
    np.testing.assert_allclose(found[:8, 8:], exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("apart", [False, True], ids=["in float64", "taken apart"])
def test_images_that_share_a_view_are_at_distance_0_without_differences(apart, monkeypatch):
    if apart:
        monkeypatch.setattr(augmented_distance, "WIDE", 1)
        monkeypatch.setattr(augmented_distance, "LEADING", 2)
    random = torch.Generator().manual_seed(3)
    views = torch.randn(12, 3, 7, generator=random)
    views[::2, 1] = 0.5  # half of the images, at one place
    views[3::4, 2] = 0.5  # others at another
    views[1, 0] = views[5, 2]  # a pair of its own
    asked = []
    from_differences = augmented_distance._from_differences

    def counted(left, right, first, second):
        asked.append(len(first))
        return from_differences(left, right, first, second)

    monkeypatch.setattr(augmented_distance, "_from_differences", counted)
    among = by_differences(views, views)
    np.testing.assert_allclose(augmented_distances(views), np.where(np.eye(12), 0, among), rtol=1e-6, atol=0)
    np.testing.assert_allclose(augmented_distances(views[:5], views[5:]), among[:5, 5:], rtol=1e-6, atol=0)
    assert (among == 0).sum() > 60
    assert sum(asked) == 0


def photographs(num, num_views, side=32):
    """Views (N, V, 3 · side²) that are smooth, as those of photographs are, with a little noise."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(num * num_views, 3, 5, 5, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic")
    noise = torch.randn(smooth.shape, generator=random)
    return (0.5 + 0.2 * smooth + 0.02 * noise).clamp(0, 1).flatten(1).unflatten(0, (num, num_views))


def by_numpy(views):
    """The same among the views themselves, fast enough for photographs."""
    pixels = views.double().numpy()
    found = np.zeros((len(views), len(views)))
    for i, j in itertools.combinations(range(len(views)), 2):
        found[i, j] = found[j, i] = np.linalg.norm(pixels[i][:, None] - pixels[j], axis=2).min()
    return found


def test_wide_views_are_taken_apart_and_hardly_any_distance_is_computed_again(monkeypatch):
    views = photographs(40, 3)
    views[7, 1] = views[3, 2] + 1e-4 * torch.randn(views.shape[2], generator=torch.Generator().manual_seed(2))
    again = []
    exactly = augmented_distance._from_differences

    def counting(views, others, first, second):
        again.extend(zip(first.tolist(), second.tolist(), strict=True))
        return exactly(views, others, first, second)

    monkeypatch.setattr(augmented_distance, "_from_differences", counting)
    expected = by_numpy(views)
    found = augmented_distances(views)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    assert again == [(3, 7)]


def test_the_error_of_products_in_float32_stays_well_within_its_bound():
    views = photographs(30, 4)
    basis = augmented_distance._leading_directions(views, views[0, 0])
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-12, rtol=0)
    apart = augmented_distance._Operand.taken_apart(views, views[0, 0], basis)
    squares, error = augmented_distance._least_squares(apart, apart)
    wrong = (squares - torch.from_numpy(by_numpy(views)).square()).abs().fill_diagonal_(0)
    assert float((wrong / error).max()) < 0.2
    rest = torch.linalg.vector_norm(apart.rest, dim=2, dtype=torch.float64).square()
    assert float((rest / apart.squares.clamp(min=1e-9)).mean()) < 0.05


def test_where_float32_fails_blocks_are_computed_in_float64(monkeypatch):
    # White noise has no leading directions; a common part lets differences be small beside what is left.
    random = torch.Generator().manual_seed(0)
    views = torch.randn(1, 1, 3072, generator=random) + 1e-3 * torch.randn(12, 2, 3072, generator=random)
    views[0] += torch.randn(2, 3072, generator=random)
    monkeypatch.setattr(augmented_distance, "MAX_ROWS", 6)
    monkeypatch.setattr(augmented_distance, "LEADING", 1)
    np.testing.assert_allclose(augmented_distances(views), by_numpy(views), rtol=1e-6, atol=0)
    gram = augmented_distance._Gram(views, None)
    for _ in range(6):
        _, close = gram.distances(slice(3, 6), slice(6, 9))
        assert not close.any()
    assert gram.failed == augmented_distance.PATIENCE


def test_blocks_change_nothing(monkeypatch):
    views = table("near duplicates", 3, num=23, num_views=4, width=7)
    whole = augmented_distances(views), augmented_distances(views[:9], views)
    monkeypatch.setattr(augmented_distance, "MAX_ROWS", 12)
    blocked = [augmented_distances(views), augmented_distances(views[:9], views)]
    monkeypatch.setattr(augmented_distance, "WIDE", 7)
    blocked += [augmented_distances(views), augmented_distances(views[:9], views)]
    for one, other in zip((*whole, *whole), blocked, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=0)
    assert torch.equal(blocked[0], blocked[0].T)
    assert torch.equal(blocked[2], blocked[2].T)


def test_numbers_too_large_for_float32_are_no_obstacle(monkeypatch):
    monkeypatch.setattr(augmented_distance, "WIDE", 1)
    monkeypatch.setattr(augmented_distance, "LEADING", 2)
    views = 1e60 * table("noise", 0, dtype=torch.float64)
    expected = by_differences(views, views)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(augmented_distances(views), expected, rtol=1e-6, atol=0)


def test_more_views_never_make_it_larger_and_their_order_is_free():
    for seed in range(100):
        views = table(KINDS[seed % len(KINDS)], seed, num_views=5)
        distances = augmented_distances(views)
        for fewer in range(1, 5):
            assert (distances <= augmented_distances(views[:, :fewer]) * (1 + 1e-6)).all()
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(augmented_distances(views[:, order]), distances, rtol=2e-6, atol=0)


def test_degenerate_shapes():
    assert augmented_distances(torch.zeros(0, 3, 4)).shape == (0, 0)
    assert augmented_distances(torch.zeros(2, 3, 4), torch.zeros(0, 2, 4)).shape == (2, 0)
    assert augmented_distances(torch.ones(1, 3, 4)).tolist() == [[0.0]]
    assert augmented_distances(torch.zeros(2, 1, 3), torch.ones(1, 1, 3)).tolist() == [[3**0.5]] * 2
