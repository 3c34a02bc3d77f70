"""Torchvision's sets, from tiny files in its own on-disk formats; no network."""

import hashlib
import pickle
import urllib.error

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from cssl_cli.data import load_dataset
from cssl_cli.errors import InputError


def load(name, cache_dir, root=None, **changes):
    settings = {"name": name, "root": root, "limit": None, "limit_test": None} | changes
    return load_dataset(settings, cache_dir=cache_dir, progress=None)


def random_pixels(num, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def checksum(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


def write_cifar(root, kind, label_key, label_names, monkeypatch):
    """Files of four images in CIFAR's format; returns images (N, 3, 32, 32) and labels, of training and test."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    expected = {}
    for split in ("train_list", "test_list"):
        names = [name for name, _ in getattr(kind, split)]
        images, labels, listed = [], [], []
        for number, name in enumerate(names):
            pixels = random_pixels(4, 3 * 32 * 32, seed=10 * (split == "test_list") + number)
            own = [(number + i) % len(label_names) for i in range(4)]
            with (folder / name).open("wb") as file:
                pickle.dump({"data": pixels, label_key: own}, file)
            listed.append([name, checksum(folder / name)])
            images.append(pixels.reshape(4, 3, 32, 32))
            labels += own
        monkeypatch.setattr(kind, split, listed)
        expected[split] = np.concatenate(images), labels
    meta = folder / kind.meta["filename"]
    with meta.open("wb") as file:
        pickle.dump({kind.meta["key"]: label_names}, file)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": checksum(meta)})
    return expected["train_list"], expected["test_list"]


@pytest.mark.parametrize("own_root", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "label_key"),
    [("cifar10", datasets.CIFAR10, "labels"), ("cifar100", datasets.CIFAR100, "fine_labels")],
)
def test_cifar(tmp_path, monkeypatch, name, kind, label_key, own_root):
    label_names = ["airplane", "automobile", "bird"]
    (images, labels), (test_images, test_labels) = write_cifar(tmp_path, kind, label_key, label_names, monkeypatch)
    elsewhere = tmp_path / "elsewhere"
    dataset = load(name, elsewhere, str(tmp_path)) if own_root else load(name, tmp_path)
    assert dataset.name == name
    assert dataset.class_names == tuple(label_names)
    assert np.array_equal(dataset.train.images.numpy(), images)
    assert dataset.train.labels.tolist() == labels
    assert np.array_equal(dataset.test.images.numpy(), test_images)
    assert dataset.test.labels.tolist() == test_labels
    assert dataset.pretrain is dataset.train
    assert dataset.train.images.is_contiguous()
    assert not elsewhere.exists()


def write_svhn(root, monkeypatch, train=(1, 10, 9, 2), test=(10, 3)):
    """Files of a few images in SVHN's format; returns the images of both parts."""
    expected = {}
    listing = dict(datasets.SVHN.split_list)
    for split, labels in (("train", train), ("test", test)):
        url, name, _ = listing[split]
        pixels = random_pixels(32, 32, 3, len(labels))
        scipy.io.savemat(root / name, {"X": pixels, "y": np.array(labels, dtype=np.uint8)[:, None]})
        listing[split] = [url, name, checksum(root / name)]
        expected[split] = pixels.transpose(3, 2, 0, 1)
    monkeypatch.setattr(datasets.SVHN, "split_list", listing)
    return expected


def test_svhn(tmp_path, monkeypatch):
    expected = write_svhn(tmp_path, monkeypatch)
    dataset = load("svhn", tmp_path)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.train.labels.tolist() == [1, 0, 9, 2]
    assert dataset.test.labels.tolist() == [0, 3]
    assert np.array_equal(dataset.train.images.numpy(), expected["train"])
    assert np.array_equal(dataset.test.images.numpy(), expected["test"])


def test_stl10_pretrains_on_labelled_and_unlabelled_images(tmp_path, monkeypatch):
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    names = ["airplane", "bird"]
    (folder / "class_names.txt").write_text("\n".join(names))
    images = {"train": random_pixels(4, 3, 96, 96), "test": random_pixels(2, 3, 96, 96, seed=1)}
    images["unlabeled"] = random_pixels(5, 3, 96, 96, seed=2)
    for split, pixels in images.items():
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")  # stored column by column
    np.array([1, 2, 1, 2], dtype=np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 1], dtype=np.uint8).tofile(folder / "test_y.bin")
    for listing in ("train_list", "test_list"):
        files = [[name, checksum(folder / name)] for name, _ in getattr(datasets.STL10, listing)]
        monkeypatch.setattr(datasets.STL10, listing, files)

    dataset = load("stl10", tmp_path)
    assert dataset.class_names == tuple(names)
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.test.labels.tolist() == [1, 0]
    assert np.array_equal(dataset.train.images.numpy(), images["train"])
    assert np.array_equal(dataset.test.images.numpy(), images["test"])
    assert dataset.pretrain.labels is None
    assert np.array_equal(dataset.pretrain.images.numpy(), np.concatenate([images["train"], images["unlabeled"]]))
    limited = load("stl10", tmp_path, limit=2)
    assert limited.train.labels.tolist() == [0, 1]
    assert len(limited.pretrain) == 2


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "stl10"])
def test_missing_files_without_a_network_name_the_folder(tmp_path, name):
    root = tmp_path / "sets"
    with pytest.raises(InputError, match="network is unreachable") as caught:
        load(name, tmp_path / "cache", str(root))
    assert caught.value.where == str(root)
    assert name in caught.value.what
    assert "data.root" in caught.value.remedy


def test_damaged_files_are_not_trusted(tmp_path, monkeypatch):
    write_cifar(tmp_path, datasets.CIFAR10, "labels", ["a", "b"], monkeypatch)
    batch = tmp_path / datasets.CIFAR10.base_folder / "data_batch_1"
    batch.write_bytes(batch.read_bytes()[:-10])
    with pytest.raises(InputError, match="could not be downloaded"):
        load("cifar10", tmp_path)


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        load("cifar10", tmp_path / "file" / "cache")
    assert caught.value.where == str(tmp_path / "file" / "cache")


def test_a_download_is_used_and_what_it_prints_stays_off_stdout(tmp_path, monkeypatch, capsys):
    label_names = ["a", "b"]
    ready = tmp_path / "ready"
    write_cifar(ready, datasets.CIFAR10, "labels", label_names, monkeypatch)

    def download(self):
        print("Downloading")
        target = tmp_path / "cache" / self.base_folder
        if not target.exists():
            (ready / self.base_folder).rename(target)

    monkeypatch.setattr(datasets.CIFAR10, "download", download)
    dataset = load("cifar10", tmp_path / "cache")
    assert len(dataset.train) == 20
    assert torch.bincount(dataset.train.labels).sum() == 20
    output = capsys.readouterr()
    assert output.out == ""
    assert "Downloading" in output.err
