"""The processes that train one encoder together, and what they exchange: sums, largest numbers, rows.

Each rank has an equal run of the images of a batch. What it computes of a loss is its *share*: the shares of all ranks
add up to the loss of the whole batch, and the gradients of a rank's weights, added up over the ranks, are those of one
process that has the whole batch. Nothing is ever averaged over ranks afterwards, so that no factor can be lost.

Every exchange is an operator (operators.py), so that compiled code sees a single call. All ranks make the same ones
in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cssl_cli.nn.operators import define_operator

NEVER = torch.iinfo(torch.int64).max


class ExchangeError(Exception):
    """An exchange failed: another rank is gone, or the network is."""


class Group(Protocol):
    """What a `torch.distributed.ProcessGroup` can do and is needed here."""

    def allreduce(self, tensors: list[Tensor], operation: Any, /) -> Any: ...

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], /) -> Any: ...


class _Exchange:
    """Exchanges over a group, and the number of the first one into which this rank gave what is not finite."""

    def __init__(self, group: Group) -> None:
        from torch.distributed import ReduceOp  # which takes a while to import

        self.group, self.operations = group, ReduceOp
        self.num = 0
        self.first_not_finite: Tensor | None = None

    def sum(self, x: Tensor) -> Tensor:
        self.look_at(x)
        return self._reduced(x, self.operations.SUM)

    def largest(self, x: Tensor) -> Tensor:
        return self._reduced(x, self.operations.MAX)

    def rows(self, x: Tensor, size: int) -> Tensor:
        self.look_at(x)
        parts = x.new_empty((size, *x.shape))
        self._done(lambda: self.group.allgather([list(parts)], [x.contiguous()]))
        return parts.flatten(0, 1)

    def look_at(self, x: Tensor) -> None:
        """Note the number of this exchange if an entry is infinite or undefined; nothing waits for the device."""
        self.num += 1
        if self.first_not_finite is None or self.first_not_finite.device != x.device:
            self.first_not_finite = torch.full((), NEVER, dtype=torch.int64, device=x.device)
        if x.is_floating_point():
            number = torch.where(torch.isfinite(x).all(), NEVER, self.num)
            torch.minimum(self.first_not_finite, number, out=self.first_not_finite)

    def _reduced(self, x: Tensor, operation: Any) -> Tensor:
        made = x.clone(memory_format=torch.contiguous_format)
        self._done(lambda: self.group.allreduce([made], operation))
        return made

    @staticmethod
    def _done(start: Any) -> None:
        try:
            start().wait()
        except RuntimeError as error:
            raise ExchangeError(str(error).strip().partition("\n")[0]) from error


_EXCHANGES: list[_Exchange] = []


@dataclass(frozen=True)
class Ranks:
    """This process as `rank` of `size`; `key` says over which group. A single process exchanges nothing.

    B is the number of images of the whole batch, b = B / `size` that of this rank, whose images follow those of the
    ranks before.
    """

    rank: int = 0
    size: int = 1
    key: int = -1
    names: tuple[str, ...] = ()

    @classmethod
    def over(cls, group: Group, rank: int, size: int, names: Sequence[str] = ()) -> Ranks:
        """The ranks of a process group. `names` are what messages call them."""
        _EXCHANGES.append(_Exchange(group))
        return cls(rank, size, len(_EXCHANGES) - 1, tuple(names))

    @property
    def alone(self) -> bool:
        return self.size == 1

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks of x, the same on all; differentiable."""
        return x if self.alone else torch.ops.cssl.sum_over_ranks(x, self.key)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over ranks of x, the same on all; differentiable."""
        return x if self.alone else self.sum(x) / self.size

    def share_of_mean(self, x: Tensor) -> Tensor:
        """This rank's share of the mean over the whole batch of a number (b) for each of its images."""
        return x.mean() if self.alone else x.mean() / self.size

    def share(self, x: Tensor) -> Tensor:
        """This rank's share of what all ranks have computed alike."""
        return x if self.alone else x / self.size

    def largest(self, x: Tensor) -> Tensor:
        """The largest over ranks of each entry of x, without a gradient."""
        return x if self.alone else torch.ops.cssl.largest_over_ranks(x.detach(), self.key)

    def rows_of_all(self, x: Tensor) -> Tensor:
        """The rows (B, …) of all ranks, in their order, from those of this one (b, …); differentiable."""
        return x if self.alone else torch.ops.cssl.rows_of_ranks(x, self.key, self.rank, self.size)

    def own_rows(self, x: Tensor) -> Tensor:
        """The rows (b, …) of this rank out of those of all (B, …)."""
        return x if self.alone else x.chunk(self.size)[self.rank]

    def name(self, rank: int) -> str:
        """What messages call a rank."""
        return self.names[rank] if self.names else f"rank {rank}"

    def first_not_finite(self) -> int:
        """The number of the first exchange into which this rank gave an infinite or undefined number, else `NEVER`."""
        number = None if self.alone else _EXCHANGES[self.key].first_not_finite
        return NEVER if number is None else int(number)


ALONE = Ranks()


@torch.no_grad()
def sum_over_ranks_(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    """Replace each tensor by its sum over ranks, in one exchange for each kind of number."""
    if ranks.alone:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for alike in by_dtype.values():
        together = ranks.sum(torch.cat([tensor.reshape(-1) for tensor in alike]))
        parts = together.split([tensor.numel() for tensor in alike])
        torch._foreach_copy_(alike, [part.view(tensor.shape) for part, tensor in zip(parts, alike, strict=True)])


# ---------------------------------------------------------------------- as operators
def _sum(x: Tensor, key: int) -> Tensor:
    return _EXCHANGES[key].sum(x)


def _keep_key(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.ranks = inputs[1:]


def _pull_sum(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return torch.ops.cssl.sum_over_ranks(gradient, *ctx.ranks), None


def _rows(x: Tensor, key: int, rank: int, size: int) -> Tensor:  # noqa: ARG001
    return _EXCHANGES[key].rows(x, size)


def _pull_rows(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    key, rank, size = ctx.ranks
    return torch.ops.cssl.sum_over_ranks(gradient, key).chunk(size)[rank].contiguous(), None, None, None


define_operator(
    "sum_over_ranks",
    "(Tensor x, int key) -> Tensor",
    _sum,
    shapes=lambda x, _: x.new_empty(x.shape),
    backward=_pull_sum,
    keep=_keep_key,
)
define_operator(
    "largest_over_ranks",
    "(Tensor x, int key) -> Tensor",
    lambda x, key: _EXCHANGES[key].largest(x),
    shapes=lambda x, _: x.new_empty(x.shape),
)
define_operator(
    "rows_of_ranks",
    "(Tensor x, int key, int rank, int size) -> Tensor",
    _rows,
    shapes=lambda x, _, __, size: x.new_empty((size * x.shape[0], *x.shape[1:])),
    backward=_pull_rows,
    keep=_keep_key,
)
