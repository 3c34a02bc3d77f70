"""The names that people give to folders of training and test images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from enum import IntEnum

from cssl_cli.errors import InputError


class Part(IntEnum):
    """What the name of a folder says it is for; of several test folders the first in this order is used."""

    TRAIN = 0
    TEST = 1
    HOLDOUT = 2
    EVAL = 3
    VAL = 4
    DEV = 5


_WORDS = {
    Part.TRAIN: "trainval|training|train|trn",
    Part.TEST: "testing|tests|test|tst",
    Part.HOLDOUT: "holdout|heldout",
    Part.EVAL: "evaluation|eval",
    Part.VAL: "validation|valid|val",
    Part.DEV: "development|devel|dev",
}
_AROUND = (
    "sets?|data|images?|imgs?|pictures|pics|photos|samples?|files|folder|dir|split|part|subset|jpe?g|png|"
    "public|private|final|labell?ed|cropped|resized|processed|augmented|ilsvrc"
)
# Digits one by one: by groups of them, a long number that does not match takes a time exponential in its length.
_PATTERNS = {part: re.compile(rf"(?:{_AROUND}|\d)*(?:{word})(?:{_AROUND}|\d)*") for part, word in _WORDS.items()}
_WRAPPER = re.compile(rf"(?:{_AROUND}|all|unknown|unlabell?ed)+")
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_A-Za-z]+")


def part_of(name: str) -> Part | None:
    """The part that a name means: train, Training, TRAIN, train_set, test-images, val2017, validationData, ...; or
    None.

    Neither case nor what separates words matters, and neither do words such as set and data, nor numbers.
    """
    squashed = re.sub(r"[\W_]+", "", name).casefold()
    return next((part for part, pattern in _PATTERNS.items() if pattern.fullmatch(squashed)), None)


def is_wrapper(name: str) -> bool:
    """Whether a name only says that the folder contains images: images, data, unlabeled, ..."""
    return _WRAPPER.fullmatch(re.sub(r"[\W_]+", "", name).casefold()) is not None


def parts_of(names: Collection[str], *, where: str) -> dict[str, Part]:
    """The names that mean a part; if there are none, those of a pair such as seg_train and seg_test."""
    found = {name: part for name in names if (part := part_of(name)) is not None}
    if found:
        return found
    by_rest: dict[tuple[str, ...], dict[str, Part]] = defaultdict(dict)
    for name in names:
        tokens = _TOKEN.findall(name)
        said = [part_of(token) for token in tokens]
        if sum(part is not None for part in said) == 1:
            rest = tuple(token.casefold() for token, part in zip(tokens, said, strict=True) if part is None)
            by_rest[rest][name] = next(part for part in said if part is not None)
    pairs = [pair for pair in by_rest.values() if Part.TRAIN in pair.values() and len(set(pair.values())) > 1]
    if len(pairs) > 1:
        all_names = ", ".join(name for pair in pairs for name in pair)
        raise InputError(
            f"there are several pairs of folders for training and test: {all_names}",
            where=where,
            remedy="Give a folder with one pair, called train/ and test/, each with a sub-folder for every class.",
        )
    return pairs[0] if pairs else {}
