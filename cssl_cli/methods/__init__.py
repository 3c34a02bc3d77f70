"""Contrastive methods, one file each: the loss as a pure function, and the module that holds encoder and heads.

A method's file has the method's name in recipes and defines

- `Settings`, a dataclass: the fields of a recipe's `method` block, with their ranges, defaults and descriptions.
  Recipes read it without importing the file (recipe/declared.py): what it uses is imported, and loads no torch.
- `build(encoder, settings) -> Method`.

Nothing else has to be registered. A file whose name begins with `_` is no method.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.errors import unknown_name
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder


class Method(nn.Module, ABC):
    """An encoder with its heads and its loss.

    `forward(view_1, view_2)`, each (B, C, H, W), returns named scalars: `"loss"`, which is minimised, and its parts
    or what else tells of the training, which are only recorded. Encoder and projector are kept after training.
    Whatever changes from step to step is a parameter or a buffer, so that a run can go on exactly. `num_passes`: how
    many batches each batch norm sees in a step.

    With several `ranks`, each has an equal run of the images of a batch, and what `forward` returns are its shares:
    added up over the ranks, the terms of the whole batch (nn/ranks.py). Batch norms are seen to by the trainer. Only a
    method that says that it `shares` is trained so.
    """

    ranks: Ranks = ALONE
    shares: ClassVar[bool] = False

    encoder: Encoder
    projector: nn.Module
    num_passes: ClassVar[int] = 2  # one for each view

    @abstractmethod
    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]: ...

    def after_initialization(self, generator: torch.Generator) -> None:
        """Called once when the initial weights have been drawn from `generator`: what is copied from them, or drawn
        after them (a queue), begins here. Does nothing by default."""

    def before_training(self, num_steps: int) -> None:
        """Called before the first step, and before a run goes on: what follows a course over so many steps learns of
        them here. Does nothing by default."""

    def after_step(self) -> None:
        """Called after each optimizer step (a momentum encoder moves here). Does nothing by default."""


def at_least_float32(z: Tensor) -> Tensor:
    """Losses are computed in float32 or better, whatever the encoder ran in."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def powers_of_two(z: Tensor, dim: int, ranks: Ranks = ALONE) -> Tensor:
    """For each row or column of z (B, P) the power of two that brings its largest entry to between 2 and 4.

    Of columns, the largest entry over all `ranks`.
    To multiply by it rounds nothing, and afterwards no square overflows or vanishes. 1 for zeros and infinities.
    """
    largest = ranks.largest(z.detach().abs().amax(dim=dim, keepdim=True))
    usable = (largest > 0) & torch.isfinite(largest)
    largest = largest.clamp(min=torch.finfo(z.dtype).tiny)
    return torch.where(usable, 4 * torch.frexp(largest).mantissa / largest, 1)


def directions(z: Tensor) -> Tensor:
    """Projections (B, P) of any length scaled to length 1, in float32 or better; zeros stay zero."""
    z = at_least_float32(z)
    return F.normalize(z * powers_of_two(z, 1), dim=1)


def column_moments(z: Tensor, ranks: Ranks, *, correction: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (P) of the columns of the whole batch, of which z (b, P) is this rank's part."""
    if ranks.alone:
        return z.mean(dim=0), z.var(dim=0, correction=correction)
    mean, num = ranks.mean(z.mean(dim=0)), ranks.size * len(z)
    return mean, ranks.sum((z - mean).square().sum(dim=0)) / (num - correction)


def momentum_copy(module: nn.Module) -> nn.Module:
    """A copy without gradients, which no optimizer moves; `copy_weights` makes it equal once there are weights."""
    return copy.deepcopy(module).requires_grad_(False)


def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Give `target` the parameters and buffers of `source`."""
    target.load_state_dict(source.state_dict())


@torch.no_grad()
def move_towards(target: nn.Module, source: nn.Module, *, ema_momentum: float | Tensor) -> None:
    """Each parameter θ of `target` becomes m θ + (1 − m) θ′, with θ′ that of `source` (MoCo, equation 2).

    m is a number, or a tensor of one on the device.

    Buffers stay: the batch norms of a momentum encoder have statistics of their own.
    """
    moved: list[Tensor] = list(target.parameters())
    towards: list[Tensor] = list(source.parameters())
    assert len(moved) == len(towards)
    # On a GPU a few kernels instead of hundreds. A tensor can only be a factor of all.
    if isinstance(ema_momentum, Tensor):
        steps = torch._foreach_sub(towards, moved)
        torch._foreach_mul_(steps, 1 - ema_momentum)
        torch._foreach_add_(moved, steps)
    else:
        torch._foreach_lerp_(moved, towards, 1 - ema_momentum)


@torch.no_grad()
def output_std(z: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """How far apart the directions of the projections (B, P) are: √(1 − ‖mean of z/‖z‖‖²), from 0 to 1.

    The root of the summed variances of the columns of z/‖z‖: 0 when all directions coincide, which is how a loss
    without negatives may collapse (SimSiam, section 4.1, up to the factor 1/√P), and 1 when their mean is 0. Of
    several `ranks`, this rank's share of it.
    """
    mean = ranks.mean(directions(z).mean(dim=0))
    return ranks.share((1 - mean.square().sum()).clamp(min=0).sqrt())


def method_names() -> list[str]:
    """The methods there are: the modules of this package whose names do not begin with `_`."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def build_method(settings: Mapping[str, Any], encoder: Encoder) -> Method:
    """The method named by `settings["name"]` around `encoder`; `InputError` when there is none of that name."""
    name = settings["name"]
    if name not in method_names():
        raise unknown_name("method", name, method_names(), where="method.name")
    module = importlib.import_module(f"{__name__}.{name}")
    fields = {f"{key}_" if iskeyword(key) else key: value for key, value in settings.items() if key != "name"}
    return module.build(encoder, module.Settings(**fields))
