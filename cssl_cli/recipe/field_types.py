"""The types of a recipe's own fields that pydantic has to check; plain ranges are in `ranges`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Strict, StringConstraints

from cssl_cli.recipe.ranges import Allowed, Decay, NonNegative, Positive, Probability
from cssl_cli.recipe.validators import increasing, moderate, unreserved

MAX_NAME_LENGTH = 100
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]*"

Seed = Annotated[int, Ge(0), Lt(2**32), Allowed("a whole number from 0 to 2**32 - 1")]
Name = Annotated[
    str,
    StringConstraints(pattern=f"^{NAME_PATTERN}$", max_length=MAX_NAME_LENGTH),
    AfterValidator(unreserved),
    Allowed("at most 100 of the characters a-z 0-9 . _ -, the first a letter or digit", "NAME"),
]

# YAML has lists only: a tuple takes one (Strict(False)), its items stay strict.
PenaltyGrid = Annotated[
    tuple[Positive, ...], Strict(False), MinLen(1), AfterValidator(increasing), Allowed("increasing numbers > 0")
]
EpsilonGrid = Annotated[
    tuple[NonNegative, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(increasing),
    AfterValidator(moderate),
    Allowed("increasing numbers, 0 or in [1e-9, 1e9]"),
]
LabelFractions = Annotated[
    tuple[Annotated[float, Gt(0), Le(1)], ...],
    Strict(False),
    MinLen(1),
    AfterValidator(increasing),
    Allowed("increasing numbers in (0, 1]"),
]
Shots = Annotated[
    tuple[Annotated[int, Ge(1)], ...],
    Strict(False),
    MinLen(1),
    AfterValidator(increasing),
    Allowed("increasing whole numbers >= 1"),
]
DeltaGrid = Annotated[
    tuple[Positive, ...],
    Strict(False),
    MinLen(1),
    AfterValidator(increasing),
    AfterValidator(moderate),
    Allowed("increasing numbers in [1e-9, 1e9]"),
]
Distance = Literal["pixels", "standardized_pixels", "untrained", "trained"]
Distances = Annotated[
    tuple[Distance, ...], Strict(False), Allowed("a list of pixels, standardized_pixels, untrained, trained")
]
Names = Annotated[tuple[str, ...], Strict(False), MinLen(2), Allowed("a list of at least two names")]
DecayPair = Annotated[tuple[Decay, Decay], Strict(False), Allowed("two numbers in [0, 1)")]
ChannelMeanList = Annotated[
    tuple[Probability, ...], Strict(False), MinLen(1), Allowed("a list with a number in [0, 1] for each channel")
]
ChannelDeviationList = Annotated[
    tuple[Annotated[float, Gt(0), Le(1)], ...],
    Strict(False),
    MinLen(1),
    Allowed("a list with a number in (0, 1] for each channel"),
]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$"), Allowed("a digest of 64 hexadecimal digits")]
