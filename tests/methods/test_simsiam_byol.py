"""SimSiam and BYOL: losses without negatives, whose targets carry no gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cssl_cli.methods import build_method, output_std
from cssl_cli.methods.byol import BYOL, byol_half, byol_loss
from cssl_cli.methods.simsiam import SimSiam, negative_cosine_similarity, simsiam_loss
from cssl_cli.nn.encoder import materialize
from cssl_cli.recipe import load_recipe
from tests.support import reference_methods as reference
from tests.support.small_methods import OneLayer, images, normal, small_method

LOSSES = {"simsiam": (simsiam_loss, reference.simsiam), "byol": (byol_loss, reference.byol)}
BOTH = pytest.mark.parametrize("name", sorted(LOSSES))


def projections() -> list[torch.Tensor]:
    """p_1, p_2, z_1, z_2."""
    return [normal(7, 5, seed=seed) for seed in (1, 2, 3, 4)]


# ---------------------------------------------------------------------- the losses
@BOTH
def test_the_loss_is_the_papers(name: str) -> None:
    loss, plain = LOSSES[name]
    assert loss(*projections()).item() == pytest.approx(plain(*projections()), rel=1e-12)


def test_closed_forms() -> None:
    z = torch.eye(4, dtype=torch.float64)
    other = z.roll(1, 0)  # orthogonal, row by row
    for p, cosine in [(3 * z, 1.0), (other, 0.0), (-0.5 * z, -1.0)]:
        assert negative_cosine_similarity(p, z).item() == pytest.approx(-cosine)
        assert simsiam_loss(p, p, z, z).item() == pytest.approx(-cosine)
        assert byol_half(p, z).item() == pytest.approx(2 - 2 * cosine)
        assert byol_loss(p, p, z, z).item() == pytest.approx(4 - 4 * cosine)


def test_byol_is_an_affine_function_of_simsiam() -> None:
    # ‖p − z‖² = 2 − 2 cos: the two losses differ in what the targets are, and in the scale of the gradient.
    assert byol_loss(*projections()).item() == pytest.approx(4 + 4 * simsiam_loss(*projections()).item())


@BOTH
def test_invariances(name: str) -> None:
    loss, _ = LOSSES[name]
    p_1, p_2, z_1, z_2 = projections()
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=9))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    expected = loss(p_1, p_2, z_1, z_2)
    for same in [
        loss(p_2, p_1, z_2, z_1),
        loss(*(value[order] for value in projections())),
        loss(*(value @ rotation for value in projections())),
        loss(2 * p_1, 0.3 * p_2, 5 * z_1, 0.1 * z_2),
    ]:
        torch.testing.assert_close(same, expected)


@BOTH
def test_predictions_have_the_gradient_of_finite_differences_and_targets_none(name: str) -> None:
    loss, _ = LOSSES[name]
    p_1, p_2, z_1, z_2 = (value.requires_grad_() for value in projections())
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, z_1, z_2), [p_1, p_2])
    loss(p_1, p_2, z_1, z_2).backward()
    assert p_1.grad is not None
    assert z_1.grad is None
    assert z_2.grad is None


@pytest.mark.parametrize("gradient_of", ["negative_cosine_similarity", "byol_half"])
def test_a_row_of_zeros_gives_no_undefined_gradient(gradient_of: str) -> None:
    p = torch.zeros(2, 3, requires_grad=True)
    half = {"negative_cosine_similarity": negative_cosine_similarity, "byol_half": byol_half}[gradient_of]
    half(p, torch.ones(2, 3)).backward()
    assert torch.isfinite(p.grad).all()


# ---------------------------------------------------------------------- collapse, as it is recorded
def test_output_std_of_collapsed_spread_and_half_spread_projections() -> None:
    assert output_std(normal(1, 6).expand(9, 6) * torch.arange(1.0, 10)[:, None]).item() == pytest.approx(0, abs=1e-7)
    axes = torch.eye(5, dtype=torch.float64)
    assert output_std(torch.cat([axes, -axes])).item() == pytest.approx(1)
    # The mean of n orthonormal rows has squared norm 1/n.
    assert output_std(axes).item() == pytest.approx(math.sqrt(1 - 1 / 5))
    # It is √P times the root mean square of the columns' deviations.
    unit = nn.functional.normalize(normal(20, 6), dim=1)
    assert output_std(unit).item() == pytest.approx(math.sqrt(unit.var(dim=0, correction=0).sum().item()))


# ---------------------------------------------------------------------- SimSiam's network
def test_simsiam_is_algorithm_1_on_its_own_outputs() -> None:
    method = small_method("simsiam")
    assert isinstance(method, SimSiam)
    view_1, view_2 = images(seed=1), images(seed=2)
    z_1, z_2 = method.projector(method.encoder(view_1)), method.projector(method.encoder(view_2))
    expected = reference.simsiam(method.predictor(z_1), method.predictor(z_2), z_1, z_2)
    assert method(view_1, view_2)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_simsiam_is_that_with_fixed_targets() -> None:
    method = small_method("simsiam").double()
    view_1, view_2 = images(seed=1).double(), images(seed=2).double()
    with torch.no_grad():
        z_1, z_2 = method.projector(method.encoder(view_1)), method.projector(method.encoder(view_2))
    method(view_1, view_2)["loss"].backward()
    ours = {key: weight.grad.clone() for key, weight in method.named_parameters()}
    method.zero_grad()
    cosine = nn.functional.cosine_similarity
    predictions = [method.predictor(method.projector(method.encoder(view))) for view in (view_1, view_2)]
    halves = [cosine(predictions[0], z_2).mean(), cosine(predictions[1], z_1).mean()]
    (-(halves[0] + halves[1]) / 2).backward()
    for key, weight in method.named_parameters():
        torch.testing.assert_close(ours[key], weight.grad, rtol=1e-6, atol=1e-9)


def test_simsiam_has_the_published_layers() -> None:
    recipe = load_recipe("simsiam-cifar10")
    assert recipe.settings("method") == {"name": "simsiam", "projector": (2048, 2048), "predictor": 512}
    assert recipe.optim.lr == 0.05
    for block in ("data", "augment", "encoder", "train"):
        assert recipe.settings(block) == load_recipe("simclr-cifar10").settings(block)
    method = small_method("simsiam", projector=(2048, 2048), predictor=512)
    projector = [layer for layer in method.projector.modules() if not list(layer.children())]
    assert [type(layer).__name__ for layer in projector] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [layer.affine for layer in projector if isinstance(layer, nn.BatchNorm1d)] == [True, False]
    predictor = method.predictor.layers
    assert [type(layer).__name__ for layer in predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in predictor if isinstance(layer, nn.Linear)] == [
        (512, 2048),
        (2048, 512),
    ]


# ---------------------------------------------------------------------- BYOL's network
def test_byol_predicts_the_targets_of_the_momentum_copies() -> None:
    method = small_method("byol")
    assert isinstance(method, BYOL)
    with torch.no_grad():
        for weight in method.momentum_encoder.parameters():
            weight.mul_(1.1)  # so that the copy can be told from what it copies
    view_1, view_2 = images(seed=1), images(seed=2)
    predictions = [method.predictor(method.projector(method.encoder(view))) for view in (view_1, view_2)]
    targets = [method.momentum_projector(method.momentum_encoder(view)) for view in (view_1, view_2)]
    loss = method(view_1, view_2)["loss"]
    assert loss.item() == pytest.approx(reference.byol(*predictions, *targets), rel=1e-5)
    loss.backward()
    copies = [weight for key, weight in method.named_parameters() if key.startswith("momentum_")]
    assert all(weight.grad is None for weight in copies)


def test_byols_copies_begin_equal_and_follow_by_the_formula() -> None:
    method = small_method("byol", ema_momentum=0.8)
    weights = dict(method.named_parameters())
    copies = {key: weight.detach().clone() for key, weight in weights.items() if key.startswith("momentum_")}
    assert all(torch.equal(before, weights[key.removeprefix("momentum_")]) for key, before in copies.items())
    with torch.no_grad():
        for key, weight in weights.items():
            if key not in copies:
                weight.add_(1.0)
    method.after_step()
    for key, before in copies.items():
        torch.testing.assert_close(weights[key].detach(), before + 0.2)  # 0.8 θ + 0.2 (θ + 1)


def rising_byol(num_steps: int, ema_momentum: float = 0.9) -> BYOL:
    settings = {"name": "byol", "ema_momentum": ema_momentum, "ema_schedule": "cosine"}
    with torch.device("meta"):
        method = build_method({**settings, "projector": (8, 4), "predictor": 8}, OneLayer())
    generator = torch.Generator().manual_seed(0)
    materialize(method, generator)
    method.after_initialization(generator)
    method.before_training(num_steps)
    return method


def test_the_momentum_rises_to_one_along_a_cosine() -> None:
    num_steps, start = 10, 0.9
    method = rising_byol(num_steps, start)
    copies = [parameter.double().clone() for parameter in method.momentum_encoder.parameters()]
    for step in range(num_steps):
        with torch.no_grad():
            for parameter in method.encoder.parameters():
                parameter += 1
        method.after_step()
        kept = 1 - (1 - start) * (math.cos(math.pi * step / num_steps) + 1) / 2  # BYOL, section 3.1
        copies = [kept * old + (1 - kept) * new for old, new in zip(copies, method.encoder.parameters(), strict=True)]
        for found, expected in zip(method.momentum_encoder.parameters(), copies, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert int(method.steps_done) == num_steps


def test_a_momentum_that_rises_goes_on_where_it_was() -> None:
    whole, first = rising_byol(10), rising_byol(10)
    for method in (whole, first):
        method.after_step()
        method.after_step()
    second = rising_byol(10)
    second.load_state_dict(first.state_dict())
    assert float(second.kept_share()) == float(whole.kept_share())
    assert "steps_done" not in BYOL(OneLayer(), projector=(8, 4), predictor=8, ema_momentum=0.9).state_dict()
