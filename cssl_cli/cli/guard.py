"""Around every command: errors and signals become sentences and exit codes, whatever becomes of the streams."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cssl_cli.errors import CsslError
from cssl_cli.host.signals import ending_on_signals, received
from cssl_cli.host.streams import Output, ReaderGone, print_error, standard_streams


def exit_code_of(command: Callable[[], object]) -> int:
    """Carry out the command; its exit code. Only an exception that is a bug of ours is raised."""
    with standard_streams(), ending_on_signals():
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
            # Once a signal has come, any exception is of its making: libraries pass it on as others.
            number = received() or (2 if isinstance(error, KeyboardInterrupt) else None)
            if number is None:
                raise
            print("interrupted", file=sys.stderr)
            return 128 + number
        finally:
            if isinstance(sys.stdout, Output):
                sys.stdout.silence()


def _exit_code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return 0
