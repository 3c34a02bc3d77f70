"""Images with labels, in memory or memory-mapped: their statistics, subsets and content key."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cssl_cli.errors import InputError
from cssl_cli.host.randomness import stream

ProgressCallback = Callable[[int, int, str], None]
"""Called with (done, total, what is being done), always from the caller's thread."""
Notice = Callable[[str], None]
"""Called with a sentence worth a line of its own."""

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Summary:
    """The result of one pass over an image tensor: a digest of shape and pixels, and the channel statistics.

    `mean` and `std` are over all images and pixels of a channel, on the 0..1 scale. A constant channel has std 1, so
    that dividing by it is harmless.
    """

    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """uint8 images (N, C, H, W) and int64 labels (N,) in 0..K-1, or None for unlabelled images.

    `summary` is given by a source that already knows it (a memory-mapped cache); see `summarize`.
    """

    images: Tensor
    labels: Tensor | None
    summary: Summary | None = None

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8
        assert self.images.ndim == 4
        assert self.labels is None or (self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One image source, ready for use.

    The encoder learns from `pretrain`. `train` and `test` are labelled, and None if the source has no labels. If all
    training images are labelled, `pretrain` is `train`. `mean` and `std` (a number for each channel, on the 0..1 scale)
    are those of `pretrain`, unless the recipe gives others. `content_key` hashes pixels, labels, class names and the
    side at which they are seen: it does not depend on where the images are stored, and changes with a single pixel.
    `image_size` is the side at which
    the encoder sees the images, which may be stored larger: nothing but views of that side is ever measured.
    """

    name: str
    class_names: tuple[str, ...]
    pretrain: ImageSet
    train: ImageSet | None
    test: ImageSet | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_key: str
    image_size: int

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.pretrain.images.shape[1]


@dataclass(frozen=True, eq=False)
class Source:
    """What a source returns: the parts of a `Dataset` before `limit` is applied and statistics are computed."""

    name: str
    class_names: tuple[str, ...]
    pretrain: ImageSet
    train: ImageSet | None
    test: ImageSet | None


@dataclass(frozen=True)
class KnownImages:
    """What can be told of a source without reading its images, None for what cannot.

    Their number, all parts together; their channels; the side at which the encoder sees them, and at which they are
    stored.
    """

    num_images: int | None = None
    channels: int | None = None
    image_size: int | None = None
    store_size: int | None = None


def finish_dataset(
    source: Source,
    *,
    limit: int | None,
    limit_test: int | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Applies the limits to a source, then computes statistics and the content key.

    `limit` bounds the training images, pretraining included; `limit_test` the test images (see `subset`). `mean` and
    `std`, a number for each channel, stand in for those of the images. `image_size` is what the encoder sees, None for
    the images as they are stored.
    """
    num_classes = len(source.class_names)
    train = _limited(source.train, limit, num_classes, "data.limit")
    # Scan and copy every array once: if all training images are labelled, the two parts are the same object.
    same = source.pretrain is source.train and train is not None
    pretrain = train if same else _limited(source.pretrain, limit, num_classes, "data.limit")
    test = _limited(source.test, limit_test, num_classes, "data.limit_test")
    assert pretrain is not None
    key = hashlib.sha256(json.dumps(source.class_names).encode())
    seen = image_size or pretrain.images.shape[-1]
    if seen != pretrain.images.shape[-1]:  # otherwise the digests of the pixels have it
        key.update(f"seen at {seen}".encode())
    for part in (pretrain, None if train is pretrain else train, test):
        key.update(b"-" if part is None else _part_key(part))
    assert pretrain.summary is not None
    return Dataset(
        name=source.name,
        class_names=source.class_names,
        pretrain=pretrain,
        train=train,
        test=test,
        mean=_of_channels(mean, pretrain, "data.mean") or pretrain.summary.mean,
        std=_of_channels(std, pretrain, "data.std") or pretrain.summary.std,
        content_key=key.hexdigest(),
        image_size=seen,
    )


def _of_channels(given: Sequence[float] | None, images: ImageSet, where: str) -> tuple[float, ...] | None:
    if given is None:
        return None
    channels = images.images.shape[1]
    if len(given) != channels:
        raise InputError(
            f"has {_counted(len(given), 'number')}, and the images have {_counted(channels, 'channel')}",
            where=where,
            remedy="Give one each.",
        )
    return tuple(given)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summarize(images: Tensor) -> Summary:
    """One streamed pass over uint8 images (N, C, H, W), N >= 1, in blocks, so that a memory-mapped array stays on disk.

    The sums behind mean and std are integers, so the statistics are exact up to the last float64 division.
    """
    num_images, channels, height, width = images.shape
    digest = _shape_digest(images)
    total = torch.zeros(channels, dtype=torch.int64)
    total_squares = torch.zeros(channels, dtype=torch.int64)
    for block in _blocks(images):
        digest.update(block.numpy().data)
        values = block.flatten(2).to(torch.int32)
        total += values.sum(dim=(0, 2))
        total_squares += values.square_().sum(dim=(0, 2))
    count = num_images * height * width
    mean, std = [], []
    for s, q in zip(total.tolist(), total_squares.tolist(), strict=True):
        variance = (count * q - s * s) / (count * count)  # Python integers: no cancellation
        mean.append(s / count / 255)
        std.append(variance**0.5 / 255 or 1.0)
    return Summary(digest.hexdigest(), tuple(mean), tuple(std))


def pixel_digest(images: Tensor) -> str:
    """The digest of `summarize` alone."""
    digest = _shape_digest(images)
    for block in _blocks(images):
        digest.update(block.numpy().data)
    return digest.hexdigest()


def _shape_digest(images: Tensor) -> hashlib._Hash:
    return hashlib.sha256(repr(tuple(images.shape)).encode())


def _blocks(images: Tensor) -> Iterator[Tensor]:
    block_size = max(1, _BLOCK_BYTES // images[0].numel())
    for block in images.split(block_size):
        yield block.contiguous()


def subset(image_set: ImageSet, limit: int, *, num_classes: int, where: str) -> ImageSet:
    """At most `limit` images, class-balanced, in their original order; the whole set when it has no more than `limit`.

    Class counts differ by at most one. A class with fewer images than its share gives all it has, and the others share
    the rest. The choice is fixed (it depends on no seed), and a smaller limit chooses from the images
    of a larger one. Unlabelled images are chosen uniformly. Raises InputError, naming the field `where`, for a limit
    below 1 or too small to leave every class an image.
    """
    index = chosen_rows(image_set.labels, len(image_set), limit, num_classes=num_classes, where=where)
    if index is None:
        return image_set
    return ImageSet(image_set.images[index], None if image_set.labels is None else image_set.labels[index])


def chosen_rows(labels: Tensor | None, num_images: int, limit: int, *, num_classes: int, where: str) -> Tensor | None:
    """The rows of images with `labels` that `subset` chooses, ascending; None for all of them."""
    least = 1 if labels is None else num_classes
    if limit < least:
        raise InputError(
            f"a limit of {limit} leaves " + ("no images" if limit < 1 else f"some of the {num_classes} classes empty"),
            where=where,
            remedy=f"Give at least {least}.",
        )
    if limit >= num_images:
        return None
    groups: Sequence[Tensor] = [torch.arange(num_images)]
    if labels is not None:  # ordered once for all classes: there may be tens of thousands
        groups = labels.argsort(stable=True).split(labels.bincount(minlength=least).tolist())
    counts = _shares(limit, [len(group) for group in groups])
    chosen = [
        group[torch.randperm(len(group), generator=stream(0, f"data/subset/{k}"))[:count]]
        for k, (group, count) in enumerate(zip(groups, counts, strict=True))
    ]
    return torch.cat(chosen).sort().values


def _shares(limit: int, available: Sequence[int]) -> list[int]:
    """`limit` items dealt one at a time to the groups in turn, skipping those that have nothing left."""
    level = bisect_right(range(limit + 1), limit, key=lambda level: sum(min(n, level) for n in available)) - 1
    counts = [min(n, level) for n in available]
    for k in [k for k, n in enumerate(available) if n > level][: limit - sum(counts)]:
        counts[k] += 1
    return counts


def _limited(part: ImageSet | None, limit: int | None, num_classes: int, where: str) -> ImageSet | None:
    if part is None:
        return None
    if limit is not None:
        part = subset(part, limit, num_classes=num_classes, where=where)
    return part if part.summary is not None else ImageSet(part.images, part.labels, summarize(part.images))


def _part_key(part: ImageSet) -> bytes:
    assert part.summary is not None
    digest = hashlib.sha256(part.summary.digest.encode())
    if part.labels is not None:
        digest.update(part.labels.contiguous().numpy().data)
    return digest.digest()
