"""Opens one image file: its content decides the format, and only what makes its pixels is read.

Only the formats below are decoded, each by its own reader: Pillow's search among all its formats would start other
programs for some. A damaged profile, comment or EXIF block does not cost the image; a broken EXIF means no orientation.
"""

from __future__ import annotations

import ctypes
import errno
import io
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from cssl_cli.data import jpeg_segments, png_chunks, tiff_fields
from cssl_cli.data.unreadable_image import UnreadableImage
from cssl_cli.errors import InputError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"]
)
MAX_PIXELS = 2**26
_BYTES_PER_PIXEL = 8  # of the largest samples supported, 16-bit RGBA: a larger file holds something else
_SLACK = 64 * 2**20
_ORIENTATION = 0x0112
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# Pillow's own reader takes planes and subsampled colours for something else.
TiffImagePlugin.READ_LIBTIFF = True  # pyrefly: ignore[bad-assignment]
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its complaints go to stderr
with suppress(OSError, AttributeError):  # libtiff writes its own there unless told otherwise
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


@dataclass
class Picture:
    """An image whose pixels are not decoded yet, and how to interpret them."""

    image: Image.Image
    orientation: int = 1  # as EXIF numbers it
    bits: int = 16  # of the samples, where there are more than 8
    inverted: bool = False  # 0 is white, and Pillow leaves it to us


def max_pixels() -> int:
    """The most pixels an image may have: $CSSL_MAX_PIXELS, or 2**26 (67 million)."""
    text = os.environ.get("CSSL_MAX_PIXELS", "").strip()
    if not text:
        return MAX_PIXELS
    with suppress(ValueError, OverflowError):
        number = float(text)
        if 1 <= number < 2**53 and number == int(number):
            return int(number)
    raise InputError(
        f"CSSL_MAX_PIXELS={text!r} is no number of pixels",
        where="environment",
        remedy="Give a whole number, or leave it out.",
    )


@contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """The file, opened for reading without waiting for a pipe or device; UnreadableImage if it is not a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UnreadableImage("this is a socket or a device, not a file") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UnreadableImage(f"this is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def checked_size(file: BinaryIO) -> int:
    """The size of the file in bytes; UnreadableImage if it is larger than the largest allowed image could be."""
    size, most = os.fstat(file.fileno()).st_size, _BYTES_PER_PIXEL * max_pixels() + _SLACK
    if size > most:
        raise UnreadableImage(
            f"a file of {size:,} bytes, where {most:,} suffice for the pixels that CSSL_MAX_PIXELS allows"
        )
    return size


def open_picture(data: bytes) -> Picture:
    """The image in the bytes of a file. Raises UnreadableImage if it is not an image, or larger than `max_pixels`."""
    opened = next((open_it for signatures, open_it in _FORMATS if data.startswith(signatures)), None)
    if opened is None or (opened is _open_webp and data[8:12] != b"WEBP"):
        raise UnreadableImage("not an image of any known format" if data else "not an image: the file is empty")
    picture = opened(data)
    width, height = picture.image.size
    if width * height > max_pixels():
        raise UnreadableImage(
            f"{width} x {height} pixels are more than the {max_pixels():,} that are read; "
            "if you trust it, allow more in $CSSL_MAX_PIXELS"
        )
    return picture


def _open_jpeg(data: bytes) -> Picture:
    parts = jpeg_segments.jpeg_parts(data)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(parts.pixels))
    return Picture(image, _orientation(parts.exif, parts.xmp))


def _open_png(data: bytes) -> Picture:
    parts = png_chunks.png_parts(data)
    image = PngImagePlugin.PngImageFile(io.BytesIO(parts.pixels))
    key = image.info.get("transparency")  # Pillow leaves it on the scale of the samples
    if isinstance(key, int) and parts.bit_depth in (2, 4) and image.mode == "L":
        image.info["transparency"] = key * (255 // (2**parts.bit_depth - 1))
    elif isinstance(key, tuple) and parts.bit_depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return Picture(image, _orientation(parts.exif, parts.xmp))


def _open_tiff(data: bytes) -> Picture:
    parts = tiff_fields.tiff_parts(data)
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(parts.pixels))
    except SyntaxError as error:
        raise UnreadableImage(f"samples that are not read ({parts.description}): {error}") from error
    return Picture(image, parts.orientation, parts.bits, parts.inverted)


def _open_webp(data: bytes) -> Picture:
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    return Picture(image, _orientation(image.info.get("exif"), image.info.get("xmp")))


def _orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """From the EXIF block, else the XMP text; 1 (upright) if they are missing or damaged."""
    with suppress(Exception):  # whatever Pillow's EXIF reader raises
        block = Image.Exif()
        block.load(exif or b"")
        if (value := block.get(_ORIENTATION)) is not None:
            return int(value)
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp or b"")
    return int(found[1]) if found else 1


_FORMATS = (
    (jpeg_segments.SIGNATURE, _open_jpeg),
    (png_chunks.SIGNATURE, _open_png),
    (tiff_fields.SIGNATURES, _open_tiff),
    (b"RIFF", _open_webp),
    ((b"GIF87a", b"GIF89a"), lambda data: Picture(GifImagePlugin.GifImageFile(io.BytesIO(data)))),
    (b"BM", lambda data: Picture(BmpImagePlugin.BmpImageFile(io.BytesIO(data)))),
    (
        (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
        lambda data: Picture(PpmImagePlugin.PpmImageFile(io.BytesIO(data))),
    ),
)
