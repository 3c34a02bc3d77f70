"""Sources used as runs use them: trained on, probed, analysed, moved; and the same images of two sources."""

import numpy as np
import pytest
import torch
from PIL import Image

from cssl_cli.augment import clean_views
from cssl_cli.data import load_dataset
from cssl_cli.errors import InputError
from cssl_cli.features.probe import knn_probe
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.images import images_of_run, prepare_data
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.sweep.request import SweepRequest, require_one_root
from cssl_cli.sweep.sweep import load_sweep
from tests.support import image_folders

RECIPE = """
name: tiny
data: {DATA}
augment: {crop: {scale: [0.4, 1.0]}, flip: {p: 0.5}}
encoder: {name: small, width: 4}
method: {name: simclr, projector: [8, 4]}
optim: {name: sgd, lr: 0.01}
train: {epochs: 1, batch_size: 4}
probe: {knn_k: 2, center_views: 1, penalties: [0.1]}
analyze: {num_images: 10, num_views: 2, bootstrap: 2, refine_pairs: 1, distances: [pixels], epsilons: [0.5]}
"""


def recipe_of(folder, data):
    (folder / "tiny.yaml").write_text(RECIPE.replace("DATA", data))
    return load_recipe(str(folder / "tiny.yaml"))


def save_arrays(path, *, shape=(8, 8), seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (16, *shape), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=images, labels=np.arange(16) % 2)


def save_huggingface(folder):
    datasets = pytest.importorskip("datasets", minversion="5.2")
    datasets.disable_progress_bars()
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": [Image.fromarray(image) for image in images], "label": [0, 1] * 8}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))


BLOCKS = {
    "arrays": "name: arrays, file: x.npz",
    "torchvision": "name: torchvision, set: FakeData, size: 8, limit: 20, limit_test: 20",
    "huggingface": "name: huggingface, path: ./set",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_from_pretraining_to_the_analysis_and_after_a_move(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    place = {"arrays": tmp_path / "x.npz", "huggingface": tmp_path / "set"}.get(name)
    if name == "arrays":
        save_arrays(place)
    if name == "huggingface":
        save_huggingface(place)
    recipe = recipe_of(tmp_path, BLOCKS[name])
    used = {"reporter": Silent(), "dataset": prepare_data(recipe, Silent())}
    run = pretrain(recipe, out=tmp_path / "runs", **used)
    num_test = 20 if name == "torchvision" else 4
    assert probe(run.path, **used)["trained"]["linear"]["num_images"] == num_test
    assert analyze(run.path, **used)["num_images"] == min(num_test, 10)
    if place is None:
        return
    elsewhere = tmp_path / "elsewhere" / place.name
    elsewhere.parent.mkdir()
    place.rename(elsewhere)
    with pytest.raises(InputError) as caught:
        images_of_run(run, recipe, Silent(), data_root=None, own=())
    assert caught.value.remedy.startswith("The images of this run were there.")
    assert "--data-root DIR" in caught.value.remedy
    given = str(elsewhere.parent if name == "arrays" else elsewhere)
    found = images_of_run(run, recipe, Silent(), data_root=given, own=())
    assert found.content_key == run.read_json("environment.json")["content_key"]


def test_where_images_lie_is_written_down_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SETS", str(tmp_path))
    for block, key, given, written, settings in (
        ("arrays", "file", "x.npz", tmp_path / "x.npz", tmp_path / "x.npz"),
        ("arrays", "file", "$SETS/x.npz", "$SETS/x.npz", tmp_path / "x.npz"),
        ("huggingface", "path", "./set", tmp_path / "set", tmp_path / "set"),
        ("huggingface", "path", "owner/set", "owner/set", "owner/set"),
    ):
        recipe = recipe_of(tmp_path, f"name: {block}, {key}: {given}")
        assert getattr(recipe.data, key) == str(written)
        assert recipe.settings("data")[key] == str(settings)
        assert recipe.place == (None if given == "owner/set" else str(written))


def test_a_sweep_over_files_of_two_names_has_no_one_root(tmp_path):
    recipe_of(tmp_path, BLOCKS["arrays"])
    axes = "{data: {one: {}, two: {data: {file: y.npz}}}}"
    (tmp_path / "s.yaml").write_text(f"name: s\nbase: {tmp_path / 'tiny.yaml'}\nseeds: [0]\naxes: {axes}\n")
    sweep = load_sweep(str(tmp_path / "s.yaml"))
    with pytest.raises(InputError, match="do not all lie in one folder"):
        require_one_root(SweepRequest(sweep, tmp_path / "out", data_root=str(tmp_path)))
    require_one_root(SweepRequest(sweep, tmp_path / "out"))


@pytest.mark.parametrize("stored", [16, 24])
def test_shapes_as_class_folders_are_the_same_images(tmp_path, stored):
    """And so are all numbers that do not depend on the images' order."""
    recipe = recipe_of(tmp_path, f"name: shapes, num_train: 60, num_test: 40, size: 16, store_size: {stored}")
    shapes = prepare_data(recipe, Silent())
    for part in ("train", "test"):
        images = getattr(shapes, part)
        for row, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            path = tmp_path / "images" / part / shapes.class_names[label] / f"{row:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    folder = image_folders.load(tmp_path / "images", tmp_path / "cache", size=16, store_size=stored)
    assert (folder.image_size, folder.pretrain.images.shape[-1]) == (shapes.image_size, stored) == (16, stored)
    assert folder.class_names == shapes.class_names
    assert (folder.mean, folder.std) == (shapes.mean, shapes.std)
    scores = []
    for dataset in (shapes, folder):
        parts = {}
        for part in ("train", "test"):
            images = getattr(dataset, part)
            order = images.labels.argsort(stable=True)
            parts[part] = images.images[order], images.labels[order]
            features = [clean_views(images.images, dataset.image_size).flatten(1), images.labels]
            parts[f"{part} features"] = features
        scores.append(
            (
                parts,
                knn_probe(
                    *parts["train features"],
                    *parts["test features"],
                    class_names=dataset.class_names,
                    settings={"knn_k": 5, "knn_temperature": 0.1},
                ),
            )
        )
    (one, score), (other, score_of_folder) = scores
    for part in ("train", "test"):
        assert torch.equal(one[part][0], other[part][0])
        assert torch.equal(one[part][1], other[part][1])
    assert score == score_of_folder
    assert 0 < score["accuracy"] < 1


def test_the_content_of_the_same_arrays_in_another_file_is_the_same(tmp_path):
    keys = set()
    for name in ("x.npz", "copy/y.npz"):
        save_arrays(tmp_path / name)
        settings = {"name": "arrays", "file": str(tmp_path / name), "size": None, "test_fraction": 0.2}
        settings |= dict.fromkeys(("limit", "limit_test", "store_size", "channels"))
        keys.add(load_dataset(settings, cache_dir=tmp_path / "cache", progress=None).content_key)
    assert len(keys) == 1
