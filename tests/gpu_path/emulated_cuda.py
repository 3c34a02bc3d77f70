"""A CUDA device whose tensors are computed on the CPU: they say they are on cuda:0 and refuse others' company."""

from __future__ import annotations

import contextlib
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
MEMORY = 80 * 2**30
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal"}
MAY_MIX = {"_to_copy", "copy_", "index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index", "lift_fresh"}
waits: Counter[tuple[str, str]] = Counter()  # what waited for the device, by line of the package
host_indices: Counter[str] = Counter()  # lines that index what is on the device with what is not: a copy and a wait


class _NoGradients:
    """In the place of inference mode, which does not go with tensors of a subclass that hold another."""

    def __enter__(self: Any) -> None:
        self.context = torch.no_grad() if self.mode else contextlib.nullcontext()
        self.context.__enter__()

    def __exit__(self: Any, *error: Any) -> None:
        self.context.__exit__(*error)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Torch's own makes its range where C++ takes the labels to be: for an emulated tensor, on the CPU."""
    return (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).long()


class MixedDevices(RuntimeError):
    """An operation on tensors of host and device together."""


class OnDevice(torch.Tensor):
    """A CPU tensor, `held`, that says it is on cuda:0."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> OnDevice:
        out: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device="cpu",  # C++ must find kernels for it
            requires_grad=requires_grad,
        )
        out.held = held
        return out

    device = property(lambda _: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _emulate(func, args, kwargs or {})

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("copy", None)
        layout = kwargs.pop("memory_format", None)
        if args and isinstance(args[0], Tensor):
            device, dtype = args[0].device, args[0].dtype
        else:
            device, dtype, _, given = torch._C._nn._parse_to(*args, **kwargs)
            layout = layout or given
        options = {name: value for name, value in (("dtype", dtype), ("memory_format", layout)) if value is not None}
        moved = torch._C.TensorBase.to(self, **options) if options else self
        return moved.cpu() if device is not None and device.type == "cpu" else moved

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        _waited("cpu()")
        return self.detach().held.clone()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, **options}).to(CUDA)

    def quantile(self, q: Any, *args: Any, **options: Any) -> Tensor:
        return _quantile(self, q, *args, **options)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnDevice({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        memo[id(self)] = out = OnDevice(self.held.clone(), self.requires_grad)
        if getattr(self, "_is_param", False):
            out._is_param = True
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.detach().__reduce_ex__(protocol)


def _line() -> str:
    """The innermost line of the package that is being run."""
    frame = sys._getframe()
    while frame is not None:
        if "cssl_cli" in frame.f_code.co_filename:
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def _waited(what: str) -> None:
    waits[_line(), what] += 1


def _emulate(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    generators: list[torch.Generator] = []
    _collect((*args, *kwargs.values()), tensors, generators)
    ours = [x for x in tensors if isinstance(x, OnDevice)]
    asked = kwargs.get("device")
    if not ours and (asked is None or torch.device(asked).type != "cuda"):
        return func(*args, **kwargs)
    name = func.name().split("::")[1].split(".")[0]
    on_device = bool(ours)
    if asked is not None:
        # What is asked for in Python comes by OnDevice.to; C++ asks for the device it takes the tensor to be on.
        on_device = torch.device(asked).type == "cuda" or (name == "_to_copy" and bool(ours))
        kwargs = {**kwargs, "device": "cpu" if on_device else asked}
    if on_device and any(generator.device.type == "cpu" for generator in generators):
        raise MixedDevices(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")
    in_backward = torch._C._current_graph_task_id() != -1  # where C++ makes zeros on what it takes for the device
    mixed = len(ours) < len(tensors) and any(x.ndim > 0 for x in tensors if not isinstance(x, OnDevice))
    if ours and mixed and name not in MAY_MIX and not in_backward:
        raise MixedDevices(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    if "index" in name and name in MAY_MIX:
        _check_indices(func, name, args)
    if ours and name in WAITS:
        _waited(name)
    held = {id(x.held): x for x in ours}
    out = func(*_mapped(args, _held), **_mapped(kwargs, _held))
    if name == "copy_":
        return args[0]

    def wrapped(x: Tensor) -> Tensor:
        if isinstance(x, OnDevice):
            return x
        return held[id(x)] if id(x) in held else OnDevice(x) if on_device else x

    return _mapped(out, wrapped)


# Torch's own trees take three times as long, for every operation.
def _collect(values: Any, tensors: list[Tensor], generators: list[torch.Generator]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            _collect(value, tensors, generators)
        elif isinstance(value, torch.Generator):
            generators.append(value)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """With every tensor in it replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(part, function) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    return value


def _held(x: Tensor) -> Tensor:
    return x.held if isinstance(x, OnDevice) else x


def _check_indices(func: Any, name: str, args: Any) -> None:
    indexed = isinstance(args[0], OnDevice)
    for index in args[1]:
        if isinstance(index, OnDevice) and not indexed:
            raise MixedDevices("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if index is not None and indexed:
            if not isinstance(index, OnDevice):
                host_indices[_line()] += 1
            elif index.dtype == torch.bool:
                _waited("boolean mask")
    if "put" in name and indexed != isinstance(args[2], OnDevice) and args[2].ndim > 0:
        raise MixedDevices(f"{func}: the value is on another device")


class _Emulation(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _emulate(func, args, kwargs or {})


# ---------------------------------------------------------------------- the device
def _move_module(module: nn.Module, *args: Any, memory_format: Any = None, **kwargs: Any) -> nn.Module:
    from tests.gpu_path.fake_cuda import move_module

    return move_module(module, *args, memory_format=memory_format, **kwargs)


_STREAM = types.SimpleNamespace(
    record_event=lambda: types.SimpleNamespace(synchronize=lambda: None), wait_event=lambda _: None
)
_real_autocast, _real_tensor, _real_to, _real_quantile = torch.autocast, torch.tensor, torch.Tensor.to, torch.quantile
_real_one_hot = torch.nn.functional.one_hot


def _to(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    """Of a plain tensor; C++ does not know where an emulated one, given as a model, is."""
    if args and isinstance(args[0], OnDevice):
        return _real_to(tensor, CUDA, args[0].dtype, *args[1:], **options)
    return _real_to(tensor, *args, **options)


def _tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    made = _real_tensor(data, **options)
    return made if device is None else made.to(device)


def _quantile(tensor: Tensor, q: Any, *args: Any, **options: Any) -> Tensor:
    """C++ would make a tensor of a plain number where it takes `tensor` to be."""
    return _real_quantile(tensor, q if isinstance(q, Tensor) else tensor.new_tensor(q), *args, **options)


def _autocast(device_type: str, **options: Any) -> Any:
    return _real_autocast("cpu" if device_type == "cuda" else device_type, **options)


# What torch asks of the driver, and what would need it; a list to be added to where the package asks for more.
PATCHES: list[tuple[Any, str, Any]] = [
    (torch.cuda, "_lazy_init", lambda: None),
    (torch.cuda, "is_available", lambda: True),
    (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
    (torch.cuda, "mem_get_info", lambda _=None: (MEMORY, MEMORY)),
    (torch.cuda, "synchronize", lambda _=None: None),
    (torch.cuda, "is_current_stream_capturing", lambda: False),
    (torch.cuda, "max_memory_allocated", lambda _=None: 0),
    (torch.cuda, "get_device_name", lambda _=None: "emulated"),
    (torch.cuda, "Stream", lambda _=None: _STREAM),
    (torch.cuda, "stream", lambda _: contextlib.nullcontext()),
    (torch.cuda, "current_stream", lambda _=None: _STREAM),
    (torch.Tensor, "pin_memory", lambda self, *_: self.clone()),
    (torch.Tensor, "record_stream", lambda *_: None),
    (nn.Module, "to", _move_module),
    (torch.inference_mode, "__enter__", _NoGradients.__enter__),  # of what functions are decorated with already, too
    (torch.inference_mode, "__exit__", _NoGradients.__exit__),
    (torch, "autocast", _autocast),
    (torch, "tensor", _tensor),
    (torch, "quantile", _quantile),
    (torch.Tensor, "to", _to),
]


@contextlib.contextmanager
def emulated_cuda() -> Iterator[None]:
    """Within it, cuda:0 can be used; `waits` and `host_indices` begin anew."""
    torch._C._ensureCUDADeviceGuardSet()
    waits.clear()
    host_indices.clear()
    with contextlib.ExitStack() as stack:
        named = [module for module in list(sys.modules.values()) if getattr(module, "one_hot", None) is _real_one_hot]
        for of, name, value in (*PATCHES, *((module, "one_hot", _one_hot) for module in named)):
            stack.enter_context(mock.patch.object(of, name, value))
        stack.enter_context(_Emulation())
        yield
