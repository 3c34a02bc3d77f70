"""Layouts of folders: which folder is what, what is left out, what is refused. Empty files are images here."""

import os
import socket
import unicodedata

import pytest

from cssl_cli.data.layout import arrange
from cssl_cli.data.part_names import Part, part_of
from cssl_cli.data.scan import Scanner
from cssl_cli.errors import InputError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def fill(root, *folders, number=3):
    """Images in each of the folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for image in range(number):
            (root / folder / f"{image}.png").touch()


def both(*parts, classes=("cat", "dog")):
    return [f"{part}/{name}" for part in parts for name in classes]


def found(root, own=()):
    """Classes and numbers of images for training and for testing, and what is said."""
    scanner = Scanner(root, own)
    layout = arrange(root, scanner)
    if layout.unlabelled:
        return len(layout.unlabelled), None, layout.folders, scanner.sentence()
    train, test = (
        None if part is None else {name: len(child.files) for name, child in part.items()}
        for part in (layout.train, layout.test)
    )
    return train, test, layout.folders, scanner.sentence()


def refused(root):
    with pytest.raises(InputError) as caught:
        found(root)
    assert caught.value.remedy
    return caught.value


TWO = {"cat": 3, "dog": 3}

# Names


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (Part.TRAIN, "train Train TRAIN training Training train_set training-set trainset TrainSet train_images"),
        (Part.TRAIN, "images_train train_data trainData train2017 ILSVRC2012_img_train trainval trn Final_Training"),
        (Part.TEST, "test Test TEST testing Testing test_set testset test1 tests test.images tst PublicTest"),
        (Part.VAL, "val Val valid validation Validation validation_data val2017 val_images ValSet"),
        (Part.DEV, "dev devel development dev_set"),
        (Part.EVAL, "eval Eval evaluation evaluation-set"),
        (Part.HOLDOUT, "holdout hold_out hold-out held-out heldout_set"),
        (None, "cat trains steam_train train_station invalid value device contest control images data tester 2017"),
    ],
)
def test_names_of_parts(part, names):
    names = [*names.split(), f"{names.split()[0]} 1"]
    assert {name: part_of(name) for name in names} == dict.fromkeys(names, part)


def test_a_name_of_many_digits_is_told_at_once():
    assert part_of("1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860") is None
    assert part_of(f"train_{12 * 'dataset'}_2024010112345678901234567890") is Part.TRAIN
    assert part_of(f"{30 * 'dataset'} of cats") is None


# Training and test folders


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "val"),
        ("training_set", "test_set"),
        ("train", "validation"),
        ("train", "Test"),
        ("train", "dev"),
        ("train", "Evaluation"),
        ("train", "holdout"),
        ("seg_train", "seg_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
    ],
)
def test_each_part_is_told(root, train, test):
    fill(root, *both(train))
    fill(root, *both(test), number=2)
    assert found(root) == (TWO, {"cat": 2, "dog": 2}, f"{train}/ for training, {test}/ for testing", None)


@pytest.mark.parametrize("inner", ["{}", "Images"])
def test_a_folder_around_the_classes_of_a_part_is_looked_through(root, inner):
    fill(root, *both("seg_train/" + inner.format("seg_train"), "seg_test/" + inner.format("seg_test")))
    fill(root, "seg_pred")
    assert found(root) == (TWO, TWO, "seg_train/ for training, seg_test/ for testing; not used: seg_pred/", None)


def test_the_test_folder_comes_before_the_others(root):
    fill(root, *both("train", "val", "eval", "dev"))
    fill(root, *both("testing"), number=1)
    assert found(root)[1] == {"cat": 1, "dog": 1}


@pytest.mark.parametrize("flat", ["test", "test/images", "test/unknown"])
def test_a_test_folder_without_classes_gives_way(root, flat):
    fill(root, *both("train"), flat)
    told = "train/ for training; not used: test/ (without class folders)"
    assert found(root) == (TWO, None, told, None)
    fill(root, *both("val"), number=1)
    told = "train/ for training, val/ for testing; not used: test/ (without class folders)"
    assert found(root) == (TWO, {"cat": 1, "dog": 1}, told, None)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (both("train", "Train", "test"), "Train, train"),
        (both("train", "trainval", "test"), "train, trainval"),
        (both("train", "test", "Test"), "Test, test"),
        (both("train", "val", "validation"), "val, validation"),
        (["cat_train", "cat_test", "dog_train", "dog_test"], "cat_test, cat_train, dog_test, dog_train"),
    ],
)
def test_two_folders_for_one_part_are_refused(root, folders, names):
    fill(root, *folders)
    assert refused(root).what.endswith(f": {names}")


def test_a_test_folder_of_an_unknown_name_is_refused(root):
    fill(root, *both("train", "prueba"))
    error = refused(root)
    assert "prueba/ holds class folders of train/" in error.what
    assert "Rename it to test/" in error.remedy
    assert str(root / "train") in error.remedy


def test_other_folders_beside_train_are_told(root):
    fill(root, *both("train"), "unlabeled", "meta")
    (root / "x.png").touch()
    told = "train/ for training; not used: meta/, unlabeled/; 1 image beside them not used"
    assert found(root) == (TWO, None, told, None)


def test_test_images_are_not_those_to_train_on(root):
    fill(root, *both("train"))
    (root / "test").symlink_to("train")
    assert refused(root).where == str(root / "test")
    (root / "test").unlink()
    (root / "test").mkdir()
    for name in TWO:
        (root / "test" / name).symlink_to(root / "train" / name)
    assert refused(root).where == str(root / "test" / "cat")


def test_classes_that_differ_in_case_only_are_told(root):
    fill(root, "train/cat", "train/Dog", *both("test"))
    assert "'dog' and 'Dog' differ in case or spaces only" in refused(root).what


# Classes that are called like a part


@pytest.mark.parametrize("names", [["test", "control"], ["valid", "invalid"], ["train", "car", "plane"]])
def test_flat_folders_called_like_a_part_are_classes(root, names):
    fill(root, *names)
    assert found(root) == (dict.fromkeys(sorted(names), 3), None, "", None)


@pytest.mark.parametrize(
    ("folders", "what"),
    [
        (["train", "car"], "could be two classes"),
        (["train/steam", "train/diesel", "car/sedan"], "may be the training images or a class"),
        (["test", "images"], "no train/"),
        (["test", "val"], "no train/"),
        (both("test", "control"), "no train/"),
    ],
)
def test_what_might_be_classes_or_parts_is_refused(root, folders, what):
    fill(root, *folders)
    assert what in refused(root).what


# The same sub-folders


@pytest.mark.parametrize(
    ("folders", "pair", "common"),
    [
        (both("a", "b"), "a/ and b/", "cat, dog"),
        (both("train/fold1", "train/fold2"), "fold1/ and fold2/", "cat, dog"),
        ([*both("fold1"), "fold2/cat"], "fold1/ and fold2/", "cat"),
        (both("amazon/images", "dslr/images"), "amazon/ and dslr/", "cat, dog"),
        (both("cat", "dog", classes=["train", "test"]), "cat/ and dog/", "test, train"),
        (both("COVID", "Normal", classes=["images", "masks"]), "COVID/ and Normal/", "images, masks"),
    ],
)
def test_folders_with_the_same_sub_folders_are_no_classes(root, folders, pair, common):
    fill(root, *folders)
    error = refused(root)
    assert error.what.startswith(f"{pair} hold the same sub-folders ({common})")
    assert "data.root" in error.remedy


@pytest.mark.parametrize("above", ["", "train/"])
def test_each_remedy_for_the_same_sub_folders_is_one(root, above):
    sides = {"left": [f"{above}cat/left", f"{above}dog/left"], "right": [f"{above}cat/right", f"{above}dog/right"]}
    fill(root, *sides["left"], *sides["right"])
    place = root / above
    remedy = refused(root).remedy
    assert "cat/cat-left and dog/dog-left. If the classes are their sub-folders, move the images of both " in remedy
    assert f"as in {place / 'left'}, or give one of them in data.root, such as {place / 'cat'}." in remedy
    assert list(arrange(place / "cat", Scanner(place / "cat", [])).train) == ["left", "right"]
    for animal in ("cat", "dog"):
        for side in sides:
            (place / animal / side).rename(place / animal / f"{animal}-{side}")
    assert list(arrange(root, Scanner(root, [])).train) == ["cat", "dog"]


def test_a_folder_with_the_names_of_the_classes_beside_it_is_no_class(root):
    fill(root, "cat", "dog", "copy/images/cat", "copy/images/dog")
    error = refused(root)
    assert error.what.startswith("copy/ holds sub-folders called like the classes beside it (cat, dog)")
    assert error.where == str(root)


def test_a_class_may_hold_folders_called_like_itself_or_one_other(root):
    fill(root, "cat/cat", "cat/dog", "dog")
    assert found(root)[0] == {"cat": 6, "dog": 3}


@pytest.mark.parametrize(
    "folders",
    [
        ["cat/images", "dog/images"],
        ["cat", "cat/more", "dog", "dog/more"],
        ["cat/2019", "cat/2020", "dog/2021", "dog/2022"],
    ],
)
def test_other_sub_folders_of_classes_are_searched(root, folders):
    fill(root, *folders)
    assert list(found(root)[0]) == ["cat", "dog"]


@pytest.mark.parametrize("inner", ["cat", "train/cat"])
def test_a_folder_with_everything_in_it_is_named(root, inner):
    fill(root, f"dataset/{inner}", f"dataset/{inner.replace('cat', 'dog')}")
    assert refused(root).remedy == f"Give {root / 'dataset'} in data.root."


def test_empty_class_folders_are_counted(root):
    fill(root, *TWO)
    (root / "eel").mkdir()
    assert refused(root).what == "no images in this class folder"
    (root / "fox").mkdir()
    assert refused(root).what == "no images in this class folder, nor in 1 other"
    (root / "gnu").mkdir()
    assert refused(root).what == "no images in this class folder, nor in 2 others"


# What is left out


def test_what_systems_write_is_left_out_and_counted(root):
    fill(root, *TWO, "@eaDir/0.png", "cat/@eaDir", "__MACOSX/cat", "cat/.ipynb_checkpoints", "#recycle", "$RECYCLE.BIN")
    fill(root, "dog/System Volume Information", "dog/.thumbnails", "lost+found")
    for name in ("._0.png", ".AppleDouble.jpg", "SYNOPHOTO_THUMB_M.jpg", "Thumbs.db", ".DS_Store", "notes.txt"):
        (root / "cat" / name).touch()
    train, _, _, left_out = found(root)
    assert train == TWO
    assert left_out.startswith("left out: hidden or written by the system: 12 (")


def test_images_of_unknown_formats_are_counted(root):
    fill(root, *TWO)
    for name in ("a.heic", "b.HEIC", "c.svg", "labels.csv"):
        (root / "cat" / name).touch()
    assert found(root)[3].startswith("left out: formats that are not read: 3 (")


def test_what_is_no_regular_file_is_left_out(root, tmp_path, monkeypatch):
    fill(root, *TWO)
    os.mkfifo(root / "cat" / "pipe.png")
    monkeypatch.chdir(root / "dog")  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("s.jpg")
        (root / "dog" / "null.png").symlink_to("/dev/null")
        train, _, _, left_out = found(root)
    assert train == TWO
    assert left_out.startswith("left out: pipes, sockets and devices: 3 (")


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_upwards_is_not_followed(root, target):
    fill(root, *TWO)
    (root / "cat" / "up").symlink_to(target)
    assert found(root) == (TWO, None, "", "left out: links to folders that are read anyway: 1 (up)")


def test_a_link_to_another_class_is_named(root):
    fill(root, *TWO)
    (root / "eel").symlink_to("cat")
    assert refused(root).where == str(root / "eel")


@pytest.mark.parametrize("name", ["x.png", "eel", "v1.2"])
def test_a_link_to_nowhere_is_named(root, name):
    fill(root, *TWO)
    (root / name).symlink_to("/nowhere/at/all")
    assert refused(root).where == str(root / name)


def test_folders_may_be_deep(root):
    fill(root, *TWO)
    inner = root / "cat"
    for _ in range(30):
        inner = inner / "/".join("d" * 40)
        inner.mkdir(parents=True)
    (inner / "x.png").touch()
    try:
        assert found(root)[0] == {"cat": 4, "dog": 3}
    finally:  # pytest's own cleaning up is recursive, and no match for it
        (inner / "x.png").unlink()
        os.removedirs(inner)


# What cssl writes


def write_run(path):
    fill(path, "figures")
    for name in ("recipe.yaml", "lock", "status", "environment.json"):
        (path / name).touch()


@pytest.mark.parametrize("layout", [["."], ["cat", "dog"], both("train"), both("train", "test")])
def test_own_folders_hold_no_images(root, layout):
    fill(root, *layout)
    before = found(root)[:2]
    write_run(root / "runs" / "tiny-0123456789")  # of earlier commands
    write_run(root / "runs" / "quick" / "a-seed0-0123456789")
    for name in ("table.csv", "table.json", "accuracy_vs_terms.png"):
        (root / "runs" / "quick" / name).touch()
    write_run(root / "tiny-0123456789")
    (root / "just-being-made").mkdir()
    (root / "just-being-made" / "lock").touch()
    fill(root, "results/deep/inside")  # of this command
    train, test, told, _ = found(root, own=[root / "results/deep", root / "not-there-yet"])
    assert (train, test) == before
    assert "runs/" in told


def test_the_root_itself_is_never_left_out(root):
    fill(root, *TWO)
    assert found(root, own=[root, root.parent])[0] == TWO


def test_a_run_is_no_folder_of_images(root):
    write_run(root)
    assert "a run or a sweep of cssl" in refused(root).what


# Unicode


@pytest.mark.parametrize(("train", "test"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_normal_forms_are_the_same_class(root, train, test):
    fill(root, "train/b", f"train/{unicodedata.normalize(train, 'Müller')}")
    fill(root, "test/b", f"test/{unicodedata.normalize(test, 'Müller')}")
    composed = unicodedata.normalize("NFC", "Müller")
    assert found(root)[:2] == ({composed: 3, "b": 3},) * 2
    assert list(found(root)[0]) == sorted([composed, "b"])


def test_two_folders_of_one_name_in_two_normal_forms(root):
    fill(root, *(unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")), "b")
    error = refused(root)
    assert "normal forms" in error.what
    assert error.where == str(root)
