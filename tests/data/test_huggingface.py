"""Data sets of Hugging Face's library, from local folders and a cache; no network."""

import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from cssl_cli.data import load_dataset
from cssl_cli.data.huggingface import _Encoded
from cssl_cli.errors import InputError
from tests.support import image_folders

RANDOM = np.random.default_rng(0)


def load(path, cache_dir, *, notice=None, **changes):
    settings = dict.fromkeys(("config", "revision", "image", "label", "train", "test", "size", "limit", "limit_test"))
    settings |= {"name": "huggingface", "path": str(path), "test_fraction": 0.25, "store_size": None, "channels": 3}
    settings |= changes
    return load_dataset(settings, cache_dir=cache_dir, progress=None, notice=notice)


def refused(path, cache_dir, **changes):
    with pytest.raises(InputError) as caught:
        load(path, cache_dir, **changes)
    return caught.value


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    error = refused(tmp_path, tmp_path / "cache")
    assert error.what.startswith("huggingface needs the library datasets, which cannot be imported")
    assert "its extra huggingface" in error.remedy


@pytest.mark.parametrize("version", ["2.14.0", "4.9.1", "5.1.0"])
def test_versions_that_run_or_unpickle_what_a_set_holds_are_refused(tmp_path, monkeypatch, version):
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(__version__=version))
    assert f"of version {version}, which may run or unpickle" in refused(tmp_path, tmp_path / "cache").what


def test_the_order_of_files_and_bytes_tells_images_apart(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")

    class Part(list):
        def __getitem__(self, rows):
            return {"image": super().__getitem__(rows)}

    rows = [{"bytes": b"y", "path": None}, {"bytes": None, "path": str(tmp_path / "x.png")}]
    one, other = (_Encoded(Part(order), "image").identity(None) for order in (rows, rows[::-1]))
    assert one != other


# ----------------------------------------------------------------------------------------------- with the library
@pytest.fixture
def datasets(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets", minversion="5.2")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    library.disable_progress_bars()
    return library


def pictures(num, shape=(9, 8, 3)):
    return [Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8)) for _ in range(num)]


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def table(datasets, images, labels, names=("cat", "dog")):
    features = datasets.Features({"img": datasets.Image(), "y": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"img": images, "y": labels}, features=features)


def squares(images):
    return np.stack(
        [np.asarray(image)[(np.asarray(image).shape[0] - 8) // 2 :][:8].transpose(2, 0, 1) for image in images]
    )


@pytest.fixture
def parts(datasets):
    images, test_images = pictures(6, (8, 8, 3)), pictures(4, (8, 8, 3))
    saved = {"train": table(datasets, images, [1, 0, 1, 0, 0, 1]), "test": table(datasets, test_images, [0, 1, 0, 1])}
    return datasets.DatasetDict(saved), squares(images), squares(test_images)


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_local_folder(datasets, parts, tmp_path, kind):
    saved, images, test_images = parts
    folder = tmp_path / "set"
    if kind == "saved":
        saved.save_to_disk(str(folder))
    else:
        folder.mkdir()
        for name, part in saved.items():
            part.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    told = []
    dataset = load(folder, tmp_path / "cache", notice=told.append)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(dataset.train.images.numpy(), images)
    assert np.array_equal(dataset.test.images.numpy(), test_images)
    assert told == [
        f"{folder}: splits train and test; columns img and y; 6 images for training, 4 for testing; 2 classes: cat, dog"
    ]
    again = load(folder, tmp_path / "cache")
    assert again.content_key == dataset.content_key
    assert len(list((tmp_path / "cache").glob("huggingface-*.npy"))) == 1


def test_images_are_decoded_as_those_of_a_folder_are(datasets, tmp_path):
    """The same JPEG files, turned by EXIF, in class folders and in a table."""
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = []
    for number, image in enumerate(pictures(8, (20, 12, 3))):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", exif=exif)
        contents.append(buffer.getvalue())
        path = tmp_path / "images" / ("train" if number < 4 else "test") / "ab"[number // 2 % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[-1])
    labels = [0, 0, 1, 1]
    saved = {
        "train": table(datasets, [{"bytes": data, "path": None} for data in contents[:4]], labels, "ab"),
        "validation": table(datasets, [{"bytes": data, "path": None} for data in contents[4:]], labels, "ab"),
    }
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "set"))
    dataset = load(tmp_path / "set", tmp_path / "cache", size=9)
    expected = image_folders.load(tmp_path / "images", tmp_path / "cache", size=9)
    assert torch.equal(dataset.train.images, expected.train.images)
    assert dataset.content_key == expected.content_key


def test_a_folder_of_images_and_labels_of_numbers_and_text(datasets, tmp_path):
    images = pictures(8, (8, 8, 3))
    for name, labels, names in (("numbers", [7, 10] * 4, ("7", "10")), ("text", ["x", "a"] * 4, ("a", "x"))):
        (tmp_path / name).mkdir()
        part = datasets.Dataset.from_dict({"data": [encoded(image) for image in images], "kind": labels})
        part.to_parquet(str(tmp_path / name / "train.parquet"))
        dataset = load(tmp_path / name, tmp_path / "cache", image="data", label="kind")
        assert dataset.class_names == names
        assert (len(dataset.train), len(dataset.test)) == (6, 2)
    for number, image in enumerate(images):
        path = tmp_path / "folder" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    dataset = load(tmp_path / "folder", tmp_path / "cache")
    assert dataset.class_names == ("a", "b")
    assert len(dataset.train) == 6


def test_shards_of_a_web_dataset(datasets, tmp_path):
    import tarfile

    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "train-000.tar", "w") as archive:
        for number, image in enumerate(pictures(8, (8, 8, 3))):
            for suffix, content in (("png", encoded(image)), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:03}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    dataset = load(tmp_path / "shards", tmp_path / "cache", label="cls")
    assert dataset.class_names == ("0", "1")
    assert (len(dataset.train), len(dataset.test)) == (6, 2)


def test_a_test_split_without_labels_gives_way(datasets, tmp_path):
    images = pictures(4, (8, 8, 3))
    saved = {"train": table(datasets, images, [0, 1, 0, 1]), "test": table(datasets, images, [-1] * 4)}
    saved["validation"] = table(datasets, images[:2], [0, 1])
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "set"))
    told = []
    assert len(load(tmp_path / "set", tmp_path / "cache", notice=told.append).test) == 2
    assert "splits train and validation" in told[0]
    assert "not used: test" in told[0]
    error = refused(tmp_path / "set", tmp_path / "cache", test="test")
    assert error.what == "4 of the 4 rows of test have the label -1, which means none"
    assert "data.test=validation" in error.remedy


def test_images_without_labels_serve_pretraining_only(datasets, tmp_path):
    part = datasets.Dataset.from_dict(
        {"image": pictures(3, (8, 8))}, features=datasets.Features({"image": datasets.Image()})
    )
    part.save_to_disk(str(tmp_path / "set"))
    told = []
    dataset = load(tmp_path / "set", tmp_path / "cache", notice=told.append)
    assert dataset.train is None
    assert len(dataset.pretrain) == 3
    assert told == [
        f"{tmp_path / 'set'}: split train; column image; 3 images without labels, for pretraining only; "
        "one channel, repeated as red, green and blue"
    ]


def test_what_is_wrong_is_named(datasets, parts, tmp_path):
    saved, *_ = parts
    folder, cache = tmp_path / "set", tmp_path / "cache"
    saved.save_to_disk(str(folder))
    for changes, where, what in (
        (
            {"train": "training"},
            f"{folder}: data.train",
            "there is no split 'training'; did you mean train? Known: train, test",
        ),
        ({"test": "train"}, f"{folder}", "data.train and data.test are both train"),
        ({"image": "image"}, f"{folder}: data.image", "there is no column 'image'"),
        ({"image": "y"}, f"{folder}", "the column y holds no images, but ClassLabel"),
        ({"label": "img"}, f"{folder}", "the column img holds Image("),
    ):
        error = refused(folder, cache, **changes)
        assert error.where == where
        assert error.what.startswith(what)
    saved.map(lambda _: {"place": "x.png"}).save_to_disk(str(tmp_path / "paths"))
    assert refused(tmp_path / "paths", cache, image="place").remedy == (
        "Give data.image; of paths, save images: DATASET.cast_column('place', datasets.Image())."
    )
    assert refused(tmp_path / "none", cache).what == "there is no such folder"
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file", cache).what == "this is a file, not a folder"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", cache).what.startswith("this data set cannot be read: ")
    error = refused("no-one/nothing", cache)
    assert error.what.startswith("this data set cannot be read: Couldn't reach 'no-one/nothing' on the Hub")
    assert "./no-one/nothing" in error.remedy


def test_damage_is_named_by_split_and_row(datasets, tmp_path):
    images = [{"bytes": encoded(image), "path": None} for image in pictures(4, (8, 8, 3))]
    images[2] = {"bytes": images[2]["bytes"][:-30], "path": None}
    table(datasets, images, [0, 0, 1, 1]).save_to_disk(str(tmp_path / "set"))
    error = refused(tmp_path / "set", tmp_path / "cache")
    assert error.where == f"{tmp_path / 'set'}: row 2 of train"
    assert error.what.startswith("this image cannot be read")
    part = datasets.Dataset.from_dict({"img": [images[0]["bytes"], None], "y": ["a", None]})
    part.save_to_disk(str(tmp_path / "gaps"))
    error = refused(tmp_path / "gaps", tmp_path / "cache", image="img", label="y")
    assert error.what == "1 of the 2 rows of train have no label"


def test_other_images_are_not_taken_from_the_cache(datasets, tmp_path):
    keys = []
    for name in ("one", "two"):
        part = table(datasets, pictures(4, (8, 8, 3)), [0, 0, 1, 1])
        part.save_to_disk(str(tmp_path / name))
        (tmp_path / name).rename(tmp_path / "set")
        keys.append(load(tmp_path / "set", tmp_path / "cache").content_key)
        (tmp_path / "set").rename(tmp_path / f"{name}-old")
    assert keys[0] != keys[1]


def test_code_beside_the_data_is_never_run(datasets, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    table(datasets, pictures(4, (8, 8, 3)), [0, 0, 1, 1]).to_parquet(str(folder / "train.parquet"))
    assert "Dataset scripts are no longer supported" in refused(folder, tmp_path / "cache").what
    assert not (tmp_path / "sprung").exists()
