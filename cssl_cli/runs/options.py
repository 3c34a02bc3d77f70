"""Values of command options, checked without loading torch."""

from __future__ import annotations

import re
from typing import Any

from cssl_cli.errors import InputError, unknown_name

PRECISIONS = ("float32", "bfloat16", "tf32")  # of features
OTHER_DEVICE = "Give cpu, cuda or cuda:N, or leave --device out to take the best device there is."


def require_device_name(name: str | None) -> None:
    """`InputError` unless this kind of device exists; None means the best available."""
    if name is None or re.fullmatch(r"cpu|cuda(:\d+)?", name):
        return
    if re.fullmatch(r"mps(:\d+)?", name):
        raise InputError(
            "Apple GPUs (mps) are not supported: they have no float64, in which terms and classifiers are computed, "
            "and are untested",
            where="--device",
            remedy="Give cpu, or leave --device out, which on a Mac is the same.",
        )
    raise InputError(f"unknown device {name!r}", where="--device", remedy=OTHER_DEVICE)


def require_precision(name: str) -> None:
    """`InputError` unless this is a known precision of features, whether or not this machine supports it."""
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS, where="--precision")


def with_precision(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """The settings of a result whose features were computed in this precision; float32 is not recorded."""
    return settings if precision == "float32" else {**settings, "precision": precision}
