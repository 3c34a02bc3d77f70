"""What ranks exchange: sums, rows, batch norms and log-sum-exps, against one process with all of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cssl_cli.errors import InputError
from cssl_cli.nn.batch_norm import BatchNorm1d, BatchNorm2d, SplitBatchNorm2d, share_batch_norms
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products, log_sum_exp_of_t_kernel
from cssl_cli.nn.ranks import ALONE, NEVER, Ranks, sum_over_ranks_
from tests.support.small_methods import normal
from tests.support.tensor_sizes import largest_tensor
from tests.support.thread_ranks import on_ranks


def group_of_one() -> Ranks:
    """A rank that exchanges with itself, as operators are tested with."""
    options = dist.ProcessGroupGloo._Options()
    options._devices = [dist.ProcessGroupGloo.create_device(interface="lo")]
    return Ranks.over(dist.ProcessGroupGloo(dist.HashStore(), 0, 1, options), 0, 1)


def close(actual: Tensor, expected: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=within, atol=within)


# ---------------------------------------------------------------------- sums and rows
@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_and_rows_and_their_gradients(size: int) -> None:
    """The loss Σ_ranks w_r · f(Σx, rows of all), whose gradient is known."""
    every = normal(6, 2, seed=1).double()
    weights = normal(6, 2, seed=2).double()

    def work(ranks: Ranks) -> tuple[Tensor, ...]:
        x = ranks.own_rows(every).clone().requires_grad_()
        total, rows = ranks.sum(x.sum(dim=0)), ranks.rows_of_all(x)
        (ranks.share(total.square().sum()) + ranks.share((rows * weights).sum())).backward()
        assert x.grad is not None
        return total, rows, x.grad, ranks.mean(x.detach().mean(dim=0)), ranks.largest(x.amax(dim=0))

    found = on_ranks(size, work)
    for rank, (total, rows, gradient, mean, largest) in enumerate(found):
        close(total, every.sum(dim=0))
        close(rows, every)
        close(gradient, (2 * every.sum(dim=0) + weights).chunk(size)[rank])
        close(mean, every.mean(dim=0))
        close(largest, every.amax(dim=0))


def test_tensors_of_several_kinds_are_summed_in_place() -> None:
    def work(ranks: Ranks) -> list[Tensor]:
        tensors = [torch.full((2, 3), ranks.rank + 1.0), torch.tensor(1), torch.full((), 0.5, dtype=torch.float64)]
        sum_over_ranks_(tensors, ranks)
        return tensors

    for tensors in on_ranks(3, work):
        assert [tensor.flatten()[0].item() for tensor in tensors] == [6.0, 3, 1.5]
        assert [tensor.dtype for tensor in tensors] == [torch.float32, torch.int64, torch.float64]


def test_the_first_exchange_of_what_is_not_finite_is_noted_by_its_rank_alone() -> None:
    def work(ranks: Ranks) -> int:
        ranks.sum(torch.ones(2))
        ranks.sum(torch.tensor([1.0, math.nan if ranks.rank == 1 else 1.0]))
        everywhere = ranks.sum(torch.tensor([math.inf]))
        assert not torch.isfinite(everywhere).any()
        return ranks.first_not_finite()

    assert on_ranks(2, work) == [3, 2]
    assert ALONE.first_not_finite() == NEVER


def test_the_operators_keep_torchs_rules() -> None:
    ranks, x = group_of_one(), normal(4, 3).requires_grad_()
    torch.library.opcheck(torch.ops.cssl.sum_over_ranks.default, (x, ranks.key))
    torch.library.opcheck(torch.ops.cssl.rows_of_ranks.default, (x, ranks.key, 0, 1))
    torch.library.opcheck(torch.ops.cssl.largest_over_ranks.default, (x.detach(), ranks.key))
    image = normal(4, 3, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = normal(3).requires_grad_(), normal(3, seed=1).requires_grad_()
    for input in (x, image):
        operator = torch.ops.cssl.batch_norm_over_ranks.default
        torch.library.opcheck(operator, (input, weight, bias, 1e-5, ranks.key, 0, 1))
        torch.library.opcheck(operator, (input, None, None, 1e-5, ranks.key, 0, 1))
    operator = torch.ops.cssl.log_sum_exp_over_ranks.default
    torch.library.opcheck(operator, (x, x.detach(), 0, "inner_product", [0.5], 2, ranks.key, 0, 1))


# ---------------------------------------------------------------------- log-sum-exps
OF_OTHERS = {
    "inner products": partial(log_sum_exp_of_inner_products, temperature=0.3),
    "t kernel": partial(log_sum_exp_of_t_kernel, t_df=5.0, tau=2.0),
}


@pytest.mark.parametrize("tile", [1, 2, 3, 5, None])
@pytest.mark.parametrize("name", OF_OTHERS)
def test_log_sum_exps_over_ranks(name: str, tile: int | None) -> None:
    every, weights = normal(12, 3).double(), normal(12, seed=5).double()
    of_others = partial(OF_OTHERS[name], tile=tile)

    def work(ranks: Ranks) -> tuple[Tensor, Tensor]:
        z = ranks.own_rows(every).clone().requires_grad_()
        sums = of_others(z, ranks=ranks)
        (sums * ranks.own_rows(weights)).sum().backward()
        assert z.grad is not None
        return sums.detach(), z.grad

    ((sums, gradient),) = on_ranks(1, work)
    for size in (2, 3):
        found = on_ranks(size, work)
        close(torch.cat([own for own, _ in found]), sums)
        close(torch.cat([own for _, own in found]), gradient)


def test_no_rank_holds_a_matrix_of_its_pairs() -> None:
    num, tile = 64, 8
    every = normal(num, 4)

    def work(ranks: Ranks) -> int:
        z = ranks.own_rows(every).clone().requires_grad_()

        def compute() -> Tensor:
            return log_sum_exp_of_inner_products(z, temperature=0.5, tile=tile, ranks=ranks).sum()

        if ranks.rank == 0:  # a process has one profiler
            return largest_tensor(compute)
        compute().backward()
        return 0

    assert max(on_ranks(2, work)) == num * 4  # the vectors of all; there are num² / 2 pairs


# ---------------------------------------------------------------------- batch norms
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (8, 5)])
@pytest.mark.parametrize("size", [2, 4])
def test_batch_norms_over_ranks(shape: tuple[int, ...], dtype: torch.dtype, size: int) -> None:
    every = (2 * normal(*shape).double() + 3).to(dtype)
    every = every.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else every
    weights = normal(*shape, seed=4).to(dtype)
    norm = (BatchNorm2d(5) if len(shape) == 4 else BatchNorm1d(5)).to(dtype)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(4))

    def work(ranks: Ranks) -> tuple[Tensor, ...]:
        own, x = copy.deepcopy(norm), ranks.own_rows(every).clone().requires_grad_()
        if not ranks.alone:
            share_batch_norms(own, ranks, in_parts=False)
        y = own(x)
        (y * ranks.own_rows(weights)).sum().backward()
        assert x.grad is not None
        own.eval()(x)
        of_weight, of_bias = own.weight.grad, own.bias.grad
        return y.detach(), x.grad, of_weight, of_bias, own.running_mean, own.running_var, own.num_batches_tracked

    (expected,) = on_ranks(1, work)
    found = list(zip(*on_ranks(size, work), strict=True))
    within = 1e-12 if dtype == torch.float64 else 1e-5
    for number, (parts, whole) in enumerate(zip(found, expected, strict=True)):
        if number < 2:
            close(torch.cat(parts), whole, within)
        elif number < 4:
            close(sum(parts, torch.zeros(())).to(dtype), whole, within)
        else:
            for part in parts:
                close(part, whole, within)


def test_statistics_of_a_large_mean_keep_their_digits() -> None:
    every = (1e-2 * normal(8, 2, 4, 4) + torch.arange(8.0).view(8, 1, 1, 1) / 100 + 100).double()

    def work(ranks: Ranks) -> Tensor:
        norm = BatchNorm2d(2).requires_grad_(False)
        share_batch_norms(norm, ranks, in_parts=False)
        norm(ranks.own_rows(every).float().contiguous(memory_format=torch.channels_last))
        return norm.running_var

    expected = 0.9 + 0.1 * every.float().double().var(dim=(0, 2, 3))
    for variance in on_ranks(4, work):
        close(variance.double(), expected, 1e-6)


def test_what_cannot_be_shared_is_refused() -> None:
    ranks = Ranks(0, 3)
    with pytest.raises(InputError, match="4 sub-batches cannot be dealt to 3 processes"):
        share_batch_norms(SplitBatchNorm2d(2, num_splits=4), ranks, in_parts=False)
    with pytest.raises(InputError, match="SyncBatchNorm"):
        share_batch_norms(nn.Sequential(nn.SyncBatchNorm(2)), ranks, in_parts=False)


def test_compiled_code_sees_each_exchange_as_one_call() -> None:
    ranks = replace(group_of_one(), size=2)

    def exchange(x: Tensor) -> Tensor:
        return ranks.sum(x) + ranks.largest(x) + ranks.share(x)

    torch._dynamo.reset()
    x = normal(4, 3)
    close(torch.compile(exchange, fullgraph=True, backend="eager")(x), 2.5 * x)
