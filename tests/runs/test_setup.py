"""The wiring: the untrained baseline, the images a run belongs to, the kind of precision, and what goes where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from cssl_cli.data.batches import ResidentImages, StreamedImages
from cssl_cli.errors import InputError, RunError
from cssl_cli.host.progress import Silent
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs import analyze as analyzing
from cssl_cli.runs import pretrain as pretraining
from cssl_cli.runs import trainer as trainers
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.device import choose_precision
from cssl_cli.runs.finished import trained_part, untrained_encoder
from cssl_cli.runs.images import place_images, prepare_data
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import ENCODER, RunDir
from cssl_cli.runs.views import Material, gather
from cssl_cli.theory.estimate import Estimate
from cssl_cli.theory.lipschitz.bounds import local_jacobian_norm
from cssl_cli.train.loop import Trainer
from tests.support.commands import QUICKLY_MEASURED


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text(QUICKLY_MEASURED)
    return load_recipe(str(path), overrides)


# ---------------------------------------------------------------------- the untrained encoder
def test_initial_weights_and_jacobians_load_no_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    """sympy, which takes more than a second of every process that trains or analyzes."""
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)  # importing it fails
    encoder = materialize(build_encoder({"name": "small", "width": 2}), stream(0, "init"))
    found = local_jacobian_norm(
        encoder, torch.rand(2, 3, 8, 8), [0.5] * 3, [0.2] * 3, steps=2, generator=stream(0, "lipschitz")
    )
    assert isinstance(found["local_jacobian_largest"], Estimate)


def test_the_untrained_encoder_is_the_one_a_run_starts_from(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "train.checkpoint_minutes=0")
    starts = []

    class Starting(Trainer):
        def run(self):
            starts.append({name: tensor.clone() for name, tensor in self.method.encoder.state_dict().items()})
            return super().run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers, "Trainer", Starting)
        pretrain(chosen, out=tmp_path / "runs", reporter=Silent())
    untrained = untrained_encoder(chosen, 3).state_dict()
    assert starts[0].keys() == untrained.keys()
    assert all(torch.equal(starts[0][name], untrained[name]) for name in untrained)


@pytest.mark.parametrize(
    "method",
    [
        "{name: moco, queue: 200, batch_norm_splits: 4, projector: [16, 8]}",
        "{name: simsiam, projector: [16, 16], predictor: 4}",
    ],
)
def test_encoder_and_projector_of_other_layers_are_taken_up_and_measured(tmp_path: Path, method: str) -> None:
    chosen = recipe(tmp_path, f"method={method}", "train.epochs=1")
    run = pretrain(chosen, out=tmp_path, reporter=Silent())
    assert set(run.load_weights(ENCODER)) == set(untrained_encoder(recipe(tmp_path), 3).state_dict())
    result = analyze(run.path, reporter=Silent())
    assert {"trained", "projector", "untrained"} <= set(result)


# ---------------------------------------------------------------------- a run and its images
def write_folder(folder: Path, shade: int = 0) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        path = folder / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 200, (16, 16, 3), dtype=np.uint8) + np.uint8(shade)).save(path)


def test_a_finished_run_is_not_measured_on_other_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    folder = f"data={{name: folder, root: {tmp_path / 'images'}, size: 16}}"
    run = pretrain(
        recipe(tmp_path, folder, "train.batch_size=16", "analyze.classes=null"), out=tmp_path, reporter=Silent()
    )
    first = probe(run.path, reporter=Silent())
    assert first["content_key"] == json.loads((run.path / "environment.json").read_text())["content_key"]
    write_folder(tmp_path / "images", shade=30)
    for measure in (probe, analyze):
        with pytest.raises(InputError, match="images are not those"):
            measure(run.path, reporter=Silent())
    assert run.read_json("probe.json") == json.loads(json.dumps(first))


def test_images_that_cannot_be_had_leave_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        pretrain(recipe(tmp_path, "data={name: folder, root: gone}"), out=tmp_path / "runs", reporter=Silent())
    with pytest.raises(InputError, match="batch"):
        pretrain(recipe(tmp_path, "train.batch_size=1000"), out=tmp_path / "runs", reporter=Silent())
    assert not (tmp_path / "runs").exists()


def test_the_exported_encoder_is_the_trained_one(tmp_path: Path) -> None:
    chosen = recipe(tmp_path)
    run = pretrain(chosen, out=tmp_path, reporter=Silent())
    loaded = trained_part(run, chosen, "encoder").state_dict()
    checkpoint = RunDir.open(run.path).load_checkpoint()
    assert checkpoint is not None
    for name, tensor in loaded.items():
        assert torch.equal(tensor, checkpoint["trainer"]["method"][f"encoder.{name}"])
    assert checkpoint["trainer"]["step"] == run.status()["step"] == 12


def test_the_exported_file_names_the_normalisation_it_was_trained_with(tmp_path: Path) -> None:
    chosen = recipe(tmp_path)
    run = pretrain(chosen, out=tmp_path, reporter=Silent())
    with safe_open(run.path / "encoder.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["cssl"])
    images = prepare_data(chosen, Silent()).pretrain.images.double() / 255
    assert facts["mean"] == pytest.approx(images.mean(dim=(0, 2, 3)).tolist())
    assert facts["std"] == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist())


def test_terms_are_measured_on_test_images_clean_view_first(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "analyze.classes=null", "analyze.num_images=20")
    run = pretrain(chosen, out=tmp_path, reporter=Silent())
    analyze(run.path, reporter=Silent(), export=tmp_path / "table.npz")
    table = np.load(tmp_path / "table.npz")
    data = prepare_data(chosen, Silent())
    assert data.test is not None
    encoder = trained_part(run, chosen, "encoder").eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    with torch.inference_mode():
        clean = nn.functional.normalize(encoder((data.test.images.float() / 255 - mean) / std))
    # Each exported image is one of the test images, and its label is that image's.
    similarity = torch.from_numpy(table["features"][:, 0]).float() @ clean.T
    nearest = similarity.argmax(dim=1)
    assert similarity.amax(dim=1).min() > 1 - 1e-5
    assert torch.equal(data.test.labels[nearest], torch.from_numpy(table["labels"]))


def test_small_distances_survive_the_scaling_to_unit_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe(tmp_path, "analyze.distances=[trained]")
    run = pretrain(chosen, out=tmp_path, reporter=Silent())
    made = {}

    def close_together(extractor: object, material: Material, what: str, reporter: object) -> torch.Tensor:
        random = torch.Generator().manual_seed(0)
        width = chosen.encoder.width * 8
        one = torch.rand(width, generator=random) + 0.5
        shape = (len(material.images), material.num_views, width)
        made[what] = one + 1e-5 * torch.randn(shape, generator=random)
        return made[what]

    monkeypatch.setattr(analyzing, "feature_table", close_together)
    found = analyze(run.path, reporter=Silent())
    labels = gather(chosen, prepare_data(chosen, Silent()), found["settings"], torch.device("cpu")).labels
    assert labels is not None
    features = made["features of the trained encoder"].double().numpy()
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    pairs = [(i, j) for i in range(len(labels)) for j in range(i) if labels[i] == labels[j]]
    nearest = [np.linalg.norm(features[i][:, None] - features[j], axis=2).min() for i, j in pairs]
    assert max(nearest) < 1e-4
    quantiles = found["concentration"]["trained"]["within_quantiles"]["value"]
    for level, value in quantiles.items():
        assert value == pytest.approx(np.quantile(nearest, float(level)), rel=1e-6)


def test_after_an_infinite_loss_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "train.checkpoint_minutes=0", "train.precision=float32")
    make = pretraining.make_trainer

    def poisoned(*arguments: object, **named: object) -> Trainer:
        trainer = make(*arguments, **named)  # type: ignore[arg-type]
        forward = trainer.method.forward

        def fail_at_step_six(view_1: torch.Tensor, view_2: torch.Tensor) -> dict[str, torch.Tensor]:
            terms = forward(view_1, view_2)
            return {name: value * (torch.nan if trainer.step == 5 else 1) for name, value in terms.items()}

        trainer.method.forward = fail_at_step_six  # type: ignore[method-assign]
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "make_trainer", poisoned)
        with pytest.raises(RunError, match="at step 6"):
            pretrain(chosen, out=tmp_path / "runs", reporter=Silent())
    (path,) = (tmp_path / "runs").iterdir()
    checkpoint = RunDir.open(path).load_checkpoint()
    assert checkpoint is not None
    assert checkpoint["trainer"]["step"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["trainer"]["method"].values())
    # The cause removed, the run goes on from there and ends as if it had never failed.
    run = pretrain(chosen, out=tmp_path / "runs", reporter=Silent())
    undisturbed = pretrain(chosen, out=tmp_path / "undisturbed", reporter=Silent())
    for name, tensor in run.load_weights(ENCODER).items():
        assert torch.equal(tensor, undisturbed.load_weights(ENCODER)[name])


# ---------------------------------------------------------------------- device and precision
def test_precision_follows_the_recipe_and_auto_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    for has_it, expected in [(True, torch.bfloat16), (False, torch.float32)]:
        monkeypatch.setattr("cssl_cli.runs.device._has_bfloat16", lambda device, answer=has_it: answer)
        assert choose_precision("auto", cpu) == expected


def test_images_move_to_the_device_when_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes - 1, 10**9))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    streamed = place_images(images, torch.device("cuda"))
    assert isinstance(streamed, StreamedImages)
    assert streamed.images is images
    placed = place_images(images, torch.device("meta"))
    assert isinstance(placed, ResidentImages)
    assert placed.images.device.type == "meta"


# ---------------------------------------------------------------------- what an analysis cannot do
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["analyze.classes=null", "analyze.num_images=3"], "a limit of 3 leaves some of the"),
        (["analyze.classes=[bar, cros]"], "cros"),
        (["analyze.classes=[bar, cross, ring]", "analyze.num_images=2"], "some of the 3 classes empty"),
    ],
)
def test_what_an_analysis_cannot_do_is_told_before_training(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        pretrain(recipe(tmp_path, *overrides), out=tmp_path / "runs", reporter=Silent())
    assert "analyze." in str(caught.value.where)
    assert not (tmp_path / "runs").exists()


def test_images_need_not_show_classes_that_are_not_measured(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "analyze.classes=[bar, cross]", "analyze.num_images=4", "train={epochs: null, steps: 1}")
    run = pretrain(chosen, out=tmp_path / "runs", reporter=Silent())
    assert run.finished
