"""Torchvision's classification sets by name, from tiny files in their own formats; no network."""

import inspect
import struct
import urllib.error
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from cssl_cli.data import load_dataset
from cssl_cli.data.torchvision_by_name import SETS, _class_names
from cssl_cli.errors import InputError
from cssl_cli.recipe.ranges import TorchvisionSet
from tests.data.test_torchvision_sets import write_cifar, write_svhn
from tests.support import image_folders

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


def load(name, root, *, notice=None, **changes):
    settings = {"name": "torchvision", "set": name, "root": str(root), "size": None, "test_fraction": 0.25}
    settings |= {"limit": None, "limit_test": None, "store_size": None, "channels": 3} | changes
    return load_dataset(settings, cache_dir=root / "cache", progress=None, notice=notice)


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def save(path, number=0, size=(10, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def test_the_table_has_all_that_a_recipe_may_name():
    assert set(SETS) == set(get_args(TorchvisionSet))


@pytest.mark.parametrize("name", SETS)
def test_every_constructor_takes_what_it_is_given(tmp_path, name):
    how = SETS[name]
    kind = getattr(datasets, how.class_name or name)
    for part in (how.train, how.test or how.train):
        arguments = how.arguments(part, tmp_path, download=False)
        missing = arguments.keys() - {
            parameter for base in kind.__mro__ for parameter in inspect.signature(base.__init__).parameters
        }
        assert not missing
        assert "download" in arguments or not how.downloads
        required = [
            parameter.name
            for parameter in inspect.signature(kind).parameters.values()
            if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        assert set(required) <= arguments.keys()


# Flowers102 and StanfordCars look for scipy first; Imagenette's and others' words are those of torchvision.
@pytest.mark.parametrize("name", [name for name in SETS if name != "FakeData"])
def test_a_set_that_is_not_here_names_its_folder(tmp_path, name):
    with pytest.raises(InputError) as caught:
        load(name, tmp_path / "sets")
    assert caught.value.where == str(tmp_path / "sets")
    assert caught.value.what.startswith(f"{name} is not here")
    assert ("network is unreachable" in caught.value.what) == SETS[name].downloads
    assert "data.root" in caught.value.remedy


def write_mnist(root, name, counts):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = pixels(counts[part], 28, 28), (np.arange(counts[part]) % 3).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *images.shape) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.tobytes())
        written[part] = images, labels
    return written


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_gray_images_are_repeated_and_it_is_said(tmp_path, name):
    written = write_mnist(tmp_path, name, {"train": 9, "test": 6})
    told = []
    dataset = load(name, tmp_path, notice=told.append)
    assert dataset.class_names == tuple(getattr(datasets, name).classes[:3])
    for part in ("train", "test"):
        images, labels = written[part]
        assert np.array_equal(getattr(dataset, part).images.numpy(), np.repeat(images[:, None], 3, axis=1))
        assert getattr(dataset, part).labels.tolist() == labels.tolist()
    names = ", ".join(dataset.class_names)
    assert told == [
        f"{tmp_path}: {name}: 9 images for training, 6 for testing; 3 classes: {names}; "
        "one channel, repeated as red, green and blue"
    ]
    assert load(name, tmp_path, size=32).train.images.shape == (9, 3, 32, 32)


def test_images_of_another_file_are_not_taken_from_the_cache(tmp_path):
    write_mnist(tmp_path, "MNIST", {"train": 9, "test": 6})
    first = load("MNIST", tmp_path)
    raw = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = raw.read_bytes()
    raw.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    assert load("MNIST", tmp_path).content_key != first.content_key


@pytest.mark.parametrize(("name", "class_name"), [("cifar10", "CIFAR10"), ("svhn", "SVHN")])
def test_a_set_with_a_source_of_its_own_has_the_same_images(tmp_path, monkeypatch, name, class_name):
    if name == "svhn":
        write_svhn(tmp_path, monkeypatch, train=range(1, 11), test=range(10, 0, -1))
    else:
        write_cifar(tmp_path, datasets.CIFAR10, "labels", ["airplane", "automobile", "bird"], monkeypatch)
    own = {"name": name, "root": str(tmp_path), "limit": None, "limit_test": None}
    expected = load_dataset(own, cache_dir=tmp_path / "cache", progress=None)
    dataset = load(class_name, tmp_path)
    for part in ("train", "test"):
        assert torch.equal(getattr(dataset, part).images, getattr(expected, part).images)
    assert dataset.content_key == expected.content_key


def write_dtd(root):
    for name in ("banded", "dotted"):
        for number in range(4):
            save(root / "dtd" / "dtd" / "images" / name / f"{name}_{number}.jpg", number)
    labels = root / "dtd" / "dtd" / "labels"
    labels.mkdir()
    for part, numbers in (("train", (0, 2)), ("test", (1, 3))):
        lines = [f"{name}/{name}_{number}.jpg\n" for number in numbers for name in ("dotted", "banded")]
        (labels / f"{part}1.txt").write_text("".join(lines))


def write_eurosat(root):
    for name, count in (("Forest", 4), ("River", 8)):
        for number in range(count):
            save(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", number)


def write_gtsrb(root):
    folder = root / "gtsrb"
    for number in range(2):
        save(folder / "GTSRB" / "Training" / f"0000{number}" / "a.ppm", number)
    lines = ["Filename;ClassId"]
    for number in (1, 0):
        save(folder / "GTSRB" / "Final_Test" / "Images" / f"{number}.ppm", number)
        lines.append(f"{number}.ppm;{number}")
    (folder / "GT-final_test.csv").write_text("\n".join(lines))


def write_pets(root):
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, number in (("trainval", 1), ("test", 2)):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog"), 1):
            save(folder / "images" / f"{name}_{number}.jpg", number)
            lines.append(f"{name}_{number} {label} {label} 1\n")
        (folder / "annotations" / f"{part}.txt").write_text("".join(lines))


def write_caltech(root):
    for name in ("BACKGROUND_Google", "accordion", "anchor"):
        for number in range(1, 5):
            save(root / "caltech101" / "101_ObjectCategories" / name / f"image_{number:04}.jpg", number)
    (root / "caltech101" / "Annotations").mkdir()


FILES = {
    "DTD": (write_dtd, ("banded", "dotted"), [1, 0, 1, 0], [1, 0, 1, 0]),
    "EuroSAT": (write_eurosat, ("Forest", "River"), [0] * 3 + [1] * 6, [0, 1, 1]),
    "GTSRB": (write_gtsrb, ("0", "1"), [0, 1], [1, 0]),
    "OxfordIIITPet": (write_pets, ("Abyssinian", "American Bulldog"), [0, 1], [0, 1]),
    "Caltech101": (write_caltech, ("accordion", "anchor"), [0] * 3 + [1] * 3, [0, 1]),
}


@pytest.mark.parametrize("name", FILES)
def test_sets_of_files(tmp_path, name):
    write, class_names, labels, test_labels = FILES[name]
    write(tmp_path)
    dataset = load(name, tmp_path)
    assert dataset.class_names == class_names
    assert dataset.train.labels.tolist() == labels
    assert dataset.test.labels.tolist() == test_labels
    assert dataset.train.images.shape[2:] == (8, 8)
    assert load(name, tmp_path, size=16).train.images.shape[2:] == (16, 16)


def test_files_are_decoded_as_those_of_a_folder_are(tmp_path):
    write_eurosat(tmp_path)
    by_name = load("EuroSAT", tmp_path)
    folder = image_folders.load(tmp_path / "eurosat" / "2750", tmp_path / "cache", size=8)
    images = [
        {bytes(image) for part in (of.train, of.test) for image in part.images.numpy()} for of in (by_name, folder)
    ]
    assert images[0] == images[1]


def test_a_file_that_is_written_over_is_decoded_again(tmp_path):
    write_eurosat(tmp_path)
    first = load("EuroSAT", tmp_path)
    save(tmp_path / "eurosat" / "2750" / "River" / "River_3.jpg", 77)
    assert load("EuroSAT", tmp_path).content_key != first.content_key


def test_a_missing_or_damaged_image_is_named(tmp_path):
    write_dtd(tmp_path)
    path = tmp_path / "dtd" / "dtd" / "images" / "dotted" / "dotted_2.jpg"
    path.write_bytes(b"none")
    with pytest.raises(InputError, match="this image cannot be read: not an image") as caught:
        load("DTD", tmp_path)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(InputError, match="an image of DTD cannot be read: no such file") as caught:
        load("DTD", tmp_path)
    assert caught.value.where == str(path)


def test_fake_data_needs_no_files(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    dataset = load("FakeData", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert (len(dataset.train), len(dataset.test), len(dataset.class_names)) == (200, 100, 10)
    assert dataset.train.images.shape[1:] == (3, 32, 32)
    image, label = datasets.FakeData(image_size=(3, 32, 32))[7]
    assert np.array_equal(dataset.train.images[7].numpy(), np.asarray(image).transpose(2, 0, 1))
    assert dataset.train.labels[7] == label
    assert not torch.equal(dataset.train.images[0], dataset.test.images[0])


def test_classes_of_one_name_are_told_apart():
    class Opened:
        classes = (("crane",), ("crane",), ("cock", "rooster"))
        wnids = ("n1", "n2", "n3")

    assert _class_names(Opened) == ["n1 crane", "n2 crane", "n3 cock, rooster"]
