"""Data sets that the library `datasets` of Hugging Face reads: of the Hub, of its cache, of a local folder.

`path` is a name on the Hub (`owner/name`), or a folder if it begins with `/`, `.`, `~` or `$`: one that
`Dataset.save_to_disk` wrote, or one of Parquet, Arrow or image files, or shards of a WebDataset (.tar). A name is
downloaded the first time; after that, and for folders, no network is needed (HF_HUB_OFFLINE=1 keeps the library from
trying). No code of a data set is run and nothing is unpickled: versions of the library that could are refused.

Splits are chosen by the names of part_names.py, as folders are; columns by their types, where there is one of the type.
Images stay encoded until they are decoded as those of a folder are. They are identified by a digest of their bytes,
which are therefore read each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cssl_cli.data.decode import Encoded
from cssl_cli.data.image_set import Notice, ProgressCallback, Source
from cssl_cli.data.part_names import Part, part_of
from cssl_cli.data.rows import Request, Rows, source_of_rows
from cssl_cli.data.stamped_files import StampedFile, stamped
from cssl_cli.data.unreadable_image import UnreadableImage
from cssl_cli.errors import InputError, not_among
from cssl_cli.recipe.ranges import Channels, FolderOrName, Share, Size, Text

_LEAST_VERSION = (5, 2)  # earlier ones unpickle some formats, those before 4 run a data set's code
_BATCH = 256
_A_FILE = 8 * b"\xff"  # in place of a number of bytes


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a data set that Hugging Face's library datasets reads (the extra huggingface)"""

    path: FolderOrName
    """a name on the Hub, downloaded the first time, or a folder, as ./NAME or an absolute path"""
    config: Text | None = None
    """which of the configurations that the data set has"""
    revision: Text | None = None
    """commit, tag or branch of a data set on the Hub; null: the newest, or that in the cache"""
    image: Text | None = None
    """column of the images; null: the only one of images"""
    label: Text | None = None
    """column of the labels; null: the only one of class labels, or no labels"""
    train: Text | None = None
    """split to train on; null: the one whose name says so"""
    test: Text | None = None
    """split to test on; null: the one whose name says so, test before validation, or test_fraction of each class"""
    size: Size | None = None
    """side in pixels to which the images are resized; null: the shorter side of the first image"""
    store_size: Size | None = None
    """side at which images are stored, at least size, so that crops see more of them; null: size"""
    channels: Channels = 3
    """3: red, green and blue, of gray images the same; 1: gray, of colours their luma"""
    test_fraction: Share = 0.2
    """share of each class kept for the test, where there is no split for it"""


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,
    notice: Notice | None = None,
    own: Iterable[Path] = (),  # noqa: ARG001
) -> Source:
    """The images of `settings["path"]`. Raises InputError for what cannot be used, and where `datasets` is missing."""
    where = settings["path"]
    datasets = _library()
    splits = _Splits(_opened(datasets, settings), datasets, where)
    train_name = splits.train(settings["train"])
    columns = splits.columns(train_name, settings["image"], settings["label"])
    test_name = splits.test(settings["test"], train_name, columns)
    train = splits.rows(train_name, columns, progress)
    test = splits.rows(test_name, columns, progress) if test_name else None
    used = [f"split {train_name}" if test_name is None else f"splits {train_name} and {test_name}"]
    used += [f"column{'s' if columns.label else ''} {columns.image}{f' and {columns.label}' if columns.label else ''}"]
    unused = [name for name in splits.parts if name not in (train_name, test_name)]
    told = "; ".join([*used, *([f"not used: {', '.join(unused)}"] if unused else [])])
    size, test_fraction = settings.get("store_size") or settings["size"], settings["test_fraction"]
    request = Request("huggingface", where, size, settings["channels"], test_fraction, cache_dir, progress, notice)
    return source_of_rows(request, train, test, columns.class_names, told)


def _library() -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import datasets
    except ImportError as error:
        raise InputError(
            f"huggingface needs the library datasets, which cannot be imported: {error}",
            where="data.name",
            remedy="Install cssl with its extra huggingface, or the library: pip install 'datasets>=5.2'.",
        ) from error
    version = tuple(map(int, re.findall(r"\d+", datasets.__version__)[:2]))
    if version < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        raise InputError(
            f"the library datasets is of version {datasets.__version__}, which may run or unpickle what a data set "
            f"holds; {least} and later do not",
            where="data.name",
            remedy="Upgrade it: pip install --upgrade datasets.",
        )
    return datasets


def _opened(datasets: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The splits by their names."""
    path, config, revision = settings["path"], settings["config"], settings["revision"]
    folder = Path(path) if path.startswith("/") else None
    if folder is not None and not folder.is_dir():
        what = "this is a file, not a folder" if folder.exists() else "there is no such folder"
        raise InputError(what, where=path, remedy="Check data.path.")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if folder and any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
                opened = datasets.load_from_disk(path)
            else:
                opened = datasets.load_dataset(path, name=config, revision=None if folder else revision)
    except Exception as error:  # the library, Arrow and the Hub's client raise anything
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        remedy = (
            "Check data.path and data.config."
            if folder
            else f"Check the name, data.config and the network; a folder is written ./{path}."
        )
        raise InputError(f"this data set cannot be read: {reason}", where=path, remedy=remedy) from error
    return opened if isinstance(opened, Mapping) else {str(opened.split or "train"): opened}


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str | None
    class_names: list[str] | None


class _Splits:
    def __init__(self, parts: Mapping[str, Any], datasets: Any, where: str) -> None:
        self.parts, self.datasets, self.where = parts, datasets, where

    def train(self, name: str | None) -> str:
        if name is not None:
            return self.known("split", "train", name, list(self.parts))
        named = [split for split in self.parts if part_of(split) is Part.TRAIN]
        if len(named) == 1 or len(self.parts) == 1:
            return (named or list(self.parts))[0]
        raise self.error(f"the splits are {', '.join(self.parts)}", "Give data.train, and data.test.")

    def test(self, name: str | None, train: str, columns: _Columns) -> str | None:
        """The first split with labels, in the order of part_names.py."""
        if columns.label is None:
            return None
        if name is not None:
            if name == train:
                raise self.error(
                    f"data.train and data.test are both {name}", "Give two splits, or leave data.test out."
                )
            return self.known("split", "test", name, list(self.parts))
        parts = {split: part for split in self.parts if (part := part_of(split)) not in (None, Part.TRAIN)}
        for split in sorted(parts, key=lambda split: parts[split]):
            labels = self.parts[split].with_format(None)[columns.label] if len(self.parts[split]) else []
            if any(label not in (None, -1) for label in labels):
                return split
        return None

    def columns(self, split: str, image: str | None, label: str | None) -> _Columns:
        features = self.parts[split].features
        images = [name for name, feature in features.items() if isinstance(feature, self.datasets.Image)]
        labels = [name for name, feature in features.items() if isinstance(feature, self.datasets.ClassLabel)]
        if image is None and len(images) != 1:
            has = f"{len(images)} columns of images: {', '.join(images)}" if images else "no column of images"
            raise self.error(f"there {'are' if images else 'is'} {has}", f"Give data.image, of {', '.join(features)}.")
        if label is None and len(labels) > 1:
            raise self.error(f"there are several columns of class labels: {', '.join(labels)}", "Give data.label.")
        image = images[0] if image is None else self.known("column", "image", image, list(features))
        label = (labels or [None])[0] if label is None else self.known("column", "label", label, list(features))
        if not isinstance(features[image], self.datasets.Image) and _kind(features[image]) != "binary":
            raise self.error(
                f"the column {image} holds no images, but {features[image]}",
                f"Give data.image; of paths, save images: DATASET.cast_column({image!r}, datasets.Image()).",
            )
        if label is None:
            return _Columns(image, None, None)
        feature = features[label]
        if isinstance(feature, self.datasets.ClassLabel):
            return _Columns(image, label, list(feature.names))
        if not re.fullmatch(r"u?int\d+|(large_)?string", _kind(feature)):
            raise self.error(
                f"the column {label} holds {feature}; labels must be class labels, whole numbers or text",
                "Give data.label.",
            )
        return _Columns(image, label, None)

    def rows(self, split: str, columns: _Columns, progress: ProgressCallback | None) -> Rows:
        part = self.parts[split].with_format(None)
        for name in filter(None, (columns.image, columns.label)):
            self.known("column", "image" if name == columns.image else "label", name, list(part.features))
        labels = None if columns.label is None else self.labels(split, part[columns.label])
        part = part.select_columns([columns.image])
        if isinstance(part.features[columns.image], self.datasets.Image):
            part = part.cast_column(columns.image, self.datasets.Image(decode=False))
        encoded = _Encoded(part, columns.image)
        identity, files = encoded.identity(progress)
        return Rows(encoded, labels, identity, files, lambda row: f"{self.where}: row {row} of {split}")

    def labels(self, split: str, column: Iterable[Any]) -> np.ndarray:
        values = list(column)
        missing = sum(value is None for value in values)
        unknown = sum(value == -1 for value in values)
        if missing or unknown:
            what = "no label" if missing else "the label -1, which means none"
            raise self.error(
                f"{missing or unknown:,} of the {len(values):,} rows of {split} have {what}",
                "Give a split whose labels are known, such as data.test=validation.",
            )
        return np.array(values)

    def known(self, what: str, setting: str, name: str, names: Sequence[str]) -> str:
        if name not in names:
            raise InputError(
                f"there is no {what} {name!r}{not_among(name, names)}", where=f"{self.where}: data.{setting}"
            )
        return name

    def error(self, what: str, remedy: str) -> InputError:
        return InputError(what, where=self.where, remedy=remedy)


def _kind(feature: Any) -> str:
    """The type of a plain column, such as int64 or string; "" of others."""
    return str(getattr(feature, "dtype", ""))


class _Encoded(Sequence[Encoded]):
    """A column of images, each the bytes of a file or a path. The library is asked by one thread at a time."""

    def __init__(self, part: Any, column: str) -> None:
        self.part, self.column = part, column
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, row: Any) -> Any:
        with self._lock:
            value = self.part[row][self.column]
        return _bytes_or_path(value)

    def identity(self, progress: ProgressCallback | None) -> tuple[str, list[StampedFile]]:
        """A digest of the bytes and of which rows have them, and the files that hold the other images."""
        digest, files = hashlib.sha256(), []
        for start in range(0, len(self), _BATCH):
            for value in self.part[start : start + _BATCH][self.column]:
                with contextlib.suppress(UnreadableImage, OSError):  # told by the decoder
                    encoded = _bytes_or_path(value)
                    if isinstance(encoded, bytes):
                        digest.update(len(encoded).to_bytes(8, "little") + encoded)
                    else:
                        digest.update(_A_FILE)
                        files.append(stamped(encoded))
            if progress:
                progress(min(start + _BATCH, len(self)), len(self), "reading images")
        return digest.hexdigest(), files


def _bytes_or_path(value: Any) -> bytes | Path:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
    if data is not None:
        return bytes(data)
    if path is None:
        raise UnreadableImage("there is none")
    return Path(path)
