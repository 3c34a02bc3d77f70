"""The cache of a user's own folder: when it is read, when it is built again, and what becomes of a failure."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cssl_cli.data import cache, folder, stamped_files
from cssl_cli.errors import RunError
from tests.support.image_folders import SIZE, contents, load, pixels, refused, write, write_classes


def test_the_second_load_decodes_nothing_and_gives_the_same(root, cache_dir, decoded):
    write_classes(root, {"a": 4, "b": 4})
    first = load(root, cache_dir)
    second = load(root, cache_dir)
    assert len(decoded) == 8
    assert contents(cache_dir) == [".json", ".npy"]
    for name in ("train", "test"):
        assert torch.equal(getattr(first, name).images, getattr(second, name).images)
    assert (first.content_key, first.mean, first.std) == (second.content_key, second.mean, second.std)
    values = first.train.images.double() / 255
    assert first.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)


def test_a_relative_path_finds_the_entry_of_the_absolute_one(root, cache_dir, decoded, monkeypatch):
    write_classes(root, {"a": 4, "b": 4})
    load(root, cache_dir)
    monkeypatch.chdir(root.parent)
    load(root.name, cache_dir)
    assert len(decoded) == 8


def test_writing_to_the_images_does_not_reach_the_cache(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    first = load(root, cache_dir)
    expected = first.train.images.clone()
    first.train.images.zero_()
    assert torch.equal(load(root, cache_dir).train.images, expected)


def test_another_size_or_split_is_another_entry(root, cache_dir, decoded):
    write_classes(root, {"a": 4, "b": 4})
    load(root, cache_dir)
    assert load(root, cache_dir, size=3).train.images.shape[2:] == (3, 3)
    assert len(load(root, cache_dir, test_fraction=0.5).test) == 4
    assert len(decoded) == 24


def test_an_edit_that_keeps_size_and_modification_time_is_seen(root, cache_dir):
    for name in ("a", "b"):
        for number in range(2):
            write(root / name / f"{number}.bmp", number)
    path = root / "a" / "0.bmp"
    before = path.stat()
    load(root, cache_dir)
    write(path, 99)  # at once: within one tick of the clock of the first writing, but for the wait while decoding
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    dataset = load(root, cache_dir)
    images = torch.cat([dataset.train.images, dataset.test.images]).permute(0, 2, 3, 1).numpy()
    assert any(np.array_equal(image, pixels(99)) for image in images)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "swap"])
def test_a_changed_folder_is_read_again(root, cache_dir, decoded, change):
    write_classes(root, {"a": 4, "b": 4})
    load(root, cache_dir)
    first, second = root / "a" / "00.png", root / "b" / "00.png"
    if change == "add":
        write(root / "a" / "more.png", 80)
    elif change == "remove":
        first.unlink()
    elif change == "rename":
        first.rename(first.with_name("zz.png"))
    else:
        first.rename(root / "a" / ".aside")
        second.rename(first)
        (root / "a" / ".aside").rename(second)
    load(root, cache_dir)
    assert len(decoded) > 8


def other_lengths(meta):
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "lengths": [7, 1]}))


DAMAGES = {
    "truncated array": (".npy", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "longer array": (".npy", lambda path: os.truncate(path, path.stat().st_size + 7)),
    "overwritten array": (".npy", lambda path: path.write_bytes(b"x" * path.stat().st_size)),
    "empty array": (".npy", lambda path: path.write_bytes(b"")),
    "another array": (".npy", lambda path: np.save(path, np.zeros((8, 3, SIZE, SIZE + 1), dtype=np.uint8))),
    "no array": (".npy", Path.unlink),
    "cut description": (".json", lambda path: path.write_text(path.read_text()[:40])),
    "description that is no table": (".json", lambda path: path.write_text("[]")),
    "description of other parts": (".json", other_lengths),
    "no description": (".json", Path.unlink),
}


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_built_again(root, cache_dir, decoded, suffix, damage):
    write_classes(root, {"a": 4, "b": 4})
    first = load(root, cache_dir)
    expected, key = first.train.images.clone(), first.content_key
    del first
    (path,) = cache_dir.glob(f"*{suffix}")
    damage(path)
    again = load(root, cache_dir)
    assert torch.equal(again.train.images, expected)
    assert again.content_key == key
    assert len(decoded) == 16
    load(root, cache_dir)
    assert len(decoded) == 16


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left on device")])
def test_a_failure_while_building_leaves_nothing(root, cache_dir, monkeypatch, failure):
    write_classes(root, {"a": 4, "b": 4})

    def fail(images, _paths, **_):
        images[0] = 1
        raise failure

    monkeypatch.setattr(folder, "decode_into", fail)
    with pytest.raises(RunError if isinstance(failure, OSError) else failure):
        load(root, cache_dir)
    assert contents(cache_dir) == []
    monkeypatch.undo()
    load(root, cache_dir)
    assert contents(cache_dir) == [".json", ".npy"]


def test_a_corrupt_image_leaves_nothing_in_the_cache(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    path = root / "b" / "02.png"
    path.write_bytes(path.read_bytes()[:60])
    error = refused(root, cache_dir)
    assert error.where == str(path)
    assert contents(cache_dir) == []


@pytest.mark.parametrize("change", [lambda path: write(path, 90), Path.unlink])
def test_images_changed_while_they_are_read_are_not_cached(root, cache_dir, monkeypatch, change):
    write_classes(root, {"a": 4, "b": 4})
    real = folder.decode_into

    def meanwhile(images, paths, *, progress):
        real(images, paths, progress=progress)
        change(paths[3])

    monkeypatch.setattr(folder, "decode_into", meanwhile)
    assert "changed while" in refused(root, cache_dir).what
    assert contents(cache_dir) == []


def test_decoding_waits_until_a_later_edit_would_get_another_time(root, cache_dir, monkeypatch):
    """An edit within the clock's step of the last one leaves no trace in the file's times."""
    write_classes(root, {"a": 4, "b": 4})
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(stamped_files.time, "time", lambda: now[0])
    monkeypatch.setattr(stamped_files.time, "sleep", sleep)
    newest = max(path.stat().st_ctime_ns for path in root.rglob("*.png")) / 1e9
    now[0] = newest + 0.004
    load(root, cache_dir)
    assert now[0] >= newest + 0.0199
    now[0] = newest + 100
    load(root, cache_dir, size=3)
    assert len(slept) == 1


def build_and_hang(root, cache_dir, building):
    def hang(images, _paths, **_):
        images[0] = 1
        building.set()
        time.sleep(60)

    folder.decode_into = hang
    load(root, cache_dir)


def build(root, cache_dir, keys):
    keys.put(load(root, cache_dir).content_key)


def test_a_killed_builder_frees_the_next_which_clears_its_leftovers(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    processes = multiprocessing.get_context("fork")
    building = processes.Event()
    builder = processes.Process(target=build_and_hang, args=(root, cache_dir, building))
    builder.start()
    assert building.wait(60)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert contents(cache_dir) == [".building"]
    assert len(load(root, cache_dir).train) == 6
    assert contents(cache_dir) == [".json", ".npy"]


def test_two_processes_that_build_at_once_both_end_well(root, cache_dir):
    write_classes(root, {"a": 30, "b": 30})
    processes = multiprocessing.get_context("fork")
    keys = processes.Queue()
    builders = [processes.Process(target=build, args=(root, cache_dir, keys)) for _ in range(2)]
    for builder in builders:
        builder.start()
    found = [keys.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    assert set(found) == {load(root, cache_dir).content_key}
    assert contents(cache_dir) == [".json", ".npy"]


@pytest.mark.parametrize("locks", [True, False])
def test_builders_at_once_with_and_without_locks(root, cache_dir, monkeypatch, locks):
    """Without locks everyone decodes, with locks one does; the entry is sound in both cases."""
    write_classes(root, {"a": 10, "b": 10})
    builds = []
    together = threading.Barrier(1 if locks else 3)
    real = folder.decode_into

    def wait_then_decode(images, paths, *, progress):
        builds.append(1)
        together.wait(30)
        real(images, paths, progress=progress)

    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder, "decode_into", wait_then_decode)
    if not locks:
        monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(load(root, cache_dir).content_key)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 3
    assert len({*keys, load(root, cache_dir).content_key}) == 1
    assert len(builds) == (1 if locks else 3)
    assert contents(cache_dir) == [".json", ".npy"]


def test_a_cache_that_cannot_be_written_is_named(root, tmp_path):
    write_classes(root, {"a": 4, "b": 4})
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    error = refused(root, in_the_way / "cache")
    assert error.where == str(in_the_way / "cache")
    assert "cannot write" in error.what


def test_a_ready_entry_needs_no_right_to_write(root, cache_dir, monkeypatch):
    write_classes(root, {"a": 4, "b": 4})
    load(root, cache_dir)

    def forbidden(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert len(load(root, cache_dir).test) == 2


def test_a_full_disk_is_a_failed_run_that_names_the_folder(root, cache_dir, monkeypatch):
    write_classes(root, {"a": 4, "b": 4})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_allocate", full)
    with pytest.raises(RunError, match="no space left") as caught:
        load(root, cache_dir)
    assert caught.value.where == str(cache_dir)
