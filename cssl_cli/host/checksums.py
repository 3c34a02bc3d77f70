"""Files that contain their own checksum: SHA-256 over all bytes, where the bytes of the digest count as zeros.

A file and a separate checksum could not be replaced at the same moment; this way each file is complete by itself. The
digest is at the end of the file (the last field of a JSON document or of the last record, a comment of a recipe,
the comment of a zip archive) or, in a safetensors file, among the facts of its header.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from typing import BinaryIO

FIELD = "checksum"
BLANK = "sha256:" + 64 * "0"  # what a writer puts where the digest is to stand

_DIGITS = 64
_CHUNK = 1 << 20
_TAIL = 160  # bytes at the end of a file that a checksum stands in
_WHOLE = re.compile(rb'checksum\\?"?: \\?"?sha256:([0-9a-f]{64})')
_TRACE = re.compile(rb"checksum|sha256:")


def seal(content: bytes, *, in_header: bool = False) -> bytes:
    """`content` with the digest in the place of its `BLANK`."""
    file = io.BytesIO(content)
    seal_file(file, in_header=in_header)
    return file.getvalue()


def seal_file(file: BinaryIO, *, in_header: bool = False) -> None:
    """Write the digest in the place of the file's `BLANK`."""
    place = _place(file, in_header)
    if place is None:
        raise ValueError("nothing is kept free for the checksum")
    digest = _digest(file, place)
    file.seek(place)
    file.write(digest.encode())


def verify(file: BinaryIO, *, in_header: bool = False) -> str | None:
    """The digest that the file holds, when it is that of its bytes; None without a trace of one.

    Raises ValueError when it is not, or when what is there is no whole digest.
    """
    place = _place(file, in_header)
    if place is None:
        return None
    file.seek(place)
    digest = file.read(_DIGITS).decode("ascii")
    if _digest(file, place) != digest:
        raise ValueError("it is not as it was written: its checksum does not fit")
    return digest


def _place(file: BinaryIO, in_header: bool) -> int | None:
    """Where the digits of the digest begin. A damaged word is noticed by the other: `checksum` and `sha256:`."""
    size = file.seek(0, os.SEEK_END)
    if in_header:
        file.seek(0)
        start, end = 0, min(size, 8 + int.from_bytes(file.read(8), "little"))
    else:
        start, end = max(0, size - _TAIL), size
    file.seek(start)
    text = file.read(end - start)
    found = list(_WHOLE.finditer(text))
    if found:
        return start + found[-1].start(1)
    if _TRACE.search(text):
        raise ValueError("it is not as it was written: its checksum is damaged")
    return None


def _digest(file: BinaryIO, place: int) -> str:
    """SHA-256 of the file, the digits that begin at `place` read as zeros."""
    digest = hashlib.sha256()
    file.seek(0)
    left = place
    while left and (block := file.read(min(left, _CHUNK))):
        digest.update(block)
        left -= len(block)
    digest.update(_DIGITS * b"0")
    file.seek(place + _DIGITS)
    while block := file.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()
