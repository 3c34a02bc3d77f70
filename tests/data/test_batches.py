"""Batches from the device's memory and batches streamed to it are the same; a stream may be left at any time."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from cssl_cli.data.batches import AHEAD, ResidentImages, StreamedImages

CPU = torch.device("cpu")


def images(num: int = 40) -> Tensor:
    return torch.randint(0, 256, (num, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def orders(num_batches: int, sizes: tuple[int, ...] = (8,)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randperm(40, generator=generator)[: sizes[i % len(sizes)]] for i in range(num_batches)]


@pytest.mark.parametrize("num_batches", [0, 1, AHEAD, AHEAD + 1, 5 * AHEAD])
@pytest.mark.parametrize("sizes", [(8,), (8, 3)])
def test_streamed_batches_are_the_resident_ones(num_batches: int, sizes: tuple[int, ...]) -> None:
    source, wanted = images(), orders(num_batches, sizes)
    streamed = StreamedImages(source, CPU)
    for _ in range(2):  # the second time into the buffers of the first
        got = list(streamed.batches(wanted))
        assert len(got) == num_batches
        for batch, resident, indices in zip(got, ResidentImages(source).batches(wanted), wanted, strict=True):
            assert torch.equal(batch, source[indices])
            assert torch.equal(resident, source[indices])


def test_a_batch_stays_as_it_is_while_later_ones_come() -> None:
    source, wanted = images(), orders(4 * AHEAD)
    kept = list(StreamedImages(source, CPU).batches(wanted))
    assert all(torch.equal(batch, source[indices]) for batch, indices in zip(kept, wanted, strict=True))


def test_images_may_lie_in_a_mapped_file(tmp_path) -> None:
    source = images()
    np.save(tmp_path / "images.npy", source.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    for batch, indices in zip(StreamedImages(mapped, CPU).batches(orders(6)), orders(6), strict=True):
        assert torch.equal(batch, source[indices])


def test_a_stream_that_is_left_leaves_no_thread() -> None:
    batches = StreamedImages(images(), CPU).batches(iter(orders(50)))
    next(batches)
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_no_more_than_the_few_coming_batches_are_asked_for() -> None:
    asked = 0

    def counted():
        nonlocal asked
        for indices in orders(50):
            asked += 1
            yield indices

    batches = StreamedImages(images(), CPU).batches(counted())
    for taken, _ in enumerate(itertools.islice(batches, 10), start=1):
        assert asked == taken + AHEAD
    batches.close()


def test_an_error_in_the_thread_reaches_the_caller() -> None:
    with pytest.raises(IndexError):
        list(StreamedImages(images(), CPU).batches([torch.tensor([0, 99])]))
