"""Signals put off to a safe place."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ONE_REQUEST = 1.0  # seconds: a signal to a group of processes may reach one of them twice, sent and passed on


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is yielded, to be acted on at a safe place.

    A second signal of the same kind, a second or more after the first, is not deferred. Outside the main thread, where
    Python delivers no signals, nothing is changed.
    """
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    noted: dict[int, float] = {}

    def note(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number not in noted:
            noted[number] = now
            pending.append(number)
        elif now - noted[number] >= ONE_REQUEST:
            signal.signal(number, before[number])
            if callable(before[number]):
                before[number](number, frame)
            elif before[number] == signal.SIG_DFL:
                signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
