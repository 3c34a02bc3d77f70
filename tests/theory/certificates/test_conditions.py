"""Ball, cap and the paper's shape: against points on the sphere, each other, and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.certificates.conditions import (
    ball_margins,
    best_margins,
    cap_margins,
    certified,
    paper_shape_margins,
)
from tests.support import reference_certificates as reference


def simplex(num_classes):
    return unit_norm(torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes)


def random_centers(seed, *, num_classes=None, width=None):
    """Centres inside the unit ball, at times close together, one at times at the origin."""
    random = np.random.default_rng(seed)
    shape = (num_classes or int(random.integers(2, 6)), width or int(random.integers(2, 7)))
    centers = random.normal(size=shape)
    centers *= random.uniform(0.05, 1, size=(len(centers), 1)) / np.linalg.norm(centers, axis=1, keepdims=True)
    if random.random() < 0.1:
        centers[0] = 0
    return torch.as_tensor(centers)


def caps(reach, centers, own, low=1.0, high=1.0):
    reach = torch.as_tensor(reach, dtype=torch.float64)
    return cap_margins(
        reach, centers, own, least_norm=torch.full_like(reach, low), largest_norm=torch.full_like(reach, high)
    )


seeds = st.integers(0, 2**32 - 1)


def threshold(holds):
    """The largest x in 0 … 2 at which a condition that falls in x holds."""
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(torch.tensor([middle], dtype=torch.float64)) else (low, middle)
    return low


# ---------------------------------------------------------------------- closed forms
def test_thresholds_of_the_simplex_of_ten_classes():
    centers = simplex(10)
    ball = threshold(lambda reach: (ball_margins(reach, centers, 0) > 0).all())
    cap = threshold(lambda reach: (caps(reach, centers, 0) > 0).all())
    shape = threshold(
        lambda reach: (paper_shape_margins(reach, centers, 0, least_norm=1.0, largest_norm=1.0) > 0).all()
    )
    # Half the edge; the angle half way to the next centre; ρ + ρ²/2 = 1 + 1/9.
    assert ball == pytest.approx(math.sqrt(2 + 2 / 9) / 2) == pytest.approx(0.745, abs=5e-4)
    assert cap == pytest.approx(2 * math.sin(math.acos(-1 / 9) / 4)) == pytest.approx(0.816, abs=5e-4)
    assert shape == pytest.approx(math.sqrt(1 + 20 / 9) - 1) == pytest.approx(0.795, abs=5e-4)


def test_two_antipodal_centres_allow_a_quarter_circle():
    centers = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    assert threshold(lambda reach: (caps(reach, centers, 0) > 0).all()) == pytest.approx(math.sqrt(2))


def test_coinciding_centres_never_certify():
    centers = torch.tensor([[0.6, 0.0], [0.6, 0.0], [-1, 0]], dtype=torch.float64)
    reach = torch.tensor([0.0, 0.1], dtype=torch.float64)
    norms = torch.full_like(reach, 0.6)
    margins = best_margins(reach, centers, 0, least_norm=norms, largest_norm=norms, radius=1.0)
    assert torch.isfinite(margins).all()
    assert not certified(margins, centers, 0, 1.0).any()


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_a_point_at_its_centre_has_the_whole_distance(num_classes):
    centers = simplex(num_classes)
    half = math.sqrt(2 + 2 / (num_classes - 1)) / 2
    assert caps([0.0], centers, 0).numpy() == pytest.approx(half)
    assert ball_margins(torch.zeros(1).double(), centers, 0).numpy() == pytest.approx(half)


# ---------------------------------------------------------------------- against points
@given(seeds)
@settings(max_examples=120, deadline=None)
def test_every_point_within_reach_lies_beyond_its_margins_and_the_cap_is_attained(seed):
    random = np.random.default_rng(seed)
    centers = random_centers(seed, width=2 + seed % 2)
    own, center = 0, centers[0].numpy()
    length = float(random.uniform(0.5, 1)) if random.random() < 0.5 else 1.0
    centers, center = length * centers, length * center  # means of vectors of this length
    if centers.shape[1] == 2:
        angles = np.linspace(0, 2 * np.pi, 4000)
        points = length * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        points = random.normal(size=(4000, 3))
        points *= length / np.linalg.norm(points, axis=1, keepdims=True)
    to_center = np.linalg.norm(points - center, axis=1)
    reach = float(random.uniform(to_center.min(), to_center.max()))
    inside = points[to_center <= reach]
    own_squares = ((inside - center) ** 2).sum(axis=1)
    for number, rival in enumerate(range(1, len(centers))):
        other = centers[rival].numpy()
        gap = np.linalg.norm(center - other)
        signed = (((inside - other) ** 2).sum(axis=1) - own_squares) / (2 * gap)
        cap = caps([reach], centers, own, length, length)[0, number].item()
        ball = ball_margins(torch.tensor([reach], dtype=torch.float64), centers, own)[0, number].item()
        shape = paper_shape_margins(
            torch.tensor([reach], dtype=torch.float64), centers, own, least_norm=length, largest_norm=length
        )[0, number].item()
        assert ball <= cap + 1e-9
        assert shape <= cap + 1e-9
        assert cap == pytest.approx(reference.cap_margin(reach, list(centers.numpy()), own, rival, length), abs=1e-7)
        if len(inside):
            assert cap <= signed.min() + 1e-9
            if centers.shape[1] == 2:
                assert cap >= signed.min() - 0.05  # the arc's ends are met by the samples up to their spacing


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_a_cap_for_a_range_of_norms_holds_for_every_norm_in_it(seed):
    random = np.random.default_rng(seed)
    centers = random_centers(seed)
    low, high = sorted(random.uniform(0.3, 1.2, size=2))
    points = random.normal(size=(500, centers.shape[1]))
    points *= random.uniform(low, high, size=(500, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    points = torch.as_tensor(points)
    reach = torch.linalg.vector_norm(points - centers[0], dim=1)
    squares = (points.unsqueeze(1) - centers).square().sum(dim=2)
    signed = (squares[:, 1:] - squares[:, :1]) / (2 * torch.linalg.vector_norm(centers[1:] - centers[0], dim=1))
    assert (caps(reach, centers, 0, low, high) <= signed + 1e-9).all()


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_margins_fall_with_reach_and_follow_scale_and_rotation(seed):
    random = np.random.default_rng(seed)
    centers = random_centers(seed)
    reach = torch.as_tensor(np.sort(random.uniform(1 - centers[0].norm().item(), 2, size=20)))
    for margins in (caps(reach, centers, 0), ball_margins(reach, centers, 0)):
        assert (margins.diff(dim=0) <= 1e-9).all()
    rotation = torch.as_tensor(np.linalg.qr(random.normal(size=(centers.shape[1],) * 2))[0])
    turned = caps(3 * reach, 3 * centers @ rotation, 0, 3.0, 3.0)
    assert turned.numpy() == pytest.approx(3 * caps(reach, centers, 0).numpy(), abs=1e-6)


def test_a_margin_within_rounding_does_not_certify():
    centers = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    assert certified(torch.tensor([[1e-9]], dtype=torch.float64), centers, 0, 1.0).all()
    assert not certified(torch.tensor([[1e-14]], dtype=torch.float64), centers, 0, 1.0).any()
    assert not certified(torch.tensor([[0.0]], dtype=torch.float64), centers, 0, 0.0).any()
