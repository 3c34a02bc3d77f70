"""Termination signals: raised as an exception, deferred to a safe point, or enforced if nothing reacts."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from cssl_cli.host.streams import is_muted

# Ctrl-C, the end, a terminal that is gone, and the two by which batch systems announce the end of a job's time.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ONE_REQUEST = 1.0  # seconds: a signal to a group of processes may reach one of them twice, sent and passed on
GRACE = 3.0  # seconds until the process is ended if the exception could not do it: in code that does not return
TICK = 0.1  # seconds between two looks of what watches over that
SHOW_CURSOR = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """A signal asked to end. No `Exception`: libraries are not to swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


# ---------------------------------------------------------------------- wherever it stands
class _Listener:
    """Raises `Stopped` for the first signal; ends the process for a second one, or when GRACE has passed."""

    def __init__(self) -> None:
        self.active = False
        self.deferred = False
        self.patient = False  # a second signal says no more than the first
        self.came: dict[int, float] = {}  # when each signal came first
        self.arrived: int | None = None  # the first of all, perhaps not known to the main thread yet
        self.last_words: list[Callable[[int], object]] = []
        self.before: dict[int, Any] = {}

    def start(self, ignored: Sequence[int] = (), *, patient: bool = False) -> None:
        self.came, self.arrived, self.active, self.patient = {}, None, True, patient
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self.wakeup = signal.set_wakeup_fd(self.writing, warn_on_full_buffer=False)
        self.hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        self.before = _handlers()
        for number in self.before:
            signal.signal(number, signal.SIG_IGN if number in ignored else self._raise)

    def stop(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self.hook
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.writing)
        self.watcher.join()
        os.close(self.reading)
        self.active = self.patient = False

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.came:
            self.came[number] = now
            raise Stopped(number)
        if not self.patient and now - min(self.came.values()) >= ONE_REQUEST:
            _end(number)

    def _watch(self) -> None:
        """A thread of its own: handlers wait for the main thread to come back from whatever it calls."""
        came: dict[int, float] = {}
        waited, insisted, looked = 0.0, False, 0.0
        signals = select.poll()  # `select.select` takes no descriptor beyond 1,023
        signals.register(self.reading, select.POLLIN)
        while waited < GRACE:
            before, looked = looked, time.monotonic()
            waited += looked - before if came and (insisted or not self.deferred) else 0.0
            if signals.poll(1000 * TICK if came else None):
                data = os.read(self.reading, 1)
                if not data:
                    return
                if data[0] in ENDING:
                    self.arrived = self.arrived or data[0]
                    looked = time.monotonic()
                    again = looked - came.setdefault(data[0], looked) >= ONE_REQUEST
                    insisted = insisted or (again and not self.patient)
        _end(next(iter(came)))

    def _unraisable(self, raised: sys.UnraisableHookArgs) -> None:
        """A stop that came in the middle of a clean-up of Python's cannot be raised; the watcher sees to it."""
        if not issubclass(raised.exc_type, KeyboardInterrupt):
            self.hook(raised)


_listener = _Listener()


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Within it, a signal raises `Stopped` in the main thread, and if that does not end the process, GRACE does.

    A second one ends it at once. Signals that were ignored when the process began (nohup) stay so. Within another one,
    and outside the main thread, where Python delivers no signals, nothing is changed.
    """
    if _listener.active or not _in_main_thread():
        yield
        return
    _listener.start()
    try:
        yield
    finally:
        _listener.stop()


def end_on_signals(*, ignored: Sequence[int] = (), patient: bool = False) -> None:
    """The same for the rest of the process, or until `default_signals`; signals `ignored` have no effect.

    patient: nor has a second one. Whoever is behind it kills the process when it has waited long enough.
    """
    if not _listener.active:
        _listener.start(ignored, patient=patient)


def is_patient() -> bool:
    """Whether a second signal has no effect here."""
    return _listener.patient


def default_signals() -> None:
    """From here on a signal ends the process without a word: its work is done."""
    for number in _handlers():
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Signals come when it is left; processes that are started within it begin without them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def received() -> int | None:
    """The signal that asked this command to end first, if one has."""
    return next(iter(_listener.came), None) if _listener.active else None


def has_come(number: int) -> bool:
    """Whether this signal is among those that asked this process to end."""
    return number in _listener.came


def arrived() -> int | None:
    """The same as soon as it is there, even if the main thread is in a call that does not return."""
    return _listener.arrived if _listener.active else None


@contextmanager
def last_words(say: Callable[[int], object]) -> Iterator[None]:
    """Within it, a process that is ended as it stands calls `say` with its exit code before."""
    _listener.last_words.append(say)
    try:
        yield
    finally:
        _listener.last_words.remove(say)


def _end(number: int) -> NoReturn:
    """End the process as it stands: files appear whole or not at all, so that nothing is damaged."""
    if not is_muted():
        write_at_once(b"interrupted\n")
    for say in _listener.last_words:
        with suppress(Exception):
            say(128 + number)
    os._exit(128 + number)


def write_at_once(text: bytes) -> None:
    """To stderr before the process is ended as it stands, with the cursor that a progress bar may have hidden."""
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:  # a reader that has stopped reading is not waited for
            os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + text)


def _handlers() -> dict[int, Any]:
    """The handlers of the signals that end a process; those that are ignored stay so, as nohup has it."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


# ---------------------------------------------------------------------- put off
class Pending(list[int]):
    """The signals that came while they were put off."""

    def __init__(self) -> None:
        super().__init__()
        self.now = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nothing is lost by ending: within it a signal raises `Stopped`, one that has come before, too."""
        if self:
            raise Stopped(self[0])
        deferred = _listener.deferred
        self.now, _listener.deferred = True, False
        try:
            yield
        finally:
            self.now, _listener.deferred = False, deferred


@contextmanager
def deferred_signals() -> Iterator[Pending]:
    """Collect signals in what is yielded, to be acted on at a safe place.

    A second signal of the same kind, a second or more after the first, raises `Stopped`. Outside the main thread, where
    Python delivers no signals, nothing is changed.
    """
    pending = Pending()
    if not _in_main_thread():
        yield pending
        return
    before, noted = _handlers(), {}

    def note(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        _listener.came.setdefault(number, now)
        if number not in noted:
            noted[number] = now
            pending.append(number)
            if pending.now:
                raise Stopped(number)
        elif now - noted[number] >= ONE_REQUEST and not _listener.patient:
            raise Stopped(number)

    _listener.deferred = True
    for number in before:
        signal.signal(number, note)
    try:
        yield pending
    finally:
        _listener.deferred = False
        for number, handler in before.items():
            signal.signal(number, handler)
