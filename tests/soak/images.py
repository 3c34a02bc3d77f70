"""Mutated image files of every format: decoded or refused by name, in bounded time and memory, and nothing started.

The files carry their format's own suffix or another one. Where only the end of a file is cut off, it must be refused or
come to the same pixels: half a picture is not silently one. A false `gs` at the head of the path tells of being run.
"""

from __future__ import annotations

import io
import os
import random
import re
import struct
import time
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cssl_cli.errors import CsslError

from .findings import Fault, Outcome, signature_of
from .mutate import BYTE_MUTATIONS, truncate

CPU_SECONDS = 15.0
MEMORY = 1500 * 2**20  # bytes that one file may take for a moment
SIDE = 16
STARTED = "a-program-was-started"
HUGE = (0, 1, 2, 2**15 - 1, 2**15, 2**16 - 1, 2**20, 170_000_000, 2**31 - 1, 2**32 - 1)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n20 20 scale\nshowpage\n%%EOF\n"
OTHER_FORMATS = (
    POSTSCRIPT,
    b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\10\0\0\0\10\0\10\0\3" + bytes(400),
    b"\0\0\1\0\1\0\10\10\0\0\1\0\40\0" + bytes(300),
    b"P7\nWIDTH 4\nHEIGHT 4\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(48),
    b"%PDF-1.4\n" + bytes(200),
    b"\0\0\0\14jP  \r\n\x87\n" + bytes(200),
    b"SIMPLE  =                    T" + bytes(2850),
    b"\x89HDF\r\n\x1a\n" + bytes(200),
    b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
)


@dataclass(frozen=True)
class Sample:
    suffix: str
    data: bytes
    pixels: np.ndarray | None = field(repr=False)  # as the product decodes it, None where it refuses


class Images:
    """See the module."""

    name, cases, batch, limit, memory = "images", 4_500, 150, 90.0, 6 * 2**30

    def prepare(self, folder: Path) -> None:
        self.samples = [Sample(suffix, data, _decoded(folder, suffix, data)) for suffix, data in originals()]
        self.folder = folder
        tools = folder / "bin"
        tools.mkdir()
        for name in ("gs", "gsc", "ghostscript"):
            (tools / name).write_text(f"#!/bin/sh\n: > {folder / STARTED}\n")
            (tools / name).chmod(0o755)
        self.path = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        os.environ["PATH"] = self.path  # of this batch's process
        with Path(os.devnull).open("wb") as nowhere:  # libtiff complains there by itself
            os.dup2(nowhere.fileno(), 2)
        sample = self.samples[number % len(self.samples)]
        suffix, data, cut = sample.suffix, sample.data, False
        kind = chance.choices(("cut", "bytes", "size", "other", "suffix"), (2, 5, 3, 1, 1))[0]
        if kind == "cut":
            data, cut = truncate(data, chance), True
        elif kind == "size":
            data = with_another_size(data, chance)
        elif kind == "other":
            data = chance.choice(OTHER_FORMATS)
        elif kind == "suffix":
            suffix = chance.choice(self.samples).suffix
        if kind in ("bytes", "other"):
            for _ in range(chance.choice([1, 1, 2, 5])):
                data = chance.choice(BYTE_MUTATIONS)(data, chance)
        what, problem, pixels = trial(folder, suffix, data)
        if problem is None and cut and pixels is not None and len(data) < 0.9 * len(sample.data):
            same = sample.pixels is not None and np.array_equal(pixels, sample.pixels)
            if not same:
                problem = ("silent", f"a file that is cut off is taken for whole ({suffix})", f"{len(data)} bytes")
        started = self.folder / STARTED
        if started.exists():
            started.unlink(missing_ok=True)
            problem = ("program started", "an image file starts another program", kind)
        faults = [] if problem is None else [Fault(*problem, files={f"image{suffix}": data})]
        return Outcome(Counter({"fault" if faults else what: 1}), faults)


def trial(folder: Path, suffix: str, data: bytes) -> tuple[str, tuple[str, str, str] | None, np.ndarray | None]:
    """What comes of a file, what is wrong with that, and its pixels."""
    import traceback

    from cssl_cli.data.decode import decode_into

    path = folder / f"image{suffix}"
    path.write_bytes(data)
    images = np.zeros((1, 3, SIDE, SIDE), dtype=np.uint8)
    before, begun = _reset_peak(), time.process_time()
    pixels = None
    problem: tuple[str, str, str] | None = None
    try:
        decode_into(images, [path], progress=None)
        what, pixels = "decoded", images[0]
    except CsslError as error:
        what = "refused"
        if str(path) not in str(error):
            problem = ("message", "the file is not named", str(error))
    except Exception as error:
        what, problem = "fault", ("traceback", signature_of(error), traceback.format_exc())
    seconds, taken = time.process_time() - begun, _peak() - before
    if problem is None and seconds > CPU_SECONDS:
        problem = ("time", f"a small file takes long ({suffix})", f"{seconds:.1f} s, {len(data)} bytes")
    if problem is None and taken > MEMORY:
        problem = ("memory", f"a small file takes much memory ({suffix})", f"{taken >> 20} MiB, {len(data)} bytes")
    return what, problem, pixels


def _decoded(folder: Path, suffix: str, data: bytes) -> np.ndarray | None:
    return trial(folder, suffix, data)[2]


def _reset_peak() -> int:
    """Forget the greatest memory so far; bytes that are resident now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


# -------------------------------------------------------------------------------------------------------------- samples
def originals() -> list[tuple[str, bytes]]:
    """Small files of every documented format in their usual varieties."""
    values = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    smooth = np.add.outer(np.arange(24) * 5, np.arange(20) * 6).astype(np.uint8)
    rgb, rgba = Image.fromarray(values[..., :3]), Image.fromarray(values)
    gray, bilevel = Image.fromarray(smooth), Image.fromarray(smooth).convert("1")
    palette, deep = rgb.quantize(32), Image.fromarray((smooth.astype(np.uint16) << 8) | 17)
    turned = Image.Exif()
    turned[0x0112] = 6
    many = {"save_all": True, "append_images": [gray.convert("RGB"), rgb.rotate(90)]}
    wanted: list[tuple[str, str, Image.Image, dict[str, Any]]] = [
        (".bmp", "BMP", image, {}) for image in (rgb, gray, bilevel, palette, rgba)
    ]
    wanted += [(".gif", "GIF", image, options) for image, options in ((palette, {}), (gray, {}), (rgb, many))]
    wanted += [
        (".jpg", "JPEG", rgb, {"quality": 90}),
        (".jpeg", "JPEG", rgb, {"progressive": True, "optimize": True}),
        (".jpg", "JPEG", gray, {"exif": turned}),
        (".jpg", "JPEG", rgb.convert("CMYK"), {}),
        (".jpg", "JPEG", rgb.resize((400, 300)), {"quality": 60, "restart_marker_rows": 2}),
    ]
    wanted += [(".png", "PNG", image, {}) for image in (rgb, rgba, gray, bilevel, palette, deep, gray.convert("LA"))]
    wanted += [(".png", "PNG", palette, {"transparency": 3}), (".png", "PNG", rgb, {"exif": turned})]
    wanted += [(".png", "PNG", rgb, many)]
    wanted += [(suffix, "PPM", image, {}) for suffix, image in ((".ppm", rgb), (".pgm", gray), (".pbm", bilevel))]
    wanted += [(".pnm", "PPM", deep, {}), (".pgm", "PPM", gray, {})]
    wanted += [(".tif", "TIFF", rgb, {"compression": name}) for name in (None, "tiff_lzw", "tiff_adobe_deflate")]
    wanted += [(".tiff", "TIFF", rgb, {"compression": name}) for name in ("packbits", "jpeg")]
    wanted += [(".tif", "TIFF", image, {}) for image in (gray, palette, deep, rgba, rgb.convert("CMYK"))]
    wanted += [(".tiff", "TIFF", bilevel, {"compression": "group4"}), (".tif", "TIFF", rgb, many)]
    wanted += [(".webp", "WEBP", image, {"lossless": True}) for image in (rgb, rgba)]
    wanted += [(".webp", "WEBP", rgb, {"quality": 80}), (".webp", "WEBP", rgb, {**many, "exif": turned.tobytes()})]
    found = []
    for suffix, kind, image, options in wanted:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append((suffix, buffer.getvalue()))
    found.append((".ppm", b"P3\n4 4\n255\n" + b" ".join(b"%d" % (n * 5) for n in range(48)) + b"\n"))
    found.append((".pgm", b"P2\n# a comment\n4 4 15\n" + b" ".join(b"%d" % n for n in range(16)) + b"\n"))
    return found


def with_another_size(data: bytes, chance: random.Random) -> bytes:
    """The width or the height, or both, changed in the header, with its checksum where it has one."""
    sizes = [(chance.choice(HUGE), chance.choice(HUGE)), (1, 170_000_000), (13_000, 13_000)]
    width, height = chance.choices(sizes, (2, 1, 1))[0]
    if data.startswith(b"\x89PNG"):
        head = bytearray(data[12:29])
        head[4:12] = struct.pack(">II", width, height)
        return data[:12] + bytes(head) + struct.pack(">I", zlib.crc32(head)) + data[33:]
    if data.startswith(b"GIF8"):
        return data[:6] + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + data[10:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    if data[:1] == b"P" and data[1:2].isdigit():
        head, *rest = data.split(b"\n", 2)
        return b"\n".join([head, b"%d %d" % (width, height), *rest[1:]])
    if data.startswith(b"\xff\xd8"):
        place = next((data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data), -1)
        size = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
        return data[: place + 5] + size + data[place + 9 :] if place > 0 else data
    if data[:4] == b"II*\0":
        return _with_another_tag(data, chance, width)
    if data.startswith(b"RIFF"):
        return data[:24] + struct.pack("<HHH", width & 0xFFFF, height & 0xFFFF, 7) + data[30:]
    return data


def _with_another_tag(data: bytes, chance: random.Random, value: int) -> bytes:
    """A field of a TIFF's first directory with another number, type, count or value."""
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    entry = start + 2 + 12 * chance.randrange(max(count, 1))
    changed = bytearray(data)
    offset, form, given = chance.choice(
        [(0, "<H", 256 + chance.randrange(90)), (2, "<H", chance.randrange(14))]
        + [
            (4, "<I", value),
            (8, "<I", value),
        ]
        * 2
    )
    if entry + 12 <= len(data):
        struct.pack_into(form, changed, entry + offset, given)
    return bytes(changed)
