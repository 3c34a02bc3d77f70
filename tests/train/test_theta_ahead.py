"""theta drawn ahead: the numbers and the stream's states are those of one draw a step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cssl_cli.host.randomness import stream
from cssl_cli.train import theta_ahead
from cssl_cli.train.theta_ahead import ThetaAhead

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def draw(num: int, generator: torch.Generator) -> Tensor:
    return torch.rand((num, 3), generator=generator)


@pytest.fixture
def sendings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many thetas were sent at once, each time; they stay on the CPU."""
    numbers: list[int] = []
    monkeypatch.setattr(theta_ahead, "sent", lambda tensors, _: numbers.append(len(tensors)) or tensors)
    return numbers


@pytest.mark.parametrize("stop", [0, 1, 31, 32, 40])
def test_what_is_drawn_ahead_is_what_would_be_drawn(stop: int, sendings: list[int]) -> None:
    plain, ahead = stream(0, "augment"), ThetaAhead(draw, stream(0, "augment"), CUDA)
    for _ in range(stop):
        assert torch.equal(ahead.take(8), draw(8, plain))
        assert torch.equal(ahead.state, plain.get_state()), "of the step that was done, not of those drawn ahead"
    # Another process goes on from the state, one that reads no steps ahead from it, too.
    for device in (CPU, CUDA):
        again, rest = ThetaAhead(draw, stream(1, "another"), device), torch.Generator()
        again.go_on_from(ahead.state)
        rest.set_state(plain.get_state())
        for _ in range(40):
            assert torch.equal(again.take(8), draw(8, rest))
    assert set(sendings) == ({1, 32})


def test_steps_of_another_length_are_drawn_anew(sendings: list[int]) -> None:
    plain, ahead = stream(0, "augment"), ThetaAhead(draw, stream(0, "augment"), CUDA)
    for num in (8, 8, 4, 4, 8):
        assert torch.equal(ahead.take(num), draw(num, plain))
    assert sendings == [32, 32, 32]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, sendings: list[int]) -> None:
    monkeypatch.setattr(theta_ahead, "MOST_BYTES", 5 * 8 * 3 * 4)
    ahead = ThetaAhead(draw, stream(0, "augment"), CUDA)
    for _ in range(6):
        ahead.take(8)
    ahead.take(1000)
    assert sendings == [5, 5, 1]


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    ahead, plain = ThetaAhead(draw, stream(0, "augment"), CPU), stream(0, "augment")
    with pytest.raises((RuntimeError, TypeError)):
        ahead.go_on_from(torch.zeros(3, dtype=torch.uint8))
    assert torch.equal(ahead.take(8), draw(8, plain))


def test_without_augmentations_there_is_nothing_to_draw(sendings: list[int]) -> None:
    nothing = ThetaAhead(lambda num, generator: torch.rand((num, 0), generator=generator), stream(0, "augment"), CUDA)
    assert nothing.take(8).shape == (8, 0)
