"""Durations such as 90s, 30m, 1h30m or 2d."""

from __future__ import annotations

import re

from cssl_cli.errors import InputError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> float | None:
    """The seconds of a duration; None for text that is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == text
    return seconds if whole and 0 < seconds < 1e9 else None


def parse_duration(text: str) -> float:
    """The seconds of `--budget`; InputError for anything that is no duration."""
    seconds = seconds_of(text)
    if seconds is None:
        raise InputError(f"{text!r} is no duration", where="--budget", remedy="Give one such as 90s, 30m, 1h30m or 2d.")
    return seconds
