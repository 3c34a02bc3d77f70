"""VICReg's three parts against loops, closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from cssl_cli.methods.vicreg import VARIANCE_FLOOR, covariance_part, variance_part, vicreg_loss, vicreg_terms
from tests.support import reference_methods as reference
from tests.support.small_methods import images, normal, small_method

WEIGHTS = {"invariance": 25.0, "variance": 20.0, "covariance": 3.0}
# The columns of a 4x4 Hadamard matrix but the first: mean 0, uncorrelated, unbiased variance 4/3.
HADAMARD = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])  # columns below, about and above the aim of 1
def test_the_parts_are_the_papers(scale: float) -> None:
    z_1, z_2 = scale * normal(9, 4, seed=1), scale * normal(9, 4, seed=2)
    parts = vicreg_terms(z_1, z_2, **WEIGHTS)
    expected = reference.vicreg(z_1, z_2, tuple(WEIGHTS.values()))
    assert [part.item() for part in parts] == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert vicreg_loss(z_1, z_2, **WEIGHTS).item() == pytest.approx(sum(expected))


def test_identical_uncorrelated_columns_of_deviation_above_1_cost_nothing() -> None:
    assert vicreg_loss(HADAMARD, HADAMARD, **WEIGHTS).item() == 0


def test_collapsed_projections_cost_the_variance_alone() -> None:
    z = normal(1, 5).expand(8, 5)
    invariance, variance, covariance = vicreg_terms(z, z, **WEIGHTS)
    assert (invariance.item(), covariance.item()) == (0, pytest.approx(0, abs=1e-20))
    assert variance.item() == pytest.approx(20 * (1 - math.sqrt(VARIANCE_FLOOR)))


def test_small_columns_cost_what_they_lack() -> None:
    small = HADAMARD / 2  # unbiased variance 1/3
    assert variance_part(small).item() == pytest.approx(1 - math.sqrt(1 / 3 + VARIANCE_FLOOR))
    assert variance_part(torch.cat([small, HADAMARD], dim=1)).item() == pytest.approx(variance_part(small).item() / 2)


def test_equal_columns_cost_their_covariances() -> None:
    same = HADAMARD[:, :1].expand(4, 3)  # six ordered pairs of covariance 4/3, over P = 3
    assert covariance_part(same).item() == pytest.approx(6 * (4 / 3) ** 2 / 3)


def test_constant_shift_between_the_views_costs_the_invariance_alone() -> None:
    parts = vicreg_terms(HADAMARD, HADAMARD + 2, **WEIGHTS)
    assert [part.item() for part in parts] == pytest.approx([25 * 4, 0, 0])


def test_invariances() -> None:
    z_1, z_2 = normal(9, 4, seed=1), normal(9, 4, seed=2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    columns = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    shift = normal(4, seed=3)
    loss = vicreg_loss(z_1, z_2, **WEIGHTS)
    for same in [
        vicreg_loss(z_2, z_1, **WEIGHTS),
        vicreg_loss(z_1[order], z_2[order], **WEIGHTS),
        vicreg_loss(z_1[:, columns], z_2[:, columns], **WEIGHTS),
        vicreg_loss(-z_1, -z_2, **WEIGHTS),
        vicreg_loss(z_1 + shift, z_2 + shift, **WEIGHTS),
    ]:
        torch.testing.assert_close(same, loss)


def test_gradients_match_finite_differences() -> None:
    views = [(0.4 * normal(6, 3, seed=seed)).requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(lambda a, b: vicreg_loss(a, b, **WEIGHTS), views)


def test_a_collapsed_column_gives_no_undefined_gradient() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    vicreg_loss(z, z, **WEIGHTS).backward()
    assert torch.isfinite(z.grad).all()


def test_the_parts_are_recorded_with_their_weights() -> None:
    method = small_method("vicreg", **WEIGHTS)
    view_1, view_2 = images(seed=1), images(seed=2)
    terms = method(view_1, view_2)
    z_1, z_2 = method.projector(method.encoder(view_1)), method.projector(method.encoder(view_2))
    expected = reference.vicreg(z_1, z_2, tuple(WEIGHTS.values()))
    assert [terms[name].item() for name in WEIGHTS] == pytest.approx(expected, rel=1e-4)
