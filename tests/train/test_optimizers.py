"""Optimizers against plain arithmetic, and the schedule against its closed form."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from cssl_cli.errors import InputError
from cssl_cli.train.optimizers import build_optimizer, learning_rate, parameter_groups

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": False, "decay_norm_and_bias": True}
ADAMW = {"name": "adamw", "lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.01, "decay_norm_and_bias": True}
LARS = {
    "name": "lars",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "trust_coefficient": 0.001,
    "decay_norm_and_bias": False,
}


def two_steps(settings: dict, module: nn.Module, gradients: list[list[torch.Tensor]]) -> None:
    optimizer = build_optimizer(module, settings)
    for gradient in gradients:
        for parameter, value in zip(module.parameters(), gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()


def linear() -> tuple[nn.Linear, list[list[torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    gradients = [[torch.randn(p.shape, generator=generator) for p in module.parameters()] for _ in range(2)]
    return module, gradients


def test_sgd_is_momentum_with_decay_in_the_gradient() -> None:
    module, gradients = linear()
    expected = []
    for index, parameter in enumerate(module.parameters()):
        weight, buffer = parameter.detach().clone(), torch.zeros_like(parameter)
        for gradient in gradients:
            buffer = 0.9 * buffer + gradient[index] + 0.01 * weight
            weight = weight - 0.1 * buffer
        expected.append(weight)
    two_steps(SGD, module, gradients)
    for parameter, weight in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), weight)


def test_lars_scales_the_step_of_matrices_and_not_of_vectors() -> None:
    module, gradients = linear()
    expected = []
    for index, parameter in enumerate(module.parameters()):
        weight, buffer = parameter.detach().clone(), torch.zeros_like(parameter)
        for gradient in gradients:
            matrix = weight.ndim > 1
            direction = gradient[index] + (0.01 * weight if matrix else 0)
            trust = 0.001 * weight.norm() / direction.norm() if matrix else 1.0
            buffer = 0.9 * buffer + trust * direction
            weight = weight - 0.1 * buffer
        expected.append(weight)
    two_steps(LARS, module, gradients)
    for parameter, weight in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), weight)


def test_lars_of_a_zero_weight_or_gradient_is_finite() -> None:
    module = nn.Linear(2, 2)
    nn.init.zeros_(module.weight)
    two_steps(LARS, module, [[torch.zeros(2, 2), torch.zeros(2)], [torch.ones(2, 2), torch.ones(2)]])
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_adamw_first_step_moves_by_the_learning_rate() -> None:
    module, gradients = linear()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    two_steps(ADAMW, module, gradients[:1])
    for old, parameter, gradient in zip(before, module.parameters(), gradients[0], strict=True):
        expected = old * (1 - 0.1 * 0.01) - 0.1 * gradient.sign()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decayed", [True, False])
def test_norms_and_biases_decay_only_when_the_recipe_says_so(decayed: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    groups = parameter_groups(module, weight_decay=0.1, decay_norm_and_bias=decayed)
    decay = {parameter.ndim > 1: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay == {True: 0.1, False: 0.1 if decayed else 0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    (group,) = parameter_groups(module, weight_decay=0.1, decay_norm_and_bias=True)
    assert [parameter.shape for parameter in group["params"]] == [module.weight.shape]


def test_cosine_schedule() -> None:
    rates = [learning_rate(s, base=2.0, schedule="cosine", warmup_steps=0, num_steps=100) for s in range(100)]
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 0.99))
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_warmup_rises_linearly_to_the_base_rate() -> None:
    rates = [learning_rate(s, base=1.0, schedule="cosine", warmup_steps=4, num_steps=10) for s in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    constant = [learning_rate(s, base=1.0, schedule="constant", warmup_steps=2, num_steps=10) for s in range(10)]
    assert constant == pytest.approx([0.5] + [1.0] * 9)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="adamw"):
        build_optimizer(nn.Linear(1, 1), {**SGD, "name": "adam"})
    with pytest.raises(InputError, match="cosine"):
        learning_rate(0, base=1.0, schedule="cosin", warmup_steps=0, num_steps=2)


def every_call(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())


def test_none_loads_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it fails
    for settings in (SGD, ADAMW, LARS):
        module = nn.Linear(3, 2)
        every_call(build_optimizer(module, settings), module)
        assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in module.parameters())
    with pytest.raises(ImportError):
        every_call(torch.optim.SGD(module.parameters()), module)  # torch's own do


@pytest.mark.parametrize("settings", [SGD, ADAMW])
def test_the_steps_are_those_of_torch(settings: dict) -> None:
    (ours, gradients), (theirs, _) = linear(), linear()
    two_steps(settings, ours, gradients)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    given = {name: value for name, value in settings.items() if name not in ("name", "decay_norm_and_bias")}
    optimizer = kinds[settings["name"]](theirs.parameters(), fused=True, **given)
    for gradient in gradients:
        for parameter, value in zip(theirs.parameters(), gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
