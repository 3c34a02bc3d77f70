"""Images that are the rows of something, such as an array or a table: squared, split, numbered and cached.

Everything that holds for a folder of images holds for them: the same code makes squares of them (decode.py) and caches
these (cache.py), classes have images in both parts, and the split is stratified. It depends on the numbers of the rows,
where that of a folder depends on file names. The order of the rows is kept.

The cache's key covers what a source says identifies its images (a file's path and times, or a digest of the pixels),
the version of the decoder, size and channels, and which rows are for the test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cssl_cli.data.cache import cached_images, side_and_channels
from cssl_cli.data.class_labels import number_classes, split_rows
from cssl_cli.data.decode import DECODER_VERSION, Encoded, decode_into, look_at
from cssl_cli.data.image_set import ImageSet, Notice, ProgressCallback, Source, Summary
from cssl_cli.data.layout import counted, found
from cssl_cli.data.stamped_files import StampedFile, check_unchanged, let_the_clock_move, update_with
from cssl_cli.errors import InputError

LEAST_SIDE, LARGEST_SIDE = 8, 1024  # as data.size


@dataclass(frozen=True)
class Rows:
    """Images of one part, and labels (N,), whole numbers or text, or None.

    `identity` says which images they are, together with `files`, which hold them. `named` names a row in an error, by
    default by its path. `seen` is what `look_at` says of the first image, where it is known.
    """

    encoded: Sequence[Encoded] | np.ndarray
    labels: np.ndarray | None
    identity: str = ""
    files: Sequence[StampedFile] = ()
    named: Callable[[int], str] | None = None
    seen: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Request:
    """What is to become of the rows; `where` names them in errors, `kind` in the cache."""

    kind: str
    where: str
    size: int | None  # at which they are stored; None: the shorter side of the first image
    channels: int | None  # None: as many as they have
    test_fraction: float
    cache_dir: Path
    progress: ProgressCallback | None
    notice: Notice | None


@dataclass(frozen=True)
class _Part:
    rows: Rows
    chosen: np.ndarray  # numbers of rows

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def labels(self) -> np.ndarray:
        assert self.rows.labels is not None
        return self.rows.labels[self.chosen]

    def encoded(self, index: int) -> Encoded:
        return self.rows.encoded[self.chosen[index]]

    def named(self, index: int) -> str:
        row = int(self.chosen[index])
        return self.rows.named(row) if self.rows.named else str(self.rows.encoded[row])


def source_of_rows(
    request: Request, train: Rows, test: Rows | None, class_names: Sequence[str] | None = None, told: str = ""
) -> Source:
    """The source of these images; without labels, for pretraining only; without `test`, split by `test_fraction`.

    `told` is what else to say of how they were found. `InputError` for images or labels that cannot be used.
    """
    for rows in (train, test):
        if rows is not None and not len(rows.encoded):
            raise InputError("no images here", where=request.where)
    parts = _parts(request, train, test)
    names: tuple[str, ...] = ()
    labels: Sequence[Tensor | None] = [None]
    if train.labels is not None:
        names, labels = number_classes([part.labels for part in parts], class_names, where=request.where)
    width, height, found_channels = train.seen or look_at(parts[0].encoded(0), parts[0].named(0))
    size = request.size or min(width, height)
    if not LEAST_SIDE <= size <= LARGEST_SIDE:
        raise InputError(
            f"the first image has {width} x {height} pixels; squares must have from {LEAST_SIDE} to {LARGEST_SIDE}",
            where=request.where,
            remedy="Give data.size, to which the images are resized.",
        )
    channels = request.channels or found_channels
    for rows in (train, test):
        if rows is not None and rows.seen is not None:
            _require_channels(rows.seen[2], channels, request)
    if request.notice:
        counts = [len(part) for part in parts]
        sentence = found(counts, names, split=test is None)
        become = {(1, 3): "one channel, repeated as red, green and blue", (3, 1): "of red, green and blue the luma"}
        converted = become.get((found_channels, channels), "")
        request.notice(f"{request.where}: " + "; ".join(part for part in (told, sentence, converted) if part))
    arrays = _cached(request, parts, size, channels)
    sets = [ImageSet(images, y, summary) for (images, summary), y in zip(arrays, labels, strict=True)]
    if train.labels is None:
        return Source(request.kind, (), sets[0], None, None)
    return Source(request.kind, names, pretrain=sets[0], train=sets[0], test=sets[1])


def _parts(request: Request, train: Rows, test: Rows | None) -> list[_Part]:
    if train.labels is None:
        return [_Part(train, np.arange(len(train.encoded)))]
    if test is None:
        return [_Part(train, rows) for rows in split_rows(train.labels, request.test_fraction, where=request.where)]
    return [_Part(rows, np.arange(len(rows.encoded))) for rows in (train, test)]


def _require_channels(found_channels: int, channels: int, request: Request) -> None:
    """`InputError` unless images with `found_channels` can become some with `channels`."""
    if found_channels == channels or (request.channels is not None and {found_channels, channels} == {1, 3}):
        return
    if request.channels is None:
        raise InputError(
            f"the images to train on have {counted(channels, 'channel')}, those to test on {found_channels}",
            where=request.where,
        )
    raise InputError(
        f"images of {counted(found_channels, 'channel')} cannot become images of {channels}",
        where=request.where,
        remedy="Leave data.channels out.",
    )


def _cached(request: Request, parts: Sequence[_Part], size: int, channels: int) -> list[tuple[Tensor, Summary]]:
    lengths = [len(part) for part in parts]
    digest = hashlib.sha256(f"{DECODER_VERSION}/{side_and_channels(size, channels)}/{lengths}".encode())
    files: list[StampedFile] = []
    for part in parts:
        digest.update(f"/{part.rows.identity}/".encode() + part.chosen.astype("<i8").tobytes())
        update_with(digest, part.rows.files)
        files += part.rows.files
    key = f"{request.kind}-{digest.hexdigest()[:32]}"

    def fill(images: np.ndarray) -> None:
        let_the_clock_move(files)
        chosen = _Chosen(parts)
        decode_into(images, chosen, progress=request.progress, named=chosen.named)
        check_unchanged(files, "file")

    return cached_images(
        request.cache_dir,
        key,
        size=size,
        channels=channels,
        lengths=lengths,
        fill=fill,
        notice=request.notice,
        source=request.where,
    )


class _Chosen(Sequence[Encoded]):
    """The images of all parts, one after the other."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        part, inside = self.places[index]
        return part.encoded(inside)

    def named(self, index: int) -> str:
        part, inside = self.places[index]
        return part.named(inside)
