"""A captured step equals the plain one, whatever happens between two replays, and one that cannot be captured goes on.

Graphs are those of `graph_on_cpu.py`. What they cannot show: streams, and what CUDA itself refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from graph_on_cpu import GraphOnCpu
from small_methods import small_method
from test_train import OPTIM, finish, random_images, through_a_file
from torch import Tensor

from cssl_cli import captured_step
from cssl_cli.augment import build_augmentation
from cssl_cli.batches import ResidentImages
from cssl_cli.captured_step import WARM_UP_STEPS, CapturedStep
from cssl_cli.errors import RunError
from cssl_cli.methods import Method, method_names
from cssl_cli.randomness import stream
from cssl_cli.step import Compiled
from cssl_cli.train import Trainer, make_plan

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {**OPTIM, "lr": 0.05},
    "nesterov": {**OPTIM, "lr": 0.05, "nesterov": True, "decay_norm_and_bias": False},
    "adamw": {"name": "adamw", "lr": 0.002, "betas": (0.9, 0.99), "weight_decay": 0.1},
    "lars": {"name": "lars", "lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.02},
}
AUGMENT = {
    "crop": {"scale": (0.3, 1.0), "ratio": (0.75, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs can be had, and all images take every operation, as where nobody looks at parameters to save work."""
    monkeypatch.setattr(captured_step, "CudaRecorder", GraphOnCpu)
    monkeypatch.setattr("cssl_cli.augment.op.on_cpu", lambda _: False)


def make_trainer(
    method: str | Method = "simclr",
    *,
    compiled: Compiled,
    optim: str = "sgd",
    said: list[str] | None = None,
    precision: torch.dtype = torch.float32,
) -> Trainer:
    """Three epochs of four steps, in float64 if nothing else is asked for."""
    if isinstance(method, str):
        method = small_method(method, width=2)
    if precision == torch.float32:
        method = method.double()
        method.register_forward_pre_hook(lambda _, views: tuple(view.double() for view in views))
    return Trainer(
        method,
        build_augmentation(AUGMENT, image_size=12),
        ResidentImages(random_images()),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        optim={"decay_norm_and_bias": True, "schedule": "cosine", **OPTIMIZERS[optim]},
        plan=make_plan(num_images=70, batch_size=16, epochs=3, steps=None, warmup_epochs=1),
        precision=precision,
        device=torch.device("cpu"),
        order=stream(0, "order"),
        augment=stream(0, "augment"),
        compiled=compiled,
        notice=[].append if said is None else said.append,
    )


def flat(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each tensor and number of a state, by its path."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from flat(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for key, value in enumerate(state):
            yield from flat(value, f"{name}[{key}]")
    else:
        yield name, state


def assert_same(one: Trainer, other: Trainer) -> None:
    """Weights, statistics, momentum, queue, the optimizer's state and settings, random streams, terms."""
    a, b = dict(flat(one.state_dict())), dict(flat(other.state_dict()))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert type(value) is type(b[name]), name
        if isinstance(value, Tensor):
            torch.testing.assert_close(b[name], value, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: name + text)
        else:
            assert value == b[name], name


def recorder_of(trainer: Trainer) -> GraphOnCpu:
    assert isinstance(trainer.training_step, CapturedStep)
    assert isinstance(trainer.training_step.recorder, GraphOnCpu)
    return trainer.training_step.recorder


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("method", method_names())
def test_a_captured_run_equals_the_plain_one(method: str, optim: str) -> None:
    said: list[str] = []
    plain, captured = make_trainer(method, compiled=False, optim=optim), make_trainer(
        method, compiled="graph", optim=optim, said=said
    )  # fmt: skip
    records = [[record.terms for record in finish(trainer)] for trainer in (plain, captured)]
    assert records[0] == [pytest.approx(terms, rel=1e-10) for terms in records[1]]
    assert_same(plain, captured)
    assert recorder_of(captured).replays == 12 - WARM_UP_STEPS
    assert [sentence.rpartition(" in ")[0] for sentence in said] == ["captured the training step as a CUDA graph"]
