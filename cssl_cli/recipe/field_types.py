"""The types of a recipe's own fields that pydantic has to check; plain ranges are in `ranges`."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import AfterValidator, Strict, StringConstraints
from pydantic_core import PydanticCustomError

from cssl_cli.host.paths import UnknownPath, expand_home, variables
from cssl_cli.recipe.ranges import Allowed, Decay, NonNegative, Positive

MAX_NAME_LENGTH = 100
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]*"
RESERVED_ENDINGS = (".partial", ".building")


def refuse() -> PydanticCustomError:
    """The error of a validator whose field says in its `Allowed` what it takes."""
    return PydanticCustomError("not_allowed", "not allowed")


def _increasing(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in pairwise(values)):
        raise refuse()
    return values


def _moderate(values: tuple[float, ...]) -> tuple[float, ...]:
    """Numbers whose squares and quotients are numbers still."""
    if any(value and not 1e-9 <= value <= 1e9 for value in values):
        raise refuse()
    return values


def _unreserved(name: str) -> str:
    if name.endswith(RESERVED_ENDINGS):
        raise ValueError(f"ends in {' or '.join(RESERVED_ENDINGS)}, as files do that are being written")
    return name


def absolute(path: str) -> str:
    """An absolute path; one that names environment variables as it stands, since they may differ where the run goes on.

    Their values are looked up when the folder is needed: `Recipe.settings`.
    """
    try:
        path = expand_home(path)
        if variables(path) and not os.path.lexists(path):
            return path if path.startswith("$") else os.path.abspath(path)  # noqa: PTH100 (it may begin with a variable)
        given = Path(path).absolute()
        plain = "/" + os.path.normpath(given).lstrip("/")
        # A link stays as it is given: what it leads to may change. Only `link/..` cannot be shortened.
        same = os.path.realpath(plain) == os.path.realpath(given)
        return _written(plain if same else str(given))
    except UnknownPath:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise refuse() from error


def _written(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UnknownPath("is in a folder whose name is no UTF-8, which no recipe can hold; rename that") from None
    return path


Seed = Annotated[int, Ge(0), Lt(2**32), Allowed("a whole number from 0 to 2**32 - 1")]
Name = Annotated[
    str,
    StringConstraints(pattern=f"^{NAME_PATTERN}$", max_length=MAX_NAME_LENGTH),
    AfterValidator(_unreserved),
    Allowed("at most 100 of the characters a-z 0-9 . _ -, the first a letter or digit", "NAME"),
]

# YAML has lists only: a tuple takes one (Strict(False)), its items stay strict.
PenaltyGrid = Annotated[
    tuple[Positive, ...], Strict(False), MinLen(1), AfterValidator(_increasing), Allowed("increasing numbers > 0")
]
EpsilonGrid = Annotated[
    tuple[NonNegative, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(_increasing),
    AfterValidator(_moderate),
    Allowed("increasing numbers, 0 or in [1e-9, 1e9]"),
]
DeltaGrid = Annotated[
    tuple[Positive, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(_increasing),
    AfterValidator(_moderate),
    Allowed("increasing numbers in [1e-9, 1e9]"),
]
Distance = Literal["pixels", "standardized_pixels", "untrained", "trained"]
Distances = Annotated[
    tuple[Distance, ...], Strict(False), Allowed("a list of pixels, standardized_pixels, untrained, trained")
]
Names = Annotated[tuple[str, ...], Strict(False), MinLen(2), Allowed("a list of at least two names")]
DecayPair = Annotated[tuple[Decay, Decay], Strict(False), Allowed("two numbers in [0, 1)")]
