"""The cache of decoded images: damage of any kind is noticed, a folder can be shared, failures are sentences."""

import errno
import json
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cssl_cli.data import cache
from cssl_cli.data.cache import cached_images, exclusive
from cssl_cli.errors import InputError, RunError
from cssl_cli.runs.images import cache_dir as chosen_cache_dir

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
IS_ROOT = os.geteuid() == 0


class Entry:
    """One entry, read again and again; counts how often it was built."""

    def __init__(self, folder):
        self.folder, self.builds, self.said = folder, 0, []

    def fill(self, images):
        self.builds += 1
        images[:] = IMAGES

    def read(self):
        return cached_images(
            self.folder, "key", size=4, channels=3, lengths=[4, 2], fill=self.fill, notice=self.said.append
        )

    def files(self):
        return self.folder / "key.npy", self.folder / "key.json"


@pytest.fixture
def entry(tmp_path):
    entry = Entry(tmp_path / "cache")
    entry.read()
    return entry


def assert_rebuilt(entry):
    (first, summary), (second, _) = entry.read()
    assert np.array_equal(torch.cat([first, second]).numpy(), IMAGES)
    assert summary.mean == pytest.approx((IMAGES[:4] / 255).mean((0, 2, 3)))
    assert entry.builds == 2
    assert len(entry.said) == 1
    assert "damaged" in entry.said[0]
    entry.read()
    assert entry.builds == 2


def test_a_sound_entry_is_read_as_it_is(entry):
    entry.read()
    assert (entry.builds, entry.said) == (1, [])


def test_any_flipped_bit_of_the_array_is_noticed(entry):
    array, _ = entry.files()
    for position in range(128, 128 + IMAGES.size, 37):
        with array.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1 << position % 8]))
        before = entry.builds
        assert np.array_equal(torch.cat([part for part, _ in entry.read()]).numpy(), IMAGES)
        assert entry.builds == before + 1


@pytest.mark.parametrize("wrong", [b"}  8), }", b"(((", b"'''", b"\\", b"\x00", b"9" * 60, b"\n  x\n y\n"])
def test_a_header_that_is_no_header_is_noticed(entry, wrong):
    array, _ = entry.files()
    data = array.read_bytes()
    array.write_bytes(data[:69] + wrong + data[69 + len(wrong) :])  # where only blanks are
    assert_rebuilt(entry)


def test_any_flipped_bit_of_the_description_is_noticed_or_says_the_same(entry):
    _, meta = entry.files()
    sound = meta.read_bytes()
    expected = [summary for _, summary in entry.read()]
    for position in range(0, len(sound), 11):
        meta.write_bytes(sound[:position] + bytes([sound[position] ^ 1 << position % 7]) + sound[position + 1 :])
        assert [summary for _, summary in entry.read()] == expected
    assert entry.builds > len(sound) / 14


def changed(key, value):
    def change(meta):
        table = json.loads(meta.read_text())
        table[key] = value
        table.pop("sha256")
        meta.write_text(json.dumps(table | {"sha256": cache._digest(table)}))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("key", "other"),
        changed("lengths", [3, 3]),
        changed("summaries", []),
        changed("summaries", [{"digest": "x"}] * 2),
        changed("summaries", [{"digest": "x", "mean": [1], "std": [1]}] * 2),
        changed("summaries", 7),
        lambda meta: meta.write_text("7"),
        lambda meta: meta.write_text("{}"),
        lambda meta: meta.write_text("[" * 100_000),
        lambda meta: meta.write_bytes(b"\xff"),
    ],
)
def test_descriptions_that_parse_but_say_something_else_are_built_again(entry, change):
    change(entry.files()[1])
    assert_rebuilt(entry)


@pytest.mark.parametrize("which", [0, 1])
def test_a_pipe_in_place_of_a_file_does_not_hang(entry, which):
    path = entry.files()[which]
    path.unlink()
    os.mkfifo(path)
    before = time.monotonic()
    assert_rebuilt(entry)
    assert time.monotonic() - before < 5


def test_a_symbolic_link_to_a_sound_file_is_read(entry, tmp_path):
    array, _ = entry.files()
    array.rename(tmp_path / "moved.npy")
    array.symlink_to(tmp_path / "moved.npy")
    entry.read()
    assert entry.builds == 1


def test_a_folder_in_place_of_a_file_is_named(entry):
    array, _ = entry.files()
    array.unlink()
    array.mkdir()
    with pytest.raises(InputError, match="directory"):
        entry.read()


def test_leftovers_that_are_folders_or_may_not_be_removed_stay(entry):
    (entry.folder / "x.building").mkdir()
    (entry.folder / "y.building").write_text("")
    for path in entry.files():
        path.unlink()
    entry.read()
    assert (entry.folder / "x.building").is_dir()
    assert not (entry.folder / "y.building").exists()


# Sharing


def test_a_lock_of_someone_else_needs_no_right_to_write(tmp_path, monkeypatch):
    """Opened for writing where that is allowed, else for reading, and never with O_CREAT once it is there."""
    lock = tmp_path / ".lock"
    lock.write_text("")
    real, seen = os.open, []

    def of_someone_else(path, flags, *mode, **others):
        if Path(path) == lock:
            seen.append(flags)
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *mode, **others)

    monkeypatch.setattr(os, "open", of_someone_else)
    with exclusive(tmp_path) as alone:
        assert alone
    assert [bool(flags & os.O_CREAT) for flags in seen] == [False, False]


@pytest.mark.skipif(not IS_ROOT, reason="only root can become someone else")
def test_a_second_user_shares_the_cache(tmp_path):
    for folder in (tmp_path, *list(tmp_path.parents)[:1]):
        folder.chmod(0o777)
    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o1777)
    Entry(shared).read()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setuid(54321)
            os.chdir("/")
            if os.access(shared, os.W_OK):
                second = Entry(shared)
                second.read()
                cached_images(shared, "other", size=4, channels=3, lengths=[6], fill=second.fill)
                status = 0 if second.builds == 1 else 2
            else:
                status = 3  # a folder above keeps other users out
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) in (0, 3)


def test_files_are_readable_by_others_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        Entry(tmp_path / "cache").read()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").iterdir()}
    assert modes == {".lock": 0o644, "key.npy": 0o644, "key.json": 0o644}


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_harms_nothing(tmp_path, kind):
    precious, folder = tmp_path / "precious", tmp_path / "cache"
    precious.write_text("data")
    folder.mkdir()
    lock = folder / ".lock"
    {"link": lambda: lock.symlink_to(precious), "pipe": lambda: os.mkfifo(lock), "folder": lock.mkdir}[kind]()
    with pytest.raises(InputError) as caught:
        Entry(folder).read()
    assert caught.value.where == str(lock)
    assert precious.read_text() == "data"


# Failures


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG]
)
@pytest.mark.parametrize("where", ["posix_fallocate", "fsync", "replace", "open"])
def test_a_disk_that_fails_anywhere_is_a_sentence(tmp_path, monkeypatch, number, where):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if where == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif where == "open":
        monkeypatch.setattr(cache, "open_lock", fail)
    else:
        monkeypatch.setattr(os, where, fail)
    failing = number in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    with pytest.raises(RunError if failing else InputError, match=os.strerror(number).lower()):
        Entry(tmp_path / "cache").read()
    assert not list(tmp_path.glob("cache/*.building"))


def test_a_disk_that_keeps_something_else_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "pixel_digest", lambda _: "another")
    with pytest.raises(RunError, match="not what is read back"):
        Entry(tmp_path / "cache").read()


# Where it lies


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CSSL_CACHE", "~/there", "{home}/there"),
        ("CSSL_CACHE", "$PLACE/there", "{home}/place/there"),
        ("CSSL_CACHE", "${PLACE}", "{home}/place"),
        ("CSSL_CACHE", "there", "{here}/there"),
        ("XDG_CACHE_HOME", "~/there", "{home}/there/cssl"),
        ("XDG_CACHE_HOME", "", "{home}/.cache/cssl"),
    ],
)
def test_home_and_variables_in_the_name_of_the_cache(tmp_path, monkeypatch, variable, value, expected):
    monkeypatch.delenv("CSSL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    assert str(chosen_cache_dir()) == expected.format(home=tmp_path, here=tmp_path)


@pytest.mark.parametrize("value", ["$NOT_SET_ANYWHERE/x", "${NOT_SET_ANYWHERE}", "~nobody-of-this-name/x"])
def test_a_cache_that_stands_for_nothing_is_refused(monkeypatch, value):
    monkeypatch.setenv("CSSL_CACHE", value)
    with pytest.raises(InputError) as caught:
        chosen_cache_dir()
    assert caught.value.where == "CSSL_CACHE"


def test_without_a_home_folder_there_is_a_sentence(monkeypatch):
    monkeypatch.delenv("CSSL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(InputError, match="home folder"):
        chosen_cache_dir()


def test_a_cache_that_is_a_file_is_said_to_be_one(tmp_path):
    path = tmp_path / "cache"
    path.write_text("")
    with pytest.raises(InputError, match="a file, not a folder"):
        Entry(path).read()
