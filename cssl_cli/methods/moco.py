"""MoCo (He et al., CVPR 2020, arXiv 1911.05722): a view attracts the other view's key and repels a queue of old keys.

The symmetric form, in which each view is query and key once (the authors' code for CIFAR-10). The queue and the
momentum encoder move once a step, after both halves, so that no key is a negative of its own image in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.batch_norm import split_batch_norms
from cssl_cli.encoder import MLP
from cssl_cli.log_sum_exp import log_sum_exp_over_keys
from cssl_cli.methods import Method, copy_weights, directions, momentum_copy, move_towards


def queue_info_nce_terms(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The two parts of InfoNCE with a queue (MoCo, equation 1), whose sum is the loss.

    Queries and keys are (B, P), of any norm; the queue (K, P) holds K keys of unit norm. With s a query's cosine
    similarity divided by the temperature, s₊ to its own key: the alignment part is −mean s₊, in ±1/temperature; the
    divergence part is mean log(exp s₊ + Σ_queue exp s).
    """
    queries = directions(queries)
    keys = directions(keys)
    positive = (queries * keys).sum(dim=1) / temperature
    negative = log_sum_exp_over_keys(queries, queue, temperature=temperature)
    return -positive.mean(), torch.logaddexp(positive, negative).mean()


def queue_info_nce_loss(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE of (B, P) queries and keys against a queue (K, P): a scalar, log(K + 1) when all coincide."""
    alignment, divergence = queue_info_nce_terms(queries, keys, queue, temperature=temperature)
    return alignment + divergence


def deal(images: Tensor, num_hands: int) -> Tensor:
    """The B images as cards dealt to `num_hands`, hand after hand: image i goes to hand i mod `num_hands`.

    Cut into runs of B/`num_hands`, two images that lie side by side come into different runs, and those of a run
    of the given order are spread over all.
    """
    return torch.cat([images[hand::num_hands] for hand in range(num_hands)])


def undeal(z: Tensor, num_hands: int) -> Tensor:
    """Undoes `deal`."""
    return torch.stack(z.chunk(num_hands), dim=1).flatten(0, 1)


class MoCo(Method):
    """Encoder and projector (an MLP without batch norm) for the queries, their momentum copies for the keys, a queue.

    The queue is a ring of keys, the oldest of which give way: the keys of both views, 2B a step. Batch norm sees the
    B images of one view, in `batch_norm_splits` sub-batches. Those of the queries are dealt out and those of the keys
    are not, so that an image has other company as query than as key, and cannot be told by the statistics of its
    sub-batch (MoCo, section 3.3; there the keys are shuffled at random).
    """

    queue: Tensor
    queue_position: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projector: tuple[int, ...],
        temperature: float,
        queue_length: int,
        ema_momentum: float,
        batch_norm_splits: int,
    ) -> None:
        super().__init__()
        if batch_norm_splits > 1:
            split_batch_norms(encoder, batch_norm_splits)
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=False)  # type: ignore[arg-type]
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_projector = momentum_copy(self.projector)
        self.register_buffer("queue", torch.empty(queue_length, projector[-1]))
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.long))
        self.temperature = temperature
        self.ema_momentum = ema_momentum
        self.batch_norm_splits = batch_norm_splits
        self.new_keys: Tensor | None = None  # from a forward pass to the end of its step

    def after_initialization(self, generator: torch.Generator) -> None:
        """The copies begin equal, the queue with random directions."""
        copy_weights(self.momentum_encoder, self.encoder)
        copy_weights(self.momentum_projector, self.projector)
        self.queue.copy_(F.normalize(torch.randn(self.queue.shape, generator=generator), dim=1))
        self.queue_position.zero_()

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        keys_1, keys_2 = self.keys(view_1), self.keys(view_2)
        queries_1, queries_2 = self.queries(view_1), self.queries(view_2)
        with torch.autocast(view_1.device.type, enabled=False):
            halves = [
                queue_info_nce_terms(queries, keys, self.queue, temperature=self.temperature)
                for queries, keys in [(queries_1, keys_2), (queries_2, keys_1)]
            ]
            alignment, divergence = (torch.stack(parts).mean() for parts in zip(*halves, strict=True))
        self.new_keys = torch.cat([keys_1, keys_2])
        return {"loss": alignment + divergence, "alignment": alignment, "divergence": divergence}

    def queries(self, view: Tensor) -> Tensor:
        """Projections (B, P) of any norm."""
        return undeal(self.projector(self.encoder(deal(view, self.batch_norm_splits))), self.batch_norm_splits)

    @torch.no_grad()
    def keys(self, view: Tensor) -> Tensor:
        """Projections (B, P) of the momentum encoder, of unit norm."""
        z = self.momentum_projector(self.momentum_encoder(view))
        with torch.autocast(view.device.type, enabled=False):
            return directions(z)

    @torch.no_grad()
    def after_step(self) -> None:
        """The momentum copies follow the new weights, and the step's keys enter the queue."""
        move_towards(self.momentum_encoder, self.encoder, ema_momentum=self.ema_momentum)
        move_towards(self.momentum_projector, self.projector, ema_momentum=self.ema_momentum)
        assert self.new_keys is not None, "a step begins with a forward pass"
        self._enqueue(self.new_keys)
        self.new_keys = None

    def _enqueue(self, keys: Tensor) -> None:
        assert len(keys) <= len(self.queue), f"{len(keys)} keys in a queue of {len(self.queue)}"
        # Positions stay on the device, where nothing waits for them; the queue's end need not be that of a batch.
        positions = (self.queue_position + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, positions, keys)
        self.queue_position.copy_((self.queue_position + len(keys)) % len(self.queue))


def build(encoder: nn.Module, settings: Mapping[str, Any]) -> MoCo:
    """MoCo as the recipe's `method` block says."""
    return MoCo(
        encoder,
        projector=settings["projector"],
        temperature=settings["temperature"],
        queue_length=settings["queue"],
        ema_momentum=settings["ema_momentum"],
        batch_norm_splits=settings["batch_norm_splits"],
    )
