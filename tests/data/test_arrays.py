"""Arrays of images in a .npz file."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from cssl_cli.data import arrays, decode, load_dataset
from cssl_cli.errors import InputError
from tests.support import image_folders

RANDOM = np.random.default_rng(0)


def pixels(num, *shape):
    return RANDOM.integers(0, 256, (num, *shape), dtype=np.uint8)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz"


def load(path, *, notice=None, **changes):
    settings = {"name": "arrays", "file": str(path), "size": None, "test_fraction": 0.25}
    settings |= {"limit": None, "limit_test": None, "store_size": None, "channels": None} | changes
    return load_dataset(settings, cache_dir=path.parent / "cache", progress=None, notice=notice)


def refused(path, **changes):
    with pytest.raises(InputError) as caught:
        load(path, **changes)
    assert caught.value.where == str(path)
    return caught.value.what


SHAPES = [(8, 10), (8, 10, 3), (3, 8, 10), (8, 10, 1), (1, 8, 10), (8, 10, 4), (4, 8, 10), (2, 8, 10), (8, 8, 13)]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_every_shape_are_centred_squares_and_keep_their_channels(tmp_path, shape):
    images = pixels(4, *shape)
    told = []
    dataset = load(saved(tmp_path, images=images), notice=told.append)
    by_channel = images if shape[0] < 8 else images[:, None] if len(shape) == 2 else images.transpose(0, 3, 1, 2)
    margin = (by_channel.shape[-1] - 8) // 2
    expected = by_channel[..., margin : margin + 8]
    assert np.array_equal(dataset.pretrain.images.numpy(), expected)
    assert dataset.channels == len(dataset.mean) == len(dataset.std) == expected.shape[1]
    np.testing.assert_allclose(dataset.mean, expected.mean(axis=(0, 2, 3)) / 255, atol=1e-12)
    np.testing.assert_allclose(dataset.std, expected.std(axis=(0, 2, 3)) / 255, atol=1e-12)
    assert dataset.pretrain.labels is None
    assert dataset.train is None
    assert told == [f"{tmp_path / 'x.npz'}: 4 images without labels, for pretraining only"]
    assert load(tmp_path / "x.npz").content_key == dataset.content_key  # from the cache


def test_many_channels_are_resized_each_as_an_image_of_its_own(tmp_path):
    images = pixels(3, 5, 12, 15)
    whole = load(saved(tmp_path, images=images), size=9).pretrain.images
    for channel in range(5):
        alone = load(saved(tmp_path, images=images[:, channel]), size=9).pretrain.images
        assert torch.equal(whole[:, channel], alone[:, 0])


def test_gray_becomes_colours_and_colours_gray_where_that_is_asked_for(tmp_path):
    told = []
    gray = pixels(4, 8, 8)
    colours = load(saved(tmp_path, images=gray), channels=3, notice=told.append).pretrain.images
    assert np.array_equal(colours.numpy(), np.broadcast_to(gray[:, None], (4, 3, 8, 8)))
    assert told[-1].endswith("one channel, repeated as red, green and blue")
    rgb = pixels(4, 8, 8, 3)
    luma = load(saved(tmp_path, images=rgb), channels=1, notice=told.append).pretrain.images
    assert np.abs(luma[:, 0].numpy() - rgb @ [0.299, 0.587, 0.114]).max() < 0.51
    assert told[-1].endswith("of red, green and blue the luma")
    assert "images of 4 channels cannot become images of 3" in refused(
        saved(tmp_path, images=pixels(4, 8, 8, 4)), channels=3
    )


def test_images_are_stored_larger_than_the_encoder_sees_them(tmp_path):
    dataset = load(saved(tmp_path, images=pixels(4, 12, 16, 3)), size=8, store_size=12)
    assert dataset.pretrain.images.shape == (4, 3, 12, 12)
    assert dataset.image_size == 8
    assert load(tmp_path / "x.npz", size=8).image_size == 8
    assert load(tmp_path / "x.npz").image_size == 12


def test_parts_labels_and_names(tmp_path):
    images, test_images = pixels(6, 8, 8, 3), pixels(3, 8, 8, 3)
    path = saved(
        tmp_path,
        train_images=images,
        train_labels=np.array([[2], [0], [2], [0], [3], [3]]),
        test_images=test_images,
        test_labels=np.array([3, 2, 0], dtype=np.uint8),
        val_images=images,
        class_names=np.array(["cat", "unused", "dog", "eel"]),
    )
    told = []
    dataset = load(path, notice=told.append)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.train.labels.tolist() == [1, 0, 1, 0, 2, 2]
    assert dataset.test.labels.tolist() == [2, 1, 0]
    assert np.array_equal(dataset.train.images.numpy(), images.transpose(0, 3, 1, 2))
    assert np.array_equal(dataset.test.images.numpy(), test_images.transpose(0, 3, 1, 2))
    assert dataset.pretrain is dataset.train
    assert told == [
        f"{path}: not used: val_images; 6 images for training, 3 for testing; 3 classes: cat, dog, eel",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_labels_of_signed_and_of_unsigned_numbers_are_the_same_classes(tmp_path, named):
    path = saved(
        tmp_path,
        train_images=pixels(4, 8, 8),
        train_labels=np.array([0, 1, 1, 0], dtype=np.uint64),
        test_images=pixels(2, 8, 8),
        test_labels=np.array([1, 0], dtype=np.int64),
        **({"class_names": np.array(["cat", "dog"])} if named else {}),
    )
    dataset = load(path)
    assert dataset.class_names == (("cat", "dog") if named else ("0", "1"))
    assert dataset.train.labels.tolist() == [0, 1, 1, 0]
    assert dataset.test.labels.tolist() == [1, 0]


def test_a_file_without_a_test_part_is_split_in_every_class(tmp_path):
    images, labels = pixels(16, 8, 8), np.array(["b", "a"] * 8)
    path = saved(tmp_path, images=images, labels=labels)
    dataset = load(path)
    assert dataset.class_names == ("a", "b")
    assert torch.bincount(dataset.train.labels).tolist() == [6, 6]
    assert torch.bincount(dataset.test.labels).tolist() == [2, 2]
    parts = [set(map(bytes, part.images[:, 0].numpy())) for part in (dataset.train, dataset.test)]
    assert len(parts[0]) == 12
    assert parts[0] | parts[1] == set(map(bytes, images))
    assert set(map(bytes, load(path).test.images[:, 0].numpy())) == parts[1]
    assert load(path, test_fraction=0.5).content_key != dataset.content_key


def test_images_are_resized_as_those_of_a_folder_are(tmp_path):
    """The same pixels as class folders of PNG: the same images, labels, statistics and content."""
    images, labels = pixels(8, 12, 17, 3), np.arange(8) % 2
    order = np.argsort(labels, kind="stable")
    for part in ("train", "test"):
        for row in order:
            path = tmp_path / "images" / part / "ab"[labels[row]] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(path)
    arrays = {
        f"{part}_{what}": values
        for part in ("train", "test")
        for what, values in (("images", images[order]), ("labels", np.array(["a", "b"])[labels[order]]))
    }
    one = load(saved(tmp_path, **arrays), size=9)
    other = image_folders.load(tmp_path / "images", tmp_path / "cache", size=9)
    assert torch.equal(one.train.images, other.train.images)
    assert one.train.images.shape == (8, 3, 9, 9)
    assert (one.mean, one.std, one.content_key) == (other.mean, other.std, other.content_key)


def test_pixels_are_read_once_and_a_file_that_is_written_over_is_another(tmp_path, monkeypatch):
    path = saved(tmp_path, images=pixels(4, 8, 8), labels=np.array([0, 0, 1, 1]))
    first = load(path)
    asked = []
    real = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: asked.append(name) or real(self, name))
    again = load(path)
    assert asked == ["labels"]
    assert again.content_key == first.content_key
    stat = path.stat()
    saved(tmp_path, images=pixels(4, 8, 8), labels=np.array([0, 0, 1, 1]))
    assert path.stat().st_size == stat.st_size
    assert load(path).content_key != first.content_key
    assert asked.count("images") >= 1


def test_a_damaged_entry_of_the_cache_is_made_again(tmp_path):
    path = saved(tmp_path, images=pixels(4, 8, 8))
    first = load(path)
    (entry,) = (tmp_path / "cache").glob("arrays-*.npy")
    content = entry.read_bytes()
    entry.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    told = []
    assert load(path, notice=told.append).content_key == first.content_key
    assert "the cached images were damaged and are made again" in told[-1]
    assert entry.read_bytes() == content


IMAGES, LABELS = np.zeros((4, 8, 8), dtype=np.uint8), np.array([0, 0, 1, 1])
FAULTS = {
    "floats": ({"images": IMAGES.astype(float)}, "images is float64; images must be uint8, from 0 to 255"),
    "objects": ({"images": np.array([None] * 4)}, "images is an array of Python objects"),
    "one image": ({"images": IMAGES[0]}, "images has shape (8, 8); images must be (N, H, W)"),
    "channels": ({"images": np.zeros((4, 9, 9, 9), dtype=np.uint8)}, "(4, 9, 9, 9), of which the channels could be"),
    "ambiguous": ({"images": np.zeros((4, 3, 8, 3), dtype=np.uint8)}, "(4, 3, 8, 3), of which the channels could be"),
    "test channels": (
        {
            "train_images": IMAGES,
            "train_labels": LABELS,
            "test_images": np.stack([IMAGES] * 3, 1),
            "test_labels": LABELS,
        },
        "the images to train on have 1 channel, those to test on 3",
    ),
    "empty": ({"images": IMAGES[:0]}, "images is empty: its shape is (0, 8, 8)"),
    "small": ({"images": IMAGES[:, :7]}, "the first image has 8 x 7 pixels; squares must have from 8 to 1024"),
    "none": ({"image": IMAGES}, "there is neither images nor train_images; did you mean image? It has: image"),
    "both": ({"images": IMAGES, "train_images": IMAGES}, "there are both images and train_images"),
    "stray": ({"images": IMAGES, "test_images": IMAGES}, "there is test_images, but no train_images"),
    "unlabelled": ({"train_images": IMAGES, "test_images": IMAGES}, "there are test_images, but no train_labels"),
    "unlabelled test": (
        {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES},
        "there are test_images, but no test_labels",
    ),
    "kinds": (
        {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS.astype(str)},
        "of train_labels and test_labels, one is text and the other numbers",
    ),
    "NaN": ({"images": IMAGES, "labels": np.array([0, np.nan, 1, 1])}, "labels is float64, with NaN; labels must be"),
    "length": ({"images": IMAGES, "labels": LABELS[:3]}, "labels has 3 labels for the 4 of images"),
    "one-hot": ({"images": IMAGES, "labels": np.eye(4, dtype=int)}, "labels has shape (4, 4); labels must be (N,)"),
    "pickled": ({"images": IMAGES, "labels": np.array([0, "a", 1, 1], dtype=object)}, "labels cannot be read: Object"),
    "one class": ({"images": IMAGES, "labels": np.zeros(4, int)}, "there is one class only: 0"),
    "single": ({"images": IMAGES, "labels": np.array([0, 0, 0, 1])}, "the class 1 has one image, which cannot be spl"),
    "no test": (
        {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": np.zeros(4, int)},
        "no test images of the class: 1",
    ),
    "names": (
        {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a"])},
        "the label 1 has no name: there are 1 names of classes",
    ),
    "same names": (
        {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "a"])},
        "two classes are called a",
    ),
    "names of text": (
        {"images": IMAGES, "labels": LABELS.astype(str), "class_names": np.array(["a", "b"])},
        "class_names are for labels that are numbers",
    ),
    "numbers for names": (
        {"images": IMAGES, "labels": LABELS, "class_names": np.array([0, 1])},
        "class_names is int64 of shape (2,); it must be text (K,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_an_array_is_named(tmp_path, fault):
    arrays, what = FAULTS[fault]
    assert refused(saved(tmp_path, **arrays)).startswith(what) or what in refused(saved(tmp_path, **arrays))


def test_what_is_no_file_of_arrays(tmp_path):
    assert refused(tmp_path / "none.npz") == "there is no such file"
    (tmp_path / "text.npz").write_text("text")
    assert refused(tmp_path / "text.npz") == "this is no .npz file"
    np.save(tmp_path / "single.npy", IMAGES)
    assert refused(tmp_path / "single.npy") == "this is no .npz file"
    (tmp_path / "folder").mkdir()
    assert refused(tmp_path / "folder") == "cannot be read: it is a folder, not a file"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "cannot be read: it is a named pipe, not a file"
    path = saved(tmp_path, images=IMAGES)
    path.write_bytes(path.read_bytes()[:200])
    assert refused(path) == "this is no .npz file"


def test_damage_inside_an_array_is_named(tmp_path):
    path = saved(tmp_path, images=pixels(4, 8, 8), labels=LABELS)
    whole = path.read_bytes()
    at = whole.index(pixels_of(path, "images")[:16])
    path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    assert refused(path).startswith("images cannot be read: Bad CRC-32")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"no array")
    assert refused(path).startswith("images cannot be read: the magic string is not correct")


def test_an_array_that_cannot_be_read_is_not_tried_for_every_image(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_num_threads", lambda: 2)
    path = saved(tmp_path, images=pixels(100, 8, 8))
    tried = []

    def array(arrays, name):
        tried.append(name)
        raise arrays.error(f"{name} cannot be read: Bad CRC-32")

    monkeypatch.setattr(arrays._Arrays, "array", array)
    assert refused(path) == "images cannot be read: Bad CRC-32"
    assert len(tried) <= 2


def pixels_of(path, name):
    with np.load(path) as arrays:
        return arrays[name].tobytes()


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()] * 4, dtype=object), allow_pickle=True)
    for name, others in (("images", {}), ("labels", {"images": IMAGES}), ("class_names", {"images": IMAGES})):
        path = saved(tmp_path, **others)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{name}.npy", buffer.getvalue())
        assert refused(path).startswith(name)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path, images=IMAGES)
    real = np.load

    def meanwhile(*args, **kwargs):
        loaded = real(*args, **kwargs)
        path.touch()
        return loaded

    monkeypatch.setattr(np, "load", meanwhile)
    assert refused(path) == "this file was changed while it was being read"
    assert not list((tmp_path / "cache").glob("*.npy"))
