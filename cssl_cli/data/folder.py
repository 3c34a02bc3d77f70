"""A user's own folder of images: arranged (layout.py), split if there is no test folder, decoded and cached.

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
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cssl_cli.data.cache import cached_images
from cssl_cli.data.decode import DECODER_VERSION, decode_into
from cssl_cli.data.image_set import ImageSet, Notice, ProgressCallback, Source
from cssl_cli.data.layout import Layout, arrange, counted, listed
from cssl_cli.data.scan import Contents, Entry, Scanner, composed
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import Folder, Share, Size

_MISSING = "Check data.root; where the same images lie elsewhere, give that folder with --data-root DIR."
_CLOCK_STEP = 0.02  # seconds; file times are at least this fine on Linux and macOS file systems

_ByClass = dict[str, list[Entry]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """your own images: a folder for each class, or unlabelled images"""

    root: Folder
    """the folder; written down as an absolute path"""
    size: Size = 32
    """side in pixels to which the images are resized"""
    test_fraction: Share = 0.2
    """share of each class kept for the test, where there is no test folder"""


@dataclass(frozen=True)
class _File:
    path: Path
    stamp: tuple[int, int, int]  # bytes, time of modification, time of change (ns)


@dataclass(frozen=True)
class _Parts:
    """The files of a data set: unlabelled ones, or those of each class for training and for testing."""

    unlabelled: list[Entry]
    train: _ByClass
    test: _ByClass

    def files(self) -> list[list[_File]]:
        parts = [self.unlabelled] if self.unlabelled else [_flat(self.train), _flat(self.test)]
        return [[_File(Path(entry.path), _stamp(entry.stat())) for entry in part] for part in parts]

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
    """The images of `settings["root"]`, `size` x `size`. Raises InputError naming the path that cannot be used.

    `notice` is called with which folder was taken for what, and what was left out. `own` are folders that cssl writes
    to, which contain none of the images; so is `cache_dir`. `test_fraction`, in (0, 1), is used only if the layout has
    no test folder.
    """
    root = Path(settings["root"]).expanduser().absolute()
    size = settings["size"]
    try:
        _check_is_folder(root)
        scanner = Scanner(root, [*own, cache_dir])
        layout = arrange(root, scanner)
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
        _let_the_clock_move(files)
        decode_into(images, [file.path for file in files], progress=progress)
        _check_unchanged(files)

    arrays = cached_images(cache_dir, _key(files, lengths, size), size=size, lengths=lengths, fill=fill, notice=notice)
    sets = [ImageSet(images, y, summary) for (images, summary), y in zip(arrays, parts.labels(), strict=True)]
    if parts.unlabelled:
        return Source("folder", (), sets[0], None, None)
    return Source("folder", tuple(parts.train), pretrain=sets[0], train=sets[0], test=sets[1])


def _check_is_folder(root: Path) -> None:
    if not root.exists():
        raise InputError("there is no such folder", where=str(root), remedy=_MISSING)
    if not root.is_dir():
        raise InputError("this is a file, not a folder", where=str(root), remedy="Give the folder that holds it.")


def _told(root: Path, layout: Layout, parts: _Parts) -> str:
    """A sentence that says what the folder was taken for."""
    if parts.unlabelled:
        images = f"{counted(len(parts.unlabelled), 'image')} without labels, for pretraining only"
    else:
        num_train, num_test = (sum(map(len, classes.values())) for classes in (parts.train, parts.test))
        split = "" if layout.test is not None else ", split by data.test_fraction"
        names = listed(list(parts.train))
        images = f"{counted(num_train, 'image')} for training, {num_test:,} for testing{split}"
        images += f"; {len(parts.train)} classes: {names}"
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
        num_test = min(max(round(test_fraction * len(files)), 1), len(files) - 1)
        by_hash = sorted(range(len(files)), key=lambda row: _path_hash(files[row].path, contents.path))
        chosen = set(by_hash[:num_test])
        train[name] = [file for row, file in enumerate(files) if row not in chosen]
        test[name] = [file for row, file in enumerate(files) if row in chosen]
    return train, test


def _path_hash(path: str, folder: str) -> bytes:
    inside = composed(path[len(folder) + 1 :])
    return hashlib.sha256(os.fsencode(inside)).digest()


def _flat(classes: _ByClass) -> list[Entry]:
    return [entry for files in classes.values() for entry in files]


def _labels(classes: _ByClass) -> torch.Tensor:
    counts = torch.tensor([len(files) for files in classes.values()])
    return torch.arange(len(counts)).repeat_interleave(counts)


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _key(files: list[_File], lengths: list[int], size: int) -> str:
    digest = hashlib.sha256(f"{DECODER_VERSION}/{size}/{lengths}".encode())
    for file in files:
        digest.update(os.fsencode(file.path) + b"\0" + repr(file.stamp).encode())
    return f"folder-{digest.hexdigest()[:32]}"


def _let_the_clock_move(files: list[_File]) -> None:
    """Waits until an edit would get a new time stamp: one within the same clock tick would go unnoticed."""
    newest = max(file.stamp[2] for file in files) / 1e9
    age = time.time() - newest
    if 0 <= age < _CLOCK_STEP:
        time.sleep(_CLOCK_STEP - age)


def _check_unchanged(files: list[_File]) -> None:
    for file in files:
        try:
            unchanged = _stamp(file.path.stat()) == file.stamp
        except OSError:
            unchanged = False
        if not unchanged:
            raise InputError(
                "this image was changed while the folder was being read",
                where=str(file.path),
                remedy="Run the command again once the folder is complete.",
            )
