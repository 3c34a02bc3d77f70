"""Losses, gradients and running statistics over several ranks are those of one process with the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cssl_cli.methods import Method, build_method, method_names
from cssl_cli.nn.batch_norm import share_batch_norms
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.ranks import Ranks
from cssl_cli.nn.recompute import Encoder
from tests.support.thread_ranks import on_ranks

SETTINGS: dict[str, dict[str, Any]] = {
    "simclr": {"projector": (8, 6)},
    "barlow_twins": {"projector": (8, 6)},
    "moco": {"projector": (8, 6), "queue": 40, "batch_norm_splits": 4},
    "moco, whole batch norms": {"projector": (8, 6), "queue": 40, "batch_norm_splits": 1},
    "simsiam": {"projector": (8, 6), "predictor": 5},
    "byol": {"projector": (8, 6), "predictor": 5, "ema_schedule": "cosine"},
    "vicreg": {"projector": (8, 6)},
    "simple_contrastive": {"projector": (8, 6)},
    "t_infonce": {"projector": (8, 6)},
}
BATCH = 16


class Linear(Encoder):
    """An encoder without batch norm."""

    num_features = 7

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 7)

    def features(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def method_of(case: str, *, normalized: bool, micro_batch: int | None = None, recomputed: bool = False) -> Method:
    """A method in float64 with weights of its own."""
    encoder = build_encoder({"name": "small", "width": 4}) if normalized else Linear().to("meta")
    method = build_method({"name": case.partition(",")[0], **SETTINGS[case]}, encoder)
    generator = torch.Generator().manual_seed(1)
    materialize(method, generator)
    if micro_batch is not None or recomputed:
        for part in method.modules():
            if isinstance(part, Encoder):
                part.keep_less(checkpoint_activations=recomputed, micro_batch=micro_batch, batch_size=BATCH)
    method = method.double()
    method.after_initialization(generator)
    method.before_training(10)
    return method.train()


def stepped(method: Method, views: Tensor, ranks: Ranks) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
    """Terms, gradients and what changed besides, of this rank's rows of two views (2, B, …)."""
    method = copy.deepcopy(method)
    method.ranks = ranks
    if not ranks.alone:
        share_batch_norms(method, ranks, in_parts=method.encoder.micro_batch is not None)
    terms = method(*(ranks.own_rows(view).contiguous(memory_format=torch.channels_last) for view in views))
    terms["loss"].backward()
    gradients = [weight.grad for weight in method.parameters() if weight.grad is not None]
    method.after_step()
    return {name: term.detach() for name, term in terms.items()}, gradients, method.state_dict()


def require_equal(method: Method, views: Tensor, size: int) -> None:
    ((terms, gradients, buffers),) = on_ranks(1, lambda ranks: stepped(method, views, ranks))
    shares = on_ranks(size, lambda ranks: stepped(method, views, ranks))
    for name, term in terms.items():
        torch.testing.assert_close(sum(share[0][name] for share in shares), term, rtol=1e-10, atol=1e-10)
    for number, gradient in enumerate(gradients):
        of_ranks = sum(share[1][number] for share in shares)
        scale = gradient.abs().max().clamp(min=1).item()
        torch.testing.assert_close(of_ranks, gradient, rtol=0, atol=1e-10 * scale)
    for _, _, of_rank in shares:
        for name, buffer in buffers.items():
            torch.testing.assert_close(of_rank[name], buffer, rtol=1e-10, atol=1e-10)


def views_of(seed: int = 0) -> Tensor:
    return torch.randn(2, BATCH, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_every_method_is_here() -> None:
    assert {case.partition(",")[0] for case in SETTINGS} == set(method_names())
    assert all(method_of(case, normalized=True).shares for case in SETTINGS)


@pytest.mark.parametrize(("normalized", "size"), [(True, 4), (False, 2)], ids=["batch norm", "no batch norm"])
@pytest.mark.parametrize("case", SETTINGS)
def test_terms_and_gradients_are_those_of_one_process(case: str, normalized: bool, size: int) -> None:
    require_equal(method_of(case, normalized=normalized), views_of(), size)


@pytest.mark.parametrize("settings", [{"micro_batch": 4}, {"recomputed": True}, {"micro_batch": 8, "recomputed": True}])
@pytest.mark.parametrize("case", ["simclr", "barlow_twins", "moco"])
def test_so_are_those_of_an_encoder_that_keeps_less(case: str, settings: dict[str, Any]) -> None:
    require_equal(method_of(case, normalized=True, **settings), views_of(), 2)
