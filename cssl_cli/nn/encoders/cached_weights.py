"""A file of weights that a library has downloaded before, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CachedWeights:
    """Weights that are `called` so, in the file `path`; `mean` and `std` normalise the channels of their images."""

    called: str
    path: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
