"""The losses against plain references, closed forms and finite differences; the methods around them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cssl_cli.errors import InputError
from cssl_cli.methods import build_method, directions, method_names
from cssl_cli.methods.barlow_twins import VARIANCE_FLOOR, barlow_twins_loss, barlow_twins_terms, standardize
from cssl_cli.methods.simclr import nt_xent_loss, nt_xent_terms
from cssl_cli.nn.encoder import materialize
from cssl_cli.train.optimizers import parameter_groups
from tests.support.small_methods import images, normal, small_method


# ---------------------------------------------------------------------- NT-Xent
def algorithm_1(z_1: torch.Tensor, z_2: torch.Tensor, temperature: float) -> float:
    """SimCLR's algorithm 1, line by line: the 2N projections interleaved, three loops."""
    z = [row for pair in zip(z_1.tolist(), z_2.tolist(), strict=True) for row in pair]
    num = len(z)

    def similarity(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / (math.hypot(*z[i]) * math.hypot(*z[j]))

    def loss(i: int, j: int) -> float:
        denominator = sum(math.exp(similarity(i, k) / temperature) for k in range(num) if k != i)
        return -math.log(math.exp(similarity(i, j) / temperature) / denominator)

    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(num // 2)) / num


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_is_algorithm_1(temperature: float) -> None:
    z_1, z_2 = normal(7, 5, seed=1), normal(7, 5, seed=2)
    expected = algorithm_1(z_1, z_2, temperature)
    assert nt_xent_loss(z_1, z_2, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_nt_xent_of_collapsed_projections_is_the_log_of_the_number_of_others(batch: int) -> None:
    z = normal(1, 6).expand(batch, 6)
    assert nt_xent_loss(z, 3 * z, temperature=0.2).item() == pytest.approx(math.log(2 * batch - 1), abs=1e-12)


def test_nt_xent_of_aligned_orthogonal_images() -> None:
    # Each anchor sees its other view at similarity 1 and the 2(B - 1) views of other images at 0.
    batch, temperature = 6, 0.5
    z = torch.eye(batch, dtype=torch.float64)
    expected = -1 / temperature + math.log(math.exp(1 / temperature) + 2 * (batch - 1))
    assert nt_xent_loss(z, z, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)
    alignment, _ = nt_xent_terms(z, z, temperature=temperature)
    assert alignment.item() == pytest.approx(-1 / temperature)


def test_nt_xent_invariances() -> None:
    z_1, z_2 = normal(8, 5, seed=1), normal(8, 5, seed=2)
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=3))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    loss = nt_xent_loss(z_1, z_2, temperature=0.5)
    for same in [
        nt_xent_loss(z_2, z_1, temperature=0.5),
        nt_xent_loss(z_1[order], z_2[order], temperature=0.5),
        nt_xent_loss(z_1 @ rotation, z_2 @ rotation, temperature=0.5),
        nt_xent_loss(10 * z_1, 0.1 * z_2, temperature=0.5),
    ]:
        torch.testing.assert_close(same, loss)


@pytest.mark.parametrize("loss", [partial(nt_xent_loss, temperature=0.5), partial(barlow_twins_loss, lambda_=0.01)])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e37])
def test_the_scale_of_the_projections_does_not_matter(loss: partial[torch.Tensor], scale: float) -> None:
    z_1, z_2 = normal(6, 4, seed=1).float(), normal(6, 4, seed=2).float()
    # Barlow Twins' variance floor makes tiny columns nothing, as in the authors' code.
    if loss.func is barlow_twins_loss and scale < 1:
        assert loss(scale * z_1, scale * z_2).item() == pytest.approx(4)
        return
    # Far from the floor, to compare with.
    plain = loss(1e3 * z_1, 1e3 * z_2).item()
    assert loss(scale * z_1, scale * z_2).item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("value", [1.37e5, 1.37e10, 1.37e20, 1e37])
def test_a_constant_column_of_any_size_standardizes_to_almost_nothing(value: float) -> None:
    assert standardize(torch.full((7, 1), value)).abs().max() < 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaling_by_powers_of_two_changes_no_bit(dtype: torch.dtype) -> None:
    z = normal(64, 9).to(dtype)
    assert torch.equal(directions(z), F.normalize(z, dim=1))
    plain = (z - z.mean(dim=0)) * torch.rsqrt(z.var(dim=0, correction=0) + VARIANCE_FLOOR)
    assert torch.equal(standardize(z), plain)
    assert torch.equal(directions(torch.zeros(2, 3, dtype=dtype)), torch.zeros(2, 3, dtype=dtype))
    assert directions(torch.tensor([[torch.inf, 1.0]], dtype=dtype)).isnan().any()


def test_nt_xent_does_not_overflow_at_small_temperature() -> None:
    z = normal(16, 4, dtype=torch.float32)
    assert torch.isfinite(nt_xent_loss(z, -z, temperature=0.001))


# ---------------------------------------------------------------------- Barlow Twins
def equation_1(z_1: torch.Tensor, z_2: torch.Tensor, lambda_: float) -> float:
    """Barlow Twins' equations 1 and 2 with explicit loops."""
    num, width = z_1.shape

    def column(z: torch.Tensor, i: int) -> list[float]:
        values = z[:, i].tolist()
        mean = sum(values) / num
        variance = sum((value - mean) ** 2 for value in values) / num
        return [(value - mean) / math.sqrt(variance + VARIANCE_FLOOR) for value in values]

    columns_1 = [column(z_1, i) for i in range(width)]
    columns_2 = [column(z_2, i) for i in range(width)]
    total = 0.0
    for i in range(width):
        for j in range(width):
            correlation = sum(a * b for a, b in zip(columns_1[i], columns_2[j], strict=True)) / num
            total += (1 - correlation) ** 2 if i == j else lambda_ * correlation**2
    return total


def test_barlow_twins_is_equation_1() -> None:
    z_1, z_2 = normal(9, 4, seed=1), normal(9, 4, seed=2)
    assert barlow_twins_loss(z_1, z_2, lambda_=0.3).item() == pytest.approx(equation_1(z_1, z_2, 0.3), rel=1e-10)


def test_barlow_twins_of_identical_uncorrelated_views_is_nearly_zero() -> None:
    # The columns of a 4x4 Hadamard matrix but the first have mean 0, variance 1 and no correlation.
    hadamard = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
    diagonal = 1 / (1 + VARIANCE_FLOOR)
    expected = 3 * (1 - diagonal) ** 2
    assert barlow_twins_loss(hadamard, hadamard, lambda_=1.0).item() == pytest.approx(expected, abs=1e-14)
    # All columns equal: every off-diagonal correlation is that of the diagonal.
    same = hadamard[:, :1].expand(4, 3)
    invariance, redundancy = barlow_twins_terms(same, same, lambda_=0.5)
    assert redundancy.item() == pytest.approx(0.5 * 6 * diagonal**2)
    assert invariance.item() == pytest.approx(expected, abs=1e-14)


def test_barlow_twins_of_opposite_views() -> None:
    hadamard = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert barlow_twins_loss(hadamard, -hadamard, lambda_=1.0).item() == pytest.approx(3 * 4, rel=1e-4)


def test_barlow_twins_invariances() -> None:
    z_1, z_2 = normal(12, 5, seed=1), normal(12, 5, seed=2)
    loss = barlow_twins_loss(z_1, z_2, lambda_=0.1)
    scale, shift = torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0], dtype=torch.float64), normal(5, seed=3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(barlow_twins_loss(z_2, z_1, lambda_=0.1), loss)
    torch.testing.assert_close(barlow_twins_loss(z_1[order], z_2[order], lambda_=0.1), loss)
    torch.testing.assert_close(barlow_twins_loss(z_1 + shift, z_2 - shift, lambda_=0.1), loss)
    # Scaling is undone up to the variance floor.
    torch.testing.assert_close(barlow_twins_loss(z_1 * scale, z_2, lambda_=0.1), loss, rtol=1e-4, atol=0)


def test_a_constant_column_standardizes_to_zero() -> None:
    assert standardize(torch.full((5, 1), 7.0)).abs().max() == 0


# ---------------------------------------------------------------------- gradients
@pytest.mark.parametrize(
    "loss",
    [
        lambda z_1, z_2: nt_xent_loss(z_1, z_2, temperature=0.3),
        lambda z_1, z_2: barlow_twins_loss(z_1, z_2, lambda_=0.05),
    ],
    ids=["nt_xent", "barlow_twins"],
)
def test_gradients_match_finite_differences(loss) -> None:
    views = [normal(5, 3, seed=seed).requires_grad_() for seed in (1, 2)]
    assert torch.autograd.gradcheck(loss, views)


# ---------------------------------------------------------------------- methods
@pytest.mark.parametrize("name", method_names())
def test_a_method_returns_its_loss_and_reaches_every_weight(name: str) -> None:
    method = small_method(name)
    terms = method(images(), images().flip(3))
    assert terms["loss"].shape == ()
    parts = [value for part, value in terms.items() if part != "loss"]
    assert len(parts) >= 1
    if "output_std" not in terms:  # which methods without parts record, to tell of a collapse
        torch.testing.assert_close(terms["loss"], torch.stack(parts).sum())
    terms["loss"].backward()
    untouched = [key for key, weight in method.named_parameters() if weight.requires_grad and weight.grad is None]
    assert untouched == []


@pytest.mark.parametrize("name", method_names())
def test_the_loss_is_computed_in_float32_under_autocast(name: str) -> None:
    method = small_method(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method(images(), images().flip(3))
    assert {value.dtype for value in terms.values()} == {torch.float32}


@pytest.mark.parametrize("name", method_names())
def test_the_optimizer_is_given_all_but_the_momentum_copies(name: str) -> None:
    method = small_method(name)
    groups = parameter_groups(method, weight_decay=0.1, decay_norm_and_bias=False)
    given = {id(parameter) for group in groups for parameter in group["params"]}
    kept = {key.split(".")[0] for key, parameter in method.named_parameters() if id(parameter) not in given}
    assert kept == {part for part, _ in method.named_children() if part.startswith("momentum_")}


@pytest.mark.parametrize("name", method_names())
def test_a_run_begins_with_the_same_encoder_whatever_the_method(name: str) -> None:
    method, simclr = small_method(name), small_method("simclr")
    ours, theirs = method.encoder.state_dict(), simclr.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["simclr", "barlow_twins"])
def test_methods_without_state_of_their_own_draw_nothing_after_their_weights(name: str) -> None:
    method, generator = small_method(name), torch.Generator().manual_seed(0)
    expected = materialize(small_method(name).to("meta"), generator).state_dict()
    state = generator.get_state()
    method.after_initialization(generator)
    assert torch.equal(generator.get_state(), state)
    assert all(torch.equal(value, expected[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", method_names())
def test_a_method_begins_the_same_whatever_the_global_generator_holds(name: str) -> None:
    torch.manual_seed(1)
    first = small_method(name).state_dict()
    torch.manual_seed(2)
    second = small_method(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", method_names())
def test_a_method_does_not_tell_the_views_apart(name: str) -> None:
    # In float64, and with the batch norms' statistics of each view where there are such: the order must not matter.
    method = small_method(name).double()
    view_1, view_2 = images(seed=1).double(), images(seed=2).double()
    torch.testing.assert_close(method(view_1, view_2)["loss"], method(view_2, view_1)["loss"])


@pytest.mark.parametrize("name", method_names())
def test_batch_norm_sees_as_many_batches_as_the_method_says(name: str) -> None:
    method = small_method(name)
    method(images(), images())
    for module in method.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked.item() == method.num_passes


def test_some_see_both_views_at_once_as_in_the_authors_code() -> None:
    at_once = {"simclr", "t_infonce", "simple_contrastive"}
    one_by_one = {"barlow_twins", "byol", "moco", "simsiam", "vicreg"}
    assert {small_method(name).num_passes for name in at_once} == {1}
    assert {small_method(name).num_passes for name in one_by_one} == {2}


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="simclr"):
        build_method({"name": "simclrr"}, nn.Identity())
