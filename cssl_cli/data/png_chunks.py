"""The chunks of a PNG file that make its pixels, verified, and the orientation from its metadata.

Pillow reads all chunks in one go: it fails on a damaged text chunk or colour profile, yet skips the checksums of the
image data and does not notice a missing end.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from cssl_cli.data.unreadable_image import UnreadableImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ESSENTIAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MOST_TEXT = 2**20  # bytes of a compressed text that are read


class PngParts(NamedTuple):
    pixels: bytes  # a PNG file of the essential chunks alone
    bit_depth: int
    exif: bytes | None
    xmp: bytes | None


def png_parts(data: bytes) -> PngParts:
    """Raises UnreadableImage if an essential chunk is damaged or the file ends before its IEND."""
    kept: list[bytes | memoryview] = [SIGNATURE]
    exif, xmp = None, None
    view = memoryview(data)
    for kind, start, end in _chunks(data):
        if kind in _ESSENTIAL:
            if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise UnreadableImage(f"the checksum of its {kind.decode()} chunk is wrong")
            kept.append(view[start:end])
        elif kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _text(kind, data[start + 8 : end - 4])
            if keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
                exif = exif or _raw_profile(text)
            elif keyword == b"XML:com.adobe.xmp":
                xmp = text
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImage("it does not begin with a header")
    return PngParts(b"".join(kept), data[24], exif, xmp)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every chunk, from its length to its checksum, up to IEND."""
    start = len(SIGNATURE)
    while True:
        if start + 12 > len(data):
            raise UnreadableImage("the file is cut short")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise UnreadableImage("the file is cut short")
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end


def _text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a chunk; no text where it is damaged."""
    keyword, _, text = content.partition(b"\0")
    try:
        if kind == b"zTXt":
            text = _inflated(text[1:])
        elif kind == b"iTXt":
            compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[2]
            text = _inflated(text) if compressed else text
    except (IndexError, zlib.error):
        text = b""
    return keyword, text


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_TEXT)


def _raw_profile(text: bytes) -> bytes:
    """EXIF as ImageMagick writes it: a name, a number of bytes, and the bytes in hexadecimal."""
    found = re.fullmatch(rb"\s*\w+\s+\d+\s([\s0-9a-fA-F]*)", text)
    return bytes.fromhex(found[1].decode()) if found and len(b"".join(found[1].split())) % 2 == 0 else b""
