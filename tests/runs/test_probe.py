"""Probing a run: with few labels, on other images, and after fine-tuning; what is stored and found again."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cssl_cli.augment import build_augmentation
from cssl_cli.data.batches import ResidentImages
from cssl_cli.errors import InputError, RunError
from cssl_cli.features.probe.knn import knn_predict
from cssl_cli.host.progress import Silent
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.recipe import load_recipe
from cssl_cli.runs import memory, prober
from cssl_cli.runs import transfer as transferring
from cssl_cli.runs.loaded_encoder import load_encoder
from cssl_cli.runs.overrides import recipe_elsewhere, recipe_with
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import ENCODER, PROBE, RECIPE, RunDir
from cssl_cli.runs.setup import initial_method
from cssl_cli.runs.stored import Probe, Transfer, require
from cssl_cli.runs.transfer import transfer
from cssl_cli.train.finetune import finetune, num_steps
from tests.support.commands import TINY_RECIPE, Invoke
from tests.support.run_files import Told

CLASSIFIERS = ("linear", "knn", "nearest_center")
FINETUNE = "probe.finetune={epochs: 1, min_steps: 5, lr: 0.01}"


def probed(run: Path, *overrides: str) -> dict[str, Any]:
    recipe = recipe_with(overrides, run)
    return json.loads(json.dumps(probe(run, reporter=Silent(), recipe=recipe, again=False), allow_nan=False))


def without(scores: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name not in names}


@pytest.fixture(scope="module")
def with_few(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run probed with few labels and fine-tuned; tests that change it work on copies."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("few") / trained.name))
    probed(run, "probe.label_fraction=[0.1, 1]", "probe.shots=[1]", "probe.draws=2", FINETUNE)
    return run


# ---------------------------------------------------------------------- few labels
def test_few_labels_change_nothing_else_and_all_labels_are_what_they_were(trained: Path, with_few: Path) -> None:
    before = json.loads((trained / PROBE).read_text())
    now = json.loads((with_few / PROBE).read_text())
    for encoder in ("trained", "untrained", "pixels"):
        for classifier in CLASSIFIERS:
            scores = now[encoder][classifier]
            assert without(scores, "few_labels") == before[encoder][classifier]
            tenth, whole, shot = scores["few_labels"]
            assert whole["accuracies"] == [before[encoder][classifier]["accuracy"]]
            assert (tenth["labelled_images"], whole["labelled_images"], shot["labelled_images"]) == (26, 256, 10)
            assert (tenth["n"], whole["n"]) == (2, 1)
    added = {"label_fraction": [0.1, 1.0], "shots": [1], "draws": 2}
    assert without(now["settings"], *added, "finetune") == before["settings"]
    assert {name: now["settings"][name] for name in added} == added


def test_accuracies_of_earlier_versions_are_found_as_before(trained: Path, with_few: Path) -> None:
    run, recipe = RunDir(with_few), load_recipe(str(with_few / RECIPE))
    settings = recipe.settings("probe")
    assert settings.keys().isdisjoint({"label_fraction", "shots", "draws", "finetune"})
    assert recipe_with(["probe.draws=9"], with_few).settings("probe") == settings  # type: ignore[union-attr]
    assert recipe_with(["probe.shots=[1]"], with_few).settings("probe")["draws"] == 5  # type: ignore[union-attr]
    kept = run.read_result(PROBE, settings)
    assert kept is not None
    assert kept == RunDir(trained).latest_result(PROBE)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("linear", "few_labels", 0, "accuracy"), "0.5", "few_labels.0.accuracy"),
        (("linear", "few_labels", 0, "interval"), [0.1], "few_labels.0.interval"),
        (("linear", "few_labels", 0, "shots"), 3, "few_labels.0: it is not of either"),
        (("linear", "few_labels"), [], "of different numbers of labelled images"),
        (("knn", "top_5"), {"accuracy": 1}, "knn.top_5.interval: field required"),
        (("finetune", "steps"), None, "finetune.steps"),
        (("finetune", "per_class"), {}, "of different classes"),
    ],
)
def test_entries_of_another_form_are_damage(
    with_few: Path, tmp_path: Path, place: tuple[str | int, ...], value: Any, said: str
) -> None:
    run = RunDir(Path(shutil.copytree(with_few, tmp_path / with_few.name)))
    content = run.read_json(PROBE)
    assert content is not None
    at = content["trained"]
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    run.write_json(PROBE, content)
    with pytest.raises(InputError, match=re.escape(said)):
        run.latest_result(PROBE)


def test_encoders_measured_otherwise_than_one_another_are_damage(with_few: Path) -> None:
    stored = json.loads((with_few / PROBE).read_text())
    for change, said in (
        (lambda it: [it["pixels"][name].pop("few_labels") for name in CLASSIFIERS], "of different numbers of labelled"),
        (lambda it: it["untrained"]["finetune"].pop("few_labels"), "of different numbers of labelled"),
        (lambda it: it["untrained"].pop("finetune"), "one encoder is fine-tuned"),
        (lambda it: it["settings"].pop("finetune"), "do not say how it was fine-tuned"),
    ):
        content = copy.deepcopy(stored)
        change(content)
        with pytest.raises(ValueError, match=said):
            require(Probe, content)


def test_the_report_fits_and_says_what_was_drawn(
    with_few: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cssl_cli.runs.probe.probe", lambda path, **_: RunDir(path).latest_result(PROBE))
    monkeypatch.setenv("COLUMNS", "80")
    done = invoke("probe", with_few)
    assert done.code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    result = json.loads((with_few / PROBE).read_text())
    tenth = result["untrained"]["knn"]["few_labels"][0]
    shown = f"{100 * tenth['accuracy']:.1f}  [{100 * tenth['interval'][0]:.1f}, {100 * tenth['interval'][1]:.1f}]"
    rows = done.stdout.split("10 % (26 images)")[1].split("100 % (256 images)")[0]
    assert re.search(rf"untrained .*{re.escape(shown)}", rows), done.stdout
    said = " ".join(done.stdout.split())
    assert "means over 2 draws of the labelled images, and 95 % intervals" in said
    assert "drawn class by class (all of one that has fewer)" in said  # not: as many of each
    assert re.search(r"labels +pretrained +from scratch", done.stdout)
    assert "for 1 epoch, at least 5 steps (5 with all labels)" in said
    assert "1 shot (10 images)" in said


# ---------------------------------------------------------------------- fine-tuning
def test_fine_tuning_is_the_same_again_and_leaves_the_encoder(trained: Path, with_few: Path, run: Path) -> None:
    first = json.loads((with_few / PROBE).read_text())
    assert (with_few / ENCODER).read_bytes() == (trained / ENCODER).read_bytes()
    again = probed(run, FINETUNE)
    for encoder in ("trained", "untrained"):
        found = first[encoder]["finetune"]
        assert without(found, "few_labels") == again[encoder]["finetune"]
        assert (found["selection"], found["steps"], found["num_images"]) == ("last_epoch", 5, 100)
        assert [entry["steps"] for entry in found["few_labels"]] == [[5, 5], [5], [5, 5]]
        assert found["few_labels"][1]["accuracies"] == [found["accuracy"]]
    assert first["trained"]["finetune"]["per_class"] != first["untrained"]["finetune"]["per_class"]
    assert "finetune" not in first["pixels"]
    of_recipe = probed(run, f"{FINETUNE[:-1]}, views: recipe}}")
    assert of_recipe["trained"]["finetune"]["per_class"] != again["trained"]["finetune"]["per_class"]


def trained_on(images: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor, **changes: Any) -> Any:
    """An encoder fine-tuned on images, and its classifier."""
    settings = {"epochs": 60, "min_steps": 1, "batch_size": 10, "lr": 0.02, "weight_decay": 0.0} | changes
    encoder = build_encoder({"name": "small", "width": 2})
    materialize(encoder, stream(0, "init"))
    steps = []
    head = finetune(
        encoder,
        ResidentImages(images),
        labels,
        rows,
        3,
        build_augmentation(prober.CROP_AND_FLIP, image_size=8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        settings=settings,
        device=torch.device("cpu"),
        generator=stream(0, "fine"),
        advance=steps.append,
    )
    assert len(steps) == num_steps(len(rows), settings)
    return encoder, head


def test_fine_tuning_learns_what_its_rows_say() -> None:
    # Images of one brightness each; the labels of the images outside the rows are wrong, and must not be seen.
    classes = torch.arange(60) % 3
    images = (40 + 80 * classes).byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    rows = torch.arange(30)
    labels = torch.where(torch.arange(60) < 30, classes, (classes + 1) % 3)
    encoder, head = trained_on(images, labels, rows)
    assert not encoder.training
    logits = head(encoder((images.float() / 255 - 0.5) / 0.25))
    assert logits.argmax(dim=1).tolist() == classes.tolist()
    untouched, _ = trained_on(images, labels, rows, epochs=1, lr=1e-12)
    moved = [not torch.allclose(a, b) for a, b in zip(encoder.parameters(), untouched.parameters(), strict=True)]
    assert all(moved)


def test_steps_are_full_batches_and_at_least_so_many() -> None:
    settings = {"epochs": 3, "min_steps": 10, "batch_size": 16}
    assert [num_steps(images, settings) for images in (2, 16, 100, 1600)] == [10, 10, 18, 300]


def test_a_loss_that_is_no_number_ends_in_a_sentence() -> None:
    images, labels = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8), torch.arange(32) % 3
    with pytest.raises(RunError, match=r"the loss of fine-tuning became (nan|inf).*\n.*probe\.finetune\.lr"):
        trained_on(images, labels, torch.arange(32), lr=1e30)


def test_an_interrupted_measurement_leaves_everything_as_it_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setattr(prober, "finetune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probed(run, FINETUNE)
    with pytest.raises(KeyboardInterrupt):
        transferred(run, "shapes", "data.num_train=64", "data.num_test=40", FINETUNE)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_batch_that_does_not_fit_is_refused_before_it_is_tried(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2.0**19)
    with pytest.raises(InputError, match="does not fit in memory") as caught:
        probed(run, FINETUNE)
    assert caught.value.where == "probe.finetune.batch_size"


@pytest.mark.parametrize("method", ["{name: moco, queue: 128, batch_norm_splits: 4, projector: [16, 8]}"])
def test_an_encoder_that_was_trained_in_parts_is_fine_tuned_whole(tmp_path: Path, method: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    recipe = load_recipe(str(tmp_path / "tiny.yaml"), [f"method={method}", "train.micro_batch=16"])
    encoder = initial_method(recipe).encoder
    plain = prober.plain_encoder(recipe, encoder.state_dict(), channels=3).train()
    assert plain(torch.randn(7, 3, 16, 16)).shape == (7, encoder.num_features)
    assert all(
        torch.equal(one, plain.state_dict()[name])
        for name, one in encoder.state_dict().items()
        if "running" not in name and "num_b" not in name
    )


# ---------------------------------------------------------------------- transfer
def transferred(run: Path, data: str, *overrides: str, told: Told | None = None, **options: Any) -> dict[str, Any]:
    recipe, elsewhere = recipe_elsewhere(data, overrides, run)
    return transfer(run, elsewhere=elsewhere, recipe=recipe, reporter=told or Silent(), **options)


def test_transfer_to_the_runs_own_images_is_the_probe_itself(run: Path) -> None:
    # The drawn shapes are prepared at the encoder's 16 pixels, though the data set's own default is 32.
    found = transferred(run, "shapes", "data.num_train=256", "data.num_test=100")
    own = RunDir(run).latest_result(PROBE)
    assert own is not None
    assert found["content_key"] == own["content_key"]
    assert [found[encoder] for encoder in ("trained", "untrained", "pixels")] == [
        own[encoder] for encoder in ("trained", "untrained", "pixels")
    ]
    assert found["transfer"]["image_size"] == found["transfer"]["original_size"] == 16
    require(Transfer, found)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 24 pixels a side in a file, of a darker and a brighter class that overlap."""
    random = np.random.default_rng(0)
    labels = np.arange(160) % 2
    brightness = random.normal(100 + 30 * labels, 25)[:, None, None, None]
    images = np.clip(random.normal(brightness, 25, (160, 24, 24, 3)), 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("blobs") / "blobs.npz"
    np.savez(path, train_images=images[:60], train_labels=labels[:60], test_images=images[60:], test_labels=labels[60:])
    return path


def test_other_images_are_brought_to_what_the_encoder_saw(run: Path, blobs: Path) -> None:
    found = transferred(run, "arrays", f"data.file={blobs}", "data.size=24", "probe.knn_k=3")
    assert (found["transfer"]["image_size"], found["transfer"]["original_size"]) == (16, 24)
    encoder = load_encoder(run, reporter=Silent())
    assert found["transfer"]["mean"] == pytest.approx(encoder.mean.flatten().tolist())

    arrays = {name: torch.from_numpy(array) for name, array in np.load(blobs).items()}

    def accuracy(scale: float) -> float:
        """With images of `scale` times the deviation from the mean that the encoder's file says."""
        features = {}
        for name in ("train_images", "test_images"):
            images = arrays[name].permute(0, 3, 1, 2).float()
            small = (
                torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True).round() / 255
            )
            features[name] = encoder(encoder.mean + scale * (small - encoder.mean))
        train, test = features.values()
        predicted = knn_predict(train, arrays["train_labels"], test, k=3, temperature=0.1, num_classes=2)
        return (predicted == arrays["test_labels"]).double().mean().item()

    assert found["trained"]["knn"]["accuracy"] == accuracy(1.0) != accuracy(2.0)
    assert list(found["trained"]["knn"]["per_class"]) == ["0", "1"]


def test_what_was_measured_is_read_again_unless_it_is_damaged(
    run: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, told = transferred(run, "arrays", f"data.file={blobs}"), Told()
    (file,) = RunDir(run).transfers()
    assert file.startswith("transfer/arrays-")
    (run / file).write_text((run / file).read_text().replace('"accuracy": ', '"accuracy": 1', 1))
    second = transferred(run, "arrays", f"data.file={blobs}", told=told)
    assert second == first
    assert any("checksum" in said and "made again" in said for said in told.said)
    content = {**first, "settings": {**first["settings"], "knn_k": 7}}
    RunDir(run).write_json(file, content)
    assert transferred(run, "arrays", f"data.file={blobs}", told=told) == first
    assert any("its settings is another" in said for said in told.said)
    with monkeypatch.context() as patch:
        patch.setattr(transferring, "Prober", None)
        assert transferred(run, "arrays", f"data.file={blobs}", told=told) == first
    assert told.said[-1].startswith("measured before, and read from ")
    assert len(RunDir(run).transfers()) == 1
    transferred(run, "arrays", f"data.file={blobs}", "probe.shots=[2]")
    assert len(RunDir(run).transfers()) == 2
    recipe = load_recipe(str(run / RECIPE))
    shutil.copytree(run, run.parent / "x" / run.name)
    pretrain(recipe, out=run.parent, reporter=Silent(), restart=True)
    assert RunDir(run).transfers() == []


def test_images_of_a_recipe_and_images_that_cannot_be_used(
    invoke: Invoke, run: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.yaml").write_text(
        TINY_RECIPE.replace(
            "{name: shapes, num_train: 256, num_test: 100, size: 16}", f"{{name: arrays, file: {blobs}}}"
        )
    )
    monkeypatch.setenv("COLUMNS", "80")
    done = invoke("probe", run, "--data", "other.yaml", "data.size=20", "probe.knn_k=3")
    assert done.code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[2:])) <= 80
    said = " ".join(done.stdout.split())
    assert said.startswith("Transfer to arrays, /")
    assert "Images brought from 20 to 16 pixels a side, normalised with the mean" in said
    assert "k = 3" in said
    assert "Next:" not in said
    content = json.loads(invoke("probe", run, "--data", "other.yaml", "data.size=20", "probe.knn_k=3", "--json").stdout)
    assert content == RunDir(run).read_json(RunDir(run).transfers()[0])

    np.savez(tmp_path / "bare.npz", images=np.load(blobs)["train_images"])
    np.savez(tmp_path / "f.npz", features=np.eye(3))
    for arguments, words in (
        ((run, "--data", "arrays", "data.file=bare.npz"), "no labelled train images"),
        ((run, "--data", "arrays"), "--data arrays: data.file is required"),
        ((run, "--data", "shaeps"), "unknown data set or recipe 'shaeps'"),
        ((run, "--data", "quickstart"), "quickstart is a sweep, not a recipe"),
        ((run, "--data", "shapes", "train.epochs=9"), "would change the encoder"),
        (("f.npz", "--data", "shapes"), "--data: features from a file are measured as they are"),
        (("f.npz", "probe.finetune={}"), "fine-tuning needs the encoder and the images"),
    ):
        refused = invoke("probe", *arguments)
        assert (refused.code, refused.stdout) == (2, ""), words
        assert words in refused.stderr
    monkeypatch.setattr(transferring, "facts_of_images", lambda run: {"mean": [0.5], "std": [0.2]})  # of an older run
    refused = invoke("probe", run, "--data", "other.yaml")
    assert refused.code == 2
    assert "have 3 channels, and the encoder was trained on images of 1\n  Give images of 1 channel" in refused.stderr
