"""The fields of a TIFF file that make the pixels of its first image, and whether these can be read.

Pillow and libtiff read every field of a file, and decode some samples wrongly. Only the fields that describe the pixels
are kept, so that damage to others does no harm; samples that would be decoded wrongly are refused.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cssl_cli.data.unreadable_image import UnreadableImage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 259, 262, 274, 277
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANES, _SAMPLE_FORMAT = 273, 278, 279, 284, 339
_TILE_OFFSETS, _TILE_BYTES = 324, 325
_ESSENTIAL = frozenset(
    {256, 257, 258, 259, 262, 266, 277, 284, 317, 320, 332, 338, 339}  # size, samples, colours, compression
    | {273, 278, 279, 322, 323, 324, 325}  # strips and tiles
    | {292, 293, 347, *range(512, 522), *range(529, 533)}  # fax, JPEG, YCbCr
)
_READ = frozenset(
    {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANES}
    | {_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES, _SAMPLE_FORMAT, _TILE_OFFSETS, _TILE_BYTES}
)
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_KINDS = {2: "signed {bits}-bit", 3: "floating-point", 5: "complex", 6: "complex"}
_YCBCR = 6
_MOST_VALUES = 2**20


class TiffParts(NamedTuple):
    pixels: bytes  # the file with one directory: the essential fields of its first image
    orientation: int
    bits: int  # of a sample
    inverted: bool  # its samples are 0 for white, and `pixels` does not say so
    description: str


class _Layout(NamedTuple):
    """How a file writes its numbers: `order` and the formats of counts and offsets, for struct."""

    order: str
    header: int  # bytes
    counts: str
    offsets: str
    entry: int  # bytes

    def offset_size(self) -> int:
        return struct.calcsize(self.offsets)


def tiff_parts(data: bytes) -> TiffParts:
    """Raises UnreadableImage if there is no complete directory, or for samples that cannot be turned into 8 bits."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _Layout(order, 16, "Q", "Q", 20) if 43 in data[2:4] else _Layout(order, 8, "H", "I", 12)
    entries = _directory(data, layout)
    fields = {tag: _values(data, entry, layout) for tag, entry in entries.items() if tag in _READ}
    _refuse_samples(fields)
    _refuse_missing_data(fields, len(data))
    (photometric, *_), bits = fields.get(_PHOTOMETRIC) or (0,), max(fields.get(_BITS) or (1,))
    kept = {tag: entry for tag, entry in entries.items() if tag in _ESSENTIAL}
    inverted = photometric == 0 and bits > 8  # which Pillow does not know or ignores
    if inverted:
        kept[_PHOTOMETRIC] = struct.pack(order + "HH" + layout.offsets + "H", _PHOTOMETRIC, 3, 1, 1).ljust(
            layout.entry, b"\0"
        )
    return TiffParts(
        pixels=_with_directory(data, list(kept.values()), layout),
        orientation=(fields.get(_ORIENTATION) or (1,))[0],
        bits=bits,
        inverted=inverted,
        description=f"photometric interpretation {photometric}, {bits} bits a sample",
    )


def _directory(data: bytes, layout: _Layout) -> dict[int, bytes]:
    """The entries of the first directory by tag, as stored in the file."""
    try:
        (at,) = struct.unpack_from(layout.order + layout.offsets, data, layout.header - layout.offset_size())
        (count,) = struct.unpack_from(layout.order + layout.counts, data, at)
    except (struct.error, OverflowError):
        raise UnreadableImage("the file is cut short") from None
    start = at + struct.calcsize(layout.counts)
    if start + count * layout.entry > len(data):
        raise UnreadableImage("the file is cut short")
    entries: dict[int, bytes] = {}
    for begin in range(start, start + count * layout.entry, layout.entry):
        entries.setdefault(struct.unpack_from(layout.order + "H", data, begin)[0], data[begin : begin + layout.entry])
    return entries


def _values(data: bytes, entry: bytes, layout: _Layout) -> tuple[int, ...]:
    """The numbers of an entry; none if they are not whole numbers, or lie outside the file."""
    _, kind, count = struct.unpack_from(layout.order + "HH" + layout.offsets, entry)
    if kind not in _INTEGERS or not 0 < count <= _MOST_VALUES:
        return ()
    numbers = f"{layout.order}{count}{_INTEGERS[kind]}"
    source, at = entry, layout.entry - layout.offset_size()
    if struct.calcsize(numbers) > layout.offset_size():
        source, at = data, struct.unpack_from(layout.order + layout.offsets, entry, at)[0]
    try:
        return struct.unpack_from(numbers, source, at)
    except (struct.error, OverflowError):
        return ()


def _refuse_samples(fields: dict[int, tuple[int, ...]]) -> None:
    bits = max(fields.get(_BITS) or (1,))
    kind = next((_KINDS[number] for number in fields.get(_SAMPLE_FORMAT, ()) if number in _KINDS), None)
    if kind is None and bits > 16:
        kind = "{bits}-bit integer"
    if (
        fields.get(_PLANES) == (2,)
        and len(fields.get(_BITS, ())) > 1
        and fields.get(_PHOTOMETRIC) in ((0,), (1,), (3,))
    ):
        raise UnreadableImage("gray samples or a palette with transparency in planes of their own, which are not read")
    if kind:
        raise UnreadableImage(
            f"{kind.format(bits=bits)} samples, which have no known range; convert them to 8 or 16 bits"
        )


def _refuse_missing_data(fields: dict[int, tuple[int, ...]], length: int) -> None:
    """Pillow leaves uncovered areas black, and libtiff reads past the end of a strip that is too short."""
    needed = _bytes_of_plain_rows(fields)
    strips, strip_bytes = fields.get(_STRIP_OFFSETS, ()), fields.get(_STRIP_BYTES, ())
    if needed and len(strips) == len(strip_bytes) == 1 and (not strip_bytes[0] or strips[0] + strip_bytes[0] > length):
        strip_bytes = (needed,)  # as libtiff does: some programs do not fill in the size of a single strip
    tiles = zip(fields.get(_TILE_OFFSETS, ()), fields.get(_TILE_BYTES, ()), strict=False)
    if any(at + size > length for at, size in (*zip(strips, strip_bytes, strict=False), *tiles)):
        raise UnreadableImage("the file is cut short")
    if _STRIP_OFFSETS not in fields or not fields.get(_LENGTH) or not fields.get(_WIDTH):
        return
    height = fields[_LENGTH][0]
    rows = min((fields.get(_ROWS_PER_STRIP) or (height,))[0], height)
    if rows == 0 or len(strips) < -(-height // rows) * _planes(fields):
        raise UnreadableImage("the file lacks some of its strips")
    if needed and _STRIP_BYTES in fields and sum(strip_bytes) < needed:
        raise UnreadableImage("its strips are too short for its rows")


def _samples(fields: dict[int, tuple[int, ...]]) -> int:
    return (fields.get(_SAMPLES) or (len(fields.get(_BITS) or (1,)),))[0]


def _planes(fields: dict[int, tuple[int, ...]]) -> int:
    return _samples(fields) if fields.get(_PLANES) == (2,) else 1


def _bytes_of_plain_rows(fields: dict[int, tuple[int, ...]]) -> int | None:
    """The bytes of all rows if nothing is compressed or subsampled, else None."""
    is_plain = fields.get(_COMPRESSION, (1,)) == (1,) and fields.get(_PHOTOMETRIC) != (_YCBCR,)
    if not is_plain or not fields.get(_LENGTH) or not fields.get(_WIDTH):
        return None
    planes, bits = _planes(fields), (fields.get(_BITS) or (1,))[0]
    # A file that says 0 samples a pixel has no rows to be short.
    row_bytes = -(-fields[_WIDTH][0] * bits * _samples(fields) // planes // 8) if planes else 0
    return fields[_LENGTH][0] * planes * row_bytes


def _with_directory(data: bytes, entries: list[bytes], layout: _Layout) -> bytes:
    """The file with these entries as its only directory, appended to its data."""
    padding = bytes(len(data) % 2)
    offset = struct.pack(layout.order + layout.offsets, len(data) + len(padding))
    count = struct.pack(layout.order + layout.counts, len(entries))
    before, after = data[: layout.header - layout.offset_size()], data[layout.header :]
    return b"".join([before, offset, after, padding, count, *entries, bytes(layout.offset_size())])
