"""Batch norms as part of the convolutions before them, for networks in eval mode."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cssl_cli.nn.batch_norm import BatchNorm2d, SplitBatchNorm2d
from cssl_cli.nn.encoders.residual import StridedPointwiseConv2d

# Exact types only: a subclass may behave differently.
_CONVOLUTIONS = (nn.Conv2d, StridedPointwiseConv2d)
_NORMS = (nn.BatchNorm2d, BatchNorm2d, SplitBatchNorm2d)


def folded(module: nn.Module) -> nn.Module:
    """A copy for eval mode in which batch norms are part of the weights of convolutions.

    Those whose input is what a convolution puts out, which goes nowhere else, as the traced graph of the module shows;
    none where it cannot be traced. The same function up to rounding, without a pass over the activations for every
    batch norm.
    """
    copied = copy.deepcopy(module).eval()
    for convolution, norm in _pairs(copied):
        pair: Any = (copied.get_submodule(convolution), copied.get_submodule(norm))
        fused = fuse_conv_bn_eval(*pair)
        copied.set_submodule(convolution, fused)
        copied.set_submodule(norm, nn.Identity())
    return copied


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """The names of each convolution, and of the batch norm that alone takes its output, in a module in eval mode."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # whatever a module's code raises where it looks at numbers that are not there
        return []
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        (user,) = node.users
        names = (str(node.target), str(user.target))
        if user.op != "call_module" or any(calls[name] != 1 for name in names) or user.args != (node,):
            continue
        convolution, norm = (module.get_submodule(name) for name in names)
        known = type(convolution) in _CONVOLUTIONS and type(norm) in _NORMS and norm.running_mean is not None
        if known and not _watched(convolution, norm):
            found.append(names)
    return found


def _watched(*modules: nn.Module) -> bool:
    """Whether hooks see, or change, what goes in and out."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in modules)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (*_CONVOLUTIONS, *_NORMS)) or super().is_leaf_module(module, name)
