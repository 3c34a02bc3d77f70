"""Sums of squares off the diagonal, in blocks: against loops, a dense matrix and finite differences."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from cssl_cli.nn.off_diagonal import off_diagonal_squares
from tests.support.small_methods import normal
from tests.support.tensor_sizes import largest_tensor

ROWS = [1, 2, 3, 6, 7, 8, None]  # of 7 columns: single rows, a ragged end, all in one


def by_loops(a: torch.Tensor, b: torch.Tensor) -> float:
    total = 0.0
    for i, column in enumerate(a.T.tolist()):
        for j, other in enumerate(b.T.tolist()):
            if i != j:
                total += sum(x * y for x, y in zip(column, other, strict=True)) ** 2
    return total


def dense(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    product = a.T @ b
    return product.masked_fill(torch.eye(len(product), dtype=torch.bool), 0).square().sum()


@pytest.mark.parametrize("rows", ROWS)
def test_values_and_gradients_are_those_of_loops_and_of_a_dense_matrix(rows: int | None) -> None:
    a, b = normal(5, 7, seed=1).requires_grad_(), normal(5, 7, seed=2).requires_grad_()
    value = off_diagonal_squares(a, b, rows=rows)
    assert value.item() == pytest.approx(by_loops(a, b), rel=1e-12)
    ours, theirs = (torch.autograd.grad(3 * total, [a, b]) for total in (value, dense(a, b)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", ROWS)
def test_of_one_matrix_with_itself(rows: int | None) -> None:
    a = normal(5, 7).requires_grad_()
    value = off_diagonal_squares(a, a, rows=rows)
    assert value.item() == pytest.approx(by_loops(a, a), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, a), torch.autograd.grad(dense(a, a), a))


@pytest.mark.parametrize("rows", [1, 3, None])
def test_gradients_match_finite_differences(rows: int | None) -> None:
    a, b = normal(4, 5, seed=1).requires_grad_(), normal(4, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(partial(off_diagonal_squares, rows=rows), [a, b])
    assert torch.autograd.gradcheck(lambda a: off_diagonal_squares(a, a, rows=rows), [a])
    assert torch.autograd.gradcheck(lambda b: off_diagonal_squares(a.detach(), b, rows=rows), [b])


@pytest.mark.parametrize("rows", [16, 1000])
def test_a_small_remainder_beside_a_large_diagonal_keeps_its_digits(rows: int) -> None:
    # Squares of 1e-10 beside ones: taken from the sum of all squares in float32, nothing of them would be left.
    a = (torch.eye(100, dtype=torch.float64) + 1e-5 * normal(100, 100)).float().requires_grad_()
    exact = a.detach().double().requires_grad_()
    value, expected = off_diagonal_squares(a, a, rows=rows), dense(exact, exact)
    assert expected < 1e-7 * (a.detach().T @ a.detach()).square().sum()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = torch.autograd.grad(value, a)[0], torch.autograd.grad(expected, exact)[0]
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    apart = off_diagonal_squares(a, a.detach().clone(), rows=rows)
    assert apart.item() == pytest.approx(expected.item(), rel=1e-5)


def test_many_columns_in_float32() -> None:
    a, b = (normal(20, 900, seed=seed, dtype=torch.float32) for seed in (1, 2))
    expected = dense(a.double(), b.double()).item()
    assert off_diagonal_squares(a, b, rows=64).item() == pytest.approx(expected, rel=1e-6)


def test_orthogonal_columns_leave_nothing() -> None:
    a = 3 * torch.eye(6, dtype=torch.float64).requires_grad_()
    value = off_diagonal_squares(a, a, rows=4)
    assert value.item() == 0
    assert torch.autograd.grad(value, a)[0].abs().max() == 0


def test_no_tensor_has_an_entry_for_each_pair_of_columns() -> None:
    batch, width = 3, 100
    a, b = (normal(batch, width, seed=seed).requires_grad_() for seed in (1, 2))
    for compute in (partial(off_diagonal_squares, a, b), partial(off_diagonal_squares, a, a)):
        assert largest_tensor(partial(compute, rows=8)) == 8 * width
        assert largest_tensor(partial(compute, rows=width)) == width**2


@pytest.mark.parametrize("rows", [2, 100])
def test_the_operator_keeps_torchs_rules(rows: int) -> None:
    operator = torch.ops.cssl.off_diagonal_squares.default
    for a, b in [(normal(4, 5), normal(4, 5, seed=1)), (normal(5, 4).T, normal(5, 4, seed=1).T)]:
        a.requires_grad_()
        torch.library.opcheck(operator, (a, a.detach(), rows, True, True, -1, 1))
        b.requires_grad_()
        torch.library.opcheck(operator, (a, b, rows, False, True, -1, 1))
        torch.library.opcheck(operator, (a.detach(), b.detach(), rows, False, False, -1, 1))


def test_a_second_derivative_is_an_error_and_not_wrong() -> None:
    a = normal(4, 5).requires_grad_()
    (first,) = torch.autograd.grad(off_diagonal_squares(a, normal(4, 5, seed=1)), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated once"):
        first.square().sum().backward()
