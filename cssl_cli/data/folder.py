"""A user's own folder of images: arranged by class folders (layout.py) or a file of labels (labels_file.py), split if
there are no test images, decoded and cached.

Classes are numbered by name, images ordered by path, names in Unicode's composed form.

The split is stratified and depends only on file names: the test set takes from every class the round(test_fraction * n)
files, at least 1 and at most n - 1, whose path below the class folder has the smallest hash. Adding or removing files
hardly moves the others.

Decoded images are cached. The key covers the absolute path of every file, its size and its times of modification and
of change, the size and order of the decoded images, and the version of the decoder. The time of change cannot be set by
hand, so an edited file misses the old entry even if its size and modification time are unchanged. Old entries stay
until they are deleted, which is safe at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cssl_cli.data.cache import cached_images, side_and_channels
from cssl_cli.data.class_labels import held_out
from cssl_cli.data.decode import DECODER_VERSION, decode_into
from cssl_cli.data.image_set import ImageSet, Notice, ProgressCallback, Source
from cssl_cli.data.labels_file import arrange_by_labels
from cssl_cli.data.layout import Layout, arrange, found
from cssl_cli.data.scan import Contents, Entry, Scanner, composed
from cssl_cli.data.stamped_files import StampedFile, check_unchanged, let_the_clock_move, stamped, update_with
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import Channels, Folder, Share, Size, Text

_MISSING = "Check data.root; where the same images lie elsewhere, give that folder with --data-root DIR."

_ByClass = dict[str, list[Entry]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """your own images: a folder for each class, or unlabelled images"""

    root: Folder
    """the folder; written down as an absolute path"""
    size: Size = 32
    """side in pixels to which the images are resized"""
    store_size: Size | None = None
    """side at which images are stored, at least size, so that crops see more of them; null: size"""
    channels: Channels = 3
    """3: red, green and blue, of gray images the same; 1: gray, of colours their luma"""
    test_fraction: Share = 0.2
    """share of each class kept for the test, where there is no test folder"""
    labels: Text | None = None
    """a CSV file in the folder with the columns file, label and, if wanted, part; null: classes are folders"""


@dataclass(frozen=True)
class _Parts:
    """The files of a data set: unlabelled ones, or those of each class for training and for testing."""

    unlabelled: list[Entry]
    train: _ByClass
    test: _ByClass

    def files(self) -> list[list[StampedFile]]:
        parts = [self.unlabelled] if self.unlabelled else [_flat(self.train), _flat(self.test)]
        return [[stamped(Path(entry.path), entry.stat()) for entry in part] for part in parts]

    def labels(self) -> list[torch.Tensor | None]:
        return [None] if self.unlabelled else [_labels(self.train), _labels(self.test)]


def load(
    settings: Mapping[str, Any],
    *,
    cache_dir: Path,
    progress: ProgressCallback | None,
    notice: Notice | None = None,
    own: Iterable[Path] = (),
) -> Source:
    """The images of `settings["root"]`, squares of `store_size`, or `size`, pixels.

    Raises InputError naming the path that cannot be used. `notice` is called with which folder was taken for what, and
    what was left out. `own` are folders that cssl writes to, which contain none of the images; so is `cache_dir`.
    `test_fraction`, in (0, 1), is used only if there are no test images.
    """
    root = Path(settings["root"]).expanduser().absolute()
    size, channels = settings.get("store_size") or settings["size"], settings["channels"]
    try:
        _check_is_folder(root)
        scanner = Scanner(root, [*own, cache_dir])
        labels = settings["labels"]
        layout = arrange_by_labels(root, labels, scanner) if labels else arrange(root, scanner)
        parts = _parts(layout, settings["test_fraction"])
        file_parts = parts.files()
    except OSError as error:
        raise InputError(
            f"cannot be read: {(error.strerror or str(error)).lower()}",
            where=str(error.filename or root),
            remedy="Check the permissions and links of the folder.",
        ) from error
    if notice:
        for sentence in (_told(root, layout, parts), scanner.sentence()):
            if sentence:
                notice(sentence)
    files = [file for part in file_parts for file in part]
    lengths = [len(part) for part in file_parts]

    def fill(images: Any) -> None:
        let_the_clock_move(files)
        decode_into(images, [file.path for file in files], progress=progress)
        check_unchanged(files)

    arrays = cached_images(
        cache_dir,
        _key(files, lengths, size, channels),
        size=size,
        channels=channels,
        lengths=lengths,
        fill=fill,
        notice=notice,
        source=str(root),
    )
    sets = [ImageSet(images, y, summary) for (images, summary), y in zip(arrays, parts.labels(), strict=True)]
    if parts.unlabelled:
        return Source("folder", (), sets[0], None, None)
    return Source("folder", tuple(parts.train), pretrain=sets[0], train=sets[0], test=sets[1])


def shape_of(settings: Mapping[str, Any], *, own: Iterable[Path]) -> tuple[int, None, None]:
    """The number of images, training and test; their size and channels are those of the settings."""
    root = Path(settings["root"]).expanduser().absolute()
    _check_is_folder(root)
    scanner = Scanner(root, own)
    layout = arrange_by_labels(root, settings["labels"], scanner) if settings["labels"] else arrange(root, scanner)
    parts = [layout.train, layout.test or {}]
    return len(layout.unlabelled) + sum(len(child.files) for part in parts for child in part.values()), None, None


def _check_is_folder(root: Path) -> None:
    if not root.exists():
        raise InputError("there is no such folder", where=str(root), remedy=_MISSING)
    if not root.is_dir():
        raise InputError("this is a file, not a folder", where=str(root), remedy="Give the folder that holds it.")


def _told(root: Path, layout: Layout, parts: _Parts) -> str:
    """A sentence that says what the folder was taken for."""
    classes = [part for part in (parts.train, parts.test) if part]
    counts = [sum(map(len, part.values())) for part in classes] or [len(parts.unlabelled)]
    images = found(counts, list(parts.train), split=layout.test is None)
    return f"{root}: " + "; ".join(part for part in (layout.folders, images) if part)


def _parts(layout: Layout, test_fraction: float) -> _Parts:
    if layout.test is None:
        return _Parts(layout.unlabelled, *_split(layout.train, test_fraction))
    train, test = ({name: child.files for name, child in part.items()} for part in (layout.train, layout.test))
    return _Parts([], train, {name: test[name] for name in train})


def _split(classes: Mapping[str, Contents], test_fraction: float) -> tuple[_ByClass, _ByClass]:
    train: _ByClass = {}
    test: _ByClass = {}
    for name, contents in classes.items():
        files = contents.files
        if len(files) == 1:
            raise InputError(
                "a class with one image cannot be split into training and test images",
                where=contents.path,
                remedy="Add images, or arrange the folder as train/<class>/ and test/<class>/.",
            )
        chosen = held_out([_name(file.path, contents.path) for file in files], test_fraction)
        train[name] = [file for row, file in enumerate(files) if row not in chosen]
        test[name] = [file for row, file in enumerate(files) if row in chosen]
    return train, test


def _name(path: str, folder: str) -> bytes:
    return os.fsencode(composed(path[len(folder) + 1 :]))


def _flat(classes: _ByClass) -> list[Entry]:
    return [entry for files in classes.values() for entry in files]


def _labels(classes: _ByClass) -> torch.Tensor:
    counts = torch.tensor([len(files) for files in classes.values()])
    return torch.arange(len(counts)).repeat_interleave(counts)


def _key(files: list[StampedFile], lengths: list[int], size: int, channels: int) -> str:
    digest = hashlib.sha256(f"{DECODER_VERSION}/{side_and_channels(size, channels)}/{lengths}".encode())
    update_with(digest, files)
    return f"folder-{digest.hexdigest()[:32]}"
