"""Contrastive methods, one file each: the loss as a pure function, and the module that holds encoder and heads.

A method file defines `build(encoder, settings) -> Method`, where `settings` is the recipe's `method` block; the file's
name is the method's name in a recipe. Nothing else has to be registered.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.errors import unknown_name


class Method(nn.Module, ABC):
    """An encoder with its heads and its loss.

    `forward(view_1, view_2)`, each (B, C, H, W), returns named scalars: `"loss"`, which is minimised, and its parts,
    which are only recorded. The encoder's result alone is kept after training.
    """

    encoder: nn.Module
    projector: nn.Module

    @abstractmethod
    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]: ...

    def after_step(self) -> None:
        """Called after each optimizer step (a momentum encoder moves here). Does nothing by default."""


def at_least_float32(z: Tensor) -> Tensor:
    """Losses are computed in float32 or better, whatever the encoder ran in."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def method_names() -> list[str]:
    """The methods there are: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_method(settings: Mapping[str, Any], encoder: nn.Module) -> Method:
    """The method named by `settings["name"]` around `encoder`; `InputError` when there is none of that name."""
    name = settings["name"]
    if name not in method_names():
        raise unknown_name("method", name, method_names(), where="method.name")
    return importlib.import_module(f"{__name__}.{name}").build(encoder, settings)
