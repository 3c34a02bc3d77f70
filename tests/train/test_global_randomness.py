"""Encoders that draw from torch's global generators in training, as dropout does: runs go on exactly all the same."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cssl_cli.augment import build_augmentation
from cssl_cli.data.batches import ResidentImages
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.train.loop import Trainer, make_plan
from tests.support.small_methods import small_method

OPTIM = {
    "name": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "nesterov": False,
    "decay_norm_and_bias": True,
    "schedule": "cosine",
}


class Dropping(LibraryEncoder):
    def __init__(self) -> None:
        super().__init__(network, image=(3, 12, 12), called="a network with dropout", key="a network with dropout")


def network() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers)


def trainer(method: str = "simclr", micro_batch: int | None = None, seed: Callable[[int], int] = lambda step: step):
    built = small_method(method, encoder=Dropping)
    if micro_batch is not None:
        built.encoder.keep_less(checkpoint_activations=False, micro_batch=micro_batch, batch_size=16)
    images = torch.randint(0, 256, (70, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Trainer(
        built,
        build_augmentation({"flip": {"p": 0.5}}, image_size=12),
        ResidentImages(images),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        optim=OPTIM,
        plan=make_plan(num_images=70, batch_size=16, epochs=2, steps=None, warmup_epochs=0),
        precision=torch.float32,
        device=torch.device("cpu"),
        order=stream(0, "order"),
        augment=stream(0, "augment"),
        seed_of_step=seed,
    )


def after(trained: Trainer, steps: int | None = None) -> dict[str, Tensor]:
    for _ in itertools.islice(trained.run(), steps):
        pass
    return trained.method.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_exactly_whatever_else_is_drawn() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    whole = after(trainer())
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers are others now"
    stopped = trainer()
    after(stopped, 3)
    saved = io.BytesIO()
    torch.save(stopped.state_dict(), saved)
    torch.manual_seed(2)
    going_on = trainer()
    going_on.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    assert same(after(going_on), whole)
    assert not same(after(trainer(seed=lambda step: step + 1)), whole), "nothing was dropped"


def test_what_is_computed_again_drops_the_same() -> None:
    plain, again = after(trainer(), 2), after(trainer(micro_batch=32), 2)
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-6)
