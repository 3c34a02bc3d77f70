"""How much an image may take, what is no file, and interruptions: refused in words, or kept within a budget."""

import os
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from cssl_cli.data import decode
from cssl_cli.data.decode import decode_image, decode_into
from cssl_cli.data.memory_budget import MemoryBudget
from cssl_cli.data.unreadable_image import UnreadableImage
from cssl_cli.errors import InputError
from tests.support.decoding import RANDOM, N, decoded, picture, refusal, samples
from tests.support.image_bytes import png

# Limits


@pytest.mark.parametrize("size", [(1, 170_000_000), (13_000, 13_000), (8_193, 8_192), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_from_the_header(tmp_path, size):
    what = refusal(tmp_path, png(samples(8), 8, 0, size=size), name="a.png")
    assert f"{size[0]} x {size[1]} pixels" in what
    assert "CSSL_MAX_PIXELS" in what


def test_the_limit_on_pixels_can_be_set(tmp_path, monkeypatch):
    content = png(samples(8), 8, 0)
    monkeypatch.setenv("CSSL_MAX_PIXELS", str(N * N))
    assert decoded(tmp_path, content).shape == (N, N, 3)
    monkeypatch.setenv("CSSL_MAX_PIXELS", str(N * N - 1))
    assert "pixels are more than the 80 that are read" in refusal(tmp_path, content)


@pytest.mark.parametrize("text", ["many", "-1", "0", "1.5", "nan", "inf", "1e400"])
def test_a_limit_that_is_no_number_is_a_fault_of_the_environment(tmp_path, monkeypatch, text):
    monkeypatch.setenv("CSSL_MAX_PIXELS", text)
    with pytest.raises(InputError, match="CSSL_MAX_PIXELS") as caught:
        decode_into(np.zeros((1, 3, 8, 8), dtype=np.uint8), [tmp_path / "a.png"], progress=None)
    assert caught.value.where == "environment"


def test_a_file_far_larger_than_its_pixels_could_be_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(samples(8), 8, 0))
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(UnreadableImage, match="bytes"):
        decode_image(path, 8)


def test_a_long_image_is_cut_to_its_square_before_it_is_converted(tmp_path, monkeypatch):
    sizes = []
    real = decode._to_rgb
    monkeypatch.setattr(decode, "_to_rgb", lambda image, bits: sizes.append(image.size) or real(image, bits))
    values = np.tile(RANDOM.integers(0, 256, (1, 5000)), (4, 1))
    assert (decoded(tmp_path, png(values, 8, 0), size=4)[:, :, 0] == values[:, 2498:2502]).all()
    assert sizes[0][0] < 20


def test_conversion_by_strips_changes_no_pixel(tmp_path, monkeypatch):
    for mode in ("RGBA", "LA", "L", "P", "I;16"):
        image = (
            Image.fromarray(RANDOM.integers(0, 2**16, (40, 30), dtype=np.uint16))
            if mode == "I;16"
            else picture().resize((30, 40)).convert(mode)
        )
        whole = np.asarray(decode._to_rgb(image, 16))
        monkeypatch.setattr(decode, "_STRIP", 100)
        assert np.array_equal(np.asarray(decode._to_rgb(image, 16)), whole)
        monkeypatch.undo()


def test_threads_share_the_budget_and_the_largest_comes_alone():
    budget, held, most, alone = MemoryBudget(100), [0], [0], []

    def work(share):
        with budget.holding(share):
            held[0] += share
            most[0] = max(most[0], held[0] if share <= 100 else 0)
            time.sleep(0.005)
            if share > 100:
                alone.append(held[0] == share)
            held[0] -= share

    threads = [threading.Thread(target=work, args=(share,)) for share in [40, 60, 500, 30, 90] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most[0] <= 100
    assert alone == [True] * 4


def test_decoding_asks_the_budget_for_what_the_header_says(tmp_path, monkeypatch):
    asked = []

    class Budget(MemoryBudget):
        def holding(self, num_bytes):
            asked.append(num_bytes)
            return super().holding(num_bytes)

    monkeypatch.setattr(decode, "_PIXELS", Budget(10))
    decoded(tmp_path, png(np.zeros((100, 100), dtype=int), 8, 0))
    assert asked[0] >= 100 * 100 * 4


# What is no file


def test_pipes_sockets_devices_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "null.png").symlink_to("/dev/null")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.png"))
    names = {"fifo": "a named pipe", "folder": "a folder", "null": "a device", "socket": "a socket"}
    for name, words in names.items():
        with pytest.raises(InputError, match=words):
            decode_into(np.zeros((1, 3, 8, 8), dtype=np.uint8), [tmp_path / f"{name}.png"], progress=None)
    server.close()


def test_an_interruption_does_not_wait_for_the_image_in_work(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(samples(8), 8, 0))
    begun = threading.Event()

    def endless(path, size):
        begun.set()
        time.sleep(30)

    class Stopped(BaseException):
        pass

    def interrupt(*_):
        raise Stopped

    monkeypatch.setattr(
        decode,
        "decode_image",
        lambda path, size: (
            np.zeros((3, size, size)) if not begun.is_set() and path.name == "a.png" else endless(path, size)
        ),
    )
    monkeypatch.setattr(decode, "_GRACE", 0.1)
    monkeypatch.setattr(decode, "_num_threads", lambda: 2)
    before = time.monotonic()
    with pytest.raises(Stopped):
        decode_into(
            np.zeros((16, 3, 4, 4), dtype=np.uint8), [path] * 8 + [tmp_path / "slow.png"] * 8, progress=interrupt
        )
    assert time.monotonic() - before < 5
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
