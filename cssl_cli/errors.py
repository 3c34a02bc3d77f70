"""The errors a user can meet. Each says what is wrong, where, and what to do about it.

A `CsslError` that reaches the command line is printed without a traceback and decides the exit code; any other
exception is a bug of ours. Names and paths in messages are escaped here, so that none can act on a terminal.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePath


class CsslError(Exception):
    """A failure with a sentence for the user: `what` is wrong, `where` (file, field, run) and the `remedy`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{escaped(self.where)}: {self.what}" if self.where else self.what
        return f"{head}\n{self.remedy}" if self.remedy else head

    def of(self, place: str) -> str:
        """The same, to be told of what lies at `place`, which is not named again."""
        return str(CsslError(self.what, where=None if self.where == place else self.where, remedy=self.remedy))


class InputError(CsslError):
    """The recipe, the data, a path or an option cannot be used as given: exit code 2."""

    exit_code = 2


class InUseError(InputError):
    """Another process works on the same run at this moment."""


class ReadOnlyError(InputError):
    """A place that this user may not write to."""


class DamagedError(InputError):
    """A file that was written by us is not as it was written, or belongs to another run."""


class RunError(CsslError):
    """The input was fine and the run failed all the same (a loss became infinite, a disk is full): exit code 1."""

    exit_code = 1


class Interrupted(CsslError):
    """A signal asked to stop. What had been finished or saved is on disk. Exit code 128 + the signal's number."""

    def __init__(self, signal_number: int, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__("interrupted", where=where, remedy=remedy)
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, or None when nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def some(names: Sequence[str], separator: str = ", ", limit: int = 50) -> str:
    """The names in one line; of many the first, and how many more there are."""
    more = len(names) - limit
    return separator.join(names[:limit]) + (f", and {more:,} more" if more > 0 else "")


def did_you_mean(guess: str | None) -> str:
    """The end of a sentence on an unknown name, empty where nothing is near."""
    return f"; did you mean {guess}?" if guess else ""


def not_among(name: str, known: Sequence[str], noun: str = "Known") -> str:
    """The end of a sentence on an unknown name: the nearest known one, and all of them."""
    return (did_you_mean(nearest(name, known)) or ".") + (f" {noun}: {some(known)}" if known else "")


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> InputError:
    """The error for a name that is not in a table: suggests the nearest one and lists them all."""
    known = sorted(known)
    guess = nearest(name, known)
    remedy = (f"Did you mean {guess!r}? " if guess else "") + f"Known: {some(known)}."
    return InputError(f"unknown {kind} {name!r}", where=where, remedy=remedy)


# ---------------------------------------------------------------------- names in messages
# Control characters (C0, DEL, C1), line and paragraph separators, overrides of the direction of writing, and lone
# surrogates: bytes of a file name that are no UTF-8.
_UNSAFE = r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSAFE}]")
_IN_NAMES = re.compile(rf"[\x00-\x1f{_UNSAFE}]")


def escaped(name: str) -> str:
    """The name on one line, such as `caf\\xe9` and `a\\nb`."""
    return _IN_NAMES.sub(_escape, name)


def shown_path(path: PurePath) -> str:
    """The path on one line."""
    return escaped(str(path))


def shown_command(*words: str | PurePath) -> str:
    """A command to copy: on one line, and quoted where a shell would take a word apart."""
    return shlex.join(escaped(str(word)) for word in words)


def escaped_text(text: str) -> str:
    """The same for text of several lines: line breaks and tabs stay."""
    return _IN_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")
