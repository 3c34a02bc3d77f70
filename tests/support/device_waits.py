"""Counts how often code would wait for a GPU, on a machine without one.

Tensors marked as lying on the device, and all that is computed from them, are followed; every look at their numbers is
counted. `Tensor.cpu` and `Tensor.tolist` are looks, too, of however many numbers; what they return is on the host.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

LOOKS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal"}


class DeviceWaits(TorchDispatchMode):
    """`with DeviceWaits(a, b) as waits:` marks a and b; `waits.count` is the number of looks."""

    def __init__(self, *on_device):
        super().__init__()
        self.count = 0
        self.storages = {}  # kept alive, as an address would be given out again
        for tensor in on_device:
            self.mark(tensor)

    def mark(self, tensor):
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage

    def holds(self, tensor):
        return tensor.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = any(isinstance(x, torch.Tensor) and self.holds(x) for x in tree_flatten((args, kwargs))[0])
        name = func.name().split("::")[1].split(".")[0]
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool and self.holds(i) for i in args[1])
        self.count += ours and (name in LOOKS or by_mask)
        out = func(*args, **kwargs)
        if ours:
            for made in tree_flatten(out)[0]:
                if isinstance(made, torch.Tensor):
                    self.mark(made)
        return out

    def __enter__(self):
        self.stack = ExitStack()
        for name, look in (("cpu", torch.Tensor.clone), ("tolist", torch.Tensor.tolist)):
            self.stack.enter_context(mock.patch.object(torch.Tensor, name, self.counted(look)))
        self.stack.enter_context(mock.patch.object(torch.Tensor, "numpy", self.host_only(torch.Tensor.numpy)))
        return super().__enter__()

    def __exit__(self, *error):
        self.stack.close()
        return super().__exit__(*error)

    def counted(self, look):
        def counted(tensor):
            self.count += self.holds(tensor)
            with _disable_current_modes():
                return look(tensor)

        return counted

    def host_only(self, numpy):
        def refused(tensor):
            assert not self.holds(tensor), "a tensor on the device has no numpy()"
            return numpy(tensor)

        return refused
