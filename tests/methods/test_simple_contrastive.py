"""The simple contrastive loss: loops, its least value, and the collapse that it cannot prevent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cssl_cli.methods import Method, build_method
from cssl_cli.methods.simple_contrastive import simple_contrastive_loss, simple_contrastive_terms
from cssl_cli.nn.encoder import MLP, materialize
from tests.support import reference_methods as reference
from tests.support.small_methods import SETTINGS, normal


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 2.0])
def test_the_loss_is_the_papers(lambda_: float) -> None:
    z_1, z_2 = normal(7, 5, seed=1), normal(7, 5, seed=2)
    expected = reference.simple_contrastive(z_1, z_2, lambda_)
    assert simple_contrastive_loss(z_1, z_2, lambda_=lambda_).item() == pytest.approx(expected, rel=1e-10)


def test_closed_forms() -> None:
    collapsed = normal(1, 5).expand(6, 5)
    alignment, repulsion = simple_contrastive_terms(collapsed, 2 * collapsed, lambda_=0.7)
    assert [alignment.item(), repulsion.item()] == pytest.approx([-1, 0.7])
    axes = torch.eye(6, dtype=torch.float64)
    alignment, repulsion = simple_contrastive_terms(axes, axes, lambda_=0.7)
    assert [alignment.item(), repulsion.item()] == pytest.approx([-1, 0])


def test_two_opposite_points_attain_the_least_value_as_a_simplex_does() -> None:
    batch, lambda_ = 8, 0.7
    least = -1 - lambda_ / (batch - 1)
    line = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(batch // 2, 1)
    axes = torch.eye(batch, dtype=torch.float64)
    simplex = axes - axes.mean(dim=0)
    for z in (line, simplex):
        assert simple_contrastive_loss(z, z, lambda_=lambda_).item() == pytest.approx(least)
    for seed in range(50):
        z_1, z_2 = normal(batch, 3, seed=seed), normal(batch, 3, seed=100 + seed)
        assert simple_contrastive_loss(z_1, z_2, lambda_=lambda_).item() >= least


def test_the_loss_sees_no_more_than_alignment_and_the_mean() -> None:
    # Whatever the images' directions, the repulsion of aligned views is a function of the norm of their mean.
    z = nn.functional.normalize(normal(8, 5), dim=1)
    _, repulsion = simple_contrastive_terms(z, z, lambda_=1.0)
    assert repulsion.item() == pytest.approx((8 * z.mean(dim=0).square().sum().item() - 1) / 7)


def test_invariances() -> None:
    z_1, z_2 = normal(8, 5, seed=1), normal(8, 5, seed=2)
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=3))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    loss = simple_contrastive_loss(z_1, z_2, lambda_=0.7)
    for same in [
        simple_contrastive_loss(z_2, z_1, lambda_=0.7),
        simple_contrastive_loss(z_1[order], z_2[order], lambda_=0.7),
        simple_contrastive_loss(z_1 @ rotation, z_2 @ rotation, lambda_=0.7),
        simple_contrastive_loss(10 * z_1, 0.1 * z_2, lambda_=0.7),
    ]:
        torch.testing.assert_close(same, loss)


def test_gradients_match_finite_differences() -> None:
    views = [normal(5, 3, seed=seed).requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(lambda a, b: simple_contrastive_loss(a, b, lambda_=0.7), views)


# ---------------------------------------------------------------------- collapse
class Vectors(nn.Module):
    """An encoder of vectors: a linear layer and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(MLP(12, (24,), batch_norm=False), nn.ReLU())
        self.num_features = 24

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.network(vectors)


def effective_rank(z: torch.Tensor) -> float:
    """exp of the entropy of the normalised singular values (RankMe), of unit rows less their mean."""
    unit = nn.functional.normalize(z, dim=1)
    values = torch.linalg.svdvals(unit - unit.mean(dim=0))
    shares = (values / values.sum()).clamp(min=1e-12)
    return math.exp(-(shares * shares.log()).sum().item())


def trained_on_vectors(name: str) -> Method:
    """Forty images that are vectors, whose views differ by noise; the same weights, views and steps for any method."""
    with torch.device("meta"):
        method = build_method({**SETTINGS[name], "projector": (32, 10)}, Vectors())
    materialize(method, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    points, noise = normal(40, 12, seed=1).float(), torch.Generator().manual_seed(2)
    for _ in range(200):
        views = [points + 0.6 * torch.randn(points.shape, generator=noise) for _ in range(2)]
        optimizer.zero_grad()
        method(*views)["loss"].backward()
        optimizer.step()
    return method


def test_it_loses_dimensions_where_simclr_keeps_them() -> None:
    points = normal(40, 12, seed=1).float()
    methods = {name: trained_on_vectors(name) for name in ("simclr", "simple_contrastive")}
    outputs = {name: method.projector(method.encoder(points)).detach() for name, method in methods.items()}
    ranks = {name: effective_rank(z) for name, z in outputs.items()}
    # 40 points in 10 columns. SimCLR fills them; the simple loss has come to its least value with few of them.
    z = outputs["simple_contrastive"]
    assert simple_contrastive_loss(z, z, lambda_=1.0).item() == pytest.approx(-1 - 1 / 39, abs=0.01)
    assert ranks["simclr"] > 9
    assert ranks["simple_contrastive"] < 5
