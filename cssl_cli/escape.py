"""Characters of names and files that would act on a terminal, written as escapes: the one place for it."""

from __future__ import annotations

import re
from pathlib import PurePath

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


def escaped_text(text: str) -> str:
    """The same for text of several lines: line breaks and tabs stay."""
    return _IN_TEXT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")
