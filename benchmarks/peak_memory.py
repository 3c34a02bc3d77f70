"""Peak bytes of living tensors, counted rather than measured."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class PeakMemory(TorchDispatchMode):
    """Within it, `peak` is the peak of bytes of the tensors created within it, gradients included."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = [value.untyped_storage() for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
        self._known.update(before)  # made before, or counted already
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor) and value.untyped_storage() not in self._known:
                storage = value.untyped_storage()
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, num_bytes: int) -> None:
        self.now -= num_bytes
