"""MoCo (He et al., CVPR 2020, arXiv 1911.05722): a view attracts the other view's key and repels a queue of old keys.

The symmetric form, in which each view is query and key once (the authors' code for CIFAR-10). The queue and the
momentum encoder move once a step, after both halves, so that no key is a negative of its own image in the same step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cssl_cli.methods import Method, copy_weights, directions, momentum_copy, move_towards
from cssl_cli.nn import batch_norm
from cssl_cli.nn.encoder import MLP
from cssl_cli.nn.log_sum_exp import log_sum_exp_over_keys
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe.ranges import Count, Decay, Disagreement, Positive, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """He et al., arXiv 1911.05722, symmetric: contrast with a queue of keys of a momentum encoder"""

    temperature: Positive = 0.1
    """what the cosine similarities are divided by"""
    queue: Count = 4096
    """keys in the queue, to which each image of a batch adds two"""
    ema_momentum: Decay = 0.99
    """share of its weights that the momentum encoder keeps at each step"""
    batch_norm_splits: Count = 8
    """sub-batches that the encoder's batch norms normalise apart; 1: plain batch norm"""
    projector: Widths = (512, 128)
    """widths of the projector's layers, the last one P"""

    def check_batches(self, batch_size: int, micro_batch: int | None) -> None:
        """Raises `Disagreement` where a batch cannot be cut into the sub-batches, or its keys overflow the queue."""
        splits = self.batch_norm_splits
        if batch_size % splits:
            raise Disagreement(
                f"has a batch_size of {batch_size}, which method.batch_norm_splits does not divide, {splits}; "
                f"give method.batch_norm_splits=1, or as batch_size a multiple of {splits}",
                *("train.batch_size", "method.batch_norm_splits"),
            )
        if splits > 1 and batch_size < 2 * splits:
            raise Disagreement(
                f"has a batch_size of {batch_size}, which leaves a single image to each of the sub-batches of "
                f"method.batch_norm_splits, {splits}; give at most method.batch_norm_splits={max(batch_size // 2, 1)}",
                *("train.batch_size", "method.batch_norm_splits"),
            )
        of_split = batch_size // splits
        if micro_batch is not None and micro_batch % of_split:
            raise Disagreement(
                f"has a micro_batch of {micro_batch}, which cuts the sub-batches of {of_split} images of "
                f"method.batch_norm_splits, {splits}; give method.batch_norm_splits={batch_size // micro_batch}",
                *("train.micro_batch", "method.batch_norm_splits"),
            )
        if self.queue < 2 * batch_size:
            raise Disagreement(
                f"has a batch_size of {batch_size}, whose {2 * batch_size} keys do not fit into method.queue, "
                f"{self.queue}; give method.queue={2 * batch_size} or more",
                *("train.batch_size", "method.queue"),
            )


def queue_info_nce_terms(
    queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """The two parts of InfoNCE with a queue (MoCo, equation 1), whose sum is the loss.

    Queries and keys are (B, P), of any norm; the queue (K, P) holds K keys of unit norm. With s a query's cosine
    similarity divided by the temperature, s₊ to its own key: the alignment part is −mean s₊, in ±1/temperature; the
    divergence part is mean log(exp s₊ + Σ_queue exp s).
    Of several `ranks`, each has the queries and keys of its images, all have the same queue, and each gets its share.
    """
    queries = directions(queries)
    keys = directions(keys)
    positive = (queries * keys).sum(dim=1) / temperature
    negative = log_sum_exp_over_keys(queries, queue, temperature=temperature)
    return -ranks.share_of_mean(positive), ranks.share_of_mean(torch.logaddexp(positive, negative))


def queue_info_nce_loss(queries: Tensor, keys: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE of (B, P) queries and keys against a queue (K, P): a scalar, log(K + 1) when all coincide."""
    alignment, divergence = queue_info_nce_terms(queries, keys, queue, temperature=temperature)
    return alignment + divergence


def deal(images: Tensor, num_hands: int, *, num_batches: int = 1) -> Tensor:
    """The B images of a batch as cards dealt to `num_hands`, hand after hand: image i goes to hand i mod `num_hands`.

    Cut into runs of B/`num_hands`, two images that lie side by side come into different runs, and those of a run
    of the given order are spread over all. Several batches, one after the other, are dealt each by itself.
    """
    return images.unflatten(0, (num_batches, -1, num_hands)).transpose(1, 2).flatten(0, 2)


def undeal(z: Tensor, num_hands: int, *, num_batches: int = 1) -> Tensor:
    """Undoes `deal`."""
    return z.unflatten(0, (num_batches, num_hands, -1)).transpose(1, 2).flatten(0, 2)


class MoCo(Method):
    """Encoder and projector (an MLP without batch norm) for the queries, their momentum copies for the keys, a queue.

    The queue is a ring of keys, the oldest of which give way: the keys of both views, 2B a step. Batch norm sees the
    B images of one view, in `batch_norm_splits` sub-batches. Those of the queries are dealt out and those of the keys
    are not, so that an image has other company as query than as key, and cannot be told by the statistics of its
    sub-batch (MoCo, section 3.3; there the keys are shuffled at random).
    """

    shares = True

    queue: Tensor
    queue_position: Tensor
    new_keys: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: tuple[int, ...],
        temperature: float,
        queue_length: int,
        ema_momentum: float,
        batch_norm_splits: int,
    ) -> None:
        super().__init__()
        if batch_norm_splits > 1:
            batch_norm.split_batch_norms(encoder, batch_norm_splits, num_views=2)
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, projector, batch_norm=False)
        self.momentum_encoder = momentum_copy(self.encoder)
        self.momentum_projector = momentum_copy(self.projector)
        self.register_buffer("queue", torch.empty(queue_length, projector[-1]))
        self.register_buffer("queue_position", torch.zeros((), dtype=torch.long))
        self.temperature = temperature
        self.ema_momentum = ema_momentum
        self.batch_norm_splits = batch_norm_splits
        # From a forward pass to the end of its step; always the same memory, so that a captured step finds it.
        self.register_buffer("new_keys", torch.empty_like(self.queue), persistent=False)
        self.num_new_keys = 0

    def after_initialization(self, generator: torch.Generator) -> None:
        """The copies begin equal, the queue with random directions."""
        copy_weights(self.momentum_encoder, self.encoder)
        copy_weights(self.momentum_projector, self.projector)
        self.queue.copy_(F.normalize(torch.randn(self.queue.shape, generator=generator), dim=1))
        self.queue_position.zero_()

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        # Whole batch norms see one view at a time; those of sub-batches can take both in one pass: half the kernels,
        # but twice as much to keep.
        in_one_pass = self.batch_norm_splits > 1 and not getattr(self.encoder, "keeps_less", False)
        together = in_one_pass and batch_norm.launch_bound(view_1)
        passes = [(view_1, view_2)] if together else [(view_1,), (view_2,)]
        keys = torch.cat([self.keys(*views) for views in passes])
        queries = [self.queries(*views) for views in passes]
        of_other_view = keys.roll(len(view_1), dims=0).chunk(len(passes))
        with torch.autocast(view_1.device.type, enabled=False):
            parts = [
                queue_info_nce_terms(*both, self.queue, temperature=self.temperature, ranks=self.ranks)
                for both in zip(queries, of_other_view, strict=True)
            ]
            alignment, divergence = (torch.stack(terms).mean() for terms in zip(*parts, strict=True))
        of_all = keys if self.ranks.alone else torch.cat([self.ranks.rows_of_all(part) for part in keys.chunk(2)])
        self.new_keys[: len(of_all)].copy_(of_all)
        self.num_new_keys = len(of_all)
        return {"loss": alignment + divergence, "alignment": alignment, "divergence": divergence}

    def queries(self, *views: Tensor) -> Tensor:
        """Projections (B, P) of any norm, of each view after the other."""
        if not self.ranks.alone and self.batch_norm_splits > 1:
            return self._queries_over_ranks(*views)
        splits, pixels = self.batch_norm_splits, _joined(views).permute(0, 2, 3, 1)
        dealt = deal(pixels, splits, num_batches=len(views)).permute(0, 3, 1, 2)  # in channels_last, as views are
        return undeal(self.projector(self.encoder(dealt)), splits, num_batches=len(views))

    def _queries_over_ranks(self, *views: Tensor) -> Tensor:
        """The same of this rank's images, which are dealt out to the ranks: each projects others than its own."""
        splits, ranks = self.batch_norm_splits, self.ranks
        dealt = [ranks.own_rows(deal(ranks.rows_of_all(view.permute(0, 2, 3, 1)), splits)) for view in views]
        z = self.projector(self.encoder(torch.cat(dealt).permute(0, 3, 1, 2)))
        return torch.cat([ranks.own_rows(undeal(ranks.rows_of_all(part), splits)) for part in z.chunk(len(views))])

    @torch.no_grad()
    def keys(self, *views: Tensor) -> Tensor:
        """Projections (B, P) of the momentum encoder, of unit norm, of each view after the other."""
        z = self.momentum_projector(self.momentum_encoder(_joined(views)))
        with torch.autocast(z.device.type, enabled=False):
            return directions(z)

    @torch.no_grad()
    def after_step(self) -> None:
        """The momentum copies follow the new weights, and the step's keys enter the queue."""
        move_towards(self.momentum_encoder, self.encoder, ema_momentum=self.ema_momentum)
        move_towards(self.momentum_projector, self.projector, ema_momentum=self.ema_momentum)
        assert self.num_new_keys, "a step begins with a forward pass"
        self._enqueue(self.new_keys[: self.num_new_keys])

    def _enqueue(self, keys: Tensor) -> None:
        # Positions stay on the device, where nothing waits for them; the queue's end need not be that of a batch.
        positions = (self.queue_position + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, positions, keys)
        self.queue_position.copy_((self.queue_position + len(keys)) % len(self.queue))


def _joined(views: tuple[Tensor, ...]) -> Tensor:
    return views[0] if len(views) == 1 else torch.cat(views)


def build(encoder: Encoder, settings: Settings) -> MoCo:
    """MoCo as the recipe's `method` block says."""
    return MoCo(
        encoder,
        projector=settings.projector,
        temperature=settings.temperature,
        queue_length=settings.queue,
        ema_momentum=settings.ema_momentum,
        batch_norm_splits=settings.batch_norm_splits,
    )
