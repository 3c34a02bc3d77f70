"""A pretended GPU for machines without one: tensors on cuda:0 that have a shape and no numbers.

What mixes devices raises, and so does what looks at a number, for which a GPU would have to be waited for. Needs a
build of torch for CUDA.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cssl_cli import log_sum_exp, off_diagonal

CUDA = torch.device("cuda", 0)


# What our operators do: tensors without numbers know no more than the shapes of what comes out.
BODIES = {
    "log_sum_exp_of_others": log_sum_exp._of_others,
    "log_sum_exp_of_others_backward": log_sum_exp._of_others_backward,
    "log_sum_exp_over_keys": log_sum_exp._over_keys,
    "off_diagonal_squares": off_diagonal._off_diagonal_squares,
    "scaled": lambda kept, factor, _: kept * factor,
}


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, tensors can be made on cuda:0."""
    with contextlib.ExitStack() as stack:
        for of, name, value in (
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (torch.cuda, "current_device", lambda: 0),
            (torch.cuda, "device_count", lambda: 1),
            (torch.Tensor, "pin_memory", lambda self, *_: self.clone()),
            (torch.Tensor, "backward", backward),
            (torch.nn.Module, "to", move),
            # Without a GPU torch takes cuDNN to know no bfloat16, and would choose another backend, in NCHW.
            (torch._C, "_select_conv_backend", lambda *_, **__: torch._C._ConvBackend.Cudnn),
        ):
            stack.enter_context(mock.patch.object(of, name, value))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def move(self: nn.Module, device: torch.device, *, memory_format: torch.memory_format) -> nn.Module:
    """nn.Module.to: what lies on a pretended device cannot be put in the place of a parameter's data."""

    def moved(tensor: Tensor) -> Tensor:
        layout = memory_format if tensor.ndim == 4 else torch.preserve_format
        return tensor.detach().to(device, memory_format=layout)

    for part in self.modules():
        for name, one in part._parameters.items():
            if one is not None:
                part._parameters[name] = nn.Parameter(moved(one), requires_grad=one.requires_grad)
        for name, one in part._buffers.items():
            if one is not None:
                part._buffers[name] = moved(one)
    return self


@torch.no_grad()
def backward(self: Tensor) -> None:
    """Tensor.backward: without a GPU, torch's engine refuses tensors that are said to lie on one."""
    assert self.grad_fn is not None
    incoming: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    incoming[self.grad_fn][0] = torch.ones_like(self)
    below, stack = {self.grad_fn}, [self.grad_fn]
    waiting: Counter[Any] = Counter()
    while stack:
        for following, _ in stack.pop().next_functions:
            waiting[following] += 1
            if following is not None and following not in below:
                below.add(following)
                stack.append(following)
    ready = [self.grad_fn]
    while ready:
        node = ready.pop()
        got = incoming.pop(node, {})
        made = _call(node, [got.get(slot) for slot in range(len(node._input_metadata))])
        for (following, slot), gradient in zip(node.next_functions, made, strict=False):
            if following is None:
                continue
            if gradient is not None:
                like = following._input_metadata[slot]
                gradient = gradient.to(like.dtype).sum_to_size(like.shape)  # as the engine does
                slots = incoming[following]
                slots[slot] = slots[slot] + gradient if slot in slots else gradient
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def _call(node: Any, arguments: list[Tensor | None]) -> Any:
    if all(argument is None for argument in arguments):
        return (None,) * len(node.next_functions)
    of_python = isinstance(node, torch.autograd.function.BackwardCFunction)
    made = node.apply(*arguments) if of_python else node(*arguments)
    return made if isinstance(made, tuple | list) else (made,)
