"""The training step as a CUDA graph: its kernels are recorded once and then launched together.

The step of a small encoder is hundreds of kernels that run for less time than it takes to launch them. A graph holds
kernels and addresses: every replay reads and writes the same memory, and no Python runs. So every input (batch, theta,
learning rate) and output (terms) has a fixed buffer, weights and the optimizer's state are updated in place, and
everything else is allocated and freed inside the graph.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from cssl_cli.train.step import TrainingStep, first_line

WARM_UP_STEPS = 3  # in which libraries choose their algorithms and the optimizer makes its state

Work = Callable[[], None]


class Recorder(Protocol):
    """What records work on a device."""

    def carry_out(self, work: Work) -> None:
        """Do the work at once, as it can be recorded afterwards."""

    def record(self, work: Work) -> Work:
        """Record the work without doing it; what is returned does it, as often as it is called."""


class CudaRecorder:
    """Records on a stream of its own: the default one cannot be recorded."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def carry_out(self, work: Work) -> None:
        caller = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(caller)
        with torch.cuda.stream(self.stream):
            work()
        caller.wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        try:
            # Other threads may go on: one sends the coming batches to the device.
            with torch.cuda.graph(graph, pool=pool, stream=self.stream, capture_error_mode="thread_local"):
                work()
        except BaseException:
            # Where CUDA itself breaks off, torch leaves its allocator recording, and it would keep what is freed.
            with contextlib.suppress(AttributeError, RuntimeError):
                torch._C._cuda_endAllocateToPool(self.stream.device_index, pool)
            raise
        return graph.replay


class CapturedStep(TrainingStep):
    """A `TrainingStep` that is recorded after `WARM_UP_STEPS` and replayed from then on.

    All batches have one shape, and so have all theta. Where recording fails, `notice` is told and the steps run one
    kernel after the other. What is loaded into the optimizer lies elsewhere than before: the step is recorded anew.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, compiled=False, **settings)
        self.compiled = "graph"
        self.recorder: Recorder = CudaRecorder(self.device)
        self.augmentation.parameters(torch.zeros(1, self.augmentation.num_parameters, device=self.device))  # its tables
        # In the weights' own precision, in which the optimizer's kernels read it.
        self.rate = torch.zeros((), dtype=next(self.method.parameters()).dtype, device=self.device)
        self.batch: Tensor | None = None
        self.theta: Tensor | None = None
        self.terms: Tensor | None = None
        self.names: tuple[str, ...] = ()
        self.optimizer.register_load_state_dict_post_hook(lambda _: self._forget())
        self._forget()

    def _forget(self) -> None:
        self.replay: Work | None = None
        self.num_warm = 0

    def __call__(self, batch: Tensor, theta: Tensor, rate: float) -> dict[str, Tensor]:
        if not self.compiled:
            return super().__call__(batch, theta, rate)
        self._fill(batch, theta, rate)
        if self.replay is None and self.num_warm == WARM_UP_STEPS and not self._record():
            return super().__call__(batch, theta, rate)
        if self.replay is None:
            self.recorder.carry_out(self._static_step)
            self.num_warm += 1
        else:
            self.replay()
        self._set(lr=rate)
        assert self.terms is not None
        return dict(zip(self.names, self.terms.clone().unbind(), strict=True))  # the next step writes over the buffer

    def _fill(self, batch: Tensor, theta: Tensor, rate: float) -> None:
        if self.batch is None or self.theta is None:
            self.batch = torch.empty_like(batch)
            self.theta = torch.empty_like(theta, device=self.device)
        assert self.batch.shape == batch.shape
        assert self.theta.shape == theta.shape
        self.batch.copy_(batch, non_blocking=True)
        self.theta.copy_(theta, non_blocking=True)
        self.rate.fill_(rate)

    def _static_step(self) -> None:
        """From the buffers into the buffers. Nothing that is made here outlives it: a replay uses its memory again."""
        assert self.batch is not None
        assert self.theta is not None
        terms = self._gradients(self.batch, self.theta)
        self.update(self.rate)
        self.optimizer.zero_grad(set_to_none=True)
        if self.terms is None:  # the first step of all, which is not recorded
            self.names = tuple(terms)
            self.terms = torch.empty(len(terms), device=self.device, dtype=terms["loss"].dtype)
        torch.stack([value.detach() for value in terms.values()], out=self.terms)

    def _record(self) -> bool:
        """Whether the step has been recorded; what is recorded is not carried out, so the state is that of before."""
        began = time.perf_counter()
        try:
            self._set(capturable=True)  # torch's AdamW insists
            self.replay = self.recorder.record(self._static_step)
        except Exception as error:  # whatever CUDA and the libraries may refuse: the plain step has the last word
            self.run_uncompiled()
            self.batch = self.theta = self.terms = None
            self.notice(
                f"the step could not be captured as a CUDA graph and runs uncompiled ({first_line(_first_of(error))})"
            )
        else:
            self.notice(f"captured the training step as a CUDA graph in {time.perf_counter() - began:.1f} s")
        finally:
            self._set(capturable=False)
        return self.replay is not None

    def _set(self, **options: object) -> None:
        """Give the optimizer options that it has, in all its groups."""
        for group in self.optimizer.param_groups:
            group.update({name: value for name, value in options.items() if name in group})


def _first_of(error: BaseException) -> BaseException:
    """The error that others followed: where CUDA breaks off, the end of the recording fails as well."""
    while error.__context__ is not None:
        error = error.__context__
    return error
