"""t-InfoNCE against loops, closed forms, its Gaussian limit and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from cssl_cli.methods.t_infonce import t_info_nce_loss, t_info_nce_terms
from cssl_cli.nn.pair_scores import log_t_kernel
from tests.support import reference_methods as reference
from tests.support.small_methods import normal

SETTINGS = {"t_df": 5.0, "tau": 2.0}


@pytest.mark.parametrize(("t_df", "tau"), [(1.0, 1.0), (5.0, 0.2), (10.0, 5.0)])
def test_the_loss_is_the_papers(t_df: float, tau: float) -> None:
    z_1, z_2 = normal(7, 5, seed=1), 3 * normal(7, 5, seed=2)
    expected = reference.t_info_nce(z_1, z_2, t_df, tau)
    assert t_info_nce_loss(z_1, z_2, t_df=t_df, tau=tau).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_collapsed_projections_give_the_log_of_the_number_of_others(batch: int) -> None:
    z = normal(1, 6).expand(batch, 6)
    assert t_info_nce_loss(z, z, **SETTINGS).item() == pytest.approx(math.log(2 * batch - 1), abs=1e-12)


def test_aligned_images_at_equal_distances() -> None:
    # Rows of a·identity: the other view at distance 0, the 2(B − 1) views of other images at squared distance 2a².
    batch, a = 6, 3.0
    z = a * torch.eye(batch, dtype=torch.float64)
    kernel = (1 + 2 * a**2 / (2.0 * 5.0)) ** -3.0
    alignment, divergence = t_info_nce_terms(z, z, **SETTINGS)
    assert alignment.item() == 0
    assert divergence.item() == pytest.approx(math.log(1 + 2 * (batch - 1) * kernel))


def test_one_degree_of_freedom_is_the_kernel_of_t_sne() -> None:
    squared = torch.tensor([0.0, 0.5, 7.0], dtype=torch.float64)
    torch.testing.assert_close(log_t_kernel(squared, t_df=1.0, tau=1.0).exp(), 1 / (1 + squared))


def test_the_kernel_is_students_density_up_to_a_constant() -> None:
    distance = torch.linspace(0, 4, 9, dtype=torch.float64)
    density = torch.distributions.StudentT(torch.tensor(5.0, dtype=torch.float64)).log_prob(distance / math.sqrt(2.0))
    ours = log_t_kernel(distance.square(), **SETTINGS)
    torch.testing.assert_close(ours - ours[0], density - density[0])


def test_many_degrees_of_freedom_are_nt_xent_on_the_unit_sphere() -> None:
    # −‖z − z′‖²/(2τ) is zᵀz′/τ less 1/τ there: InfoNCE as stochastic neighbour embedding.
    from cssl_cli.methods.simclr import nt_xent_loss

    z_1, z_2 = (torch.nn.functional.normalize(normal(7, 5, seed=seed), dim=1) for seed in (1, 2))
    limit = t_info_nce_loss(z_1, z_2, t_df=1e9, tau=0.3)
    torch.testing.assert_close(limit, nt_xent_loss(z_1, z_2, temperature=0.3), rtol=1e-6, atol=0)


def test_invariances_and_the_norm_that_counts() -> None:
    z_1, z_2 = normal(8, 5, seed=1), normal(8, 5, seed=2)
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=3))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shift = normal(5, seed=4)
    loss = t_info_nce_loss(z_1, z_2, **SETTINGS)
    for same in [
        t_info_nce_loss(z_2, z_1, **SETTINGS),
        t_info_nce_loss(z_1[order], z_2[order], **SETTINGS),
        t_info_nce_loss(z_1 @ rotation, z_2 @ rotation, **SETTINGS),
        t_info_nce_loss(z_1 + shift, z_2 + shift, **SETTINGS),
        t_info_nce_loss(2 * z_1, 2 * z_2, t_df=5.0, tau=8.0),
    ]:
        torch.testing.assert_close(same, loss)
    assert not torch.isclose(t_info_nce_loss(2 * z_1, 2 * z_2, **SETTINGS), loss)


def test_gradients_match_finite_differences() -> None:
    views = [normal(5, 3, seed=seed).requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(lambda a, b: t_info_nce_loss(a, b, **SETTINGS), views)


def test_coincident_projections_give_no_undefined_gradient() -> None:
    z = torch.ones(4, 3, requires_grad=True)
    t_info_nce_loss(z, z, **SETTINGS).backward()
    assert torch.isfinite(z.grad).all()


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    z_1, z_2 = 0.1 * normal(8, 5, seed=1), 0.1 * normal(8, 5, seed=2)
    near = t_info_nce_loss(z_1, z_2, t_df=5.0, tau=0.001)
    far = t_info_nce_loss((z_1 + 10).float(), (z_2 + 10).float(), t_df=5.0, tau=0.001)
    assert far.item() == pytest.approx(near.item(), rel=1e-4)
