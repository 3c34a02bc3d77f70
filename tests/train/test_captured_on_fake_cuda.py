"""What is captured as a CUDA graph neither waits for the device nor takes anything from the host.

Followed on a pretended GPU: shapes without numbers, `gpu_path/fake_cuda.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from cssl_cli.augment import build_augmentation
from cssl_cli.methods import Method, method_names
from cssl_cli.train import captured_step
from cssl_cli.train.captured_step import CapturedStep
from cssl_cli.train.optimizers import build_optimizer
from tests.gpu_path.fake_cuda import BODIES, CUDA, fake_cuda
from tests.support.small_methods import OneLayer, small_method
from tests.train.test_captured_step import OPTIMIZERS

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a build of torch without CUDA")
aten = torch.ops.aten
SHORT = {"flip": {"p": 0.5}}
JITTER = {"strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}
AUGMENT = {
    "crop": {"scale": (0.3, 1.0), "ratio": (0.75, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, **JITTER},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
    "solarize": {"p": 0.2, "threshold": 0.5},
    "cutout": {"p": 0.5, "scale": (0.1, 0.3)},
    "fade": {"p": 0.5, "contrast": (0.0, 0.1)},
}


class HostRead(RuntimeError):
    """Something came from the host, or went there."""


class Watch(TorchDispatchMode):
    """Counts operations, and where it is `strict` raises `HostRead` on what comes from the host or goes there."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.strict, self.num_operations = strict, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.num_operations += 1
        # They have no rule for tensors without numbers, and change some in place.
        if func.overloadpacket in (aten._fused_sgd_, aten._fused_adamw_):
            require_same_layout(args[:3])
            return None
        if self.strict and func in (aten.lift_fresh.default, aten._local_scalar_dense.default):
            raise HostRead(str(func))
        if func.namespace == "cssl":  # for tensors without numbers torch asks for the shapes only
            with self:
                BODIES[func.name().split("::")[1]](*args, **kwargs)
        out = func(*args, **kwargs)
        devices = {tensor.device for tensor in tree_flatten((args, kwargs, out))[0] if isinstance(tensor, Tensor)}
        if self.strict and len(devices) > 1:
            raise HostRead(f"{func} of tensors on {' and '.join(sorted(map(str, devices)))}")
        return out


def require_same_layout(lists: Sequence[Sequence[Tensor]]) -> None:
    """Of each parameter, its gradient and its state, as CUDA's fused optimizers ask for."""
    for parameter, *others in zip(*lists, strict=True):
        for other in others:
            assert (other.device, other.dtype, other.shape) == (CUDA, parameter.dtype, parameter.shape)


class Watched:
    """Stands in for `CudaRecorder`; what is recorded is watched."""

    def __init__(self, device: torch.device) -> None:
        assert device == CUDA
        self.watch = Watch(strict=True)
        self.recording = False

    def carry_out(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recording = True
        try:
            with self.watch:
                work()
        finally:
            self.recording = False
        return lambda: None


def captured(
    method: Method, optim: str, *, fault: Callable[[CapturedStep], None] = lambda _: None, augment: Any = SHORT
) -> CapturedStep:
    """A step of `method` after it has been recorded, with a `fault` in it."""
    settings = {"decay_norm_and_bias": True, "schedule": "cosine", **OPTIMIZERS[optim]}
    said: list[str] = []
    with fake_cuda(), Watch(strict=False):
        method = method.to(CUDA, memory_format=torch.channels_last)  # type: ignore[call-overload]
        method.train()
        augmentation = build_augmentation(augment, image_size=12)
        step = CapturedStep(
            method,
            augmentation,
            build_optimizer(method, settings),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            precision=torch.bfloat16,
            device=CUDA,
            notice=said.append,
        )
        fault(step)
        batch = torch.zeros((16, 3, 12, 12), dtype=torch.uint8, device=CUDA)
        for _ in range(2):
            terms = step(batch, augmentation.draw(32, torch.Generator()), 0.1)
            assert all(value.device == CUDA for value in terms.values())
    assert len(said) == 1
    assert said[0].startswith("captured" if step.compiled else "the step could not be captured"), said
    return step


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_step, "CudaRecorder", Watched)
    monkeypatch.setattr(captured_step, "WARM_UP_STEPS", 1)


@pytest.mark.parametrize(("method", "optim"), [*((m, "sgd") for m in method_names()), ("byol", "lars")])
def test_nothing_comes_from_the_host_or_goes_there(method: str, optim: str) -> None:
    """But for LARS around a single layer: the encoder is the same for all methods."""
    step = captured(small_method(method, encoder=None if optim == "lars" else OneLayer), optim)
    assert step.compiled
    assert step.recorder.watch.num_operations > 100  # type: ignore[attr-defined]


def test_nor_with_all_augmentations() -> None:
    step = captured(small_method("simclr"), "adamw", augment=AUGMENT)
    assert step.compiled
    assert step.recorder.watch.num_operations > 300  # type: ignore[attr-defined]


def in_recording(part: str, wrong: Callable[..., Any]) -> Callable[[CapturedStep], None]:
    """A fault: the step's method `part` is called through `wrong(part, *arguments)` while the step is recorded."""

    def put_in(step: CapturedStep) -> None:
        right = getattr(step, part)
        setattr(
            step,
            part,
            lambda *given: wrong(right, *given) if step.recorder.recording else right(*given),  # type: ignore[attr-defined]
        )

    return put_in


FAULTS = {
    "looks at the loss": in_recording(
        "backward", lambda right, terms: right({"loss": terms["loss"] * float(terms["alignment"].detach())})
    ),
    "copies a table": in_recording(
        "backward", lambda right, terms: right({"loss": (terms["loss"] * torch.tensor([2.0]).to(CUDA)).sum()})
    ),
    "takes theta from the host": in_recording("views", lambda right, batch, theta: right(batch, theta.cpu())),
    "looks at the rate": in_recording("update", lambda right, rate: right(float(rate))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_in_which_something_does_is_caught(fault: str) -> None:
    step = captured(small_method("simclr", encoder=OneLayer), "lars", fault=FAULTS[fault])
    assert not step.compiled
