"""Image files written by hand, for kinds that Pillow does not write."""

import struct
import zlib

import numpy as np


def packed_rows(values, bits, order):
    """Each row of whole numbers (H, n) as bytes, the first sample in the highest bits."""
    if bits in (8, 16, 32):
        return [np.asarray(row).astype(f"{order}u{bits // 8}").tobytes() for row in values]
    rows = []
    for row in values:
        number = int("".join(f"{int(value):0{bits}b}" for value in row), 2)
        padding = -len(row) * bits % 8
        rows.append((number << padding).to_bytes((len(row) * bits + padding) // 8, "big"))
    return rows


def tiff(values, bits, photometric, *, order="<", deflate=False, planes=False, rows=None, fields=()):
    """A TIFF file of whole numbers (H, W) or (H, W, C) in strips of `rows` rows; `fields` adds or replaces fields.

    A field is (tag, type, values), the types 1 BYTE, 3 SHORT, 4 LONG; values in bytes are written as they are.
    """
    values = np.asarray(values)
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    rows = rows or height
    parts = [values[:, :, c] for c in range(samples)] if planes else [values.reshape(height, -1)]
    packed = [packed_rows(part, bits, order) for part in parts]
    strips = [b"".join(part[top : top + rows]) for part in packed for top in range(0, height, rows)]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    table = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [8 if deflate else 1])}
    table |= {262: (3, [photometric]), 273: (4, offsets), 277: (3, [samples]), 278: (4, [rows])}
    table |= {279: (4, [len(strip) for strip in strips]), 284: (3, [2 if planes else 1])}
    table |= {tag: (kind, content) for tag, kind, content in fields}
    body, entries = b"".join(strips), []
    for tag, (kind, content) in sorted(table.items()):
        letter = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 7: "B", 12: "d"}[kind]
        data = content if isinstance(content, bytes) else struct.pack(f"{order}{len(content)}{letter}", *content)
        count = len(content)
        if len(data) > 4:
            body += bytes(len(body) % 2)
            data, body = struct.pack(f"{order}I", 8 + len(body)), body + data
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0"))
    body += bytes(len(body) % 2)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return mark + struct.pack(f"{order}I", 8 + len(body)) + body + directory


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values, bits, color, *, extra=b"", after=b"", size=None):
    """A PNG file of whole numbers (H, W) or (H, W, C); `extra` chunks come before the data, `after` behind them."""
    values = np.asarray(values)
    height, width = values.shape[:2]
    rows = packed_rows(values.reshape(height, -1), bits, ">")
    header = struct.pack(">IIBBBBB", *(size or (width, height)), bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", data), after, png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
