"""What a CUDA graph does, done on a CPU: operations and addresses are kept, and no line of Python runs in a replay."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
# Looking at a number, shapes that depend on numbers, numbers that come from Python: each waits for a device or copies.
REFUSED = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.lift_fresh.default,
    aten.equal.default,
}


class GraphOnCpu(TorchDispatchMode):
    """Stands in for `CudaRecorder`.

    While it records, tensors from outside are changed and then put back, as if nothing had been carried out. In a
    replay every operation reads and writes the memory that it had when it was recorded. Before and after each, all
    that was made inside is overwritten with NaN, as the memory of a graph may be, and so is what was read from outside
    and is gone by now: whoever counts on it, notices.
    """

    def __init__(self, _: torch.device) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.inside: dict[int, torch.UntypedStorage] = {}
        self.outside: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage, weakref.ref[Tensor]]] = {}
        self.replays = 0

    def carry_out(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.operations.clear()
        self.inside.clear()
        self.outside.clear()
        try:
            with self:
                work()
        finally:
            for storage, before, _ in self.outside.values():
                storage.copy_(before)
        return self.replay

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in REFUSED:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for tensor in tensors_of((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.inside and storage._cdata not in self.outside:
                self.outside[storage._cdata] = storage, storage.clone(), weakref.ref(tensor)
        out = func(*args, **(kwargs or {}))
        made = tensors_of(out)
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.outside:
                self.inside.setdefault(storage._cdata, storage)
        kept = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))  # the memory, without the graph of autograd
        self.operations.append((func, *kept, [tensor.detach() for tensor in made]))
        return out

    def replay(self) -> None:
        self._overwrite()
        with torch.no_grad():
            for func, args, kwargs, made in self.operations:
                for tensor, again in zip(made, tensors_of(func(*args, **kwargs)), strict=True):
                    if tensor.untyped_storage()._cdata != again.untyped_storage()._cdata:  # no view, not in place
                        tensor.copy_(again)
        self._overwrite()
        self.replays += 1

    def _overwrite(self) -> None:
        for storage in self.inside.values():
            storage.fill_(255)  # NaN as a floating point number
        for storage, _, tensor in self.outside.values():
            if tensor() is None:
                storage.fill_(255)


def tensors_of(value: Any) -> list[Tensor]:
    return [item for item in tree_flatten(value)[0] if isinstance(item, Tensor)]
