"""Log-sum-exps tile by tile: against loops and a dense matrix, in any tile; nothing of the size of all pairs."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from cssl_cli.methods.barlow_twins import barlow_twins_loss
from cssl_cli.methods.moco import queue_info_nce_loss
from cssl_cli.methods.simclr import nt_xent_loss
from cssl_cli.methods.t_infonce import t_info_nce_loss
from cssl_cli.methods.vicreg import vicreg_loss
from cssl_cli.nn import operators, pair_scores
from cssl_cli.nn.log_sum_exp import (
    log_sum_exp_of_inner_products,
    log_sum_exp_of_t_kernel,
    log_sum_exp_over_keys,
)
from cssl_cli.nn.pair_scores import log_t_kernel
from tests.support.forked_process import in_a_process
from tests.support.small_methods import normal
from tests.support.tensor_sizes import largest_tensor

TEMPERATURE, T_DF, TAU = 0.3, 5.0, 2.0
TILES = [1, 2, 5, 6, 7, 11, 12, None]  # of 11 vectors: single rows, even and ragged ends, all in one
OF_OTHERS = {
    "inner products": partial(log_sum_exp_of_inner_products, temperature=TEMPERATURE),
    "t kernel": partial(log_sum_exp_of_t_kernel, t_df=T_DF, tau=TAU),
}
KEYS = normal(9, 3, seed=7)


def inner_product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / TEMPERATURE


def student(one: list[float], other: list[float]) -> float:
    return -(T_DF + 1) / 2 * math.log(1 + math.dist(one, other) ** 2 / (TAU * T_DF))


SCORE = {"inner products": inner_product, "t kernel": student}


def by_loops(z: torch.Tensor, score: Callable[[list[float], list[float]], float]) -> list[float]:
    rows = z.tolist()
    return [
        math.log(sum(math.exp(score(anchor, other)) for k, other in enumerate(rows) if k != i))
        for i, anchor in enumerate(rows)
    ]


def dense(z: torch.Tensor, name: str, temperature: float = TEMPERATURE) -> torch.Tensor:
    """The same from a whole matrix, with the gradient that autograd finds for it."""
    if name == "inner products":
        scores = z @ z.T / temperature
    else:
        scores = log_t_kernel((z[:, None] - z).square().sum(dim=2), t_df=T_DF, tau=TAU)
    return scores.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf).logsumexp(dim=1)


def gradient(values: torch.Tensor, z: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(values, z, weights)[0]


# ---------------------------------------------------------------------- values and gradients
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", OF_OTHERS)
def test_values_and_gradients_are_those_of_loops_and_of_a_dense_matrix(name: str, tile: int | None) -> None:
    z = normal(11, 3).requires_grad_()
    values = OF_OTHERS[name](z, tile=tile)
    assert values.tolist() == pytest.approx(by_loops(z, SCORE[name]), rel=1e-12)
    weights = normal(11, seed=1)  # each anchor counts differently, some of them negatively
    torch.testing.assert_close(gradient(values, z, weights), gradient(dense(z, name), z, weights))


@pytest.mark.parametrize("tile", [1, 2, 4, None])
@pytest.mark.parametrize("name", OF_OTHERS)
def test_gradients_match_finite_differences(name: str, tile: int | None) -> None:
    assert torch.autograd.gradcheck(partial(OF_OTHERS[name], tile=tile), [normal(6, 3).requires_grad_()])


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 6, None])
def test_over_keys(rows: int | None) -> None:
    queries = normal(5, 3).requires_grad_()
    values = log_sum_exp_over_keys(queries, KEYS, temperature=TEMPERATURE, rows=rows)
    expected = [
        math.log(sum(math.exp(inner_product(query, key)) for key in KEYS.tolist())) for query in queries.tolist()
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-12)
    weights = normal(5, seed=1)
    whole = (queries @ KEYS.T / TEMPERATURE).logsumexp(dim=1)
    torch.testing.assert_close(gradient(values, queries, weights), gradient(whole, queries, weights))
    assert torch.autograd.gradcheck(
        lambda queries: log_sum_exp_over_keys(queries, KEYS, temperature=TEMPERATURE, rows=rows), [queries]
    )


def test_keys_get_no_gradient() -> None:
    queries, keys = normal(4, 3).requires_grad_(), normal(6, 3, seed=1).requires_grad_()
    log_sum_exp_over_keys(queries, keys, temperature=1.0).sum().backward()
    assert queries.grad is not None
    assert keys.grad is None


@pytest.mark.parametrize("temperature", [0.001, 0.07, 1.0])
@pytest.mark.parametrize("tile", [16, 1000])
def test_float32_keeps_its_digits_at_any_temperature(temperature: float, tile: int) -> None:
    z = F.normalize(normal(100, 16), dim=1).float().requires_grad_()
    exact = z.detach().double().requires_grad_()
    values = log_sum_exp_of_inner_products(z, temperature=temperature, tile=tile)
    expected = dense(exact, "inner products", temperature)
    weights = normal(100, seed=1).abs()
    # A score is rounded to 2⁻²⁴/temperature, by which its exponential is off, too.
    rounding = 2**-22 / temperature
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=max(rounding, 1e-5))
    ours, theirs = gradient(values, z, weights.float()), gradient(expected, exact, weights)
    assert (ours - theirs).norm() <= max(4 * rounding, 1e-5) * theirs.norm()


@pytest.mark.parametrize("name", OF_OTHERS)
def test_the_order_of_the_vectors_and_the_tile_they_fall_into_do_not_matter(name: str) -> None:
    z = normal(23, 4)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    values = OF_OTHERS[name](z, tile=5)
    torch.testing.assert_close(OF_OTHERS[name](z[order], tile=5), values[order])
    torch.testing.assert_close(OF_OTHERS[name](z, tile=8), values)


@pytest.mark.parametrize("name", OF_OTHERS)
@pytest.mark.parametrize("tile", [3, None])
def test_coincident_vectors(name: str, tile: int | None) -> None:
    z = torch.full((8, 3), 0.7, requires_grad=True)
    values = OF_OTHERS[name](z, tile=tile)
    same = torch.full((8,), math.log(7) + SCORE[name](z[0].tolist(), z[0].tolist()))
    torch.testing.assert_close(values.detach(), same)
    values.mean().backward()
    assert torch.isfinite(z.grad).all()
    if name == "t kernel":  # nothing pulls them apart
        torch.testing.assert_close(z.grad, torch.zeros(8, 3), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- as operators
def losses() -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    queue = F.normalize(normal(40, 12, seed=3, dtype=torch.float32), dim=1)
    return {
        "simclr": partial(nt_xent_loss, temperature=0.5),
        "t_infonce": partial(t_info_nce_loss, t_df=10.0, tau=5.0),
        "moco": lambda a, b: queue_info_nce_loss(a, b.detach(), queue.to(a.device), temperature=0.1),
        "barlow_twins": partial(barlow_twins_loss, lambda_=0.01),
        "vicreg": partial(vicreg_loss, invariance=25.0, variance=25.0, covariance=1.0),
    }


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a batch of some images has several."""
    monkeypatch.setattr(pair_scores, "CPU_TILE", 8)
    monkeypatch.setattr(pair_scores, "DEVICE_TILE", 8)
    monkeypatch.setattr(operators, "LEAST_ROWS", 2)
    monkeypatch.setattr(operators, "CPU_BLOCK", 64)
    monkeypatch.setattr(operators, "DEVICE_BLOCK", 64)


def views(num: int = 10, width: int = 12) -> list[torch.Tensor]:
    return [normal(num, width, seed=seed, dtype=torch.float32).requires_grad_() for seed in (1, 2)]


@pytest.mark.parametrize("name", losses())
def test_blocks_change_no_loss_and_no_gradient(name: str, monkeypatch: pytest.MonkeyPatch, small_blocks: None) -> None:
    loss, z = losses()[name], views()
    in_blocks = loss(*z)
    gradients = torch.autograd.grad(in_blocks, z, allow_unused=True)
    monkeypatch.undo()
    whole = loss(*z)
    torch.testing.assert_close(in_blocks, whole)
    for ours, theirs in zip(gradients, torch.autograd.grad(whole, z, allow_unused=True), strict=True):
        if theirs is not None or ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", losses())
def test_a_compiled_loss_is_the_eager_one(name: str, small_blocks: None) -> None:
    graphs = []

    def count_calls(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    loss, z = losses()[name], views()
    compiled = torch.compile(loss, backend=count_calls, fullgraph=True)
    value, expected = compiled(*z), loss(*z)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(
        torch.autograd.grad(value, z, allow_unused=True),
        torch.autograd.grad(expected, z, allow_unused=True),
        strict=True,
    ):
        if theirs is not None or ours is not None:
            torch.testing.assert_close(ours, theirs)
    (graph,) = graphs
    calls = [node for node in graph.graph.nodes if "cssl" in str(node.target)]
    assert len(calls) == (2 if name == "vicreg" else 1)  # one a covariance matrix, however many blocks


@pytest.mark.parametrize("name", losses())
def test_a_loss_reads_no_number_on_the_way(name: str, small_blocks: None) -> None:
    # Tensors without storage have no numbers to read: a host that waited for one would fail, and so would a tensor
    # made on another device.
    z = [view.detach().to("meta").requires_grad_() for view in views()]
    value = losses()[name](*z)
    value.backward()
    assert (value.device.type, value.shape) == ("meta", ())
    assert z[0].grad.shape == z[0].shape


@pytest.mark.parametrize("tile", [4, 100])
def test_the_operators_keep_torchs_rules(tile: int) -> None:
    for z in (normal(7, 3).requires_grad_(), normal(3, 7).T.requires_grad_()):  # contiguous or not
        of_others = torch.ops.cssl.log_sum_exp_of_others.default
        torch.library.opcheck(of_others, (z, "inner_product", [TEMPERATURE], tile))
        torch.library.opcheck(of_others, (z, "t_kernel", [T_DF, TAU], tile))
        over_keys = torch.ops.cssl.log_sum_exp_over_keys.default
        torch.library.opcheck(over_keys, (z, KEYS, TEMPERATURE, tile, True))


@pytest.mark.parametrize("name", losses())
def test_a_second_derivative_is_an_error_and_not_wrong(name: str) -> None:
    z = views()
    (first,) = torch.autograd.grad(losses()[name](*z), z[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated once"):
        first.square().sum().backward()


def test_without_gradients_none_are_computed() -> None:
    z = views()
    with torch.no_grad():
        for name, loss in losses().items():
            assert not loss(*z).requires_grad, name
    assert torch.ops.cssl.log_sum_exp_over_keys(z[0], z[1], 1.0, 4, False)[1].numel() == 0


# ---------------------------------------------------------------------- memory
@pytest.mark.parametrize("name", ["simclr", "t_infonce"])
def test_no_tensor_has_an_entry_for_each_pair(name: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    num, width = 24, 4  # tiles of 8 × 8
    loss, z = losses()[name], views(num, width)
    assert largest_tensor(lambda: loss(*z)) == 2 * num * width  # the batch itself
    monkeypatch.setattr(pair_scores, "CPU_TILE", 2 * num)
    assert largest_tensor(lambda: loss(*z)) == (2 * num) ** 2  # where it fits into a tile


def test_no_tensor_has_an_entry_for_each_query_and_key(small_blocks: None) -> None:
    z = views(80, 12)
    assert largest_tensor(lambda: losses()["moco"](*z)) == 80 * 12


LARGE = [("simclr", 2560, 64), ("t_infonce", 2560, 64), ("barlow_twins", 64, 5120), ("vicreg", 64, 5120)]


def further_memory() -> float:
    """MiB that the losses of large batches take at most, beyond what libraries take once.

    About 50; what is freed and not given back makes it vary by some 10.
    """

    def run(name: str, batch: int, width: int) -> None:
        z = [torch.randn(batch, width, requires_grad=True) for _ in range(2)]
        losses()[name](*z).backward()

    def peak() -> float:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    torch.set_num_threads(1)
    for name, _, width in LARGE:
        run(name, 64, width // 16)
    before = peak()
    for name, batch, width in LARGE:
        run(name, batch, width)
    return peak() - before


def test_peak_memory_stays_below_that_of_one_matrix() -> None:
    matrix = 5120**2 * 4 / 2**20  # MiB, of every one of these
    assert in_a_process(further_memory) < matrix
