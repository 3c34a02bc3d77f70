"""Arrays of images in a .npz file, as `numpy.savez` and MedMNIST write them.

    images, labels                                          split by data.test_fraction
    train_images, train_labels, test_images, test_labels
    train_images, train_labels                              split by data.test_fraction
    images  or  train_images                                no labels: pretraining only

Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), and keep their channels. Labels (N,) or (N, 1) are whole
numbers or text; `class_names`, text (K,), names the numbers 0..K-1. Nothing is unpickled.

Images are read from the file once; after that they come from the cache, whose key covers the file's path, size and
times. A file that is written over is another one.
"""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cssl_cli.data.decode import Encoded
from cssl_cli.data.image_set import Notice, ProgressCallback, Source
from cssl_cli.data.rows import Request, Rows, source_of_rows
from cssl_cli.data.stamped_files import check_unchanged, stamped
from cssl_cli.errors import InputError, not_among
from cssl_cli.host.files import open_to_read
from cssl_cli.recipe.ranges import File, Share, Size

_KNOWN = ("images", "labels", "train_images", "train_labels", "test_images", "test_labels", "class_names")
_SHAPES = "(N, H, W), (N, H, W, C) or (N, C, H, W)"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """arrays of images and labels in a .npz file"""

    file: File
    """the file; written down as an absolute path"""
    size: Size | None = None
    """side in pixels to which the images are resized; null: the shorter side that they have"""
    store_size: Size | None = None
    """side at which images are stored, at least size, so that crops see more of them; null: size"""
    channels: Literal[1, 3] | None = None
    """as for a folder; null: those that the images have, of any number"""
    test_fraction: Share = 0.2
    """share of each class kept for the test, where there are no test_images"""


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,
    notice: Notice | None = None,
    own: Iterable[Path] = (),  # noqa: ARG001
) -> Source:
    """The images of `settings["file"]`. Raises InputError naming the array that cannot be used."""
    arrays = _Arrays(Path(settings["file"]).expanduser().absolute())
    train, test = arrays.parts()
    told = f"not used: {', '.join(arrays.unused)}" if arrays.unused else ""
    size, test_fraction = settings.get("store_size") or settings["size"], settings["test_fraction"]
    where, channels = str(arrays.path), settings["channels"]
    request = Request("arrays", where, size, channels, test_fraction, cache_dir, progress, notice)
    source = source_of_rows(request, train, test, arrays.class_names(train), told)
    check_unchanged([arrays.file], "file")  # labels are read each time
    return source


def shape_of(settings: Mapping[str, Any], *, own: Iterable[Path]) -> tuple[int, int, int]:  # noqa: ARG001
    """The number of images, training and test, their channels and shorter side."""
    parts = [part for part in _Arrays(Path(settings["file"]).expanduser().absolute()).parts() if part is not None]
    assert parts[0].seen is not None
    width, height, channels = parts[0].seen
    return sum(len(part.encoded) for part in parts), channels, min(width, height)


class _Arrays:
    """The arrays of a file, each checked when it is asked for; their pixels are read when they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.reading():
            self.file = stamped(path)
            with open_to_read(path) as file, zipfile.ZipFile(file) as archive:
                self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        self.unused = [name for name in self.names if name not in _KNOWN]

    def parts(self) -> tuple[Rows, Rows | None]:
        """The images to train on and those to test on, None where the file does not say which they are."""
        whole, split = "images" in self.names, "train_images" in self.names
        if not whole and not split:
            guess = not_among("images", self.names, "It has")
            raise self.error(f"there is neither images nor train_images{guess}")
        if whole and split:
            raise self.error("there are both images and train_images", "Keep either.")
        if whole and (stray := [name for name in ("test_images", "test_labels") if name in self.names]):
            raise self.error(f"there is {stray[0]}, but no train_images", "Call images train_images.")
        train = self.rows("" if whole else "train_")
        if "test_images" not in self.names:
            return train, None
        if train.labels is None:
            raise self.error("there are test_images, but no train_labels", "Add them, or leave the test images out.")
        test = self.rows("test_")
        if test.labels is None:
            raise self.error("there are test_images, but no test_labels", "Add them, or leave the test images out.")
        if (train.labels.dtype.kind == "U") != (test.labels.dtype.kind == "U"):
            raise self.error("of train_labels and test_labels, one is text and the other numbers")
        return train, test

    def rows(self, prefix: str) -> Rows:
        name = f"{prefix}images"
        shape, dtype = self.header(name)
        images = _Pixels(self, name, *self.checked_shape(name, shape, dtype))
        labels = self.labels(f"{prefix}labels", len(images)) if f"{prefix}labels" in self.names else None
        return Rows(images, labels, name, [self.file], seen=images.seen())

    def checked_shape(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[tuple[int, ...], int | None]:
        """The shape of an array of images and its axis of channels, None if it has none."""
        if dtype != np.uint8:
            what = "an array of Python objects" if dtype.hasobject else f"{dtype}"
            raise self.error(f"{name} is {what}; images must be uint8, from 0 to 255")
        if len(shape) not in (3, 4):
            raise self.error(f"{name} has shape {shape}; images must be {_SHAPES}")
        if 0 in shape:
            raise self.error(f"{name} is empty: its shape is {shape}")
        if len(shape) == 3:
            return shape, None
        axis = _axis_of_channels(shape)
        if axis is None:
            raise self.error(
                f"{name} has shape {shape}, of which the channels could be the second number or the last; images must "
                f"be {_SHAPES}"
            )
        return shape, axis

    def labels(self, name: str, num_images: int) -> np.ndarray:
        labels = self.array(name)
        images = name.replace("labels", "images")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise self.error(f"{name} has shape {labels.shape}; labels must be (N,), one for each of {images}")
        if len(labels) != num_images:
            raise self.error(f"{name} has {len(labels):,} labels for the {num_images:,} of {images}")
        if labels.dtype.kind not in "iuU":
            nan = ", with NaN" if labels.dtype.kind == "f" and np.isnan(labels).any() else ""
            raise self.error(f"{name} is {labels.dtype}{nan}; labels must be whole numbers or text")
        return labels

    def class_names(self, train: Rows) -> list[str] | None:
        if "class_names" not in self.names:
            return None
        names = self.array("class_names")
        if names.dtype.kind != "U" or names.ndim != 1:
            raise self.error(f"class_names is {names.dtype} of shape {names.shape}; it must be text (K,)")
        if train.labels is None or train.labels.dtype.kind == "U":
            raise self.error("class_names are for labels that are numbers", "Leave class_names out.")
        return names.tolist()

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, without its values."""
        with self.reading(name), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(member)
        return shape, dtype

    def array(self, name: str) -> np.ndarray:
        with self.reading(name), np.load(self.path, allow_pickle=False) as arrays:
            found: np.ndarray = arrays[name]
        return found

    @contextmanager
    def reading(self, name: str | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.error(
                "there is no such file"
                if isinstance(error, FileNotFoundError)
                else f"cannot be read: {(error.strerror or str(error)).lower()}",
                "Check data.file and its permissions.",
            ) from error
        except MemoryError as error:
            raise self.error(f"{name or 'the file'} does not fit in memory") from error
        except Exception as error:  # zipfile, zlib and numpy's reader of headers raise anything
            what = f"{name} cannot be read: {str(error) or type(error).__name__}" if name else "this is no .npz file"
            raise self.error(what, "Write it with numpy.savez, without Python objects.") from error

    def error(self, what: str, remedy: str | None = None) -> InputError:
        return InputError(what, where=str(self.path), remedy=remedy)


class _Pixels(Sequence[Encoded]):
    """An array of images, read when the first is asked for."""

    def __init__(self, arrays: _Arrays, name: str, shape: tuple[int, ...], channels: int | None) -> None:
        self.arrays, self.name, self.shape, self.channels = arrays, name, shape, channels
        self._read: np.ndarray | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: Any) -> Any:
        with self._lock:
            if self._read is None:
                self._read = self.arrays.array(self.name)
        pixels = self._read[row]
        if self.channels is None:
            return pixels
        pixels = np.moveaxis(pixels, self.channels - 1, -1)
        return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

    def seen(self) -> tuple[int, int, int]:
        """Width and height of an image, and its number of channels."""
        sides = [length for axis, length in enumerate(self.shape) if axis not in (0, self.channels)]
        return sides[1], sides[0], 1 if self.channels is None else self.shape[self.channels]


def _axis_of_channels(shape: tuple[int, ...]) -> int | None:
    """1 or 3: of one or three channels, beside a square, or else the shortest; None where that is not clear."""
    _, first, middle, last = shape
    usual = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
    if usual:
        return usual[0] if len(usual) == 1 else None
    if (first == middle) != (middle == last):
        return 3 if first == middle else 1
    return 1 if first < min(middle, last) else 3 if last < min(first, middle) else None
