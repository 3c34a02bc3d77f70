"""A user's own folder: layouts, splits, the cache and every way the folder can be wrong."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cssl_cli.data import cache, folder, load_dataset
from cssl_cli.errors import InputError, RunError

SIZE = 6


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def write(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)
    return path


def write_classes(root, counts, start=0):
    for name, count in counts.items():
        for number in range(count):
            write(root / name / f"{number:02}.png", start := start + 1)


def load(root, cache_dir, *, progress=None, notice=None, **changes):
    settings = {"name": "folder", "root": str(root), "size": SIZE, "test_fraction": 0.25, "limit": None}
    settings |= {"limit_test": None} | changes
    return load_dataset(settings, cache_dir=cache_dir, progress=progress, notice=notice)


def refused(root, cache_dir, **changes):
    with pytest.raises(InputError) as caught:
        load(root, cache_dir, **changes)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


def contents(cache_dir):
    return sorted(path.suffix for path in cache_dir.iterdir() if path.name != ".lock") if cache_dir.exists() else []


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache" / "below"


@pytest.fixture
def decoded(monkeypatch):
    """Counts the files decoded."""
    count = []
    real = folder.decode_into

    def counting(images, paths, *, progress):
        count.extend(paths)
        real(images, paths, progress=progress)

    monkeypatch.setattr(folder, "decode_into", counting)
    return count


# Layouts


@pytest.mark.parametrize("test_name", ["test", "val", "valid"])
def test_train_and_test_folders(root, cache_dir, test_name):
    write_classes(root / "train", {"b": 3, "a": 2})
    write_classes(root / test_name, {"a": 1, "b": 2}, start=50)
    dataset = load(root, cache_dir)
    assert dataset.class_names == ("a", "b")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1, 1]
    assert dataset.pretrain is dataset.train
    expected = [np.asarray(Image.open(path)) for path in sorted(root.glob("train/*/*"))]
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_test_comes_before_val(root, cache_dir):
    write_classes(root / "train", {"a": 2, "b": 2})
    write_classes(root / "test", {"a": 1, "b": 1})
    write_classes(root / "val", {"a": 4, "b": 4})
    assert len(load(root, cache_dir).test) == 2


@pytest.mark.parametrize("below", [".", "train"])
def test_one_folder_is_split_in_every_class(root, cache_dir, below):
    write_classes(root / below, {"a": 8, "b": 2, "c": 20})
    dataset = load(root, cache_dir)
    assert torch.bincount(dataset.test.labels).tolist() == [2, 1, 5]
    assert torch.bincount(dataset.train.labels).tolist() == [6, 1, 15]
    both = [image.numpy().tobytes() for part in (dataset.train, dataset.test) for image in part.images]
    assert len(set(both)) == 30


def test_the_split_hangs_on_names_alone_and_bears_additions(root, cache_dir, tmp_path):
    write_classes(root, {"a": 20, "b": 20})
    before = load(root, cache_dir)
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    assert torch.equal(load(copy, cache_dir).test.images, before.test.images)
    write(root / "a" / "new.png", 999)
    after = load(root, cache_dir)
    was, now = ({image.numpy().tobytes() for image in part.test.images} for part in (before, after))
    assert len(was - now) <= 1


@pytest.mark.parametrize("below", [".", "train"])
def test_images_without_classes_serve_pretraining_only(root, cache_dir, below):
    for number in range(4):
        write(root / below / f"{number}.png", number)
    dataset = load(root, cache_dir, limit=3)
    assert dataset.train is None
    assert dataset.test is None
    assert dataset.class_names == ()
    assert len(dataset.pretrain) == 3
    assert dataset.pretrain.labels is None


def test_sub_folders_links_and_upper_case_are_read_and_hidden_and_other_files_ignored(root, cache_dir, tmp_path):
    write_classes(root, {"a": 2, "b": 2})
    write(root / "a" / "deeper" / "still" / "x.PNG", 60)
    write(tmp_path / "outside" / "y.png", 61)
    (root / "b" / "link").symlink_to(tmp_path / "outside")
    write(root / "a" / ".hidden.png")
    write(root / ".thumbnails" / "z.png")
    (root / "a" / "notes.txt").write_text("not an image")
    (root / "README.md").write_text("not an image")
    dataset = load(root, cache_dir, test_fraction=0.01)
    assert dataset.class_names == ("a", "b")
    assert (torch.bincount(dataset.train.labels) + torch.bincount(dataset.test.labels)).tolist() == [3, 3]


def test_the_content_key_does_not_depend_on_place_or_time(root, cache_dir, tmp_path):
    write_classes(root, {"a": 4, "b": 4})
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for path in copy.rglob("*.png"):
        os.utime(path, (1, 1))
    key = load(root, cache_dir).content_key
    assert load(copy, tmp_path / "other").content_key == key
    write(copy / "a" / "00.png", 77)
    assert load(copy, cache_dir).content_key != key


@pytest.mark.parametrize("below", ["", "train"])
def test_a_copy_in_another_normal_form_has_the_same_content(root, cache_dir, tmp_path, below):
    """Names sort and hash alike in both forms: images come in the same order, and are split alike."""
    keys = []
    for form in ("NFC", "NFD"):
        base = tmp_path / form
        for number, name in enumerate(["a", "Müller", "zoo"]):
            for image, file in enumerate(["b", "Å", "å", "z", "é", "e"]):
                write(base / below / unicodedata.normalize(form, f"{name}/{file}.png"), 10 * number + image)
        dataset = load(base, cache_dir)
        assert dataset.class_names == ("Müller", "a", "zoo")
        keys.append(dataset.content_key)
    assert keys[0] == keys[1]


def test_classes_without_utf_8_names(root, cache_dir):
    for number, name in enumerate([b"caf\xe9", b"th\xe9"]):
        for image in range(2):
            write(root / os.fsdecode(name) / f"{image}.png", 10 * number + image)
    dataset = load(root, cache_dir)
    assert dataset.class_names == ("caf\udce9", "th\udce9")
    assert json.loads(json.dumps(dataset.class_names)) == list(dataset.class_names)


@pytest.mark.parametrize("left_out", [False, True])
def test_what_is_what_is_told_once_from_the_cache_as_well(root, cache_dir, decoded, left_out):
    write_classes(root / "Training", {"a": 2, "b": 1})
    write_classes(root / "Testing", {"a": 1, "b": 1}, start=50)
    if left_out:
        write(root / "Training" / "a" / "._x.png")
    for _ in range(2):
        told = []
        load(root, cache_dir, notice=told.append)
        assert told[0] == (
            f"{root}: Training/ for training, Testing/ for testing; 3 images for training, 2 for testing; "
            "2 classes: a, b"
        )
        assert told[1:] == (["left out: hidden or written by the system: 1 (._x.png)"] if left_out else [])
    assert len(decoded) == 5


def test_a_cache_in_the_folder_is_none_of_the_images(root):
    write_classes(root, {"a": 4, "b": 4})
    assert load(root, root / "cache").class_names == ("a", "b")
    assert load(root, root / "cache").class_names == ("a", "b")


# The cache


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

    monkeypatch.setattr(folder.time, "time", lambda: now[0])
    monkeypatch.setattr(folder.time, "sleep", sleep)
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
    processes = multiprocessing.get_context("spawn")
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
    processes = multiprocessing.get_context("spawn")
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


def test_progress_counts_all_images(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    seen = []
    load(root, cache_dir, progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1] == (8, 8, "decoding images")


# What can be wrong with a folder


def test_a_missing_folder(root, cache_dir):
    error = refused(root, cache_dir)
    assert error.where == str(root)
    assert "no such folder" in error.what


def test_a_file_in_place_of_a_folder(root, cache_dir):
    write(root / "x.png")
    assert "a file, not a folder" in refused(root / "x.png", cache_dir).what


@pytest.mark.parametrize("below", [".", "train", "a", "train/a"])
def test_no_images(root, cache_dir, below):
    (root / below).mkdir(parents=True)
    (root / below / "notes.txt").write_text("no image")
    error = refused(root, cache_dir)
    assert "no images" in error.what
    assert "png" in error.remedy


def test_an_empty_class_folder(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    (root / "c" / "deeper").mkdir(parents=True)
    error = refused(root, cache_dir)
    assert error.where == str(root / "c")


def test_test_classes_unknown_in_training_and_the_reverse(root, cache_dir):
    write_classes(root / "train", {"a": 2, "b": 2})
    write_classes(root / "test", {"a": 2, "b": 2, "zebra": 1})
    error = refused(root, cache_dir)
    assert error.where == str(root / "test")
    assert "zebra" in error.what
    write_classes(root / "train", {"zebra": 1, "yak": 1})
    error = refused(root, cache_dir)
    assert error.where == str(root / "train")
    assert "yak" in error.what
    assert "zebra" not in error.what


def test_an_empty_test_folder(root, cache_dir):
    write_classes(root / "train", {"a": 2, "b": 2})
    (root / "test").mkdir()
    error = refused(root, cache_dir)
    assert error.where == str(root / "test")


def test_a_test_folder_without_training(root, cache_dir):
    write_classes(root / "test", {"a": 2, "b": 2})
    assert "no train/" in refused(root, cache_dir).what


def test_a_class_of_one_image_cannot_be_split(root, cache_dir):
    write_classes(root, {"a": 4, "b": 1})
    assert refused(root, cache_dir).where == str(root / "b")


def test_images_beside_class_folders(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    write(root / "stray.png")
    assert "stray.png" in refused(root, cache_dir).what


def test_a_single_class(root, cache_dir):
    write_classes(root, {"a": 4})
    assert "one class only" in refused(root, cache_dir).what


def test_a_broken_link_is_named(root, cache_dir):
    write_classes(root, {"a": 4, "b": 4})
    broken = root / "a" / "gone.png"
    broken.symlink_to(root / "nowhere.png")
    assert refused(root, cache_dir).where == str(broken)


def test_a_folder_or_file_without_permission_is_named(root, cache_dir, monkeypatch):
    write_classes(root, {"a": 4, "b": 4})
    locked = root / "b"
    real_scan, real_open = os.scandir, os.open

    def scan(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real_scan(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert refused(root, cache_dir).where == str(locked)
    monkeypatch.setattr(os, "scandir", real_scan)

    def open_(path, *args, **kwargs):
        if path == locked / "03.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_)
    error = refused(root, cache_dir)
    assert error.where == str(locked / "03.png")
    assert "permission" in error.what
