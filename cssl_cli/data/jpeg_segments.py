"""The segments of a JPEG file that make its pixels, and the orientation from its metadata."""

from __future__ import annotations

from typing import NamedTuple

SIGNATURE = b"\xff\xd8\xff"
_APP0, _APP1, _APP14, _APP15, _COMMENT, _START_OF_SCAN = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE, 0xDA
_TELL_COLOURS = ((_APP0, b"JFIF\0", 14), (_APP14, b"Adobe", 12))  # libjpeg ignores shorter ones, too
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


class JpegParts(NamedTuple):
    pixels: bytes  # the file without comments and application data, except for what says how colours are stored
    exif: bytes | None
    xmp: bytes | None


def jpeg_parts(data: bytes) -> JpegParts:
    """Everything from the first byte that is not a segment is kept for the decoder to judge."""
    kept, position, exif, xmp = [data[:2]], 2, b"", None
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (0x00, 0x01, _START_OF_SCAN) or 0xD0 <= marker <= 0xD9 or end > len(data):
            break
        content = data[position + 4 : end]
        if marker == _APP1 and content.startswith(_EXIF):
            exif += content[len(_EXIF) :]  # a long one continues in the next segment
        elif marker == _APP1 and content.startswith(_XMP):
            xmp = content[len(_XMP) :]
        tells_colours = any(
            marker == which and content.startswith(name) and len(content) >= length
            for which, name, length in _TELL_COLOURS
        )
        if tells_colours or not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            kept.append(data[position:end])
        position = end
    return JpegParts(b"".join([*kept, data[position:]]), exif or None, xmp)
