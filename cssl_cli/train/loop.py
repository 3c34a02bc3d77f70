"""The training loop over one step of static shape. It yields after every step and does no I/O.

It does not wait for the device at each step: the loss terms of an epoch accumulate in a tensor, which is read every
`CHECK_INTERVAL` steps or `CHECK_SECONDS`, at the end of the epoch and before a checkpoint. An infinite or undefined
loss is found then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cssl_cli.augment import Augmentation
from cssl_cli.data.batches import Images
from cssl_cli.errors import InputError, RunError
from cssl_cli.methods import Method
from cssl_cli.nn.batch_norm import share_batch_norms
from cssl_cli.nn.ranks import ALONE, NEVER, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.train.captured_step import CapturedStep
from cssl_cli.train.optimizers import build_optimizer, learning_rate
from cssl_cli.train.step import Compiled, Notice, TrainingStep
from cssl_cli.train.theta_ahead import ThetaAhead

CHECK_INTERVAL = 50  # steps
CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class Plan:
    """How long a run lasts: every epoch is `steps_per_epoch` full batches of a fresh order, the rest left out."""

    num_images: int
    batch_size: int
    num_steps: int
    warmup_steps: int

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.batch_size

    @property
    def num_epochs(self) -> int:
        """Epochs begun by the end of the run, the last one perhaps partly."""
        return -(-self.num_steps // self.steps_per_epoch)


def make_plan(*, num_images: int, batch_size: int, epochs: int | None, steps: int | None, warmup_epochs: float) -> Plan:
    """The plan of a run of so many `epochs` or `steps` (exactly one is given).

    Raises `InputError` when a batch needs more images than there are, or the warm-up would outlast the run.
    """
    assert (epochs is None) != (steps is None), "exactly one of epochs and steps"
    if epochs == 0:
        raise InputError("there is nothing to train in 0 epochs", where="train.epochs", remedy="Give more epochs.")
    if batch_size > num_images:
        raise InputError(
            f"a batch of {batch_size} needs more images than the {num_images} there are to train on",
            where="train.batch_size",
            remedy=f"Give train.batch_size={num_images}, or less.",
        )
    steps_per_epoch = num_images // batch_size
    num_steps = (epochs or 0) * steps_per_epoch if steps is None else steps
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if warmup_steps >= num_steps:
        raise InputError(
            f"a warm-up of {warmup_steps} steps leaves nothing of a run of {num_steps} steps",
            where="optim.warmup_epochs",
            remedy="Shorten the warm-up or lengthen the run.",
        )
    return Plan(num_images, batch_size, num_steps, warmup_steps)


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch came to, or has come to so far: the mean of each loss term over its steps, and how fast it went.

    `images_per_second` counts images, not views; it and `seconds` cover the steps done by this process.
    """

    epoch: int
    step: int
    terms: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float
    device_memory_mb: float | None


@dataclass(frozen=True)
class StepDone:
    """Yielded after each step, with a record now and then and where it `ends_epoch` (or the run)."""

    step: int
    record: EpochRecord | None
    ends_epoch: bool


class Trainer:
    """A run in progress: everything that changes from step to step, and the step itself.

    `images` gives batches of the plan's images. `order` and `augment` are the run's random streams for the order of
    the images and for the parameters of their views. `state_dict` holds all that is needed to go on exactly.
    `precision`, `compiled` and `notice` as of `TrainingStep`. `seed_of_step` seeds torch's global generators for each
    step of an encoder that `draws` from them (dropout).

    With several `ranks` this is one of as many trainers that are alike, each with its part of every batch: the plan,
    the streams and the state are those of one trainer, which can go on with any number of them.
    """

    def __init__(
        self,
        method: Method,
        augmentation: Augmentation,
        images: Images,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        optim: Mapping[str, Any],
        plan: Plan,
        precision: torch.dtype,
        device: torch.device,
        order: torch.Generator,
        augment: torch.Generator,
        compiled: Compiled = False,
        notice: Notice = lambda _: None,
        seed_of_step: Callable[[int], int] = lambda step: step,
        ranks: Ranks = ALONE,
    ) -> None:
        self.device = device
        self.ranks = method.ranks = ranks
        if not ranks.alone:
            if not method.shares:
                raise InputError(
                    f"{type(method).__name__} is trained by one process, and {ranks.size} were started",
                    where="method.name",
                    remedy="Train with one process, or teach it its share (docs/how-to/add-a-method.md).",
                )
            share_batch_norms(method, ranks, in_parts=method.encoder.micro_batch is not None)
        self.method = method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method.before_training(plan.num_steps)
        self.augmentation = augmentation
        self.images = images
        self.optim = optim
        self.optimizer = build_optimizer(self.method, optim)
        step_class = CapturedStep if compiled == "graph" else partial(TrainingStep, compiled=compiled)
        self.training_step = step_class(
            self.method,
            augmentation,
            self.optimizer,
            mean=mean,
            std=std,
            precision=precision,
            device=device,
            notice=notice,
        )
        self.plan = plan
        self.precision = precision
        self.order = order
        self.seed_of_step = seed_of_step
        self.draws = any(module.draws for module in self.method.modules() if isinstance(module, Encoder))
        self.theta = ThetaAhead(augmentation.draw_pairs if ranks.alone else self._draw_own, augment, device)
        self.step = 0
        self.epoch_order_state = order.get_state()
        self.epoch_terms: dict[str, Tensor] = {}

    # ------------------------------------------------------------------ the loop
    def run(self) -> Iterator[StepDone]:
        """Train to the end of the plan, from wherever the state stands."""
        self.method.train()
        while self.step < self.plan.num_steps:
            permutation = self._begin_epoch()
            first, started = self.step, time.perf_counter()
            checked = started
            for batch in self.images.batches(self._rest_of_epoch(permutation)):
                self._train_step(batch)
                position = self.step % self.plan.steps_per_epoch
                ends_epoch = position == 0 or self.step == self.plan.num_steps
                due = self.step % CHECK_INTERVAL == 0 or time.perf_counter() - checked >= CHECK_SECONDS
                record = None
                if due or ends_epoch:
                    if not self.ranks.alone and (ends_epoch or self.step % CHECK_INTERVAL == 0):
                        self._check_ranks()
                    record = self._epoch_record(started, self.step - first)
                    checked = time.perf_counter()
                if ends_epoch:
                    self._count_batches()
                yield StepDone(self.step, record, ends_epoch)

    def _rest_of_epoch(self, permutation: Tensor) -> Sequence[Tensor]:
        """The indices (B,) of the batches from `step` to the end of its epoch or of the run."""
        begin = self.step % self.plan.steps_per_epoch
        end = min(self.plan.steps_per_epoch, begin + self.plan.num_steps - self.step)
        batches = permutation[begin * self.plan.batch_size : end * self.plan.batch_size].split(self.plan.batch_size)
        return [self.ranks.own_rows(batch) for batch in batches]

    def _begin_epoch(self) -> Tensor:
        """The order of the images in the epoch that `step` lies in; the same again after a resume within it."""
        if self.step % self.plan.steps_per_epoch == 0:
            self.epoch_order_state = self.order.get_state()
            self.epoch_terms = {}
        else:
            self.order.set_state(self.epoch_order_state)
        return torch.randperm(self.plan.num_images, generator=self.order)

    def _train_step(self, batch: Tensor) -> None:
        position = self.step % self.plan.steps_per_epoch
        theta = self.draw_theta(len(batch))
        with global_randomness(self.seed_of_step(self.step) if self.draws else None):
            terms = self.training_step(batch, theta, self.current_learning_rate())
        self._collect(terms, position)
        self.step += 1

    def _draw_own(self, num_images: int, generator: torch.Generator) -> Tensor:
        """theta (2b, P) of this rank's images, out of what is drawn for those of all."""
        sides = self.augmentation.draw_pairs(self.ranks.size * num_images, generator).chunk(2)
        return torch.cat([self.ranks.own_rows(side) for side in sides])

    def draw_theta(self, num_images: int) -> Tensor:
        """theta (2B, P) of two views of each of B images, on the device, which is not waited for."""
        return self.theta.take(num_images)

    def current_learning_rate(self) -> float:
        """The learning rate of the coming step."""
        return learning_rate(
            self.step,
            base=self.optim["lr"],
            schedule=self.optim["schedule"],
            warmup_steps=self.plan.warmup_steps,
            num_steps=self.plan.num_steps,
        )

    # ------------------------------------------------------------------ what came out
    def _collect(self, terms: Mapping[str, Tensor], position: int) -> None:
        for name, value in terms.items():
            if name not in self.epoch_terms:
                self.epoch_terms[name] = torch.zeros(self.plan.steps_per_epoch, device=value.device)
            self.epoch_terms[name][position] = value.detach()

    def _epoch_record(self, started: float, num_steps: int) -> EpochRecord:
        if self.ranks.alone:
            self.check_finite()
        elif self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # so that the clock is read when the steps are done
        seconds = time.perf_counter() - started
        done = (self.step - 1) % self.plan.steps_per_epoch + 1
        memory = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else None
        return EpochRecord(
            epoch=-(-self.step // self.plan.steps_per_epoch),
            step=self.step,
            terms={name: values[:done].double().mean().item() for name, values in self.epoch_terms.items()},
            learning_rate=self.optimizer.param_groups[0]["lr"],
            images_per_second=num_steps * self.plan.batch_size / seconds,
            seconds=seconds,
            device_memory_mb=memory,
        )

    def check_finite(self) -> None:
        """Raise `RunError`, naming step and term, if a loss term or a weight is not a finite number."""
        weights = [tensor for tensor in self.method.state_dict().values() if tensor.is_floating_point()]
        # The largest magnitude of each: with a few kernels for all, and one wait.
        largest = torch.stack(torch._foreach_norm([*self.epoch_terms.values(), *weights], ord=math.inf))
        if torch.isfinite(largest).all():
            return
        for name, values in self.epoch_terms.items():
            bad = torch.nonzero(~torch.isfinite(values))
            if len(bad):
                position = int(bad[0])
                step = (self.step - 1) // self.plan.steps_per_epoch * self.plan.steps_per_epoch + position + 1
                raise _not_finite(
                    f"the term {name!r} became {values[position].item()}", step, of_initial_weights=step == 1
                )
        raise _not_finite("a weight became infinite or undefined", self.step)

    def is_finite(self) -> bool:
        """Whether all loss terms and weights are finite numbers."""
        try:
            self.check_finite()
        except RunError:
            return False
        return True

    def _check_ranks(self) -> None:
        """`RunError` if a term or weight is not finite, naming the rank it came from, or if weights differ.

        All ranks call it at the same step.
        """
        bits = [
            weight.detach().flatten().view(torch.uint8).sum(dtype=torch.int64) for weight in self.method.parameters()
        ]
        first = torch.tensor(self.ranks.first_not_finite(), device=self.device)
        found = self.ranks.rows_of_all(torch.stack([first, torch.stack(bits).sum()]).unsqueeze(0)).cpu()
        try:
            self.check_finite()
        except RunError as error:
            if found[:, 0].min() < NEVER:
                error.what += f", first on {self.ranks.name(int(found[:, 0].argmin()))}"
            raise
        for rank, differs in enumerate((found[:, 1] != found[0, 1]).tolist()):
            if differs:
                raise RunError(
                    f"the weights of {self.ranks.name(rank)} are not those of {self.ranks.name(0)} at step {self.step}",
                    remedy="Its machine computes wrongly, or is of another kind. Go on without it.",
                )

    def _count_batches(self) -> None:
        """Set what torch's batch norms count, where they leave it alone in a step (`batch_norm.py`), as torch would."""
        for name, buffer in self.method.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(self.step * self.method.num_passes)

    # ------------------------------------------------------------------ going on later
    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly; raises `RunError` rather than return a state that is not finite."""
        self.check_finite()
        self._count_batches()
        return {
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "epoch_order": self.epoch_order_state,
            "augment": self.theta.state,
            "epoch_terms": self.epoch_terms,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of a trainer built from the same recipe."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["epoch_order"])  # which refuses what is no state, before it is needed
        self.order.set_state(state["order"])
        self.epoch_order_state = state["epoch_order"]
        self.theta.go_on_from(state["augment"])
        self.epoch_terms = {name: values.to(self.device) for name, values in state["epoch_terms"].items()}
        if any(values.shape != (self.plan.steps_per_epoch,) for values in self.epoch_terms.values()):
            raise ValueError("the terms are not those of an epoch")
        self.step = state["step"]


@contextmanager
def global_randomness(seed: int | None) -> Iterator[None]:
    """Torch's global generators for one step, at a state that follows from its number: none has to be saved.

    None for a step that does not draw from them.
    """
    if seed is None:
        yield
        return
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)  # the device's generator, too
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


def _not_finite(what: str, step: int, *, of_initial_weights: bool = False) -> RunError:
    remedy = "Lower optim.lr, raise optim.warmup_epochs, or try train.precision=float32."
    if of_initial_weights:  # no learning rate had a part in them
        remedy = "No step had been taken: look at the method's settings, or try train.precision=float32."
    return RunError(f"{what} at step {step}", remedy=remedy)
