"""One image file to one uint8 square: formats, colour modes, orientation, resampling, and files that are no images."""

import random

import numpy as np
import pytest
from PIL import Image

from cssl_cli.data.decode import IMAGE_SUFFIXES, decode_image, decode_into
from cssl_cli.errors import InputError


def pixels(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * y / height, 255 * x / width, 255 * (x + y) / (height + width)], axis=2).astype(np.uint8)


def save(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff", ".ppm", ".webp", ".gif"])
def test_lossless_formats_come_back_exactly_at_the_same_size(tmp_path, suffix):
    values = pixels(8, 8)
    options = {".webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path, Image.fromarray(values), f"a{suffix}", **options)
    expected = values if suffix != ".gif" else np.asarray(Image.open(path).convert("RGB"))
    decoded = decode_image(path, 8)
    assert decoded.shape == (3, 8, 8)
    assert np.array_equal(decoded.transpose(1, 2, 0), expected)
    assert suffix.lower() in IMAGE_SUFFIXES


def test_a_jpeg_comes_back_as_pillow_decodes_it(tmp_path):
    path = save(tmp_path, Image.fromarray(smooth(16, 16)), "a.jpg", quality=90)
    assert np.array_equal(decode_image(path, 16).transpose(1, 2, 0), np.asarray(Image.open(path)))


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24), (24, 24), (5, 7)])
def test_the_largest_centred_square_is_resampled(tmp_path, height, width):
    values = smooth(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(values[top : top + side, left : left + side])
    decoded = decode_image(save(tmp_path, Image.fromarray(values)), 12).transpose(1, 2, 0).astype(int)
    expected = np.asarray(square.resize((12, 12), Image.Resampling.BICUBIC)).astype(int)
    inner = slice(2, -2)  # near its border the square's neighbours take part in the resampling
    assert np.abs(decoded - expected)[inner, inner].max() <= 3
    assert np.abs(decoded - expected).max() <= 25


def test_resampling_is_antialiased(tmp_path):
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    decoded = decode_image(save(tmp_path, Image.fromarray(checkers.astype(np.uint8))), 8)
    assert np.abs(decoded.astype(int) - 128).max() <= 4


def test_a_large_jpeg_reduced_while_decoding_looks_the_same(tmp_path):
    image = Image.fromarray(smooth(300, 400))
    from_jpeg = decode_image(save(tmp_path, image, "a.jpg", quality=95), 16).astype(int)
    from_png = decode_image(save(tmp_path, image, "a.png"), 16).astype(int)
    assert np.abs(from_jpeg - from_png).max() <= 6


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "CMYK", "I;16"])
def test_one_channel_is_the_luma_of_what_three_would_be(tmp_path, mode):
    image = Image.fromarray(smooth(20, 30)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) << 8)
    path = save(tmp_path, image, "a.tif")
    colours, gray = decode_image(path, 12), decode_image(path, 12, 1)
    assert gray.shape == (1, 12, 12)
    assert np.abs(gray[0] - np.tensordot([0.299, 0.587, 0.114], colours, 1)).max() < 0.51
    if mode in ("L", "1", "I;16"):
        assert np.array_equal(gray[0], colours[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_exif_orientation_is_honoured(tmp_path, orientation, suffix):
    upright = np.full((16, 16, 3), 20, dtype=np.uint8)
    upright[:8, :8], upright[:8, 8:] = 230, 120  # every orientation looks different
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(np.ascontiguousarray(undo(upright))), f"a.{suffix}", exif=exif)
    assert np.abs(decode_image(path, 16).transpose(1, 2, 0).astype(int) - upright).max() <= 6


def test_grayscale_bilevel_and_palette_become_rgb(tmp_path):
    gray = pixels(8, 8, 1)[:, :, 0]
    for mode, expected in (("L", gray), ("1", (gray > 127) * np.uint8(255)), ("P", gray)):
        image = Image.fromarray(gray)
        image = image.point(lambda v: 255 * (v > 127)).convert("1") if mode == "1" else image.convert(mode)
        decoded = decode_image(save(tmp_path, image, f"{mode}.png"), 8)
        assert all(np.array_equal(channel, expected) for channel in decoded), mode


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode_image(save(tmp_path, image, "a.tif"), 8)[:, 0, 0]
    assert red > 200
    assert max(green, blue) < 60


def test_sixteen_bit_grayscale_keeps_its_range(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    decoded = decode_image(save(tmp_path, Image.fromarray(values)), 8)
    assert all(np.array_equal(channel, values // 256) for channel in decoded)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    values = pixels(8, 8, 3 if mode == "RGBA" else 1)
    alpha = pixels(8, 8, 1, seed=1)
    decoded = decode_image(save(tmp_path, Image.fromarray(np.concatenate([values, alpha], 2), mode)), 8)
    share = alpha / 255
    expected = values * share + 255 * (1 - share)
    assert np.abs(decoded.transpose(1, 2, 0) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_laid_on_white(tmp_path, mode):
    image = Image.new(mode, (8, 8), 0)
    key = (0, 0, 0) if mode == "RGB" else 0
    decoded = decode_image(save(tmp_path, image, transparency=key), 8)
    assert (decoded == 255).all()


def test_of_an_animation_the_first_frame_counts(tmp_path):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    path = save(tmp_path, first, "a.gif", save_all=True, append_images=[second])
    assert decode_image(path, 8)[:, 0, 0].tolist() == [255, 0, 0]


def failure(path, size=8):
    with pytest.raises(InputError) as caught:
        decode_into(np.zeros((1, 3, size, size), dtype=np.uint8), [path], progress=None)
    return caught.value


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "ppm"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = save(tmp_path, Image.fromarray(pixels(64, 64)), f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert failure(path).where == str(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "not an image"), (b"hello", "not an image"), (b"\xff\xd8\xff", "damaged")]
)
def test_a_file_that_is_no_image_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    error = failure(path)
    assert error.where == str(path)
    assert reason in error.what
    assert "Delete or replace" in error.remedy


def test_damaged_bytes_never_escape_as_a_raw_error(tmp_path):
    """Random damage to every format either still decodes or is reported; nothing else comes out."""
    chance = random.Random(0)
    outcomes = set()
    for suffix in ("jpg", "png", "gif", "bmp", "webp", "tif", "ppm"):
        sound = save(tmp_path, Image.fromarray(smooth(24, 24)), f"sound.{suffix}").read_bytes()
        for number in range(60):
            damaged = bytearray(sound)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
            path = tmp_path / f"{number}.{suffix}"
            path.write_bytes(damaged)
            try:
                decode_into(np.zeros((1, 3, 8, 8), dtype=np.uint8), [path], progress=None)
                outcomes.add("decoded")
            except InputError:
                outcomes.add("reported")
    assert outcomes == {"decoded", "reported"}


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("L", (300, 300)))
    monkeypatch.setenv("CSSL_MAX_PIXELS", "1000")
    assert "300 x 300 pixels" in failure(path).what


def test_floating_point_pixels_are_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(np.zeros((8, 8), dtype=np.float32)), "a.tif")
    assert "floating-point" in failure(path).what


def test_many_failures_are_counted_and_the_first_listed_in_order(tmp_path):
    paths = []
    for number in range(200):
        path = tmp_path / f"{number:03}.png"
        if number % 20 == 0:
            path.write_bytes(b"nothing")
        else:
            Image.new("RGB", (4, 4)).save(path)
        paths.append(path)
    with pytest.raises(InputError) as caught:
        decode_into(np.zeros((200, 3, 4, 4), dtype=np.uint8), paths, progress=None)
    message = str(caught.value)
    assert "10 images cannot be read" in message
    assert [f"{n:03}.png" in message for n in (0, 20, 40, 60, 80, 100)] == [True] * 5 + [False]
    assert "and 5 more" in message


def test_an_interruption_leaves_the_rest_undecoded(tmp_path, monkeypatch):
    path = save(tmp_path, Image.new("RGB", (4, 4)))
    decoded = []

    def slow(path, size):
        decoded.append(path)
        return np.zeros((3, size, size), dtype=np.uint8)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cssl_cli.data.decode.decode_image", slow)
    monkeypatch.setattr("cssl_cli.data.decode._num_threads", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        decode_into(np.zeros((200_000, 3, 4, 4), dtype=np.uint8), [path] * 200_000, progress=interrupt)
    assert len(decoded) < 200_000


def test_rows_follow_paths_and_progress_reaches_the_total(tmp_path):
    paths, images, seen = [], np.zeros((150, 3, 2, 2), dtype=np.uint8), []
    for number in range(150):
        paths.append(save(tmp_path, Image.new("RGB", (2, 2), (number, number, number)), f"{number}.png"))
    decode_into(images, paths, progress=lambda *report: seen.append(report[:2]))
    assert np.array_equal(images, np.broadcast_to(np.arange(150, dtype=np.uint8)[:, None, None, None], images.shape))
    assert seen[-1] == (150, 150)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
