"""Every method in a size that computes in milliseconds, with weights from a generator of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cssl_cli.methods import Method, build_method, method_names
from cssl_cli.nn.batch_norm import BatchNorm2d
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.recompute import Encoder

# What a method needs beyond its defaults and a small projector.
OWN: dict[str, dict[str, Any]] = {
    "barlow_twins": {"lambda": 0.005, "projector": (16, 16)},
    "moco": {
        "temperature": 0.2,
        "queue": 40,  # no multiple of the keys of a step
        "ema_momentum": 0.9,
        "batch_norm_splits": 2,
    },
    "simsiam": {"projector": (16, 16), "predictor": 4},
    "byol": {"ema_momentum": 0.9, "predictor": 16},
    "vicreg": {"projector": (16, 16)},
    "t_infonce": {"t_df": 5.0, "tau": 2.0},
    "simple_contrastive": {"lambda": 1.0},
}
SETTINGS = {name: {"name": name, "projector": (16, 8), **OWN.get(name, {})} for name in method_names()}


class OneLayer(Encoder):
    """The least that a method can be traced around: tracing takes a second for every few layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), BatchNorm2d(8), nn.ReLU(inplace=True))
        self.num_features = 8

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean(dim=(2, 3))


def small_method(
    name: str, *, width: int = 4, seed: int = 0, encoder: type[Encoder] | None = None, **settings: Any
) -> Method:
    """The method around the small encoder, or another, as a run begins."""
    with torch.device("meta"):
        around = build_encoder({"name": "small", "width": width}) if encoder is None else encoder()
        method = build_method({**SETTINGS[name], **settings}, around)
    generator = torch.Generator().manual_seed(seed)
    materialize(method, generator)
    method.after_initialization(generator)
    return method


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(num: int = 8, *, seed: int = 0) -> torch.Tensor:
    return normal(num, 3, 16, 16, seed=seed, dtype=torch.float32)
