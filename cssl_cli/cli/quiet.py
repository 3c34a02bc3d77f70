"""`--quiet`: no progress and no remarks on stderr, only errors and what has to be done something about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

VARIABLE = "CSSL_QUIET"

_QUIET = ContextVar("quiet", default=False)


def is_quiet() -> bool:
    """Whether the command that runs was asked to keep quiet, by its option or by the environment."""
    return _QUIET.get() or os.environ.get(VARIABLE, "") not in ("", "0")


@contextmanager
def keeping_quiet(quiet: bool) -> Iterator[None]:
    """Within it, `is_quiet` if `quiet`, or if it was so before."""
    token = _QUIET.set(quiet or _QUIET.get())
    try:
        yield
    finally:
        _QUIET.reset(token)
