"""Images to uint8 squares: of files, of their bytes, and of pixels.

The same rules for every format: the EXIF orientation is honoured; transparency is laid on white; grayscale, palette and
CMYK become RGB; samples of more than 8 bits are cut to their high 8; an animation gives its first frame. The largest
centred square is resampled to size x size with Pillow's antialiased bicubic filter, which equals resizing the shorter
side and cropping the centre. One channel, where that is asked for, is the luma of the result (ITU-R 601). A large JPEG
is reduced while it is decoded, never below twice the requested size.

Threads share a memory budget, estimated from the headers: fewer large images are decoded at a time.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

from cssl_cli.data.image_file import IMAGE_SUFFIXES, Picture, checked_size, max_pixels, open_picture, regular_file
from cssl_cli.data.image_set import ProgressCallback
from cssl_cli.data.memory_budget import MemoryBudget
from cssl_cli.data.unreadable_image import UnreadableImage
from cssl_cli.errors import InputError, escaped

__all__ = ["DECODER_VERSION", "IMAGE_SUFFIXES", "Encoded", "decode_bytes", "decode_image", "decode_into", "look_at"]

Encoded = Path | bytes | np.ndarray
"""An image as it is found: a file, the bytes of one, or pixels, uint8 (H, W) or (H, W, C)."""

DECODER_VERSION = f"2/pillow-{PIL.__version__}"
"""Part of the key of decoded images: changes with the rules above."""

_CHUNK = 8
_MAX_THREADS = 16
_GRACE = 0.5  # seconds that an interruption waits for images being decoded
_LISTED = 5
_GRAY = ("1", "L", "LA", "I")
_STRIP = 4 * 2**20  # pixels converted at a time
_FILES = MemoryBudget(2**29)
_PIXELS = MemoryBudget(3 * 2**29)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(path: Path, size: int, channels: int = 3) -> np.ndarray:
    """The image of one file, uint8 (channels, size, size), of 1 channel or 3. Raises whatever Pillow raises for it."""
    with regular_file(path) as file, _FILES.holding(2 * checked_size(file)):
        return decode_bytes(file.read(), size, channels)


def decode_bytes(data: bytes, size: int, channels: int = 3) -> np.ndarray:
    """The image of the bytes of a file, as `decode_image`."""
    picture = open_picture(data)
    full_size = picture.image.size
    picture.image.draft(None, (2 * size, 2 * size))  # None: any mode
    with _PIXELS.holding(_bytes_needed(picture, full_size)):
        return _square(picture, size, channels)


def _square_pixels(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """The image of uint8 pixels (H, W) or (H, W, C), uint8 (channels, size, size).

    Channels stay as they are if there are so many; gray is repeated in three, and three become their luma.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    found = pixels.shape[2]
    if found == channels != 3:
        return np.concatenate([_square_pixels(pixels[..., c], size, 3)[:1] for c in range(found)])
    if channels == 3 and pixels.shape[:2] == (size, size):
        return np.broadcast_to(pixels, (size, size, 3)).transpose(2, 0, 1)
    return _square(Picture(Image.fromarray(pixels[..., 0] if found == 1 else pixels)), size, channels)


def look_at(encoded: Encoded, name: str) -> tuple[int, int, int]:
    """Width and height of an image, and its number of channels, 1 or 3 of a file. `InputError` if it is none."""
    try:
        if isinstance(encoded, np.ndarray):
            return encoded.shape[1], encoded.shape[0], 1 if encoded.ndim == 2 else encoded.shape[2]
        if isinstance(encoded, Path):
            with regular_file(encoded) as file:
                checked_size(file)
                encoded = file.read()
        image = open_picture(encoded).image
        return *image.size, 1 if image.mode.partition(";")[0] in _GRAY else 3
    except Exception as error:  # as of all images
        raise _undecodable([(name, _reason(error))]) from error


def decode_into(
    images: np.ndarray,
    encoded: Sequence[Encoded],
    *,
    progress: ProgressCallback | None,
    named: Callable[[int], str] | None = None,
) -> None:
    """Decodes in parallel into the rows of `images`, uint8 (N, C, size, size).

    Threads, not processes: Pillow releases the GIL while it decodes and resamples, and rows are written in place. Every
    image is tried; the InputError names the first few that failed, as `named` does their rows (by default, paths), and
    counts the rest. An interruption waits at most `_GRACE` for images being decoded: the threads do not keep the
    process alive.
    """
    channels, size = images.shape[1:3]
    max_pixels()  # a wrong setting is not an error of each image
    failures: list[tuple[int, str]] = []
    stop = threading.Event()
    starts: queue.SimpleQueue[int] = queue.SimpleQueue()
    decoded: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
    for start in range(0, len(encoded), _CHUNK):
        starts.put(start)

    def decode_chunks() -> None:
        try:
            while not stop.is_set():
                start = starts.get_nowait()
                chunk = range(start, min(start + _CHUNK, len(encoded)))
                for row in chunk:
                    if stop.is_set():
                        return
                    try:
                        images[row] = _decoded(encoded[row], size, channels)
                    except InputError:  # of what holds all of them: the others would only meet it again
                        raise
                    except Exception as error:  # decoders raise anything; only this file fails
                        failures.append((row, _reason(error)))
                decoded.put(len(chunk))
        except queue.Empty:
            pass
        except BaseException as error:
            decoded.put(error)

    threads = [threading.Thread(target=decode_chunks, daemon=True) for _ in range(_num_threads())]
    with _quiet_pillow():
        try:
            for thread in threads:
                thread.start()
            done = 0
            while done < len(encoded):
                news = decoded.get()
                if isinstance(news, BaseException):
                    raise news
                done += news
                if progress:
                    progress(done, len(encoded), "decoding images")
        finally:
            stop.set()
            latest = time.monotonic() + _GRACE
            for thread in threads:
                if thread.is_alive():
                    thread.join(max(0.0, latest - time.monotonic()))
    if failures:
        raise _undecodable([(named(row) if named else str(encoded[row]), why) for row, why in sorted(failures)])


def _decoded(encoded: Encoded, size: int, channels: int) -> np.ndarray:
    if isinstance(encoded, np.ndarray):
        return _square_pixels(encoded, size, channels)
    if isinstance(encoded, bytes):
        return decode_bytes(encoded, size, channels)
    return decode_image(encoded, size, channels)


def _bytes_needed(picture: Picture, full_size: tuple[int, int]) -> int:
    """About what decoding takes: the pixels as decoded and as RGB, and the decoder's buffers."""
    image = picture.image
    width, height = image.size
    per_pixel = (
        8 + (4 if picture.orientation != 1 else 0) + {"WEBP": 12, "PPM": 8, "TIFF": 4}.get(image.format or "", 0)
    )
    pointers = 24 * max(width, height)  # Pillow keeps one pointer a row
    coefficients = 6 * math.prod(full_size) if image.info.get("progressive") else 0
    return per_pixel * width * height + pointers + coefficients


def _square(picture: Picture, size: int, channels: int) -> np.ndarray:
    image = _to_rgb(_around_the_square(picture.image, size), picture.bits)
    if picture.inverted:
        image = ImageOps.invert(image)
    if picture.orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[picture.orientation])
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(image.convert("L"))[None] if channels == 1 else np.asarray(image).transpose(2, 0, 1)


def _around_the_square(image: Image.Image, size: int) -> Image.Image:
    """The centred square with the margin that the filter needs, so that most of a long image is never converted."""
    image.load()
    width, height = image.size
    margin = math.ceil(2 * max(1.0, min(width, height) / size)) + 2
    left, top = (max(0, (length - min(width, height)) // 2 - margin) for length in (width, height))
    return image.crop((left, top, width - left, height - top)) if left or top else image


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    """In strips, so that conversions need little memory."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return _strip_to_rgb(image, bits)
    rgb = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        rgb.paste(_strip_to_rgb(image.crop((0, top, width, min(top + rows, height))), bits), (0, top))
    return rgb


def _strip_to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I"):
        return _high_byte_to_rgb(image, bits)
    if image.mode == "F":
        raise UnreadableImage("floating-point samples, which have no known range; convert them to 8 or 16 bits")
    if image.mode == "LAB":
        raise UnreadableImage("CIE L*a*b* colours, which are not read; convert it to RGB")
    if image.has_transparency_data:
        straight = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", straight.size, "white"), straight).convert("RGB")
    return image.convert("RGB")


def _high_byte_to_rgb(image: Image.Image, bits: int) -> Image.Image:
    values = np.asarray(image)  # Pillow's own conversion clips at 255
    gray = (values >> (bits - 8)).astype(np.uint8)
    if isinstance(key := image.info.get("transparency"), int):
        gray[values == key] = 255
    return Image.fromarray(gray).convert("RGB")


def _num_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _MAX_THREADS)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings about odd files and lifts its limit on pixels; ours is `max_pixels`."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _reason(error: BaseException) -> str:
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, MemoryError):
        return "not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = (str(error) or type(error).__name__).splitlines()[0]
    return f"it is damaged, or of a kind that is not read: {text}"


def _undecodable(failures: Sequence[tuple[str, str]]) -> InputError:
    remedy = "Delete or replace what cannot be read, then run the command again."
    name, reason = failures[0]
    if len(failures) == 1:
        return InputError(f"this image cannot be read: {reason}", where=name, remedy=remedy)
    lines = [f"{len(failures)} images cannot be read:"]
    lines += [f"  {escaped(name)}: {reason}" for name, reason in failures[:_LISTED]]
    if len(failures) > _LISTED:
        lines.append(f"  and {len(failures) - _LISTED} more")
    return InputError("\n".join(lines), remedy=remedy)
