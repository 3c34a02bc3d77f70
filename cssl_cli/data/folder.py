"""A user's own folder of images.

Layouts, tried in this order:

    root/train/<class>/*  and  root/test/<class>/*    (val/ or valid/ where there is no test/)
    root/train/<class>/*                              split by `test_fraction`
    root/<class>/*                                    split by `test_fraction`
    root/train/*  or  root/*                          no labels: pretraining only

A class folder is searched with its sub-folders; links are followed. Hidden files and folders, and files without the
suffix of an image format (`decode.IMAGE_SUFFIXES`, any case), are ignored; so are unlabelled images in test/, which can
serve no purpose. Classes are numbered by name, images ordered by path.

The split is stratified and depends on nothing but file names: in every class the round(test_fraction * n) files, at
least 1 and at most n - 1, whose path below the class folder has the smallest hash. Adding or removing some files hardly
moves the others.

Decoded images are cached. The key covers the absolute path of every file, its size and its times of modification and
of change, the size and order of the decoded images, and the version of the decoder. The time of change cannot be set by
hand, so an edited file misses the old entry even when its size and its modification time are kept. Entries of earlier
states stay until they are deleted, which is safe at any time.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cssl_cli.data.cache import cached_images
from cssl_cli.data.decode import DECODER_VERSION, IMAGE_SUFFIXES, decode_into
from cssl_cli.data.image_set import ImageSet, Progress, Source
from cssl_cli.errors import InputError

_TEST_FOLDERS = ("test", "val", "valid")
_CLOCK_STEP = 0.02  # seconds; file times are at least this fine on Linux and macOS file systems
_LISTED = 5


@dataclass(frozen=True)
class _File:
    path: Path
    stamp: tuple[int, int, int]  # bytes, time of modification, time of change (ns)


_Classes = dict[str, list[_File]]


def load(settings: Mapping[str, Any], *, cache_dir: Path, progress: Progress | None) -> Source:
    """The images of `settings["root"]`, `size` x `size`. Raises InputError naming the path that cannot be used."""
    root = Path(settings["root"]).expanduser().absolute()
    return load_folder(
        root, size=settings["size"], test_fraction=settings["test_fraction"], cache_dir=cache_dir, progress=progress
    )


def load_folder(root: Path, *, size: int, test_fraction: float, cache_dir: Path, progress: Progress | None) -> Source:
    """See the module. `test_fraction`, in (0, 1), is used only where the layout has no test folder."""
    try:
        train, test, unlabelled = _scan(root, test_fraction)
    except OSError as error:
        raise InputError(
            f"cannot be read: {(error.strerror or str(error)).lower()}",
            where=str(error.filename or root),
            remedy="Check the permissions and links of the folder.",
        ) from error
    parts = [unlabelled] if unlabelled else [_flat(train), _flat(test)]
    files = [file for part in parts for file in part]

    def fill(images: Any) -> None:
        _let_the_clock_move(files)
        decode_into(images, [file.path for file in files], progress=progress)
        _check_unchanged(files)

    key = _key(files, [len(part) for part in parts], size)
    arrays = cached_images(cache_dir, key, size=size, lengths=[len(part) for part in parts], fill=fill)
    labels = [None] if unlabelled else [_labels(train), _labels(test)]
    sets = [ImageSet(images, y, summary) for (images, summary), y in zip(arrays, labels, strict=True)]
    if unlabelled:
        return Source("folder", (), sets[0], None, None)
    return Source("folder", tuple(train), pretrain=sets[0], train=sets[0], test=sets[1])


def _scan(root: Path, test_fraction: float) -> tuple[_Classes, _Classes, list[_File]]:
    """(training files by class, test files by class, unlabelled files): either the last is empty or the others are."""
    if not root.exists():
        raise InputError("there is no such folder", where=str(root), remedy="Check data.root.")
    if not root.is_dir():
        raise InputError("this is a file, not a folder", where=str(root), remedy="Give the folder that holds it.")
    train_root = root / "train"
    test_root = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    if not train_root.is_dir():
        if test_root is not None:
            raise InputError(
                f"there is a folder {test_root.name}/ but no train/",
                where=str(root),
                remedy="Add train/<class>/, or give a folder whose sub-folders are the classes.",
            )
        train_root = root
    classes, loose = _contents(train_root)
    if not classes:
        if not loose:
            raise _no_images(train_root)
        return {}, {}, loose
    _check_classes(train_root, classes, loose)
    if test_root is None:
        return *_split(train_root, classes, test_fraction), []
    test, loose = _contents(test_root)
    _check_classes(test_root, test, loose)
    _check_same_classes(train_root, classes, test_root, test)
    return classes, test, []


def _contents(folder: Path) -> tuple[_Classes, list[_File]]:
    """The images below each sub-folder, by its name in sorted order, and the images that lie in `folder` itself."""
    sub_folders, loose = _entries(folder)
    return {sub.name: _files_below(sub) for sub in sub_folders}, loose


def _files_below(folder: Path) -> list[_File]:
    sub_folders, files = _entries(folder)
    return files + [file for sub in sub_folders for file in _files_below(sub)]


def _entries(folder: Path) -> tuple[list[Path], list[_File]]:
    """The visible sub-folders and image files of `folder`, each sorted by name."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(folder / entry.name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 (a Path a file is slow)
                files.append((entry.name, _stamp(entry.stat())))
    return sorted(folders), [_File(folder / name, stamp) for name, stamp in sorted(files)]


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _check_classes(folder: Path, classes: _Classes, loose: list[_File]) -> None:
    if not any(classes.values()) and not loose:
        raise _no_images(folder)
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise InputError(
            "no images in this class folder" + (f", nor in {len(empty) - 1} others" if len(empty) > 1 else ""),
            where=str(folder / empty[0]),
            remedy=f"Delete it or add images ({_suffixes()}).",
        )
    if loose:
        count = f"{len(loose)} images lie" if len(loose) > 1 else "an image lies"
        raise InputError(
            f"{count} beside the class folders: {loose[0].path.name}",
            where=str(folder),
            remedy="Move images into class folders; for unlabelled images, have no sub-folders.",
        )
    if len(classes) == 1:
        raise InputError(
            f"there is one class only: {next(iter(classes))}",
            where=str(folder),
            remedy="Add class folders, or give the class folder itself to pretrain without labels.",
        )


def _check_same_classes(train_root: Path, train: _Classes, test_root: Path, test: _Classes) -> None:
    for here, names, there in ((test_root, test, train_root), (train_root, train, test_root)):
        other = train if there is train_root else test
        alone = [name for name in names if name not in other]
        if alone:
            raise InputError(
                f"{len(alone)} class folder{'s' if len(alone) > 1 else ''} with no counterpart in {there}: "
                + ", ".join(alone[:_LISTED])
                + (", ..." if len(alone) > _LISTED else ""),
                where=str(here),
                remedy=f"{train_root.name}/ and {test_root.name}/ must hold the same class folders.",
            )


def _split(folder: Path, classes: _Classes, test_fraction: float) -> tuple[_Classes, _Classes]:
    train: _Classes = {}
    test: _Classes = {}
    for name, files in classes.items():
        if len(files) == 1:
            raise InputError(
                "a class with one image cannot be split into training and test images",
                where=str(files[0].path.parent),
                remedy="Add images, or arrange the folder as train/<class>/ and test/<class>/.",
            )
        num_test = min(max(round(test_fraction * len(files)), 1), len(files) - 1)
        by_hash = sorted(files, key=lambda file: _path_hash(file.path, folder / name))
        chosen = {file.path for file in by_hash[:num_test]}
        train[name] = [file for file in files if file.path not in chosen]
        test[name] = [file for file in files if file.path in chosen]
    return train, test


def _path_hash(path: Path, folder: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path.relative_to(folder).as_posix())).digest()


def _flat(classes: _Classes) -> list[_File]:
    return [file for files in classes.values() for file in files]


def _labels(classes: _Classes) -> torch.Tensor:
    counts = torch.tensor([len(files) for files in classes.values()])
    return torch.arange(len(counts)).repeat_interleave(counts)


def _key(files: list[_File], lengths: list[int], size: int) -> str:
    digest = hashlib.sha256(f"{DECODER_VERSION}/{size}/{lengths}".encode())
    for file in files:
        digest.update(os.fsencode(file.path) + b"\0" + repr(file.stamp).encode())
    return f"folder-{digest.hexdigest()[:32]}"


def _let_the_clock_move(files: list[_File]) -> None:
    """Waits until an edit would get a new time: one made within the clock's step of the last could not be told."""
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


def _no_images(folder: Path) -> InputError:
    return InputError("no images here", where=str(folder), remedy=f"Known formats: {_suffixes()}.")


def _suffixes() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
