"""Reading the quantities of a run's results; anything absent, null or malformed becomes None."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from cssl_cli.theory.shown import Shown
from cssl_cli.theory.term import Declared


class Classifier(NamedTuple):
    """A classifier of probe.json: its title, its short title for narrow columns, and the name of its accuracy."""

    called: str
    head: str
    accuracy: str


CLASSIFIERS: Final[Mapping[str, Classifier]] = {
    "linear": Classifier("linear", "linear", "linear accuracy"),
    "knn": Classifier("k-NN", "k-NN", "k-NN accuracy"),
    "nearest_center": Classifier("nearest centre", "centre", "nearest-centre accuracy"),
}
ENCODERS: Final[Mapping[str, str]] = {"trained": "trained", "untrained": "untrained", "pixels": "raw pixels"}
SHARE_DIGITS = 12  # of 1 − σ: later digits are rounding of σ, which would order equal shares
ERRS = {
    "unbiased": "unbiased",
    "low": "too low for the full augmentation",
    "high": "too high for the full augmentation",
    "consistent": "biased for few images",
    "exact for the table": "exact for these images and views",
}


def part(content: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping at content[key][key]…, empty where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def numbers(value: Any) -> list[float | None] | None:
    """A list of finite numbers and None, or None if there is no list or it is empty."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    found = [number(entry) for entry in value]
    return found if any(entry is not None for entry in found) else None


def intervals(value: Any, length: int) -> tuple[list[float], list[float]] | None:
    """The lower and the upper ends of `length` intervals, NaN for missing ones; None if all are missing."""
    if not isinstance(value, Sequence) or len(value) != length:
        return None
    pairs = [numbers(entry) or [None, None] for entry in value]
    if any(len(pair) != 2 for pair in pairs) or all(None in pair for pair in pairs):
        return None
    return gaps([low for low, _ in pairs]), gaps([high for _, high in pairs])


def quoted(
    quantities: Mapping[str, Any], declared: Declared, settings: Mapping[str, Any]
) -> tuple[float, tuple[float, float] | None] | None:
    """The number quoted for a declared quantity, and its interval; None if missing.

    quantities: those of its term, or of a distance. settings: those of the analysis, with the grids of curves.
    """
    found = part(quantities, declared.name)
    value, interval = found.get("value"), found.get("interval")
    point = declared.point
    if point is not None and isinstance(value, list):
        grid = settings.get(point.grid)
        if not grid or (point.unit and part(quantities, point.unit[0], "value").get(point.unit[1]) == 0):
            return None
        at = point.place(grid)
        value, interval = value[at], interval and interval[at]
    known = number(value)
    if known is None:
        return None
    if not interval:
        return (1 - known if declared.complement else known), None
    low, high = interval
    return (1 - known, (1 - high, 1 - low)) if declared.complement else (known, (low, high))


def quantities_of(analysis: Mapping[str, Any] | None, shown: Shown) -> Mapping[str, Any]:
    """The quantities of a term in an analysis: of an encoder, or in a distance; those of a ranking are elsewhere."""
    if shown.term.of == "augmentation":
        return {}
    if shown.term.of == "distance":
        return part(analysis, shown.term.group, shown.where)
    return part(analysis, shown.where, shown.term.group)


def gaps(values: Iterable[float | None]) -> list[float]:
    """The values with NaN for None, which leaves a gap in a line."""
    return [math.nan if value is None else value for value in values]


def sample(*quantities: Mapping[str, Any]) -> str:
    """ "1,000 images, 8 views" for the quantities; several such phrases if they differ, "" if unknown."""
    phrases: list[str] = []
    for quantity in quantities:
        images, views = number(quantity.get("num_images")), number(quantity.get("num_views"))
        counted = [counted_in_words(images, "image"), counted_in_words(views, "view")]
        phrase = ", ".join(words for words in counted if words)
        if phrase and phrase not in phrases:
            phrases.append(phrase)
    return " / ".join(phrases)


def counted_in_words(count: float | None, noun: str) -> str:
    """ "1 image", "1,000 images", or "" for None."""
    return "" if count is None else f"{count:,.0f} {noun}{'' if count == 1 else 's'}"


def direction(*quantities: Mapping[str, Any]) -> str:
    """The direction of error of the quantities, in words; "" if unknown."""
    words: list[str] = []
    for quantity in quantities:
        said = ERRS.get(str(quantity.get("errs")))
        if said and said not in words:
            words.append(said)
    return " / ".join(words)


def class_names(content: Mapping[str, Any], at_least: int) -> list[str]:
    """The names of the K classes; numbers if there are fewer than `at_least` names."""
    names = content.get("class_names")
    if isinstance(names, Sequence) and not isinstance(names, str) and len(names) >= at_least:
        return [str(name) for name in names]
    return [str(label) for label in range(at_least)]
