"""A user's own folder: layouts, splits, and every way the folder can be wrong."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.image_folders import load, refused, write, write_classes

# Layouts


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
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
