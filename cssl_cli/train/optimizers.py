"""Optimizers, their parameter groups, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from cssl_cli.errors import unknown_name


def parameter_groups(module: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: weights, and the vectors (biases and norms), which may go undecayed."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": weight_decay if decay_norm_and_bias else 0.0},
    ]
    return [group for group in groups if group["params"]]


def _uncompiled(method: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(method, "__wrapped__", method)


class _Uncompiled(Optimizer):
    """Optimizers as of torch, which do not import its compiler: two seconds of CPU time at every start.

    Theirs import it to keep themselves out of compiled code. Here no step of an optimizer is ever compiled.
    """

    add_param_group = _uncompiled(Optimizer.add_param_group)
    zero_grad = _uncompiled(Optimizer.zero_grad)
    state_dict = _uncompiled(Optimizer.state_dict)
    load_state_dict = _uncompiled(Optimizer.load_state_dict)


class _SGD(_Uncompiled, SGD):
    step = torch.no_grad()(_uncompiled(SGD.step))


class _AdamW(_Uncompiled, AdamW):
    step = torch.no_grad()(_uncompiled(AdamW.step))


class LARS(_Uncompiled):
    """SGD with momentum whose step is scaled, for each weight, by ‖w‖/‖g + λw‖, as in the code of SimCLR.

    Source: `lars_optimizer.py` of google-research/simclr (Chen et al., arXiv 2002.05709), which does not scale vectors
    (biases and norms) either. You et al. (arXiv 1708.03888), who proposed LARS, divide by ‖g‖ + λ‖w‖.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        trust_coefficient: float,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "LARS evaluates no closure"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step_group(parameters, group)

    def _step_group(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        """The parameters of a group together: on a GPU, one by one would be hundreds of tiny kernels."""
        gradients = [parameter.grad for parameter in parameters]
        directions = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])  # type: ignore[arg-type]
        weights = [number for number, parameter in enumerate(parameters) if parameter.ndim > 1]
        if weights:
            scaled = [directions[number] for number in weights]
            trust = _trust([parameters[number] for number in weights], scaled, group["trust_coefficient"])
            torch._foreach_mul_(scaled, trust)
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, directions)
        if isinstance(group["lr"], Tensor):  # which no one looks at: that would be to wait for the device
            torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))
        else:
            torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


def _trust(parameters: list[Tensor], directions: list[Tensor], coefficient: float) -> tuple[Tensor, ...]:
    """What the direction of each weight is scaled by; 1 where it or the weight is 0."""
    norms = torch.stack(torch._foreach_norm(parameters))
    direction_norms = torch.stack(torch._foreach_norm(directions))
    usable = (norms > 0) & (direction_norms > 0)
    scales = torch.where(usable, coefficient * norms / direction_norms.clamp(min=1e-30), torch.ones_like(norms))
    return scales.unbind()


def _sgd(groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> Optimizer:
    return _SGD(
        groups, lr=settings["lr"], momentum=settings["momentum"], nesterov=settings["nesterov"], fused=_fusable(groups)
    )


def _adamw(groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> Optimizer:
    return _AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]), fused=_fusable(groups))


def _lars(groups: list[dict[str, Any]], settings: Mapping[str, Any]) -> Optimizer:
    return LARS(
        groups, lr=settings["lr"], momentum=settings["momentum"], trust_coefficient=settings["trust_coefficient"]
    )


def _fusable(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], Mapping[str, Any]], Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "lars": _lars,
}


def build_optimizer(module: nn.Module, settings: Mapping[str, Any]) -> Optimizer:
    """The optimizer named by `settings["name"]` over the trainable parameters of `module`."""
    name = settings["name"]
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS, where="optim.name")
    groups = parameter_groups(
        module, weight_decay=settings["weight_decay"], decay_norm_and_bias=settings["decay_norm_and_bias"]
    )
    return OPTIMIZERS[name](groups, settings)


def learning_rate(step: int, *, base: float, schedule: str, warmup_steps: int, num_steps: int) -> float:
    """The learning rate of `step` (counted from 0) out of `num_steps`.

    Warm-up rises linearly and reaches `base` at its last step. `cosine` then falls from `base` at the first step after
    the warm-up towards 0, which it would reach one step after the last (SGDR, Loshchilov & Hutter, arXiv 1608.03983);
    `constant` stays at `base`.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))
    raise unknown_name("schedule", schedule, ["constant", "cosine"], where="optim.schedule")
