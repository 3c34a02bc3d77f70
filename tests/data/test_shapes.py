"""The embedded shapes: determinism, prefixes, balance, and what can and cannot be told from the pixels."""

import time

import pytest
import torch

from cssl_cli.data import load_dataset, shapes


def draw(num, *, size=32, split="train"):
    return shapes.draw_shapes(num, size=size, split=split, progress=None)


def load(tmp_path, **changes):
    settings = {"name": "shapes", "num_train": 40, "num_test": 20, "size": 16}
    settings |= dict.fromkeys(("store_size", "limit", "limit_test")) | changes
    return load_dataset(settings, cache_dir=tmp_path, progress=None)


def test_another_thread_count_draws_the_same_bits():
    """In this process: one that starts anew and one that does not train the same in runs/test_kill_and_resume.py."""
    assert torch.get_num_threads() == 1
    images, labels = draw(600)
    torch.set_num_threads(2)
    try:
        more_images, more_labels = draw(600)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(images, more_images)
    assert torch.equal(labels, more_labels)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    draw(10)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("num", [1, 7, 499, 500, 501])
def test_a_larger_set_begins_with_the_smaller(num):
    images, labels = draw(num)
    more_images, more_labels = draw(777)
    assert torch.equal(images, more_images[:num])
    assert torch.equal(labels, more_labels[:num])


def test_training_images_do_not_depend_on_the_test_images_nor_share_any(tmp_path):
    few, many = load(tmp_path, num_test=10), load(tmp_path, num_test=30)
    assert torch.equal(few.train.images, many.train.images)
    assert torch.equal(few.test.images, many.test.images[:10])
    train = {image.numpy().tobytes() for image in many.train.images}
    assert len(train) == 40
    assert not train & {image.numpy().tobytes() for image in many.test.images}
    assert few.content_key != many.content_key
    assert load(tmp_path).content_key == load(tmp_path).content_key


def test_every_run_of_ten_holds_each_class_once_in_changing_order():
    _, labels = draw(200, size=8)
    rounds = labels.reshape(20, 10)
    assert torch.equal(rounds.sort(dim=1).values, torch.arange(10).expand(20, 10))
    assert len({tuple(order) for order in rounds.tolist()}) > 10


def test_a_dataset_of_shapes_is_complete(tmp_path):
    dataset = load(tmp_path)
    assert dataset.class_names == tuple(sorted(dataset.class_names))
    assert len(dataset.class_names) == 10
    assert dataset.train.images.shape == (40, 3, 16, 16)
    assert dataset.pretrain is dataset.train
    assert all(0.1 < s < 0.5 for s in dataset.std)
    assert list(tmp_path.iterdir()) == []


def test_ten_thousand_images_take_seconds():
    start = time.perf_counter()
    draw(10_000)
    assert time.perf_counter() - start < 10


def test_progress_is_reported_to_the_end():
    seen = []
    shapes.draw_shapes(1100, size=4, split="test", progress=lambda done, total, what: seen.append((done, total, what)))
    assert [done for done, _, _ in seen] == [500, 1000, 1100]
    assert {(total, what) for _, total, what in seen} == {(1100, "drawing test images")}


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_shape_stays_in_its_circle_and_is_drawn_without_steps(name):
    axis = torch.linspace(-1.4, 1.4, 281)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = shapes._SHAPES[name](x[None], y[None])[0]
    inside = distance < 0
    assert 0.12 < inside.float().mean() * 2.8**2 / torch.pi < 0.75  # of the unit circle's area
    assert (x**2 + y**2).sqrt()[inside].max() <= 1.05
    step = axis[1] - axis[0]
    assert distance.diff(dim=0).abs().max() <= 1.001 * step  # no faster than a distance may change


def test_the_shape_covers_the_pixels_that_its_geometry_says(monkeypatch):
    """With plain colours, the brightness of an image tells the covered area: that of the class's region, scaled."""
    monkeypatch.setattr(shapes, "STRIPE_DEPTH", (0.0, 0.0))
    monkeypatch.setattr(shapes, "LIGHTING", (0.0, 0.0))
    monkeypatch.setattr(shapes, "NOISE", 0.0)
    monkeypatch.setattr(shapes, "RADIUS", (0.3, 0.3))
    images, labels = draw(200, size=64)
    axis = (torch.arange(400) + 0.5) / 400 * 2.4 - 1.2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for image, label in zip(images, labels.tolist(), strict=True):
        region = list(shapes._SHAPES.values())[label](x[None], y[None]) < 0
        area = region.double().mean().item() * 2.4**2 * 0.3**2
        luma = (image.double() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
        ground, figure = luma[0, 0], luma.flatten()[(luma - luma[0, 0]).abs().argmax()]
        cover = (luma - ground) / (figure - ground)
        assert cover.mean().item() == pytest.approx(area, abs=0.01)


def nearest_neighbour_labels(gallery, gallery_labels, queries):
    return gallery_labels[torch.cdist(queries.flatten(1), gallery.flatten(1)).argmin(dim=1)]


def test_pixels_and_colours_tell_little_about_the_class():
    train, train_labels = draw(2000)
    test, test_labels = draw(500, split="test")
    train, test = train.float() / 255, test.float() / 255
    by_pixels = nearest_neighbour_labels(train, train_labels, test)
    by_colours = nearest_neighbour_labels(train.mean((2, 3)), train_labels, test.mean((2, 3)))
    assert (by_pixels == test_labels).float().mean() < 0.45
    assert (by_colours == test_labels).float().mean() < 0.2


def test_two_crops_of_an_image_are_recognised_by_colour_alone_and_not_once_gray():
    images = draw(500, split="test")[0].float() / 255
    top_left, bottom_right = images[:, :, :22, :22], images[:, :, 10:, 10:]

    def recognised(view_1, view_2):
        everyone = torch.arange(len(view_1))
        moments_1, moments_2 = ([v.mean((2, 3)), v.std((2, 3))] for v in (view_1, view_2))
        found = nearest_neighbour_labels(torch.cat(moments_1, 1), everyone, torch.cat(moments_2, 1))
        return (found == everyone).float().mean().item()

    in_color = recognised(top_left, bottom_right)
    in_gray = recognised(top_left.mean(1, keepdim=True), bottom_right.mean(1, keepdim=True))
    assert in_color > 50 / 500  # fifty times chance
    assert in_gray < in_color / 3
