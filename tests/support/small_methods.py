"""Every method in a size that computes in milliseconds, with weights from a generator of its own."""

from __future__ import annotations

from typing import Any

import torch

from cssl_cli.methods import Method, build_method
from cssl_cli.nn.encoder import build_encoder, materialize

SETTINGS: dict[str, dict[str, Any]] = {
    "simclr": {"name": "simclr", "temperature": 0.5, "projector": (16, 8)},
    "barlow_twins": {"name": "barlow_twins", "lambda": 0.005, "projector": (16, 16)},
    "moco": {
        "name": "moco",
        "temperature": 0.2,
        "queue": 40,  # no multiple of the keys of a step
        "ema_momentum": 0.9,
        "batch_norm_splits": 2,
        "projector": (16, 8),
    },
    "simsiam": {"name": "simsiam", "projector": (16, 16), "predictor": 4},
    "byol": {"name": "byol", "ema_momentum": 0.9, "projector": (16, 8), "predictor": 16},
    "vicreg": {"name": "vicreg", "invariance": 25.0, "variance": 25.0, "covariance": 1.0, "projector": (16, 16)},
    "t_infonce": {"name": "t_infonce", "t_df": 5.0, "tau": 2.0, "projector": (16, 8)},
    "simple_contrastive": {"name": "simple_contrastive", "lambda": 1.0, "projector": (16, 8)},
}


def small_method(name: str, *, width: int = 4, seed: int = 0, **settings: Any) -> Method:
    """The method around the small encoder, as a run begins."""
    with torch.device("meta"):
        method = build_method({**SETTINGS[name], **settings}, build_encoder({"name": "small", "width": width}))
    generator = torch.Generator().manual_seed(seed)
    materialize(method, generator)
    method.after_initialization(generator)
    return method


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(num: int = 8, *, seed: int = 0) -> torch.Tensor:
    return normal(num, 3, 16, 16, seed=seed, dtype=torch.float32)
