"""Operator norms of an encoder's linear maps, and the bound on its Lipschitz constant that they give.

For a composition the constants multiply, for a sum (a residual block) they add: ‖branch‖ + ‖shortcut‖. ReLU has
constant 1, a max-pool √(the windows that a pixel is in). In eval mode batch norm multiplies each channel by
γ/√(running variance + ε) and is folded into the convolution or linear map before it; the mean over H × W pixels has
norm 1/√(HW). (docs/theory.md, 9.)

The norm of a convolution is that of the whole linear map, with its stride, zero padding and image size. Where one side
has at most `DENSE` numbers, or the kernel is 1×1, it is the largest singular value of an explicit matrix. Elsewhere k
steps of Lanczos on AᵀA (or AAᵀ, whichever is smaller; dimension n) from a random normal start give θ ≤ ‖A‖², and with
probability at least 1 − p over that start

    ‖A‖² ≤ θ / (1 − ε),  ε = (ln(1.648 √n / p) / (2k − 1))²,

whatever the spectrum (Kuczyński and Woźniakowski, SIAM J. Matrix Anal. Appl. 13, 1992). So both ends are known; the
bound uses the upper one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.nn.encoders.residual import BasicBlock, Bottleneck
from cssl_cli.nn.encoders.resnet import ResNet
from cssl_cli.nn.encoders.small import SmallEncoder

DENSE = 1024  # the smaller side of a map up to which its matrix is written out,
DENSE_NUMBERS = 2**24  # and the numbers it may then have
STEPS = 100  # of Lanczos
FAILURE = 1e-9  # p, for each map
ROUNDING = 1e-9  # relative margin for the rounding of float64
LOOK_EVERY = 10  # steps
BREAKDOWN = 1e-12  # relative size of a Lanczos residual that is nothing but rounding

Shape = tuple[int, ...]


class Norm(NamedTuple):
    """Bounds on a norm: `low` ≤ norm ≤ `high`."""

    low: float
    high: float

    def times(self, other: Norm) -> Norm:
        """Of a product."""
        return Norm(self.low * other.low, self.high * other.high)

    def plus(self, other: Norm) -> Norm:
        """Of a sum, by the triangle inequality."""
        return Norm(self.low + other.low, self.high + other.high)


ONE = Norm(1.0, 1.0)


class UnknownModule(Exception):
    """A module whose Lipschitz constant the bound has no rule for."""


@dataclass(frozen=True)
class Residual:
    """Two chains of modules from the same input, added."""

    branch: list[Step]
    shortcut: list[Step]


class MeanOverPixels:
    """The mean over all pixels of each channel."""


Step = nn.Module | Residual | MeanOverPixels


def network_norm(network: nn.Module, *, input_shape: Shape, std: Sequence[float], generator: torch.Generator) -> Norm:
    """Product bound on the Lipschitz constant of `network` in eval mode, after division of the inputs by `std`.

    input_shape: (C, H, W) of an image, or (D,). std: one number a channel. `high` bounds the constant; `low` is what
    the same product would at least be with exact norms (it bounds nothing). Raises UnknownModule.
    """
    scale = 1 / torch.tensor(list(std), dtype=torch.float64)
    return _Walk(generator).chain(_steps(network), input_shape, scale)[0]


def _steps(module: nn.Module) -> list[Step]:
    """The modules in order of execution. Exact types only: a subclass may behave differently."""
    kind = type(module)
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        return [step for part in module for step in _steps(part)]
    if isinstance(module, MLP) and kind is MLP:
        return _steps(module.layers)
    if isinstance(module, LibraryEncoder) and kind is LibraryEncoder:
        return _steps(module.model)
    if isinstance(module, SmallEncoder) and kind is SmallEncoder:
        return [*_steps(module.layers), MeanOverPixels()]
    known: Any = module  # by the names of its parts
    if kind is ResNet or _is_torchvisions(kind, "ResNet"):
        stages = (known.layer1, known.layer2, known.layer3, known.layer4)
        stem = (known.conv1, known.bn1, known.relu, known.maxpool)
        return [step for part in (*stem, *stages, known.avgpool, nn.Flatten(), known.fc) for step in _steps(part)]
    if kind in (BasicBlock, Bottleneck) or _is_torchvisions(kind, "BasicBlock", "Bottleneck"):
        branch: list[Step] = [known.conv1, known.bn1, known.relu, known.conv2, known.bn2]
        if hasattr(known, "conv3"):
            branch += [known.relu, known.conv3, known.bn3]
        shortcut = [] if known.downsample is None else _steps(known.downsample)
        return [Residual(branch, shortcut), known.relu]
    return [module]


def _is_torchvisions(kind: type[nn.Module], *names: str) -> bool:
    """Without importing torchvision, which takes seconds."""
    return kind.__module__ == "torchvision.models.resnet" and kind.__name__ in names


class _Walk:
    """Multiplies the norms along chains of steps, following the shape of what passes."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def chain(self, steps: Sequence[Step], shape: Shape, scale: Tensor | None = None) -> tuple[Norm, Shape]:
        """Norm and output shape of a chain; `scale` (C,) multiplies the channels of its input first."""
        norm = ONE
        place = 0
        while place < len(steps):
            step = steps[place]
            place += 1
            if isinstance(step, nn.Conv2d | nn.Linear):
                after = steps[place] if place < len(steps) else None
                folded = isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d)
                factor, shape = self.linear(step, after if folded else None, shape, scale)
                place += folded
                scale = None
            elif scale is not None and not isinstance(step, nn.Identity):
                factor, place = _exactly(scale.abs().max().item()), place - 1
                scale = None
            else:
                factor, shape = self.other(step, shape)
            norm = norm.times(factor)
        return (norm if scale is None else norm.times(_exactly(scale.abs().max().item()))), shape

    def linear(
        self, step: nn.Conv2d | nn.Linear, batch_norm: Step | None, shape: Shape, scale: Tensor | None
    ) -> tuple[Norm, Shape]:
        weight = step.weight.detach().double()
        if scale is not None:
            groups = step.groups if isinstance(step, nn.Conv2d) else 1
            of_group = scale.to(weight).reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
            weight = (weight.unflatten(0, (groups, -1)) * of_group).flatten(0, 1)
        if batch_norm is not None:
            weight = weight * _channel_scale(batch_norm).to(weight).reshape(-1, *[1] * (weight.ndim - 1))
        if isinstance(step, nn.Linear):
            return _exactly(torch.linalg.matrix_norm(weight, ord=2).item()), (*shape[:-1], step.out_features)
        if step.padding_mode != "zeros" or isinstance(step.padding, str):
            raise UnknownModule(f"a convolution with padding {step.padding_mode!r}, {step.padding!r}")
        return self.convolution(step, step.padding, weight, shape)

    def convolution(
        self, step: nn.Conv2d, padding: tuple[int, ...], weight: Tensor, shape: Shape
    ) -> tuple[Norm, Shape]:
        how = (step.stride, padding, step.dilation, step.groups)

        def apply(inputs: Tensor) -> Tensor:
            return F.conv2d(inputs, weight, None, *how)

        def adjoint(outputs: Tensor) -> Tensor:
            return conv2d_input((len(outputs), *shape), weight, outputs, *how)

        out_shape = tuple(apply(weight.new_zeros(1, *shape)).shape[1:])
        if step.kernel_size == (1, 1) and padding == (0, 0) and step.groups == 1:
            return _exactly(torch.linalg.matrix_norm(weight.flatten(1), ord=2).item()), out_shape
        return operator_norm(apply, adjoint, shape, out_shape, like=weight, generator=self.generator), out_shape

    def other(self, step: Step, shape: Shape) -> tuple[Norm, Shape]:
        if isinstance(step, Residual):
            branch, out_shape = self.chain(step.branch, shape)
            shortcut, _ = self.chain(step.shortcut, shape)
            return branch.plus(shortcut), out_shape
        if isinstance(step, MeanOverPixels) or _averages_all(step):
            return _exactly(1 / math.sqrt(math.prod(shape[1:]))), shape[:1]
        if isinstance(step, nn.BatchNorm1d | nn.BatchNorm2d):
            return _exactly(_channel_scale(step).abs().max().item()), shape
        if isinstance(step, nn.MaxPool2d) and type(step) is nn.MaxPool2d:
            return self.max_pool(step, shape)
        if isinstance(step, nn.ReLU | nn.Identity | nn.Flatten | nn.Dropout):
            return ONE, (math.prod(shape),) if isinstance(step, nn.Flatten) else shape
        raise UnknownModule(type(step).__name__)

    def max_pool(self, step: nn.MaxPool2d, shape: Shape) -> tuple[Norm, Shape]:
        """A maximum moves no further than some number of its window, and a number is in at most so many windows."""
        if _pair(step.dilation) != (1, 1):
            raise UnknownModule("a dilated MaxPool2d")
        sides = zip(_pair(step.kernel_size), _pair(step.stride), strict=True)
        windows = math.prod(-(-kernel // stride) for kernel, stride in sides)
        return _exactly(math.sqrt(windows)), tuple(step(torch.zeros(1, *shape)).shape[1:])


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else size


def _averages_all(step: Step) -> bool:
    return isinstance(step, nn.AdaptiveAvgPool2d) and step.output_size in (1, (1, 1))


def _channel_scale(batch_norm: Step) -> Tensor:
    """γ / √(running variance + ε) of each channel."""
    assert isinstance(batch_norm, nn.BatchNorm1d | nn.BatchNorm2d)
    if batch_norm.running_var is None:
        raise UnknownModule("a batch norm without running statistics")
    scale = (batch_norm.running_var.double() + batch_norm.eps).rsqrt()
    return scale if batch_norm.weight is None else batch_norm.weight.detach().double() * scale


def _exactly(value: float) -> Norm:
    return Norm(value, value * (1 + ROUNDING))


# ---------------------------------------------------------------------- the norm of one linear map
def operator_norm(
    apply: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    shape: Shape,
    out_shape: Shape,
    *,
    like: Tensor,
    generator: torch.Generator,
    dense: int = DENSE,
    steps: int = STEPS,
) -> Norm:
    """Largest singular value of a linear map from tensors of `shape` to `out_shape`, and of its `adjoint`.

    Both act on batches (B, ...) of the type and device of `like`, which is float64.
    """
    if math.prod(out_shape) < math.prod(shape):
        apply, adjoint, shape, out_shape = adjoint, apply, out_shape, shape
    size = math.prod(shape)
    if size <= dense and size * math.prod(out_shape) <= DENSE_NUMBERS:
        matrix = apply(torch.eye(size, dtype=like.dtype, device=like.device).reshape(size, *shape)).flatten(1)
        return _exactly(math.sqrt(max(torch.linalg.eigvalsh(matrix @ matrix.T)[-1].item(), 0)))
    start = torch.randn(1, *shape, generator=generator, dtype=torch.float64).to(like)
    largest, ended = _lanczos(lambda vector: adjoint(apply(vector)), start, steps)
    # A random start has a part in every direction: where Lanczos comes to an end, it has found them all.
    share = 0.0 if ended else (math.log(1.648 * math.sqrt(size) / FAILURE) / (2 * steps - 1)) ** 2
    assert share < 1, "too few steps for the bound"
    low = math.sqrt(max(largest, 0))
    return Norm(low, low / math.sqrt(1 - share) * (1 + ROUNDING))


def _lanczos(square: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[float, bool]:
    """Largest Ritz value of a symmetric map after `steps`, and whether the steps ended in an invariant subspace.

    Without reorthogonalisation: directions get lost only once a Ritz value has converged, and come back as copies.
    """
    vector, previous = start / start.norm(), torch.zeros_like(start)
    numbers: list[Tensor] = []  # pairs of an entry of the diagonal and one beside it
    diagonal: list[float] = []
    beside: list[float] = []
    ended = False
    for number in range(1, steps + 1):
        image = square(vector) - (numbers[-1][1] if numbers else 0.0) * previous
        along = (image * vector).sum()
        image = image - along * vector
        numbers.append(torch.stack([along, image.norm()]))
        vector, previous = image / numbers[-1][1], vector
        if number % LOOK_EVERY and number < steps:
            continue
        for entry, residual in torch.stack(numbers[len(diagonal) :]).tolist():  # reading it waits for the device
            diagonal.append(entry)
            beside.append(residual)
            ended = residual <= BREAKDOWN * max(diagonal)
            if ended:  # what follows it here is noise
                break
        if ended:
            break
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if len(diagonal) > 1:
        upper = torch.diag(torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64), 1)
        tridiagonal = tridiagonal + upper + upper.T
    return torch.linalg.eigvalsh(tridiagonal)[-1].item(), ended
