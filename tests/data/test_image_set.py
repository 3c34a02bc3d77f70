"""Statistics, class-balanced subsets, content keys and the table of sources."""

import numpy as np
import pytest
import torch

from cssl_cli.data import SOURCES, load_dataset
from cssl_cli.data.image_set import ImageSet, Source, finish_dataset, subset, summarize
from cssl_cli.errors import InputError


def random_images(num, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=generator)


def labelled(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return ImageSet(random_images(len(labels)), labels)


def finish(train, *, limit=None, names=("a", "b")):
    return finish_dataset(Source("s", names, train, train, train), limit=limit, limit_test=None)


@pytest.mark.parametrize("block_bytes", [1, 200, 10**9])
def test_channel_statistics_are_those_of_numpy_whatever_the_block(monkeypatch, block_bytes):
    monkeypatch.setattr("cssl_cli.data.image_set._BLOCK_BYTES", block_bytes)
    images = random_images(37)
    pixels = images.numpy().astype(np.float64) / 255
    summary = summarize(images)
    np.testing.assert_allclose(summary.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(summary.std, pixels.std(axis=(0, 2, 3)), rtol=1e-13)


def test_statistics_do_not_cancel_for_nearly_constant_bright_images():
    images = torch.full((1000, 3, 8, 8), 255, dtype=torch.uint8)
    images[0, :, 0, 0] = 254
    share = 1 / images[:, 0].numel()
    expected = (share * (1 - share)) ** 0.5 / 255
    np.testing.assert_allclose(summarize(images).std, [expected] * 3, rtol=1e-12)


def test_a_constant_channel_has_std_one():
    assert summarize(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).std == (1.0, 1.0, 1.0)


def test_the_digest_sees_every_pixel_the_shape_and_the_order():
    images = random_images(6)
    changed = images.clone()
    changed[5, 2, 4, 4] ^= 1
    variants = [images, changed, images.flip(0), images.reshape(6, 3, 25, 1)]
    assert len({summarize(variant).digest for variant in variants}) == 4
    assert summarize(images.transpose(2, 3).contiguous().transpose(2, 3)) == summarize(images)


@pytest.mark.parametrize("limit", [3, 4, 10, 11, 29])
def test_a_subset_is_balanced_ordered_and_nested(limit):
    whole = labelled([10, 10, 10])
    part = subset(whole, limit, num_classes=3, where="data.limit")
    counts = torch.bincount(part.labels, minlength=3)
    assert len(part) == limit
    assert counts.max() - counts.min() <= 1

    rows = [next(i for i, image in enumerate(whole.images) if torch.equal(image, chosen)) for chosen in part.images]
    assert rows == sorted(set(rows))
    assert torch.equal(whole.labels[rows], part.labels)
    larger = subset(whole, limit + 1, num_classes=3, where="data.limit")
    assert {image.numpy().tobytes() for image in part.images} <= {image.numpy().tobytes() for image in larger.images}


def test_a_class_short_of_images_gives_all_and_the_others_share_the_rest():
    part = subset(labelled([2, 50, 50]), 21, num_classes=3, where="data.limit")
    assert torch.bincount(part.labels).tolist() == [2, 10, 9]


def test_a_limit_at_or_beyond_the_set_keeps_the_set():
    whole = labelled([3, 3])
    assert subset(whole, 6, num_classes=2, where="data.limit") is whole
    assert subset(whole, 99, num_classes=2, where="data.limit") is whole


@pytest.mark.parametrize("limit", [-1, 0, 2])
def test_a_limit_too_small_for_the_classes_is_refused(limit):
    with pytest.raises(InputError, match="at least 3") as caught:
        subset(labelled([5, 5, 5]), limit, num_classes=3, where="data.limit_test")
    assert caught.value.where == "data.limit_test"


def test_unlabelled_images_are_limited_without_classes():
    part = subset(ImageSet(random_images(50), None), 7, num_classes=10, where="data.limit")
    assert len(part) == 7
    assert part.labels is None


def test_limits_bound_training_and_test_images_apart():
    train, test = labelled([20, 20]), labelled([8, 8])
    dataset = finish_dataset(Source("s", ("a", "b"), train, train, test), limit=10, limit_test=4)
    assert (len(dataset.pretrain), len(dataset.train), len(dataset.test)) == (10, 10, 4)
    assert dataset.pretrain is dataset.train
    assert dataset.mean == summarize(dataset.train.images).mean


def test_pretraining_images_of_their_own_are_limited_and_measured():
    train, unlabelled = labelled([20, 20]), ImageSet(random_images(100, seed=5), None)
    dataset = finish_dataset(Source("s", ("a", "b"), unlabelled, train, train), limit=30, limit_test=None)
    assert (len(dataset.pretrain), len(dataset.train), len(dataset.test)) == (30, 30, 40)
    assert dataset.std == summarize(dataset.pretrain.images).std


def test_the_content_key_follows_pixels_labels_and_names_only():
    train = labelled([5, 5])
    same = ImageSet(train.images.clone(), train.labels.clone())
    pixels = ImageSet(train.images ^ 1, train.labels)
    labels = ImageSet(train.images, 1 - train.labels)
    key = finish(train).content_key
    assert finish(same).content_key == key
    others = [finish(pixels), finish(labels), finish(train, names=("a", "c")), finish(train, limit=9)]
    assert len({key, *(other.content_key for other in others)}) == 5


def test_the_content_key_follows_the_side_at_which_images_are_seen():
    train = labelled([5, 5])
    source, stored = Source("s", ("a", "b"), train, train, train), train.images.shape[-1]
    seen = {
        size: finish_dataset(source, limit=None, limit_test=None, image_size=size).content_key
        for size in (None, stored, stored - 1, stored - 2)
    }
    assert seen[None] == seen[stored]
    assert len(set(seen.values())) == 3


def test_an_unknown_source_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'cifar10'") as caught:
        load_dataset({"name": "cifar_10"}, cache_dir=tmp_path, progress=None)
    assert all(name in str(caught.value) for name in SOURCES)
