"""What a member of a sweep lacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Missing:
    """Which results of a member are missing; with `until`, only its training up to this epoch."""

    probe: bool
    analysis: bool
    until: int | None = None
