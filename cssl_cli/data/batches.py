"""Batches of uint8 images on the device: gathered there, or streamed to it if the images do not fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

AHEAD = 3  # batches in flight while one is processed
SENT_AT_ONCE = 64  # indices of so many batches


class Images(Protocol):
    """A source of batches of images."""

    def batches(self, orders: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images (B, C, H, W) of each tensor of indices (B,), uint8 on the device, in order."""


class ResidentImages:
    """Images (N, C, H, W), uint8, stored on the device."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def batches(self, orders: Iterable[Tensor]) -> Iterator[Tensor]:
        coming = iter(orders)
        while together := list(islice(coming, SENT_AT_ONCE if self.images.device.type == "cuda" else 1)):
            for indices in sent(together, self.images.device):
                yield self.images[indices]


def sent(tensors: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Host tensors moved to the device by a single copy, which a GPU does not wait for.

    They differ in their first dimension only. Launching one copy for each would take as long as one for all.
    """
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    together = torch.cat(list(tensors)).pin_memory().to(device, non_blocking=True)
    return together.split([len(tensor) for tensor in tensors])


@dataclass
class _Buffer:
    """A batch in host memory, page-locked for a GPU; it may be overwritten once the event `copied` has completed."""

    batch: Tensor
    copied: torch.Event | None


class StreamedImages:
    """Images (N, C, H, W), uint8, in host memory or a memory-mapped file, sent to the device a few batches ahead.

    A thread gathers the next batches into page-locked buffers and copies them on its own stream while the device
    computes. Batches equal those of `ResidentImages`, bit for bit.
    """

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.free: deque[_Buffer] = deque()

    def batches(self, orders: Iterable[Tensor]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
            coming: deque[Future[tuple[Tensor, _Buffer]]] = deque()
            try:
                for indices in orders:
                    coming.append(thread.submit(self._send, indices))
                    if len(coming) > AHEAD:
                        yield self._receive(coming.popleft())
                while coming:
                    yield self._receive(coming.popleft())
            finally:
                for future in coming:
                    future.cancel()

    def _send(self, indices: Tensor) -> tuple[Tensor, _Buffer]:
        """In the thread: gather a batch and start its copy."""
        buffer = self._buffer(len(indices))
        torch.index_select(self.images, 0, indices, out=buffer.batch)
        if self.stream is None:
            return buffer.batch.clone(), buffer
        with torch.cuda.stream(self.stream):
            batch = buffer.batch.to(self.device, non_blocking=True)
            buffer.copied = self.stream.record_event()
        return batch, buffer

    def _buffer(self, length: int) -> _Buffer:
        while self.free and len(self.free[0].batch) != length:
            self.free.popleft()
        if not self.free:
            shape = (length, *self.images.shape[1:])
            return _Buffer(torch.empty(shape, dtype=torch.uint8, pin_memory=self.stream is not None), None)
        buffer = self.free.popleft()
        if buffer.copied is not None:
            buffer.copied.synchronize()
        return buffer

    def _receive(self, future: Future[tuple[Tensor, _Buffer]]) -> Tensor:
        """In the caller's thread: a batch; later work on the device waits for its copy."""
        batch, buffer = future.result()
        if buffer.copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(buffer.copied)
            batch.record_stream(current)
        self.free.append(buffer)
        return batch
