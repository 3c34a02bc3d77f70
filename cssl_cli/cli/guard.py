"""Wraps every command: errors and signals become sentences and exit codes, even when a stream is closed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from cssl_cli.errors import CsslError, RunError
from cssl_cli.host.signals import ending_on_signals, received
from cssl_cli.host.streams import Output, ReaderGone, is_muted, print_error, standard_streams

PRECEDENCE = 10.0  # seconds


def exit_code_of(command: Callable[[], object]) -> int:
    """Run the command and return its exit code. Raises only exceptions that are our own bugs."""
    with standard_streams(), ending_on_signals():
        code = _told(command)
        if code != 0 and is_muted():
            # When one process has failed, torchrun ends the others: not the one that tells why.
            with suppress(KeyboardInterrupt):
                time.sleep(PRECEDENCE)
        return code


def _told(command: Callable[[], object]) -> int:
    """The exit code of the command, whose error is told."""
    try:
        code = _exit_code(command)
        sys.stdout.flush()
        return code
    except ReaderGone as error:
        return error.exit_code
    except CsslError as error:
        print_error(str(error))
        return error.exit_code
    except BaseException as error:
        # After a signal, any exception is its consequence: libraries re-raise it as one of their own.
        number = received() or (2 if isinstance(error, KeyboardInterrupt) else None)
        if number is None and (told := _of_memory(error)) is not None:
            print_error(str(told))
            return told.exit_code
        if number is None:
            raise
        print("interrupted", file=sys.stderr)
        return 128 + number
    finally:
        if isinstance(sys.stdout, Output):
            sys.stdout.silence()


def _of_memory(error: BaseException) -> RunError | None:
    """What to tell where memory is used up, as Python and numpy say it, and torch on a GPU and on a CPU; else None."""
    said = str(error).strip().partition("\n")[0]
    of_torch = isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    if not (isinstance(error, MemoryError) or of_torch):
        return None
    return RunError(
        f"memory is used up: {said or 'the system gives no more'}",
        remedy="End what else uses it, or ask for less at a time, such as a smaller train.batch_size or "
        "train.micro_batch, or fewer --images. What was saved is intact.",
    )


def _exit_code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0
