"""CIFAR-10, CIFAR-100, STL-10 and SVHN, read and if necessary downloaded by torchvision.

`root` is the folder passed to torchvision, in its own layout; by default the cache folder.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cssl_cli.data.cache import exclusive
from cssl_cli.data.image_set import ImageSet, Notice, ProgressCallback, Source
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import Folder, Undeciding

Opened = TypeVar("Opened")
_SVHN_CLASSES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a public data set, downloaded by torchvision the first time"""

    root: Annotated[Folder | None, Undeciding()] = None
    """folder that holds the download; null: the user's cache"""


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,  # noqa: ARG001
    notice: Notice | None = None,  # noqa: ARG001
    own: Iterable[Path] = (),  # noqa: ARG001
) -> Source:
    """The set named `settings["name"]`. Raises InputError if it is not in its folder and cannot be downloaded."""
    name = settings["name"]
    return _LOADERS[name](name, root_of(settings, cache_dir))


_SHAPES = {"cifar10": (60_000, 3, 32), "cifar100": (60_000, 3, 32), "svhn": (99_289, 3, 32), "stl10": (113_000, 3, 96)}


def shape_of(settings: Mapping[str, Any], *, own: Iterable[Path]) -> tuple[int, int, int]:  # noqa: ARG001
    """The number of images, training and test, their channels and side."""
    return _SHAPES[settings["name"]]


def root_of(settings: Mapping[str, Any], cache_dir: Path) -> Path:
    """The folder that holds the download: `settings["root"]`, or the cache."""
    given = settings["root"]
    try:
        root = Path(given).expanduser() if given else cache_dir
    except RuntimeError as error:
        raise InputError(f"{given!r} names a home folder that is not known", where="data.root") from error
    if given and root.exists() and not root.is_dir():
        raise InputError("this is a file, not a folder", where=str(root), remedy="Give the folder that holds it.")
    return root


def _cifar(name: str, root: Path) -> Source:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    train = open_set(name, root, lambda download: kind(root, train=True, download=download))
    test = open_set(name, root, lambda download: kind(root, train=False, download=download))
    train_set, test_set = (_image_set(part.data.transpose(0, 3, 1, 2), part.targets) for part in (train, test))
    return Source(name, tuple(train.classes), pretrain=train_set, train=train_set, test=test_set)


def _svhn(name: str, root: Path) -> Source:
    from torchvision import datasets

    train = open_set(name, root, lambda download: datasets.SVHN(root, split="train", download=download))
    test = open_set(name, root, lambda download: datasets.SVHN(root, split="test", download=download))
    train_set, test_set = (_image_set(part.data, part.labels) for part in (train, test))
    return Source(name, _SVHN_CLASSES, pretrain=train_set, train=train_set, test=test_set)


def _stl10(name: str, root: Path) -> Source:
    """Pretraining sees the labelled training images and the unlabelled ones, in this order."""
    from torchvision import datasets

    def part(split: str) -> Any:
        return open_set(name, root, lambda download: datasets.STL10(root, split=split, download=download))

    test = part("test")
    test_set, class_names = _image_set(test.data, test.labels), tuple(test.classes)
    train = part("train")
    train_set = _image_set(train.data, train.labels)
    unlabelled = part("unlabeled").data
    pretrain = torch.empty(len(train_set) + len(unlabelled), *train_set.images.shape[1:], dtype=torch.uint8)
    pretrain[: len(train_set)] = train_set.images
    pretrain[len(train_set) :] = torch.from_numpy(unlabelled)
    return Source(name, class_names, pretrain=ImageSet(pretrain, None), train=train_set, test=test_set)


_LOADERS: Mapping[str, Callable[[str, Path], Source]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "svhn": _svhn,
    "stl10": _stl10,
}


def open_set(name: str, root: Path, read: Callable[[bool], Opened], *, downloads: bool = True) -> Opened:
    """`read(False)`, which needs no network; if that finds nothing valid, `read(True)`, one process at a time.

    `downloads`: whether torchvision can download the set. `InputError` where it is not here and cannot be had.
    """
    try:
        return _read(name, root, read, download=False)
    except (RuntimeError, FileNotFoundError) as error:  # torchvision's, if files are missing or their checksums differ
        if not downloads:
            raise InputError(
                f"{name} is not here, and torchvision does not download it: {str(error).partition(chr(10))[0]}",
                where=str(root),
                remedy="Put its files there as the documentation of torchvision says, or point data.root at them.",
            ) from error
    with exclusive(root):
        try:
            return _read(name, root, read, download=True)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise InputError(
                f"{name} is not here and could not be downloaded: {reason}",
                where=str(root),
                remedy="Check the network, or copy torchvision's files of this set there, or point data.root at them.",
            ) from error


def _read(name: str, root: Path, read: Callable[[bool], Opened], *, download: bool) -> Opened:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout belongs to results
            return read(download)
    except (RuntimeError, FileNotFoundError):
        raise
    except OSError as error:
        if download:
            raise
        raise InputError(
            f"the files of {name} cannot be read: {(error.strerror or str(error)).lower()}",
            where=str(error.filename or root),
            remedy="Check the permissions.",
        ) from error
    except Exception as error:  # unpickling and scipy's reader raise anything
        raise InputError(
            f"the files of {name} cannot be read: {error or type(error).__name__}",
            where=str(root),
            remedy="Delete them and run again.",
        ) from error


def _image_set(images: np.ndarray, labels: Any) -> ImageSet:
    return ImageSet(_tensor(images), torch.as_tensor(np.asarray(labels)).to(torch.int64))


def _tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images))
