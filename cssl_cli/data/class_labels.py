"""Classes numbered from labels, and images kept for the test where a data set names none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cssl_cli.errors import InputError, some

_PARTS = ("training", "test")
_SHOWN = 5


def number_classes(
    parts: Sequence[np.ndarray], class_names: Sequence[str] | None, *, where: str
) -> tuple[tuple[str, ...], list[Tensor]]:
    """The names of the classes and each part's labels, int64 (N,) in 0..K-1.

    `parts` are whole numbers or text (N,): of the training images and, if there is a second, of the test images. The
    classes are the values that occur, in their order; `class_names[v]` is the name of the number v, by default the
    number itself. `InputError` unless there are two classes or more, each with images in every part.
    """
    if any(part.dtype.kind == "U" for part in parts):
        parts = [part.astype(str) for part in parts]
    # Each part by itself: of signed and unsigned numbers of 64 bits together, numpy makes fractions.
    of_parts = [np.unique(part, return_inverse=True) for part in parts]
    values = sorted({value for of_part, _ in of_parts for value in of_part.tolist()})
    names = [str(value) for value in values]
    if class_names is not None:
        if values[0] < 0 or values[-1] >= len(class_names):
            wrong = values[0] if values[0] < 0 else values[-1]
            raise InputError(
                f"the label {wrong} has no name: there are {len(class_names)} names of classes",
                where=where,
                remedy=f"Labels must be 0 to {len(class_names) - 1}, one for each name.",
            )
        names = [class_names[value] for value in values]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"two classes are called {twice[0]}", where=where, remedy="Give each its own name.")
    if len(names) == 1:
        raise InputError(
            f"there is one class only: {names[0]}",
            where=where,
            remedy="Leave the labels out to pretrain without labels.",
        )
    numbers = {value: number for number, value in enumerate(values)}
    numbered = [np.array([numbers[value] for value in of_part.tolist()])[rows] for of_part, rows in of_parts]
    for what, labels in zip(_PARTS, numbered, strict=False):
        counts = np.bincount(labels, minlength=len(names))
        if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
            raise InputError(
                f"no {what} images of {'the class' if len(empty) == 1 else 'these classes'}: "
                f"{some(empty, limit=_SHOWN)}",
                where=where,
                remedy="Training and test images must have the same classes.",
            )
    return tuple(names), [torch.from_numpy(labels).to(torch.int64) for labels in numbered]


def held_out(names: Sequence[bytes], test_fraction: float) -> set[int]:
    """Which images of a class to keep for the test: the round(test_fraction * N) whose names have the smallest hash,
    at least 1 and at most N - 1."""
    num_test = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    by_hash = sorted(range(len(names)), key=lambda row: hashlib.sha256(names[row]).digest())
    return set(by_hash[:num_test])


def split_rows(labels: np.ndarray, test_fraction: float, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train and to test on, ascending, with `held_out` of each class by the numbers of the rows."""
    in_test = np.zeros(len(labels), dtype=bool)
    order = labels.argsort(kind="stable")  # once for all classes: there may be tens of thousands
    values, starts = np.unique(labels[order], return_index=True)
    for value, rows in zip(values, np.split(order, starts[1:]), strict=True):
        if len(rows) == 1:
            raise InputError(
                f"the class {value} has one image, which cannot be split into training and test images",
                where=where,
                remedy="Add images, leave the class out, or say which images are for the test.",
            )
        in_test[rows[sorted(held_out([str(row).encode() for row in rows], test_fraction))]] = True
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)
