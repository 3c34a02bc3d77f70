"""Image files to uint8 squares.

One rule for every format: the EXIF orientation is honoured, transparency is laid on white, grayscale, palette and CMYK
become RGB, 16-bit grayscale keeps its high byte, of an animation the first frame counts, and the largest centred square
is resampled to size x size with Pillow's antialiased bicubic filter (which is to resize the shorter side and then crop
the centre). A large JPEG is reduced while it is decoded, never below twice the size asked for.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cssl_cli.data.image_set import Progress
from cssl_cli.errors import InputError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"]
)
_CHUNK = 64
_MAX_THREADS = 16
_LISTED = 5
# What Pillow's decoders raise for bytes that are no image of the format they claim.
_DECODE_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


def decode_image(path: Path, size: int) -> np.ndarray:
    """The image of one file, uint8 (3, size, size). Raises one of Pillow's errors when it cannot be decoded."""
    with path.open("rb") as file, Image.open(file) as image:
        image.draft(None, (2 * size, 2 * size))
        upright = ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
        rgb = _to_rgb(upright)
    width, height = rgb.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        rgb = rgb.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(rgb).transpose(2, 0, 1)


def decode_into(images: np.ndarray, paths: Sequence[Path], *, progress: Progress | None) -> None:
    """Decodes `paths` in parallel into the rows of `images`, uint8 (N, 3, size, size).

    Threads, not processes: Pillow releases the interpreter's lock while it decodes and resamples, and rows are written
    in place. Every file is tried, and the InputError names the first few that failed and counts the rest.
    """
    size = images.shape[-1]
    failures: list[tuple[int, str]] = []
    stop = threading.Event()

    def decode_chunk(start: int) -> int:
        chunk = paths[start : start + _CHUNK]
        for row, path in enumerate(chunk, start):
            if stop.is_set():
                break
            try:
                images[row] = decode_image(path, size)
            except _DECODE_FAILURES as error:
                failures.append((row, _reason(error)))
        return len(chunk)

    with _quiet_pillow(), ThreadPoolExecutor(_num_threads()) as pool:
        try:
            jobs = [pool.submit(decode_chunk, start) for start in range(0, len(paths), _CHUNK)]
            done = 0
            for job in as_completed(jobs):
                done += job.result()
                if progress:
                    progress(done, len(paths), "decoding images")
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    if failures:
        raise _undecodable([(paths[row], reason) for row, reason in sorted(failures)])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):
        return _sixteen_bit_to_rgb(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", straight.size, "white"), straight).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # Pillow's own conversion clips at 255
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("pixels outside the 16-bit range")
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _num_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _MAX_THREADS)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings about odd metadata: what it cannot decode it raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _reason(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of any known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__).splitlines()[0]


def _undecodable(failures: Sequence[tuple[Path, str]]) -> InputError:
    remedy = "Delete or replace what cannot be read, then run the command again."
    path, reason = failures[0]
    if len(failures) == 1:
        return InputError(f"this image cannot be read: {reason}", where=str(path), remedy=remedy)
    lines = [f"{len(failures)} images cannot be read:"]
    lines += [f"  {path}: {reason}" for path, reason in failures[:_LISTED]]
    if len(failures) > _LISTED:
        lines.append(f"  and {len(failures) - _LISTED} more")
    return InputError("\n".join(lines), remedy=remedy)
