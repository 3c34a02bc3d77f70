"""The classification sets of torchvision, each by the name of its class in `torchvision.datasets`.

`SETS` says of each what its constructor takes for the images to train and to test on, and how its images and labels are
had without decoding any. A set without parts of its own is split by `test_fraction`. Validation images are not used
where there are test images with labels.

Classes are those that occur among the labels, with torchvision's names and in its order. Images that are files are
decoded as those of a folder are, and cached by their paths and times; others by a digest of their pixels. Images of
one channel become RGB by repetition, unless `channels` is 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cssl_cli.data.decode import Encoded
from cssl_cli.data.image_set import Notice, ProgressCallback, Source
from cssl_cli.data.rows import Request, Rows, source_of_rows
from cssl_cli.data.stamped_files import stamped
from cssl_cli.data.torchvision_sets import open_set, root_of
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import Channels, Folder, Share, Size, TorchvisionSet, Undeciding

_Found = tuple[Sequence[Encoded] | np.ndarray, Any]  # the images and their labels


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a public data set, by the name of its class in torchvision, which downloads most the first time"""

    set: TorchvisionSet
    """the class in torchvision.datasets; EMNIST with its split"""
    root: Annotated[Folder | None, Undeciding()] = None
    """folder that holds the download; null: the user's cache"""
    size: Size | None = None
    """side in pixels to which the images are resized; null: the shorter side of the first image"""
    store_size: Size | None = None
    """side at which images are stored, at least size, so that crops see more of them; null: size"""
    channels: Channels = 3
    """3: red, green and blue, of gray images the same; 1: gray, of colours their luma"""
    test_fraction: Share = 0.2
    """share of each class kept for the test, where the set has no test part"""


@dataclass(frozen=True)
class TorchvisionClass:
    """How a class of `torchvision.datasets` is used: what else it takes for the part to train and to test on."""

    train: Mapping[str, Any]
    test: Mapping[str, Any] | None
    found: Callable[[Any], _Found]
    class_name: str = ""  # where it is not the set's name
    takes: Mapping[str, Any] = field(default_factory=dict)
    rooted: bool = True
    downloads: bool = True

    def arguments(self, part: Mapping[str, Any], root: Path, *, download: bool) -> dict[str, Any]:
        """What the constructor is called with."""
        given = {**({"root": root} if self.rooted else {}), **part, **self.takes}
        return given | ({"download": download} if self.downloads else {})


# ---------------------------------------------------------------------------------------------- how images are found
def _as_it_is(path: Any) -> Any:
    return path


def _by_loader(opened: Any) -> _Found:
    """Of a set that calls `loader` with each image's path: `_as_it_is` gives the path back."""
    items = [opened[index] for index in range(len(opened))]
    return [Path(path) for path, _ in items], [label for _, label in items]


def _arrays(opened: Any) -> _Found:
    pixels = np.asarray(opened.data)
    if pixels.ndim == 4 and pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = np.asarray(opened.targets if hasattr(opened, "targets") else opened.labels)
    return pixels, labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's have eight columns, the first the class


def _samples_with_paths(opened: Any) -> _Found:
    return [Path(path) for path, _ in opened._samples], [label for _, label in opened._samples]


def _samples_with_pixels(opened: Any) -> _Found:
    return np.stack([np.asarray(pixels) for pixels, _ in opened._samples]), [label for _, label in opened._samples]


def _pets(opened: Any) -> _Found:
    return opened._images, opened._labels


def _lazily_opened(opened: Any) -> _Found:
    """Of a set whose images Pillow has opened, but not read."""
    return [Path(opened[index][0].filename) for index in range(len(opened))], opened.y


def _drawn(opened: Any) -> _Found:
    items = [opened[index] for index in range(len(opened))]
    return np.stack([np.asarray(image) for image, _ in items]), [label for _, label in items]


_LOADER = {"loader": _as_it_is}
_TRAIN, _TEST = {"train": True}, {"train": False}


def _split(train: str, test: str, found: Callable[[Any], _Found] = _by_loader, **others: Any) -> TorchvisionClass:
    given: dict[str, Any] = {"takes": _LOADER if found is _by_loader else {}, **others}
    return TorchvisionClass({"split": train}, {"split": test}, found, **given)


_EMNIST = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
SETS: Mapping[str, TorchvisionClass] = {
    "CIFAR10": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "CIFAR100": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "MNIST": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "FashionMNIST": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "KMNIST": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "QMNIST": TorchvisionClass(_TRAIN, _TEST, _arrays),
    **{f"EMNIST-{s}": TorchvisionClass(_TRAIN, _TEST, _arrays, "EMNIST", {"split": s}) for s in _EMNIST},
    "USPS": TorchvisionClass(_TRAIN, _TEST, _arrays),
    "SVHN": _split("train", "test", _arrays),
    "STL10": _split("train", "test", _arrays),  # the labelled images; data.name: stl10 has the others as well
    "SEMEION": TorchvisionClass({}, None, _arrays),
    "FER2013": _split("train", "test", _samples_with_pixels, downloads=False),
    "GTSRB": _split("train", "test", _samples_with_paths),
    "OxfordIIITPet": _split("trainval", "test", _pets),
    "Caltech101": TorchvisionClass({}, None, _lazily_opened),
    "Caltech256": TorchvisionClass({}, None, _lazily_opened),
    "CLEVRClassification": _split("train", "val"),  # its test images have no labels
    "Country211": _split("train", "test"),
    "DTD": _split("train", "test"),
    "FGVCAircraft": _split("trainval", "test"),
    "Flowers102": _split("train", "test"),
    "Food101": _split("train", "test"),
    "Imagenette": _split("train", "val"),
    "ImageNet": _split("train", "val", downloads=False),
    "Places365": _split("train-standard", "val", takes={**_LOADER, "small": True}),
    "RenderedSST2": _split("train", "test"),
    "StanfordCars": _split("train", "test", downloads=False),  # its address is gone
    "EuroSAT": TorchvisionClass({}, None, _by_loader, takes=_LOADER),
    "SUN397": TorchvisionClass({}, None, _by_loader, takes=_LOADER),
    "Omniglot": TorchvisionClass({"background": True}, None, _by_loader, takes=_LOADER),
    "FakeData": TorchvisionClass(
        {"size": 200},
        {"size": 100, "random_offset": 200},
        _drawn,
        takes={"image_size": (3, 32, 32), "num_classes": 10},
        rooted=False,
        downloads=False,
    ),
}


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,
    notice: Notice | None = None,
    own: Iterable[Path] = (),  # noqa: ARG001
) -> Source:
    """The set `settings["set"]`. Raises InputError if it is not in its folder and cannot be downloaded."""
    name, root = settings["set"], root_of(settings, cache_dir)
    how = SETS[name]
    (train, opened), (test, _) = (_part(name, root, how, part) for part in (how.train, how.test))
    assert train is not None
    where = f"{root}: {name}" if how.rooted else name
    size, test_fraction = settings.get("store_size") or settings["size"], settings["test_fraction"]
    request = Request("torchvision", where, size, settings["channels"], test_fraction, cache_dir, progress, notice)
    return source_of_rows(request, train, test, _class_names(opened))


def _part(name: str, root: Path, how: TorchvisionClass, part: Mapping[str, Any] | None) -> tuple[Rows | None, Any]:
    if part is None:
        return None, None
    from torchvision import datasets

    kind = getattr(datasets, how.class_name or name)

    def read(download: bool) -> tuple[Any, _Found]:
        opened = kind(**how.arguments(part, root, download=download))
        return opened, how.found(opened)

    opened, (images, labels) = open_set(name, root, read, downloads=how.downloads)
    values = np.asarray(labels)
    if values.dtype.kind not in "iu":
        raise InputError(f"the labels of {name} are not whole numbers", where=str(root))
    if isinstance(images, np.ndarray):
        pixels = np.ascontiguousarray(images)
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.data)
        seen = pixels.shape[2], pixels.shape[1], 1 if pixels.ndim == 3 else pixels.shape[3]
        return Rows(pixels, values, digest.hexdigest(), seen=seen), opened
    try:
        files = [stamped(path) for path in images if isinstance(path, Path)]
    except OSError as error:
        raise InputError(
            f"an image of {name} cannot be read: {(error.strerror or str(error)).lower()}",
            where=str(error.filename or root),
            remedy="Delete the set and run again.",
        ) from error
    return Rows(images, values, files=files), opened


def _class_names(opened: Any) -> list[str] | None:
    """Torchvision's names of the classes, in the order of the labels; None where it has none."""
    for attribute in ("classes", "categories", "_characters"):
        if found := getattr(opened, attribute, None):
            names = [name if isinstance(name, str) else ", ".join(name) for name in found]
            if len(set(names)) == len(names):
                return names
            return [f"{wnid} {name}" for wnid, name in zip(opened.wnids, names, strict=True)]  # ImageNet has two cranes
    return None
