"""Images of other kinds through whole runs: stored larger than the encoder sees them, gray, of many channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cssl_cli.augment import clean_views, normalize
from cssl_cli.data import known_images
from cssl_cli.errors import InputError
from cssl_cli.features.patches import PatchFeatures
from cssl_cli.host.progress import Silent
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs import contact_sheet
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.brief_training import BriefTraining
from cssl_cli.runs.contact_sheet import draw_views
from cssl_cli.runs.finished import untrained_encoder
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.loaded_encoder import load_encoder
from cssl_cli.runs.outlook import outlook
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.rank import Candidate, rank
from cssl_cli.runs.run_dir import ENCODER
from cssl_cli.runs.setup import make_augmentation, make_extractor
from cssl_cli.runs.views import gather
from tests.support.commands import Invoke

CPU = torch.device("cpu")
RECIPE = """
name: tiny
data: {name: shapes, num_train: 40, num_test: 20, size: 16}
augment: {crop: {scale: [0.3, 1.0]}, flip: {}, jitter: {}, gray: {}, blur: {}, solarize: {}, cutout: {}}
encoder: {name: small, width: 4}
method: {name: simclr, projector: [8, 4]}
optim: {name: sgd, lr: 0.01}
train: {epochs: 1, batch_size: 8}
probe: {knn_k: 2, center_views: 2, penalties: [0.1]}
analyze: {num_images: 20, num_views: 3, bootstrap: 20, refine_pairs: 4, distances: [pixels, trained], epsilons: [0.5]}
"""
COLOURLESS = ("augment.jitter={saturation: 0, hue: 0}", "augment.gray=null")


def recipe(folder: Path, *overrides: str) -> Recipe:
    (folder / "tiny.yaml").write_text(RECIPE)
    return load_recipe(str(folder / "tiny.yaml"), overrides)


def arrays(path: Path, *shape: int, number: int = 60) -> str:
    """A file of images of two classes that differ in brightness, and the override that names it."""
    labels = np.arange(number) % 2
    noise = np.random.default_rng(0).integers(0, 128, (number, *shape))
    images = (noise + 100 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8)
    np.savez(path, images=images, labels=labels)
    return f"data={{name: arrays, file: {path}}}"


def run(chosen: Recipe, out: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Accuracies, terms and the directory of a run."""
    directory = pretrain(chosen, out=out, reporter=Silent()).path
    accuracies = probe(directory, reporter=Silent(), device_name="cpu")
    terms = analyze(directory, reporter=Silent(), device_name="cpu")
    assert accuracies["trained"]["linear"]["accuracy"] is not None
    assert terms["concentration"]["pixels"]["refined_within_median"]["value"] is not None
    return accuracies, terms, directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSSL_CACHE", str(tmp_path / "cache"))


# ---------------------------------------------------------------------- stored larger than they are seen
def test_stored_at_their_own_size_nothing_changes_but_the_name_of_the_run(tmp_path: Path) -> None:
    plain, stored = recipe(tmp_path), recipe(tmp_path, "data.store_size=16")
    assert plain.fingerprint != stored.fingerprint
    weights = [pretrain(one, out=tmp_path, reporter=Silent()).load_weights(ENCODER) for one in (plain, stored)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_folder_of_photographs_is_seen_through_crops_of_what_is_stored(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(24):
        width, height = generator.integers(50, 90, 2)
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = tmp_path / "photographs" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path)
    data = f"data={{name: folder, root: {tmp_path / 'photographs'}, size: 32, store_size: 48}}"
    chosen = recipe(tmp_path, data, "train.batch_size=6", "analyze.num_images=4")
    dataset = prepare_data(chosen, Silent())
    assert dataset.pretrain.images.shape[1:] == (3, 48, 48)
    accuracies, terms, directory = run(chosen, tmp_path / "runs")
    assert accuracies["pixels"]["linear"]["accuracy"] is not None
    assert terms["num_images"] == 4
    # What is measured on are views of the side that the encoder sees.
    encoder = load_encoder(directory, reporter=Silent(), device_name="cpu")
    assert dataset.test is not None
    clean = make_augmentation(chosen, dataset).clean(dataset.test.images)
    assert clean.shape[-1] == 32
    assert encoder(clean).shape == (4, encoder.num_features)
    for unfit in (clean[:, :1], clean[0], (255 * clean).int()):
        with pytest.raises(ValueError, match="expected"):
            encoder(unfit)


def test_every_measurement_sees_the_clean_view(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "data.size=8", "data.store_size=16", "augment={}")
    dataset = prepare_data(chosen, Silent())
    material = gather(chosen, dataset, chosen.settings("analyze"), CPU)
    clean = clean_views(material.images, 8)
    assert (clean.shape, material.images.shape) == ((20, 3, 8, 8), (20, 3, 16, 16))
    rows = torch.arange(20)
    assert torch.equal(material.views(rows)[:, 0], clean)
    encoder = untrained_encoder(chosen, 3)
    for extractor, expected in (
        (make_extractor(None, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=8, device=CPU), clean.flatten(1)),
        (material.extractor(encoder), encoder.eval()(normalize(clean, dataset.mean, dataset.std))),
    ):
        torch.testing.assert_close(extractor.clean(material.images), expected, atol=1e-5, rtol=0)
        table = extractor.view_table(material.images, material.augmentation, material.theta)
        torch.testing.assert_close(table[:, 0], expected, atol=1e-5, rtol=0)
    of_stored = PatchFeatures.fit(material.images, stream(0, "patches"), image_size=8)
    of_clean = PatchFeatures.fit((255 * clean).round().byte(), stream(0, "patches"), image_size=8)
    torch.testing.assert_close(of_stored(clean), of_clean(clean), atol=0.2, rtol=0)  # the pixels were rounded
    assert dataset.pretrain.labels is not None
    labels = dataset.pretrain.labels
    brief = BriefTraining.on(dataset.pretrain.images, torch.arange(40), labels, dataset, [0], CPU)
    assert torch.equal(brief.images, (255 * clean_views(dataset.pretrain.images, 8)).round().byte())
    assert brief.original_side == 8


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.store_size=8",), "data.store_size is less than data.size, 16; give at least that"),
        (("data={name: arrays, file: x.npz, store_size: 16}",), "data.store_size needs data.size"),
        (("data={name: folder, root: x, channels: 2}",), "data.channels is 2; must be 1 or 3"),
    ],
)
def test_sizes_and_channels_that_do_not_go_are_refused(tmp_path: Path, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as refused:
        recipe(tmp_path, *overrides)
    assert said in str(refused.value)


# ---------------------------------------------------------------------- channels
@pytest.mark.parametrize(("shape", "sizes"), [((10, 10), ""), ((4, 10, 10), ", size: 8, store_size: 10")])
def test_gray_images_and_those_of_many_channels(tmp_path: Path, shape: tuple[int, ...], sizes: str) -> None:
    data = arrays(tmp_path / "x.npz", *shape)
    chosen = recipe(tmp_path, data.replace("}", f"{sizes}}}"), *COLOURLESS)
    accuracies, terms, directory = run(chosen, tmp_path / "runs")
    channels = 1 if len(shape) == 2 else 4
    assert accuracies["trained"]["linear"]["accuracy"] > 0.6
    assert terms["trained"]["lipschitz"]["spectral_product"]["value"] is not None
    loaded = load_encoder(directory, reporter=Silent(), device_name="cpu")
    assert loaded(torch.zeros(2, channels, 8, 8)).shape == (2, 32)
    assert len(loaded.mean) == channels
    rows = rank([Candidate("x", chosen)], reporter=Silent(), num_images=48, device_name="cpu")["rows"]
    assert rows[0]["share"]["value"] is not None
    draw_views(chosen, tmp_path / "views.png", reporter=Silent(), device_name="cpu", num_views=2)
    assert Image.open(tmp_path / "views.png").mode == "RGB"


def test_a_contact_sheet_says_which_channels_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda *_, title, **__: titles.append(title))
    for channels in (1, 2, 3, 4):
        chosen = recipe(tmp_path, arrays(tmp_path / "x.npz", channels, 9, 10), *COLOURLESS)
        draw_views(chosen, tmp_path / "views.png", reporter=Silent(), device_name="cpu", num_views=1)
    assert titles == ["tiny", "tiny (the first of 2 channels)", "tiny", "tiny (the first three of 4 channels)"]


def test_a_contact_sheet_among_the_images_of_a_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    chosen = recipe(tmp_path, f"data={{name: huggingface, path: {tmp_path / 'set'}}}")
    with pytest.raises(InputError, match="in the folder of the images"):
        draw_views(chosen, tmp_path / "set" / "views.png", reporter=Silent(), device_name="cpu")


def test_colour_operations_without_colours_list_all_that_is_to_be_dropped(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, arrays(tmp_path / "x.npz", 4, 8, 8))
    with pytest.raises(InputError) as refused:
        pretrain(chosen, out=tmp_path / "runs", reporter=Silent())
    assert refused.value.exit_code == 2
    assert refused.value.what == "jitter and gray mix red, green and blue, and the images have 4 channels"
    assert refused.value.remedy is not None
    assert refused.value.remedy.startswith("Drop them: augment.jitter=null augment.gray=null. Or leave jitter its")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "none").mkdir()
    gray = recipe(tmp_path, f"data={{name: folder, root: {tmp_path / 'none'}, channels: 1}}", "augment.gray=null")
    with pytest.raises(InputError, match="jitter mix"):  # before it is noticed that there are no images
        prepare_data(gray, Silent())


def test_a_folder_in_gray_has_the_luma_of_its_colours(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    data = f"data={{name: folder, root: {tmp_path / 'images'}, size: 9, channels: 1, test_fraction: 0.34}}"
    dataset = prepare_data(recipe(tmp_path, data, *COLOURLESS), Silent())
    assert dataset.test is not None
    found = {image.tobytes() for part in (dataset.pretrain, dataset.test) for image in part.images.numpy()}
    assert found == {np.asarray(Image.fromarray(image).convert("L")).tobytes() for image in pixels}


def test_weights_for_other_channels_are_refused_by_the_number(tmp_path: Path) -> None:
    trained = pretrain(recipe(tmp_path), out=tmp_path / "runs", reporter=Silent())
    data = arrays(tmp_path / "x.npz", 8, 8)
    chosen = recipe(tmp_path, data, *COLOURLESS, f"encoder.weights={trained.file(ENCODER)}")
    with pytest.raises(InputError, match="of another shape") as refused:
        pretrain(chosen, out=tmp_path / "other", reporter=Silent())
    assert refused.value.remedy == "It takes images of 3 channels, and those of the recipe have 1."


# ---------------------------------------------------------------------- before anything is read
def test_the_dry_run_tells_bytes_and_operations(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    words = ("pretrain", tmp_path / "tiny.yaml", "data.store_size=24", "--dry-run")
    shown = invoke(*words)
    assert "60 images, stored as 3 x 24 x 24 bytes each: 0.1 MB" in shown.stdout
    told = json.loads(invoke(*words, "--json").stdout)
    assert (told["num_images"], told["bytes_of_image"], told["bytes_of_images"]) == (60, 1728, 103_680)
    # 9 taps of each convolution at 16, 8, 4 and 2 pixels a side; two operations each.
    pairs = zip((3, 4, 8, 16), (4, 8, 16, 32), (16, 8, 4, 2), strict=True)
    assert told["gflop_of_image"] == pytest.approx(sum(2 * 9 * a * b * side**2 for a, b, side in pairs) / 1e9)
    assert told["warnings"] == []


def test_the_small_stem_is_warned_of_where_images_are_large(tmp_path: Path) -> None:
    resnet = ("encoder={name: resnet18, width: 8}", "data={name: folder, root: x, size: 97}")
    found = outlook(recipe(tmp_path, *resnet))
    assert found.num_images is None
    assert found.bytes_of_image == 3 * 97**2
    (warning,) = found.warnings
    assert "encoder.stem=imagenet an image would take" in warning
    assert outlook(recipe(tmp_path, *resnet, "encoder.stem=imagenet")).warnings == []
    assert outlook(recipe(tmp_path, *resnet, "data.size=96")).warnings == []


def test_a_dry_run_tells_of_a_batch_that_is_larger_than_the_set() -> None:
    few = ["data.num_train=60", "data.num_test=20"]
    (warning,) = outlook(load_recipe("simclr-shapes", few)).warnings
    assert "128 images, and there are 80" in warning
    assert (
        outlook(
            load_recipe("simclr-shapes", [*few, f"train.batch_size={warning.split('=')[1].split(',')[0]}"])
        ).warnings
        == []
    )


def test_what_is_known_of_a_source_before_it_is_read_is_what_is_read(tmp_path: Path) -> None:
    for shape in ((9, 11), (9, 11, 3)):
        chosen = recipe(tmp_path, arrays(tmp_path / "x.npz", *shape), *COLOURLESS)
        known, dataset = known_images(chosen.settings("data")), prepare_data(chosen, Silent())
        assert dataset.test is not None
        assert known.num_images == len(dataset.pretrain) + len(dataset.test)
        assert (known.channels, known.image_size, known.store_size) == (dataset.channels, dataset.image_size, 9)
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / f"{number}.png")
    assert (
        known_images(
            recipe(tmp_path, f"data={{name: folder, root: {tmp_path / 'images'}}}").settings("data")
        ).num_images
        == 9
    )
