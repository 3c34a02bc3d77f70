"""A CUDA device of tensors without numbers (torch's FakeTensorMode), and a ledger of what is done on it."""

from __future__ import annotations

import contextlib
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from cssl_cli.nn import log_sum_exp, off_diagonal
from cssl_cli.recipe import Recipe
from cssl_cli.runs import trainer as trainers
from cssl_cli.runs.setup import initial_method
from cssl_cli.train.loop import Trainer
from tests.gpu_path import engine

CUDA = torch.device("cuda", 0)
MEMORY = 80 * 2**30
# fmt: off
NO_KERNEL = {
    "detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh", "alias",
    "as_strided", "as_strided_", "view", "_unsafe_view", "_reshape_alias", "t", "transpose", "permute", "expand",
    "slice", "select", "unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "diagonal", "narrow", "chunk",
    "record_stream", "is_pinned", "device",
}
# fmt: on
# What our operators do: fake tensors know no more than the shapes of what comes out.
BODIES = {
    "log_sum_exp_of_others": log_sum_exp._of_others,
    "log_sum_exp_of_others_backward": log_sum_exp._of_others_backward,
    "log_sum_exp_over_keys": log_sum_exp._over_keys,
    "off_diagonal_squares": off_diagonal._off_diagonal_squares,
    "scaled": lambda kept, factor, _: kept * factor,
}
_pinned: list[Tensor] = []


@dataclass(frozen=True)
class Copy:
    """Between host and device: the `part` of the step, the direction, whether the host waits for it."""

    part: str
    way: str
    waits: bool
    pinned: bool

    @property
    def blocks(self) -> bool:
        """Memory that is not page-locked is copied while the host waits, whatever was asked for."""
        return self.waits or not self.pinned


class Ledger(TorchDispatchMode):
    """Notes every operation on the pretended device by `part` of the step, and every copy to or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.part = ""
        self.copies: list[Copy] = []
        self.forget_kernels()

    def forget_kernels(self) -> None:
        self.kernels: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    @property
    def num_kernels(self) -> int:
        return sum(self.kernels.values())

    def of_parts(self) -> dict[str, tuple[int, float]]:
        """Kernels, and gigabytes read and written, of each part."""
        found: dict[str, tuple[int, float]] = {}
        for (part, name), number in self.kernels.items():
            kernels, gigabytes = found.get(part, (0, 0.0))
            found[part] = (kernels + number, gigabytes + self.bytes[part, name] / 1e9)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().split("::")[1].split(".")[0]
        if name.startswith("_fused_"):  # optimizers; some have no rule for fake tensors
            lists = [one for one in args if isinstance(one, list | tuple) and one and len(one) == len(args[0])]
            _require_same_layout(*lists[: 2 if "sgd" in name and not args[2] else 3])
            self._note(name, sum(tensor.nbytes for one in lists for tensor in one))
            return None
        if func.namespace == "cssl":
            with self:
                out = BODIES[name](*args, **kwargs)
            for made, said in zip(tree_flatten(out)[0], tree_flatten(func(*args, **kwargs))[0], strict=True):
                assert (made.shape, made.dtype, made.device) == (said.shape, said.dtype, said.device), func
                assert made.stride() == said.stride(), func
            return out
        out = func(*args, **kwargs)
        ins, outs = ([t for t in tree_flatten(of)[0] if isinstance(t, Tensor)] for of in ((args, kwargs), out))
        if name in ("_to_copy", "copy_") and ins:
            source, target = (ins[-1], ins[0]) if name == "copy_" else (ins[0], outs[0])
            if source.device.type != target.device.type:
                waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
                way = f"{source.device.type} → {target.device.type}"
                self.copies.append(Copy(self.part, way, waits, _is_pinned(source)))
                return out
        on_device = {id(t): t for t in ins + outs if t.device.type == "cuda"}
        if on_device and func.namespace == "aten" and name not in NO_KERNEL:
            self._note(name, sum(t.nbytes for t in on_device.values()))
        return out

    def _note(self, name: str, num_bytes: int) -> None:
        self.kernels[self.part, name] += 1
        self.bytes[self.part, name] += num_bytes


def _require_same_layout(*lists: Any) -> None:
    """What CUDA's fused optimizers insist on, where a dimension is not 1."""
    for first, *others in zip(*lists, strict=True):
        for other in others:
            assert (other.device, other.dtype, other.shape) == (first.device, first.dtype, first.shape)
            strides = zip(first.shape, first.stride(), other.stride(), strict=True)
            assert all(size == 1 or one == two for size, one, two in strides), "strides differ"


# ---------------------------------------------------------------------- the device
def _pin_memory(tensor: Tensor, *_: Any) -> Tensor:
    assert tensor.device.type == "cpu", "only dense CPU tensors can be pinned"
    _pinned.append(tensor.clone())
    return _pinned[-1]


def _is_pinned(tensor: Tensor) -> bool:
    """Itself or a view of what was pinned."""
    return any(tensor is one or tensor._base is one for one in _pinned)


def move_module(module: nn.Module, *args: Any, memory_format: Any = None, **kwargs: Any) -> nn.Module:
    """`nn.Module.to`: what a pretended device holds cannot be put in the place of a parameter's data."""
    device, dtype, _, given = torch._C._nn._parse_to(*args, **kwargs)
    memory_format = memory_format or given

    def moved(tensor: Tensor) -> Tensor:
        layout = memory_format if memory_format is not None and tensor.ndim == 4 else torch.preserve_format
        return tensor.detach().to(device, dtype if tensor.is_floating_point() else None, memory_format=layout)

    for part in module.modules():
        for name, one in part._parameters.items():
            if one is not None:
                part._parameters[name] = nn.Parameter(moved(one), requires_grad=one.requires_grad)
        for name, held in part._buffers.items():
            if held is not None:
                part._buffers[name] = moved(held)
    return module


# What torch asks of the driver, and what would need it; a list to be added to where the package asks for more.
PATCHES: list[tuple[Any, str, Any]] = [
    (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
    (torch.cuda, "mem_get_info", lambda _=None: (MEMORY, MEMORY)),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "device_count", lambda: 1),
    (torch.Tensor, "pin_memory", _pin_memory),
    (torch.Tensor, "backward", engine.tensor_backward),
    (torch.autograd, "backward", engine.backward),
    (torch.autograd, "grad", engine.grad),
    (nn.Module, "to", move_module),
    # Without a GPU torch takes cuDNN to know no bfloat16, and would choose another backend, in NCHW.
    (torch._C, "_select_conv_backend", lambda *_, **__: torch._C._ConvBackend.Cudnn),
]


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Within it, cuda:0 can be used, by tensors without numbers."""
    _pinned.clear()
    with contextlib.ExitStack() as stack:
        for of, name, value in PATCHES:
            stack.enter_context(mock.patch.object(of, name, value))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield
    _pinned.clear()


# ---------------------------------------------------------------------- the step on it
@contextlib.contextmanager
def trainer_of(recipe: Recipe, *, num_images: int = 0) -> Iterator[Trainer]:
    """The recipe's trainer on the fake device, which exists within the context."""
    method = initial_method(recipe)  # whose weights are drawn: not under fake tensors
    with mock.patch.object(trainers, "initial_method", return_value=method), fake_cuda():
        side = getattr(recipe.data, "store_size", None) or 32
        images = torch.zeros((num_images or 4 * recipe.train.batch_size, 3, side, side), dtype=torch.uint8)
        part = types.SimpleNamespace(images=images)
        dataset: Any = types.SimpleNamespace(pretrain=part, mean=(0.5,) * 3, std=(0.25,) * 3, channels=3, image_size=32)
        trainer = trainers.make_trainer(recipe, dataset, torch.device("cuda"))
        trainer.method.train()
        trainer.augmentation.parameters(torch.zeros(1, trainer.augmentation.num_parameters, device=CUDA))  # its tables
        yield trainer


def last_step(
    trainer: Trainer, ledger: Ledger, *, num_steps: int = 2
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """Views and terms of the last of a few steps, as `Trainer.run` does them, noted part by part.

    Kernels are those of the last step, without what has to be set up before (the optimizer's buffers); copies are those
    of all.
    """
    step = trainer.training_step
    for parameter in trainer.method.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with ledger:
        step.optimizer.step()  # makes its buffers
        batches = trainer.images.batches(trainer._rest_of_epoch(trainer._begin_epoch()))
        for _ in range(num_steps):
            ledger.forget_kernels()
            ledger.part = "batch"
            batch = next(batches)
            theta = trainer.draw_theta(len(batch))
            ledger.part = "augmentation"
            views = step.views(batch, theta)
            ledger.part = "forward"
            terms = step.forward(*views)
            ledger.part = "backward"
            step.backward(terms)
            ledger.part = "update"
            step.update(trainer.current_learning_rate())
            ledger.part = "collect"
            trainer._collect(terms, trainer.step % trainer.plan.steps_per_epoch)
            trainer.step += 1
    return views, terms
