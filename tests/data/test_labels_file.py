"""A folder whose images a CSV file labels."""

import os
import unicodedata

import numpy as np
import pytest
import torch

from tests.support.image_folders import load, pixels, refused, write, write_classes

LABELS = "labels.csv"


def write_labels(root, *lines, encoding="utf-8"):
    root.mkdir(parents=True, exist_ok=True)
    (root / LABELS).write_text("\n".join(lines) + "\n", encoding=encoding)


def images_of(part):
    return [bytes(image) for image in part.images.numpy()]


def drawn(*numbers):
    return [bytes(np.ascontiguousarray(pixels(number).transpose(2, 0, 1))) for number in numbers]


def test_parts_and_classes_are_those_of_the_file(root, cache_dir):
    for number, place in enumerate(("b", "c/d", "a", "c/e", "f", "g")):
        write(root / f"{place}.png", number)
    write_labels(
        root,
        "File, Label ,source,part",
        "f.png,dog,x,test",
        'c/d.png,"cat, big",x,train',
        "./b.png,dog,x,Training",
        "",
        "a.png,dog,x,TRAIN",
        'c/e.png,"cat, big",x,test-set',
    )
    told = []
    dataset = load(root, cache_dir, labels=LABELS, notice=told.append)
    assert dataset.class_names == ("cat, big", "dog")
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert images_of(dataset.train) == drawn(1, 2, 0)
    assert images_of(dataset.test) == drawn(3, 4)
    assert told == [
        f"{root}: labels of labels.csv; 1 image not in it not used; 3 images for training, 2 for testing; "
        "2 classes: cat, big, dog"
    ]


def test_the_same_images_in_class_folders_are_the_same_content(root, cache_dir, tmp_path):
    write_classes(tmp_path / "folders" / "train", {"cat": 3, "dog": 4})
    write_classes(tmp_path / "folders" / "test", {"cat": 2, "dog": 2}, start=20)
    expected = load(tmp_path / "folders", cache_dir)
    lines = ["file,label,part"]
    for path in sorted((tmp_path / "folders").rglob("*.png")):
        _, part, label, name = path.relative_to(tmp_path).parts
        (root / "x").mkdir(parents=True, exist_ok=True)
        (root / "x" / f"{part}-{label}-{name}").write_bytes(path.read_bytes())
        lines.append(f"x/{part}-{label}-{name},{label},{part}")
    write_labels(root, lines[0], *reversed(lines[1:]))
    dataset = load(root, cache_dir, labels=LABELS)
    assert torch.equal(dataset.train.images, expected.train.images)
    assert dataset.content_key == expected.content_key


def test_without_parts_the_images_are_split_by_their_names(root, cache_dir):
    for number in range(16):
        write(root / f"{number}.png", number)
    write_labels(
        root, "label,file", *(f"{10 - number % 2 * 8},{number}.png" for number in range(16)), encoding="utf-8-sig"
    )
    dataset = load(root, cache_dir, labels=LABELS)
    assert dataset.class_names == ("2", "10")
    assert torch.bincount(dataset.train.labels).tolist() == [6, 6]
    assert torch.bincount(dataset.test.labels).tolist() == [2, 2]
    before = images_of(dataset.test)
    write(root / "16.png", 16)
    with (root / LABELS).open("a") as file:
        file.write("2,16.png\n")
    after = images_of(load(root, cache_dir, labels=LABELS).test)
    assert len(set(before) & set(after)) >= 3


def test_of_several_test_parts_the_first_is_used(root, cache_dir):
    lines = ["file,label,part"]
    for number, part in enumerate(("train", "val", "test") * 2):
        write(root / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number // 3]},{part}")
    write_labels(root, *lines)
    told = []
    assert images_of(load(root, cache_dir, labels=LABELS, notice=told.append).test) == drawn(2, 5)
    assert "2 images of other parts not used" in told[0]


def test_labels_that_change_change_the_content(root, cache_dir, decoded):
    for number in range(4):
        write(root / f"{number}.png", number)
    keys = []
    for labels in ("aabb", "abab"):
        write_labels(root, "file,label", *(f"{number}.png,{label}" for number, label in enumerate(labels)))
        keys.append(load(root, cache_dir, labels=LABELS).content_key)
    assert keys[0] != keys[1]


def test_numbers_of_any_length_are_labels(root, cache_dir):
    labels = ("9" * 5000, "010", "b", "9")
    for number in range(8):
        write(root / f"{number}.png", number)
    write_labels(root, "file,label", *(f"{number}.png,{labels[number % 4]}" for number in range(8)))
    assert load(root, cache_dir, labels=LABELS).class_names == ("9", "010", "9" * 5000, "b")


def test_two_images_of_one_name_are_told(root, cache_dir):
    names = [unicodedata.normalize(form, "caf\u00e9.png") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        write(root / name, number)
    write_labels(root, "file,label", f"{names[0]},a")
    error = refused(root, cache_dir, labels=LABELS)
    assert error.where == str(root)
    assert error.what == f"two images here are called {names[0]}, in two of Unicode's normal forms"


HEAD = "file,label,part"
FAULTS = {
    "no file": (
        [HEAD, "0.png,a,train", "none.png,a,train", "1.PNG,b,train"],
        ", line 3",
        "2 files listed here are not among the images of the folder: none.png, 1.PNG",
    ),
    "twice": (
        [HEAD, "0.png,a,train", "1.png,b,train", "./0.png,b,test"],
        ", line 4",
        "1 file listed more than once: 0.png",
    ),
    "header": (["path,label", "0.png,a"], "", "the columns are path, label"),
    "no header": (["0.png,a"], "", "the columns are 0.png, a"),
    "columns twice": (["file,label,label", "0.png,a,b"], "", "two columns are called label"),
    "empty": ([HEAD], "", "no images are listed here"),
    "width": ([HEAD, "0.png,a"], ", line 2", "2 columns, where the first line has 3"),
    "no label": ([HEAD, "0.png, ,train"], ", line 2", "the label is missing"),
    "no part": ([HEAD, "0.png,a,"], ", line 2", "the part is missing"),
    "part": ([HEAD, "0.png,a,other"], ", line 2", "the part 'other' is not known"),
    "no test": ([HEAD, "0.png,a,train", "1.png,b,train"], ": column part", "no image is for testing"),
    "no training": ([HEAD, "0.png,a,test", "1.png,b,val"], ": column part", "no image is for training"),
    "alone": ([HEAD, "0.png,a,train", "1.png,b,train", "2.png,a,test"], "", "no test images of b"),
    "alone in the test": (
        [HEAD, "0.png,a,train", "1.png,b,test", "2.png,a,test", "3.png,c,train"],
        "",
        "no test images of c",
    ),
    "one class": (["file,label", "0.png,a", "1.png,a"], "", "there is one class only: a"),
    "single": (
        ["file,label", "0.png,a", "1.png,a", "2.png,b"],
        "",
        "a class with one image cannot be split into training and test images: b",
    ),
    "quotes": (["file,label", '"0.png,a'], "", "this is no CSV file in UTF-8: unexpected end of data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_the_file_is_named(root, cache_dir, fault):
    lines, where, what = FAULTS[fault]
    for number in range(4):
        write(root / f"{number}.png", number)
    write_labels(root, *lines)
    error = refused(root, cache_dir, labels=LABELS)
    assert error.where == f"{root / LABELS}{where}"
    assert error.what == what


def test_a_file_that_is_missing_elsewhere_or_of_other_bytes(root, cache_dir):
    write(root / "a.png")
    assert refused(root, cache_dir, labels=LABELS).where == str(root / LABELS)
    for name in ("../labels.csv", os.fspath(root / LABELS)):
        assert "is not a file in data.root" in refused(root, cache_dir, labels=name).what
    (root / LABELS).write_bytes(b"file,label\na.png,\xff\n")
    assert refused(root, cache_dir, labels=LABELS).what.startswith("this is no CSV file in UTF-8")
    (root / LABELS).unlink()
    os.mkfifo(root / LABELS)
    error = refused(root, cache_dir, labels=LABELS)
    assert (error.where, error.what) == (str(root / LABELS), "cannot be read: it is a named pipe, not a file")
