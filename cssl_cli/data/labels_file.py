"""A CSV file that labels the images of a folder, in place of class folders.

    file,label,part
    a/0001.jpg,cat,train
    b/0002.jpg,dog,test

The first line names the columns: `file`, the path below the folder; `label`; and, if wanted, `part`, by the names of
part_names.py. Other columns are ignored. Of several test parts the first in the order of part_names.py is used. Classes
are numbered by name (numbers by their value) and images of a class ordered by path.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cssl_cli.data.layout import Classes, Layout, counted, listed
from cssl_cli.data.part_names import Part, part_of
from cssl_cli.data.scan import Contents, Entry, Scanner, composed
from cssl_cli.errors import InputError, some
from cssl_cli.host.files import open_to_read

_COLUMNS = ("file", "label", "part")
_HEADER = "The first line must be file,label or file,label,part."
_SHOWN = 5


@dataclass(frozen=True)
class _Line:
    number: int
    file: str
    label: str
    part: Part


def arrange_by_labels(root: Path, name: str, scanner: Scanner) -> Layout:
    """The images below `root` as its file `name` labels them. `InputError` with the line that cannot be used."""
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{name!r} is not a file in data.root", where="data.labels", remedy="Give its path below it.")
    lines, has_parts = _lines(path)
    known = _by_path(scanner.below(str(root)), root)
    _check_files(path, lines, known)
    parts = {line.part for line in lines}
    test = min(parts - {Part.TRAIN}, default=None)
    if has_parts and (Part.TRAIN not in parts or test is None):
        raise InputError(
            f"no image is for {'training' if test is not None else 'testing'}",
            where=f"{path}: column part",
            remedy="Give train and test images, or leave the column out for a split by data.test_fraction.",
        )
    of_train, of_test = (
        _by_class([line for line in lines if line.part is part], known, root) for part in (Part.TRAIN, test)
    )
    passed_over = sum(line.part not in (Part.TRAIN, test) for line in lines)
    told = [
        f"labels of {name}",
        f"{counted(passed_over, 'image')} of other parts not used" if passed_over else "",
        f"{counted(left, 'image')} not in it not used" if (left := len(known) - len(lines)) else "",
    ]
    _check_classes(path, of_train, of_test)
    return Layout(of_train, of_test or None, [], "; ".join(part for part in told if part))


def _lines(path: Path) -> tuple[list[_Line], bool]:
    """The lines of the file, and whether it has a column of parts."""
    try:
        with open_to_read(path) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip().lower() for cell in next(reader, [])]
            places = {column: header.index(column) for column in _COLUMNS if column in header}
            if "file" not in places or "label" not in places:
                raise InputError(f"the columns are {', '.join(header) or 'missing'}", where=str(path), remedy=_HEADER)
            if twice := [column for column in places if header.count(column) > 1]:
                raise InputError(f"two columns are called {twice[0]}", where=str(path), remedy=_HEADER)
            lines = [_line(path, reader.line_num, cells, places, len(header)) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"this is no CSV file in UTF-8: {error}", where=str(path), remedy=_HEADER) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot be read: {reason}", where=str(path), remedy="Check data.labels.") from error
    if not lines:
        raise InputError("no images are listed here", where=str(path), remedy="Add a line for each.")
    return lines, "part" in places


def _line(path: Path, number: int, cells: Sequence[str], places: Mapping[str, int], width: int) -> _Line:
    where = f"{path}, line {number}"
    if len(cells) != width:
        raise InputError(f"{len(cells)} columns, where the first line has {width}", where=where, remedy=_HEADER)
    values = {column: composed(cells[place].strip()) for column, place in places.items()}
    for column, value in values.items():
        if not value:
            raise InputError(f"the {column} is missing", where=where, remedy="Fill it in, or leave the line out.")
    part = part_of(values.get("part", "train"))
    if part is None:
        raise InputError(f"the part {values['part']!r} is not known", where=where, remedy="Known: train, test, val.")
    return _Line(number, Path(values["file"]).as_posix(), values["label"], part)


def _by_path(contents: Contents, root: Path) -> dict[str, Entry]:
    """Every image by its path below the folder."""
    start = len(str(root)) + 1
    known: dict[str, Entry] = {}
    for entry in contents.files:
        name = composed(entry.path[start:]).replace(os.sep, "/")
        if name in known:
            raise InputError(
                f"two images here are called {name}, in two of Unicode's normal forms",
                where=str(root),
                remedy="Delete one of them, or rename it.",
            )
        known[name] = entry
    return known


def _check_files(path: Path, lines: Sequence[_Line], known: Mapping[str, Entry]) -> None:
    missing = [line for line in lines if line.file not in known]
    if missing:
        raise InputError(
            f"{counted(len(missing), 'file')} listed here {'is' if len(missing) == 1 else 'are'} not among the images "
            f"of the folder: {some([line.file for line in missing], limit=_SHOWN)}",
            where=f"{path}, line {missing[0].number}",
            remedy="Files are given by their paths below data.root, with the suffix of an image.",
        )
    counts = Counter(line.file for line in lines)
    twice = [line for line in lines if counts[line.file] > 1]
    if twice:
        raise InputError(
            f"{counted(len({line.file for line in twice}), 'file')} listed more than once: "
            f"{some(sorted({line.file for line in twice}), limit=_SHOWN)}",
            where=f"{path}, line {[line.number for line in twice if line.file == twice[0].file][1]}",
            remedy="Keep one line for each image.",
        )


def _by_class(lines: Sequence[_Line], known: Mapping[str, Entry], root: Path) -> Classes:
    files: dict[str, list[str]] = {}
    for line in lines:
        files.setdefault(line.label, []).append(line.file)
    return {
        label: Contents(str(root), [known[file] for file in sorted(files[label])])
        for label in sorted(files, key=_in_order)
    }


def _in_order(label: str) -> tuple[bool, int, str, str]:
    """Numbers first, by their value: Python makes no number of thousands of digits."""
    digits = label.lstrip("0") if label.isascii() and label.isdigit() else None
    return (True, 0, "", label) if digits is None else (False, len(digits), digits, label)


def _check_classes(path: Path, train: Classes, test: Classes) -> None:
    """`InputError` unless there are several classes, each with images in both parts or enough for a split."""
    if len(train) == 1:
        remedy = "Leave data.labels out to pretrain without labels."
        raise InputError(f"there is one class only: {next(iter(train))}", where=str(path), remedy=remedy)
    for what, here, there in (("test", train, test), ("training", test, train)) if test else ():
        if alone := [name for name in here if name not in there]:
            raise InputError(
                f"no {what} images of {listed(alone)}",
                where=str(path),
                remedy="Training and test images must have the same classes.",
            )
    single = [] if test else [name for name, contents in train.items() if len(contents.files) == 1]
    if single:
        raise InputError(
            f"a class with one image cannot be split into training and test images: {listed(single)}",
            where=str(path),
            remedy="Add images, or a column part that says which images are for the test.",
        )
