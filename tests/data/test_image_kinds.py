"""Depths and colours of samples, damaged metadata, formats by content: right or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import TiffImagePlugin

from cssl_cli.data.decode import decode_image
from tests.support.decoding import RANDOM, N, decoded, picture, refusal, samples
from tests.support.image_bytes import png, png_chunk, tiff

ORIENTATION = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: turn by 90 degrees


def eight_bits(values, bits):
    return values >> (bits - 8) if bits > 8 else values * 255 // (2**bits - 1)


def on_white(rgb, alpha):
    return rgb * (alpha / 255) + 255 * (1 - alpha / 255)


# Samples


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize(
    ("bits", "photometric", "order"),
    [(bits, photometric, order) for bits in (1, 2, 4, 8, 16) for photometric in (0, 1) for order in "<>"]
    + [(12, 0, "<"), (12, 1, "<")],
)
def test_gray_tiff_of_every_depth_keeps_its_range(tmp_path, bits, photometric, order, rows, deflate):
    values = samples(bits)
    gray = eight_bits(values, bits) if photometric else 255 - eight_bits(values, bits)
    image = decoded(tmp_path, tiff(values, bits, photometric, order=order, rows=rows, deflate=deflate))
    assert np.array_equal(image, np.repeat(gray[:, :, None], 3, 2))


@pytest.mark.parametrize(("bits", "order"), [(10, "<"), (14, "<"), (10, ">"), (12, ">")])
def test_depths_that_are_not_read_are_refused_by_name(tmp_path, bits, order):
    assert f"{bits} bits a sample" in refusal(tmp_path, tiff(samples(bits), bits, 1, order=order))


@pytest.mark.parametrize(
    ("bits", "kind", "words"),
    [
        (8, 2, "signed 8-bit samples"),
        (16, 2, "signed 16-bit samples"),
        (32, 2, "signed 32-bit samples"),
        (16, 3, "floating-point samples"),
        (32, 3, "floating-point samples"),
        (32, 6, "complex samples"),
        (32, 1, "32-bit integer samples"),
    ],
)
def test_samples_without_a_known_range_are_refused_in_words(tmp_path, bits, kind, words):
    assert words in refusal(tmp_path, tiff(RANDOM.integers(0, 99, (N, N)), bits, 1, fields=[(339, 3, [kind])]))


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (16, "<"), (16, ">")])
def test_colour_tiff_in_one_plane_or_several(tmp_path, bits, order, planes):
    values = samples(bits, 4)
    high = eight_bits(values, bits)
    common = {"order": order, "planes": planes, "rows": 4}
    assert np.array_equal(decoded(tmp_path, tiff(values[:, :, :3], bits, 2, **common)), high[:, :, :3])
    with_alpha = decoded(tmp_path, tiff(values, bits, 2, fields=[(338, 3, [2])], **common))
    assert np.abs(with_alpha - on_white(high[:, :, :3], high[:, :, 3:])).max() <= 1
    ignored = decoded(tmp_path, tiff(values, bits, 2, fields=[(338, 3, [0])], **common))
    assert np.array_equal(ignored, high[:, :, :3])
    cmyk = decoded(tmp_path, tiff(values, bits, 5, **common))
    assert np.abs(cmyk - (255 - high[:, :, :3]) * (255 - high[:, :, 3:]) / 255).max() <= 2


def test_palette_and_ycbcr_tiff(tmp_path):
    values, palette = samples(8), RANDOM.integers(0, 2**16, (3, 256))
    image = decoded(tmp_path, tiff(values, 8, 3, fields=[(320, 3, palette.ravel().tolist())]))
    assert np.array_equal(image, (palette >> 8)[:, values].transpose(1, 2, 0))
    y, cb, cr = RANDOM.integers(100, 156, (3, N, N))
    image = decoded(tmp_path, tiff(np.stack([y, cb, cr], 2), 8, 6, fields=[(530, 3, [1, 1])]))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    assert np.abs(image - np.stack([red, green, blue], 2)).max() <= 2


def test_subsampled_ycbcr_without_compression(tmp_path):
    """Blocks of 2 x 2 brightnesses share a pair of colours: Y Y Y Y Cb Cr."""
    blocks = np.tile([50, 50, 50, 50, 128, 128], (4, 4, 1)).reshape(4, 24)
    content = tiff(blocks, 8, 6, fields=[(256, 4, [8]), (257, 4, [8]), (277, 3, [3]), (258, 3, [8] * 3), (278, 4, [8])])
    assert (decoded(tmp_path, content, size=8) == 50).all()


@pytest.mark.parametrize(
    ("values", "photometric", "words"), [(samples(8, 3), 8, "L*a*b*"), (samples(8, 2), 1, "planes of their own")]
)
def test_colours_that_would_be_wrong_are_refused(tmp_path, values, photometric, words):
    fields = [(338, 3, [2])] if photometric == 1 else []
    assert words in refusal(tmp_path, tiff(values, 8, photometric, planes=photometric == 1, fields=fields))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_png_and_its_transparent_sample_of_every_depth(tmp_path, bits):
    values = samples(bits)
    gray = eight_bits(values, bits)
    assert np.array_equal(decoded(tmp_path, png(values, bits, 0))[:, :, 0], gray)
    key = png_chunk(b"tRNS", struct.pack(">H", values[0, 0]))
    expected = np.where(values == values[0, 0], 255, gray)
    assert np.array_equal(decoded(tmp_path, png(values, bits, 0, extra=key))[:, :, 0], expected)


def test_a_transparent_colour_of_16_bits(tmp_path):
    values = samples(16, 3)
    expected = eight_bits(values, 16)
    expected[0, 0] = 255
    key = png_chunk(b"tRNS", struct.pack(">3H", *values[0, 0]))
    assert np.array_equal(decoded(tmp_path, png(values, 16, 2, extra=key)), expected)


@pytest.mark.parametrize("maxval", [1, 15, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_the_maximum_of_a_pgm_is_white(tmp_path, maxval, plain):
    values = RANDOM.integers(0, maxval + 1, (N, N))
    values[0, :2] = 0, maxval
    content = f"P{2 if plain else 5} {N} {N} {maxval}\n".encode()
    content += (
        " ".join(map(str, values.ravel())).encode()
        if plain
        else values.astype(">u2" if maxval > 255 else "u1").tobytes()
    )
    gray = decoded(tmp_path, content)[:, :, 0]
    assert gray[0, :2].tolist() == [0, 255]
    assert np.abs(gray - values * 255 / maxval).max() <= 1


# Metadata


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tif"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0http://n", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + bytes(9)]
)
def test_damaged_exif_costs_no_pixels(tmp_path, suffix, exif):
    image, plain, odd = picture(), io.BytesIO(), io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    image.save(plain, kind)
    if suffix == "tif":
        image.save(odd, kind, tiffinfo={700: exif, 34665: 2**31})
    else:
        image.save(odd, kind, exif=exif)
    assert np.array_equal(decoded(tmp_path, odd.getvalue()), decoded(tmp_path, plain.getvalue()))


@pytest.mark.parametrize(
    "kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"gAMA", b"cHRM", b"pHYs", b"acTL", b"fcTL", b"caBX"]
)
def test_damaged_chunks_cost_no_pixels(tmp_path, kind):
    values = samples(8, 3)
    sound = png_chunk(kind, b"Raw profile type exif\0\0\xff\x00junk")
    wrong_sum = sound[:-1] + bytes([sound[-1] ^ 1])
    for chunk in (sound, wrong_sum, png_chunk(kind, b"")):
        for content in (png(values, 8, 2, extra=chunk), png(values, 8, 2, after=chunk)):
            assert np.array_equal(decoded(tmp_path, content), values)


def test_a_text_that_inflates_without_end_costs_neither_pixels_nor_memory(tmp_path):
    bomb = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(20 * 2**20), 1))
    values = samples(8, 3)
    assert np.array_equal(decoded(tmp_path, png(values, 8, 2, extra=bomb)), values)


@pytest.mark.parametrize(
    "fields",
    [
        [(282, 2, b"abc\0")],
        [(282, 5, b"")],
        [(296, 2, b"xyz\0\0\0")],
        [(34675, 12, b"no profile")],
        [(700, 7, b"")],
        [(305, 3, [9])],
    ],
)
def test_odd_fields_of_a_tiff_cost_no_pixels(tmp_path, fields):
    values = samples(8, 3)
    assert np.array_equal(decoded(tmp_path, tiff(values, 8, 2, fields=fields)), values)


def test_damaged_application_data_of_a_jpeg_cost_no_pixels(tmp_path):
    plain = io.BytesIO()
    picture().save(plain, "JPEG", quality=95)
    content = plain.getvalue()
    expected = decoded(tmp_path, content)
    for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE):
        for junk in (
            b"",
            b"J",
            b"JFIF\0",
            b"Exif\0\0",
            b"MPF\0junk",
            b"ICC_PROFILE\0",
            b"Photoshop 3.0\0008BIM\1",
            b"Adobe",
        ):
            segment = struct.pack(">BBH", 0xFF, marker, 2 + len(junk)) + junk
            assert np.array_equal(decoded(tmp_path, content[:2] + segment + content[2:]), expected)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", ORIENTATION),
        png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  32\n" + (b"Exif\0\0" + ORIENTATION).hex().encode()),
        png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    ],
)
def test_the_orientation_of_a_png_is_found_wherever_it_is_written(tmp_path, chunk):
    values = samples(8, 3)
    assert np.array_equal(decoded(tmp_path, png(values, 8, 2, extra=chunk)), np.rot90(values, -1))


@pytest.mark.parametrize("order", "<>")
def test_the_orientation_of_a_tiff(tmp_path, order):
    values = samples(8, 3)
    content = tiff(values, 8, 2, order=order, fields=[(274, 3, [6])])
    assert np.array_equal(decoded(tmp_path, content), np.rot90(values, -1))


# Short and damaged data


def test_a_png_whose_data_are_damaged_or_cut_is_refused(tmp_path):
    content = png(samples(8, 3), 8, 2)
    position = content.index(b"IDAT") + 12
    flipped = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    assert "checksum" in refusal(tmp_path, flipped)
    for missing in (1, 12, 13, 40):
        assert "cut short" in refusal(tmp_path, content[:-missing])


def test_a_tiff_whose_strips_do_not_cover_it_is_refused(tmp_path):
    values = samples(8)
    assert "strips" in refusal(tmp_path, tiff(values, 8, 1, rows=4, fields=[(273, 4, [8]), (279, 4, [4 * N])]))
    assert "strips" in refusal(tmp_path, tiff(values, 8, 1, fields=[(279, 4, [N])]))
    assert "cut short" in refusal(tmp_path, tiff(values, 8, 1, fields=[(273, 4, [9999])]))


@pytest.mark.parametrize("size", [0, 99999])
def test_a_single_strip_of_unknown_size_is_read_as_far_as_its_rows_go(tmp_path, size):
    values = samples(8)
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(values, 8, 1, fields=[(279, 4, [size])]))
    np.testing.assert_array_equal(decode_image(path, N)[0], values)
    beyond = tiff(values, 8, 1, fields=[(279, 4, [size]), (257, 4, [9999])])
    assert "cut short" in refusal(tmp_path, beyond)


# Formats


def test_a_suffix_that_disagrees_with_the_content_is_no_matter(tmp_path):
    image, content = picture(), io.BytesIO()
    image.save(content, "PNG")
    assert np.array_equal(decoded(tmp_path, content.getvalue(), name="a.jpg"), np.asarray(image))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "JPEG2000", "ICO", "TGA", "PCX", "SGI", "DDS", "IM", "MSP", "SPIDER"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    content = io.BytesIO()
    image = {"MSP": picture().convert("1"), "SPIDER": picture().convert("F")}.get(kind, picture())
    image.save(content, kind)
    assert "not an image of any known format" in refusal(tmp_path, content.getvalue(), name="e.png")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("r"),
        NotImplementedError(),
        MemoryError(),
        AttributeError("a"),
        TypeError(),
        AssertionError(),
        RecursionError(),
    ],
)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", fail)
    assert refusal(tmp_path, tiff(samples(8), 8, 1)).startswith("this image cannot be read: ")


def test_libtiff_and_pillow_keep_off_stderr(tmp_path, capfd):
    content = tiff(samples(8), 8, 1, deflate=True)
    position = content.index(b"\x78")
    refusal(tmp_path, content[:position] + b"junk" + content[position + 4 :])
    refusal(tmp_path, tiff(samples(8, 3), 8, 2, fields=[(277, 3, [999])]))
    assert capfd.readouterr().err == ""
