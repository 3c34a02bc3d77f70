"""A captured step equals the plain one, whatever happens between two replays, and one that cannot be captured goes on.

Graphs are those of `graph_on_cpu.py`. What they cannot show: streams, and what CUDA itself refuses.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from cssl_cli.augment import build_augmentation
from cssl_cli.data.batches import ResidentImages
from cssl_cli.errors import RunError
from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method, method_names
from cssl_cli.train import captured_step
from cssl_cli.train.captured_step import WARM_UP_STEPS, CapturedStep, CudaRecorder
from cssl_cli.train.loop import Trainer, make_plan
from cssl_cli.train.step import Compiled
from tests.support.graph_on_cpu import GraphOnCpu
from tests.support.small_methods import small_method
from tests.train.test_loop import AUGMENT, OPTIM, finish, random_images, through_a_file

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {**OPTIM, "lr": 0.05},
    "nesterov": {**OPTIM, "lr": 0.05, "nesterov": True, "decay_norm_and_bias": False},
    "adamw": {"name": "adamw", "lr": 0.002, "betas": (0.9, 0.99), "weight_decay": 0.1},
    "lars": {"name": "lars", "lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.02},
}
COMBINATIONS = sorted({*((method, "sgd") for method in method_names()), *(("simclr", optim) for optim in OPTIMIZERS)})


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
    augment: Mapping[str, Any] = AUGMENT,
) -> Trainer:
    """Two epochs of four steps, in float64 if nothing else is asked for."""
    if isinstance(method, str):
        method = small_method(method, width=2)
    if precision == torch.float32:
        method = method.double()
        method.register_forward_pre_hook(lambda _, views: tuple(view.double() for view in views))
    return Trainer(
        method,
        build_augmentation(augment, image_size=12),
        ResidentImages(random_images()),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        optim={"decay_norm_and_bias": True, "schedule": "cosine", **OPTIMIZERS[optim]},
        plan=make_plan(num_images=70, batch_size=16, epochs=2, steps=None, warmup_epochs=1),
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


@pytest.mark.parametrize(("method", "optim"), COMBINATIONS)
def test_a_captured_run_equals_the_plain_one(method: str, optim: str) -> None:
    said: list[str] = []
    plain = make_trainer(method, compiled=False, optim=optim)
    captured = make_trainer(method, compiled="graph", optim=optim, said=said)
    records = [[record.terms for record in finish(trainer)] for trainer in (plain, captured)]
    assert records[0] == [pytest.approx(terms, rel=1e-10) for terms in records[1]]
    assert_same(plain, captured)
    assert recorder_of(captured).replays == 8 - WARM_UP_STEPS
    assert [sentence.rpartition(" in ")[0] for sentence in said] == ["captured the training step as a CUDA graph"]


def test_a_momentum_that_rises_is_counted_by_replays() -> None:
    plain, captured = (
        make_trainer(small_method("byol", width=2, ema_schedule="cosine"), compiled=compiled)
        for compiled in (False, "graph")
    )
    for trainer in (plain, captured):
        finish(trainer)
    assert_same(plain, captured)
    assert int(captured.method.get_buffer("steps_done")) == 8


def test_in_bfloat16_with_all_augmentations() -> None:
    """Weights that autocast has cast are kept in its cache within a step, and not beyond it."""
    jitter = {"strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}
    augment = {
        **AUGMENT,
        "jitter": {"p": 0.8, **jitter},
        "gray": {"p": 0.2},
        "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
        "solarize": {"p": 0.2, "threshold": 0.5},
        "cutout": {"p": 0.5, "scale": (0.1, 0.3)},
        "fade": {"p": 0.5, "contrast": (0.0, 0.1)},
    }
    plain, captured = (
        make_trainer("barlow_twins", compiled=compiled, precision=torch.bfloat16, augment=augment)
        for compiled in (False, "graph")
    )
    for trainer in (plain, captured):
        finish(trainer)
    assert_same(plain, captured)
    assert recorder_of(captured).replays


@pytest.mark.parametrize(("method", "optim"), [("moco", "sgd"), ("simclr", "adamw"), ("simclr", "lars")])
def test_a_checkpoint_between_replays_goes_on_captured_or_not(method: str, optim: str) -> None:
    """It holds what a plain run's holds: learning rate and options as numbers, the momentum where it is by now."""
    whole = make_trainer(method, compiled=False, optim=optim)
    finish(whole)
    first = make_trainer(method, compiled="graph", optim=optim)
    for progress in first.run():
        if progress.step == 6:
            break
    assert recorder_of(first).replays == 3
    kept = first.state_dict()
    for compiled in (False, "graph"):
        second = make_trainer(method, compiled=compiled, optim=optim)
        second.load_state_dict(through_a_file(kept))
        finish(second)
        assert_same(whole, second)


def test_what_is_loaded_after_capturing_is_what_goes_on() -> None:
    whole, trainer = make_trainer(compiled=False), make_trainer(compiled="graph")
    finish(whole)
    (kept,) = [through_a_file(trainer.state_dict()) for progress in trainer.run() if progress.step == 2]
    assert recorder_of(trainer).replays
    trainer.load_state_dict(kept)
    finish(trainer)
    assert_same(whole, trainer)
    assert recorder_of(trainer).replays == 5 + 3


def test_measurements_between_replays_see_the_weights_and_change_nothing() -> None:
    """k-NN through training takes features in eval mode."""
    plain, captured = make_trainer("byol", compiled=False), make_trainer("byol", compiled="graph")
    images = random_images(5).double()
    for one, other in zip(plain.run(), captured.run(), strict=True):
        features = []
        for trainer in (plain, captured):
            encoder = trainer.method.encoder.eval()
            with torch.inference_mode():
                features.append(encoder(images))
            encoder.train()
        assert one.step == other.step
        torch.testing.assert_close(*features, rtol=1e-10, atol=1e-10)


def test_terms_of_a_step_are_not_those_of_the_next() -> None:
    trainer = make_trainer(compiled="graph")
    trainer.method.train()
    step, losses = trainer.training_step, []
    for _ in range(6):
        losses.append(step(random_images(16), trainer.draw_theta(16), 0.01)["loss"])
    assert len({loss.item() for loss in losses}) == 6


def test_no_gradient_outlives_a_step() -> None:
    """Gradients lie in the graph's memory, which anything may write over once it has been replayed."""
    trainer = make_trainer("moco", compiled="graph")
    finish(trainer)
    assert all(parameter.grad is None for parameter in trainer.method.parameters())


# ---------------------------------------------------------------------- what cannot be captured
class Faulty(Method):
    """A weight and a loss, and what must not happen in a captured step."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(3, 1)
        self.fault = fault
        self.kept: Tensor | None = None

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        loss = (self.encoder(view_1.mean(dim=(2, 3))) - self.encoder(view_2.mean(dim=(2, 3)))).square().mean()
        if self.fault == "looks":
            loss = loss * (1 + int(loss.item() > 100))
        if self.fault == "copies":
            loss = (loss * torch.tensor([2.0])).sum()
        if self.fault == "keeps":
            loss, self.kept = loss + (0 if self.kept is None else self.kept), loss.detach() * 0
        return {"loss": loss}


@pytest.mark.parametrize("fault", ["looks", "copies"])
def test_a_step_that_cannot_be_captured_runs_on_from_the_same_state(fault: str) -> None:
    said: list[str] = []
    plain = make_trainer(Faulty(fault), compiled=False)
    torch.nn.init.zeros_(plain.method.encoder.weight)
    trainer = make_trainer(Faulty(fault), compiled="graph", said=said)
    trainer.method.load_state_dict(plain.method.state_dict())
    for one in (plain, trainer):
        finish(one)
    assert_same(plain, trainer)
    assert not trainer.training_step.compiled
    assert not recorder_of(trainer).replays
    (sentence,) = said
    assert sentence.startswith("the step could not be captured as a CUDA graph and runs uncompiled (operation not")


def test_the_reason_is_the_first_of_several_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*_: object) -> None:
        try:
            raise ValueError("out of luck")
        finally:
            raise RuntimeError("the capture was invalidated")

    monkeypatch.setattr(GraphOnCpu, "record", record)
    said: list[str] = []
    finish(make_trainer(compiled="graph", said=said))
    assert said[0].endswith("(out of luck)")


def test_a_tensor_kept_from_one_step_to_the_next_is_found() -> None:
    """On a GPU it would be whatever lies in that memory by then."""
    with pytest.raises(RunError, match="became"):
        finish(make_trainer(Faulty("keeps"), compiled="graph"))
    finish(make_trainer(Faulty("keeps"), compiled=False))


@pytest.mark.parametrize("forgotten", ["batch", "theta", "rate"])
def test_an_input_without_its_buffer_is_found(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The yardstick of this module: a step that replays an old input is told from the plain one."""
    fill = CapturedStep._fill

    def partly(self: CapturedStep, *inputs: Any) -> None:
        before = None if self.replay is None else getattr(self, forgotten).clone()
        fill(self, *inputs)
        if before is not None:
            getattr(self, forgotten).copy_(before)

    monkeypatch.setattr(CapturedStep, "_fill", partly)
    plain, captured = make_trainer(compiled=False), make_trainer(compiled="graph")
    for trainer in (plain, captured):
        finish(trainer)
    with pytest.raises(AssertionError):
        assert_same(plain, captured)


# ---------------------------------------------------------------------- CUDA itself, as far as it can be told without
@pytest.mark.parametrize("fails", [False, True])
def test_a_recording_that_fails_leaves_torchs_allocator_as_it_was(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CUDA breaks off, torch goes on to put what is allocated aside for the graph, and frees nothing."""
    asked: dict[str, Any] = {}
    ended: list[Any] = []
    right = inspect.signature(torch.cuda.graph)

    @contextlib.contextmanager
    def graph(*arguments: Any, **options: Any) -> Iterator[None]:
        asked.update(right.bind(*arguments, **options).arguments)
        yield

    stream = types.SimpleNamespace(device=torch.device("cuda", 1), device_index=1)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: types.SimpleNamespace(replay="replay"))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *where: ended.append(where), raising=False)
    recorder = CudaRecorder(torch.device("cuda", 1))
    if fails:
        with pytest.raises(ZeroDivisionError):
            recorder.record(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    else:
        assert recorder.record(lambda: None) == "replay"
    assert ended == ([(1, (0, 7))] if fails else [])
    assert asked["stream"] is stream
    assert asked["capture_error_mode"] == "thread_local"  # another thread may copy the coming batches
