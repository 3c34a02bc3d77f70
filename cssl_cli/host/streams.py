"""Standard output and standard error, and how text is handled that they cannot take.

Results go to standard output: characters it cannot represent are replaced, and a failed write is an error.
Progress and messages go to standard error where possible: a terminal or a reader that is gone never stops the work.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from cssl_cli.errors import CsslError, RunError, escaped_text
from cssl_cli.host.launched import repeats_another

# What the reports use, for streams that have only ASCII or Latin-1.
_SIMILAR = str.maketrans(
    {"≤": "<=", "≥": ">=", "→": "->"} | dict(zip("–—−─…’×·↓↑ταβγδεμρσ", "----.'x.v^tabgdemrs", strict=True))
)


class ReaderGone(CsslError):
    """Nobody reads the pipe that standard output is, as after `| head`: the end, without a word, as SIGPIPE has it."""

    exit_code = 141

    def __init__(self) -> None:
        super().__init__("nobody reads standard output")


class Stream(io.TextIOBase):
    """Text to a stream of the process. Control characters in it do not reach the terminal, except through `draw`.

    `muted` takes text and drops it.
    """

    def __init__(self, target: TextIO, *, muted: bool = False) -> None:
        self.target, self.muted = target, muted

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.target, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.target.fileno()

    def isatty(self) -> bool:
        try:
            return self.target.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> int:
        # Bars of libraries return to the start of the line.
        self.draw("\r".join(map(escaped_text, text.split("\r"))))
        return len(text)

    def draw(self, text: str) -> None:
        """Write text as it is: what a library draws with, once names in it are escaped."""
        if self.muted:
            return
        try:
            self.target.write(_representable(text, self.encoding))
        except (OSError, ValueError) as error:
            self._failed(error)

    def flush(self) -> None:
        try:
            self.target.flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def close(self) -> None:
        """The target belongs to others."""

    def _failed(self, error: OSError | ValueError) -> None:
        """Best effort: work goes on without a listener."""


class Output(Stream):
    """Standard output: an error at every use once it has failed, whoever swallowed the first, until `silence`."""

    def __init__(self, target: TextIO, *, muted: bool = False) -> None:
        super().__init__(target, muted=muted)
        self.error: CsslError | None = None
        self.silent = False

    def flush(self) -> None:
        super().flush()
        if self.error is not None and not self.silent:
            raise self.error

    def silence(self) -> None:
        """Take anything from now on: the error was told, and Python writes what is left when it ends."""
        self.silent = True

    def _failed(self, error: OSError | ValueError) -> None:
        if self.silent:
            return
        if self.error is None and isinstance(error, BrokenPipeError):
            self.error = ReaderGone()
        elif self.error is None:
            self.error = RunError(
                f"standard output cannot be written: {getattr(error, 'strerror', None) or error}",
                remedy="What was computed is saved; the same command prints it again.",
            )
        assert self.error is not None
        raise self.error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within it, sys.stdout and sys.stderr are an `Output` and a `Stream`; what was closed goes nowhere.

    Where several processes were started for one command, the first of a machine is heard, until `unmute`: before they
    have met, all meet the same errors.
    """
    if isinstance(sys.stdout, Output):
        yield
        return
    before = sys.stdout, sys.stderr
    _use(Output)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def use_standard_streams(*, expendable: bool = False) -> None:
    """The same for the rest of the process, its end included, where Python itself writes what is left.

    expendable: what is printed is no result.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: a file opened later would get the number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    _use(Stream if expendable else Output)


def is_muted() -> bool:
    """Whether this process is not heard, because another says the same."""
    return isinstance(sys.stderr, Stream) and sys.stderr.muted


def unmute() -> None:
    """From here on each process of several is heard."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.muted = False


def _use(kind: type[Stream]) -> None:
    muted = repeats_another()
    sys.stdout, sys.stderr = kind(_open(sys.stdout), muted=muted), Stream(_open(sys.stderr), muted=muted)


def _open(stream: TextIO | Any) -> TextIO:
    """The stream, or one that goes nowhere for a stream that was closed when the process began."""
    return stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def print_error(message: str) -> None:
    """An error for the user, on stderr: the first line says what is wrong, the others what to do."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    head = "\x1b[1;31merror:\x1b[0m" if colour else "error:"
    text = f"{head} " + escaped_text(message).replace("\n", "\n  ") + "\n"
    with suppress(OSError, ValueError):
        sys.stderr.draw(text) if isinstance(sys.stderr, Stream) else sys.stderr.write(text)
        sys.stderr.flush()


# ---------------------------------------------------------------------- encodings
def _representable(text: str, encoding: str) -> str:
    return text if text.isascii() else text.encode(encoding, "cssl.similar").decode(encoding)


def _similar(error: UnicodeError) -> tuple[str, int]:
    """For characters that an encoding lacks: similar ASCII, or a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_SIMILAR)
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode("ascii"), error.end


codecs.register_error("cssl.similar", _similar)
