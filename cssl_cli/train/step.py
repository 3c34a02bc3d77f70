"""One training step of static shape: augment both views, forward, backward, update. Compiled on request.

Nothing in a step waits for the device. Each part of a step is a separate method, so that it can be timed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from cssl_cli.augment import Augmentation, normalize
from cssl_cli.errors import RunError
from cssl_cli.methods import Method
from cssl_cli.nn.ranks import ExchangeError, sum_over_ranks_

Notice = Callable[[str], None]  # receives a sentence for the user
HOW_LONG = "takes from ten seconds to some minutes, less where the compiler's cache has it"
Compiled = bool | Literal["graph"]  # as of the recipe's train.compile, once it is decided


class TrainingStep:
    """The step of a method under an augmentation; everything on the `device`.

    mean, std: of the images' channels, on the 0..1 scale. precision: what encoder and heads compute in; losses and
    statistics are float32. compiled: whether `forward` (on a GPU `views`, too) is compiled at the first step; where
    that fails, `notice` is told and the steps run uncompiled. With several ranks (`Method`) a step is one of them all:
    its batch is this rank's part, and gradients and terms are those of the whole batch.
    """

    def __init__(
        self,
        method: Method,
        augmentation: Augmentation,
        optimizer: Optimizer,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        precision: torch.dtype,
        device: torch.device,
        compiled: bool,
        notice: Notice,
    ) -> None:
        self.method = method
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.mean, self.std = mean, std
        self.precision = precision
        self.device = device
        self.notice = notice
        self.compiled: Compiled = compiled
        self.on_trial = compiled
        self._forward: Callable[[Tensor, Tensor], dict[str, Tensor]] = lambda *views: self.method(*views)
        self._views: Callable[[Tensor, Tensor], Tensor] = self._both_views
        if compiled:
            # Graphs are counted by the code they come from: those of earlier runs in this process would use up the
            # limit, beyond which code silently runs uncompiled.
            torch.compiler.reset()
            self._forward = torch.compile(self._forward, dynamic=False)
            # On a CPU an operation works on the images it concerns only, which compiled code cannot tell.
            if device.type == "cuda":
                augmentation.parameters(torch.zeros(1, augmentation.num_parameters, device=device))  # fills its tables
                self._views = torch.compile(self._views, dynamic=False)

    def __call__(self, batch: Tensor, theta: Tensor, rate: float) -> dict[str, Tensor]:
        """Update the weights on a batch (B, C, H, W), uint8, under theta (2B, P); the method's terms.

        Rows 0 … B − 1 of theta make the first views. rate: the learning rate.
        """
        if self.on_trial:
            terms = self._try_compiled(batch, theta)
        elif self.compiled:
            terms = self._compiled_gradients(batch, theta)
        else:
            terms = self._gradients(batch, theta)
        self.update(rate)
        return terms

    # ------------------------------------------------------------------ the parts
    def views(self, batch: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Two views (B, C, H, W) of each image, drawn independently and made in one batched pass."""
        view_1, view_2 = self._views(batch, theta.to(self.device, non_blocking=True)).chunk(2)
        return view_1, view_2

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        """The method's terms of two views."""
        with self._autocast():
            return self._forward(view_1, view_2)

    def backward(self, terms: Mapping[str, Tensor]) -> None:
        """Fresh gradients of the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()

    def update(self, rate: float | Tensor) -> None:
        """Move the weights, and what moves after them."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.method.after_step()

    def _gradients(self, batch: Tensor, theta: Tensor) -> dict[str, Tensor]:
        terms = self.forward(*self.views(batch, theta))
        self.backward(terms)
        return terms if self.method.ranks.alone else self._of_all_ranks(terms)

    def _of_all_ranks(self, shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms of the whole batch from this rank's shares; the gradients become those of the whole batch, too."""
        terms = {name: share.detach().clone() for name, share in shares.items()}
        gradients = [parameter.grad for parameter in self.method.parameters() if parameter.grad is not None]
        sum_over_ranks_([*gradients, *terms.values()], self.method.ranks)
        return terms

    def _both_views(self, batch: Tensor, theta: Tensor) -> Tensor:
        views = self.augmentation.apply(torch.cat([batch, batch]), theta)
        return normalize(views, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> AbstractContextManager[Any]:
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=enabled)

    # ------------------------------------------------------------------ the first compiled step
    def _try_compiled(self, batch: Tensor, theta: Tensor) -> dict[str, Tensor]:
        """The first step, in which everything is compiled; uncompiled if that fails, from the same state."""
        self.notice(f"compiling the training step, which {HOW_LONG}")
        began = time.perf_counter()
        buffers = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        self.on_trial = False
        try:
            terms = self._gradients(batch, theta)
        except torch.OutOfMemoryError:
            raise
        except ExchangeError:
            raise
        except Exception as error:  # whatever a compiler may raise: the uncompiled step below has the last word
            if not self.method.ranks.alone:  # whose others may be further in the step
                raise RunError(
                    f"the step could not be compiled ({first_line(error)})", remedy="Give train.compile=false."
                ) from error
            self.run_uncompiled()
            for name, buffer in self.method.named_buffers():
                buffer.copy_(buffers[name])
            terms = self._gradients(batch, theta)
            self.notice(f"the step could not be compiled and runs uncompiled ({first_line(error)})")
        else:
            self.notice(f"compiled the training step in {time.perf_counter() - began:.0f} s")
        return terms

    def _compiled_gradients(self, batch: Tensor, theta: Tensor) -> dict[str, Tensor]:
        """A later step; something may have to be compiled anew, and fail."""
        try:
            return self._gradients(batch, theta)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RunError(
                f"the step was compiled, and had to be again, which failed ({first_line(error)})",
                remedy="What was saved is intact. The same command goes on from there; train.compile=false makes a run "
                "of its own, uncompiled.",
            ) from error

    def run_uncompiled(self) -> None:
        """Leave compiled code aside from now on."""
        self.compiled = self.on_trial = False
        self._forward, self._views = self.method, self._both_views


def first_line(error: BaseException) -> str:
    """What an error says, without the details that follow."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
