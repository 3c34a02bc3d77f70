"""Decides which folder of a data set holds what, or explains why it cannot.

Known layouts, where `train` and `test` stand for the names of part_names.py, in any case:

    root/train/<class>/*  and  root/test/<class>/*    of several test folders with classes test before val before dev
    root/train/<class>/*                              to be split
    root/<class>/*                                    to be split
    root/train/*  or  root/*                          no labels: pretraining only

A test folder without class folders is useless and skipped. A sentence reports what was taken for what. Ambiguous
layouts are refused: two training folders, top folders with the same sub-folders, a folder beside train/ that looks like
its test folder under another name.

A name alone does not make a folder of images a training or test set. `test` beside `control`, `train` beside `car` and
`plane`, all with their images directly in them, are classes; `train` beside one other folder could be either, and is
refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cssl_cli.data.decode import IMAGE_SUFFIXES
from cssl_cli.data.part_names import Part, is_wrapper, part_of, parts_of
from cssl_cli.data.scan import Contents, Entry, Listing, Scanner, composed
from cssl_cli.errors import InputError

Classes = dict[str, Contents]

_LISTED = 10


@dataclass(frozen=True)
class Layout:
    """The images by class, `test` None if they are to be split; or the `unlabelled` ones. `folders` describes them."""

    train: Classes
    test: Classes | None
    unlabelled: list[Entry]
    folders: str


def arrange(root: Path, scanner: Scanner) -> Layout:
    """The layout of the folder `root`; `InputError` if it has none, or is ambiguous."""
    top = scanner.listing(str(root))
    if top.own:
        remedy = "Give the folder of the images in data.root."
        raise InputError("this is a run or a sweep of cssl, not a folder of images", where=str(root), remedy=remedy)
    return _Arrangement(root, scanner, top).layout()


class _Arrangement:
    def __init__(self, root: Path, scanner: Scanner, top: Listing) -> None:
        self.root, self.scanner, self.top = root, scanner, top
        self.own = [name for name, entry in top.folders.items() if scanner.is_own(entry)]
        self.parts = parts_of([name for name in top.folders if name not in self.own], where=str(root))
        self.found: dict[str, Contents] = {}

    def layout(self) -> Layout:
        named = [name for name, part in self.parts.items() if part is Part.TRAIN]
        trains = [name for name in named if self.below(name).files]
        if len(trains) > 1:
            raise self.error(
                f"each of these could be the training images: {listed(trains)}",
                f"Keep one of them here, or give {self.root / trains[0]} itself in data.root.",
            )
        if trains:
            return self.with_training_folder(trains[0])
        if named:
            raise no_images(self.root / named[0])
        if self.parts and not self.tests_are_classes():
            names = list(self.parts)
            raise self.error(
                f"there is a folder {names[0]}/ but no train/",
                "Add train/<class>/, or give a folder whose sub-folders are the classes.",
            )
        return self.of_root()

    # ---------------------------------------------------------------------- with a folder for training
    def with_training_folder(self, name: str) -> Layout:
        train = _unwrapped(self.below(name), Part.TRAIN)
        classes = train.children()
        if not train.filled():
            return self.without_classes(name, train)
        check_classes(train.path, classes, train.loose)
        chosen, passed_over = self.choose_test(classes)
        if chosen is None:
            self.refuse_unknown_test(name, classes)
            check_distinct_folders(train.path, classes)
            return Layout(classes, None, [], self.told(f"{name}/ for training", [name], passed_over))
        test = _unwrapped(self.below(chosen), self.parts[chosen])
        of_test = test.children()
        check_classes(test.path, of_test, test.loose)
        _check_same_classes(train.path, classes, test.path, of_test)
        _check_no_folder_in_both(train, test)
        told = f"{name}/ for training, {chosen}/ for testing"
        return Layout(classes, of_test, [], self.told(told, [name, chosen], passed_over))

    def without_classes(self, name: str, train: Contents) -> Layout:
        """Unlabelled images; or one of several classes, if no other folder is called a part."""
        others = [] if len(self.parts) > 1 else self.others_with_images()
        if len(others) > 1:
            return self.of_root()
        if others:
            raise self.error(
                f"{name}/ and {others[0]}/ could be two classes, or {name}/ the images to train on",
                f"For classes, move both into a folder {self.root / name}; otherwise move {others[0]}/ away, or give "
                f"{self.root / name} itself in data.root.",
            )
        return Layout({}, None, train.files, self.told(f"{name}/ for training", [name]))

    def choose_test(self, classes: Collection[str]) -> tuple[str | None, list[str]]:
        """The test folder, and the candidates that were skipped because they have no class folders."""
        passed_over: list[str] = []
        for part in (part for part in Part if part is not Part.TRAIN):
            named = [name for name, of_name in self.parts.items() if of_name is part]
            suited = [name for name in named if _has_classes(_unwrapped(self.below(name), part), classes)]
            if len(suited) > 1:
                raise self.error(
                    f"each of these could be the test images: {listed(suited)}",
                    "Keep one of them here.",
                )
            passed_over += [name for name in named if name not in suited]
            if suited:
                return suited[0], passed_over
        empty = [name for name in passed_over if not self.below(name).files]
        if empty:
            raise no_images(self.root / empty[0])
        return None, passed_over

    def refuse_unknown_test(self, train: str, classes: Collection[str]) -> None:
        """A folder with the classes of train/ must be a test folder, whatever its name; other classes are suspect."""
        for name in self.others_with_images():
            below = self.below(name).filled()
            if set(below) & set(classes):
                raise self.error(
                    f"{name}/ holds class folders of {train}/, but its name does not say what it is for",
                    f"Rename it to test/ to test on it; otherwise move it away, or give {self.root / train} itself in "
                    "data.root.",
                )
            if below:
                raise self.error(
                    f"{train}/ and {name}/ both hold folders of images: {train}/ may be the training images or a class",
                    f"For training images, give {self.root / train} itself in data.root; for classes, move the images "
                    f"out of the sub-folders and all the classes into a folder {self.root / 'train'}.",
                )

    # ---------------------------------------------------------------------- classes at the top
    def tests_are_classes(self) -> bool:
        """Whether folders named like a test folder are classes: they and others hold images directly."""
        others = [self.below(name) for name in self.others_with_images() if not is_wrapper(name)]
        flat = not any(self.below(name).filled() for name in self.parts)
        return flat and bool(others) and all(other.loose for other in others)

    def of_root(self) -> Layout:
        everything = self.scanner.below(str(self.root), self.top)
        classes, filled = everything.children(), everything.filled()
        if not filled and not everything.files:
            raise no_images(self.root)
        unused = _unused(sorted(everything.own - set(filled)), "written by cssl")
        if not filled:
            return Layout({}, None, everything.loose, unused)
        self.refuse_lone_folder(everything)
        check_classes(str(self.root), classes, everything.loose)
        check_distinct_folders(str(self.root), classes)
        return Layout(classes, None, [], unused)

    def refuse_lone_folder(self, everything: Contents) -> None:
        """An unpacked archive often leaves a single folder with everything in it."""
        filled = everything.filled()
        if len(filled) == 1 and not everything.loose:
            ((name, only),) = filled.items()
            inner = list(only.filled())
            if len(inner) > 1 or any(part_of(folder) is Part.TRAIN for folder in inner):
                raise self.error(
                    f"all images are in {name}/, in sub-folders of it: {listed(inner)}",
                    f"Give {self.root / name} in data.root.",
                )

    # ---------------------------------------------------------------------- what it is made of
    def below(self, name: str) -> Contents:
        if name not in self.found:
            self.found[name] = self.scanner.below(self.top.folders[name].path)
        return self.found[name]

    def others_with_images(self) -> list[str]:
        """The folders whose names do not say training or test."""
        others = [name for name in self.top.folders if name not in self.parts and name not in self.own]
        return [name for name in others if self.below(name).files]

    def told(self, used: str, names: Collection[str], without_classes: Collection[str] = ()) -> str:
        """Reports which folder was taken for what, and what was not used."""
        rest = [name for name in self.top.folders if name not in (*names, *without_classes)]
        written = [name for name in rest if name in self.own or (name in self.found and self.found[name].own)]
        told = [
            used,
            _unused(without_classes, "without class folders"),
            _unused([name for name in rest if name not in written]),
            _unused(written, "written by cssl"),
            f"{counted(len(self.top.files), 'image')} beside them not used" if self.top.files else "",
        ]
        return "; ".join(part for part in told if part)

    def error(self, what: str, remedy: str) -> InputError:
        return InputError(what, where=str(self.root), remedy=remedy)


# -------------------------------------------------------------------------- what a folder is made of
def _unwrapped(contents: Contents, part: Part) -> Contents:
    """The folder of the classes: train/ itself, or the one folder in it, such as train/train/ or train/images/."""
    filled = contents.filled()
    if len(filled) == 1 and not contents.loose:
        ((name, only),) = filled.items()
        same = name == composed(Path(contents.path).name)
        if (same or part_of(name) is part or is_wrapper(name)) and only.filled():
            return _unwrapped(only, part)
    return contents


def _has_classes(contents: Contents, classes: Collection[str]) -> bool:
    """Whether a folder has class folders; images/ does not count, unless it is a class elsewhere."""
    filled = contents.filled()
    return len(filled) > 1 or any(name in classes or not is_wrapper(name) for name in filled)


# -------------------------------------------------------------------------- what can be wrong with it
def check_classes(folder: str, classes: Classes, loose: Collection[Entry]) -> None:
    """`InputError` unless the folder holds at least two classes, each with images, and nothing else."""
    if not any(child.files for child in classes.values()) and not loose:
        raise no_images(Path(folder))
    empty = [child.path for child in classes.values() if not child.files]
    if empty:
        others = len(empty) - 1
        raise InputError(
            "no images in this class folder" + (f", nor in {counted(others, 'other')}" if others else ""),
            where=empty[0],
            remedy=f"Delete {'it' if not others else 'them'} or add images ({_suffixes()}).",
        )
    if loose:
        lie = f"{len(loose)} images lie" if len(loose) > 1 else "an image lies"
        raise InputError(
            f"{lie} beside the class folders: {listed([entry.name for entry in loose])}",
            where=folder,
            remedy="Move images into class folders; for unlabelled images, have no sub-folders.",
        )
    if len(classes) == 1:
        raise InputError(
            f"there is one class only: {next(iter(classes))}",
            where=folder,
            remedy="Add class folders, or give the class folder itself to pretrain without labels.",
        )


def check_distinct_folders(folder: str, classes: Classes) -> None:
    """`InputError` if two of the folders hold the same sub-folders, or one contains the names of those beside it.

    The former look like parts that contain the classes, the latter like a copy of the whole.
    """
    met: dict[str, list[str]] = {}
    inner = {name: _inner_folders(child) for name, child in classes.items()}
    for name, sub_folders in inner.items():
        copies = sorted(sub for sub in sub_folders if sub in classes and sub != name)
        if len(copies) > 1:
            raise InputError(
                f"{name}/ holds sub-folders called like the classes beside it ({listed(copies)}): a class, or a copy?",
                where=folder,
                remedy=f"If it is a copy, move {classes[name].path} away. If it is a class, move its images out of "
                "their sub-folders.",
            )
        for sub in sub_folders:
            met.setdefault(sub, []).append(name)
    # Neighbours only: all pairs of thousands of classes would take too long.
    for pair in {pair for names in met.values() for pair in pairwise(names)}:
        first, second = (inner[name] for name in pair)
        common = first & second
        if len(common) > 1 or (common in (first, second) and len(first | second) > 1):
            raise InputError(
                f"{pair[0]}/ and {pair[1]}/ hold the same sub-folders ({listed(sorted(common))}): parts, or classes?",
                where=folder,
                remedy=_remedies(folder, pair, sorted(common)),
            )


def _remedies(folder: str, pair: tuple[str, str], common: list[str]) -> str:
    """What to do with two folders that hold the same sub-folders, by what they are."""
    one, other = pair
    sub = common[0]
    return (
        f"If {one} and {other} are classes, move the images to learn from out of the sub-folders and the rest away, or "
        f"give these names that differ, such as {one}/{one}-{sub} and {other}/{other}-{sub}. If the classes are their "
        f"sub-folders, move the images of both together, as in {Path(folder, sub)}, or give one of them in data.root, "
        f"such as {Path(folder, one)}. If one is to train on and the other to test on, call them train/ and test/ and "
        f"give the folder that they are in, {folder}, in data.root."
    )


def _inner_folders(contents: Contents) -> frozenset[str]:
    """The sub-folders with images, looking through folders that hold a single one, such as images/."""
    filled = contents.filled() if len(contents.folders) > 1 else {}
    while len(filled) == 1 and not contents.loose:
        (contents,) = filled.values()
        inner = contents.filled()
        if not inner:
            break
        filled = inner
    return frozenset(filled)


def _check_same_classes(train_root: str, train: Classes, test_root: str, test: Classes) -> None:
    for here, names, there, others in ((test_root, test, train_root, train), (train_root, train, test_root, test)):
        alone = [name for name in names if name not in others]
        if alone:
            raise InputError(
                f"{counted(len(alone), 'class folder')} with no counterpart in {there}: {listed(alone)}"
                + _look_alike(alone, others),
                where=here,
                remedy=f"{Path(train_root).name}/ and {Path(test_root).name}/ must hold the same class folders.",
            )


def _look_alike(names: Collection[str], others: Collection[str]) -> str:
    alike = {other.casefold().strip(): other for other in others}
    pairs = [(name, alike[key]) for name in names if (key := name.casefold().strip()) in alike]
    return f" ({pairs[0][0]!r} and {pairs[0][1]!r} differ in case or spaces only)" if pairs else ""


def _check_no_folder_in_both(train: Contents, test: Contents) -> None:
    """With a link from test/ into train/, the encoder would be tested on its training images."""
    both = train.identities.keys() & test.identities.keys()
    if both:
        folder = min(both)
        raise InputError(
            f"this is the same folder as {train.identities[folder]}",
            where=test.identities[folder],
            remedy="Images to test on must not be those to train on: remove the link.",
        )


def no_images(folder: Path) -> InputError:
    return InputError("no images here", where=str(folder), remedy=f"Known formats: {_suffixes()}.")


def _suffixes() -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))


# -------------------------------------------------------------------------- in words
def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Collection[str]) -> str:
    return ", ".join(list(names)[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def found(counts: Sequence[int], class_names: Sequence[str], *, split: bool) -> str:
    """How many images there are for what; `split` by data.test_fraction or not. Without class names, no labels."""
    if not class_names:
        return f"{counted(counts[0], 'image')} without labels, for pretraining only"
    by = ", split by data.test_fraction" if split else ""
    classes = f"{len(class_names)} classes: {listed(class_names)}"
    return f"{counted(counts[0], 'image')} for training, {counts[1]:,} for testing{by}; {classes}"


def _unused(names: Collection[str], why: str = "") -> str:
    folders = listed([f"{name}/" for name in names])
    return f"not used: {folders}{f' ({why})' if why else ''}" if names else ""
