"""Encoders from elsewhere: imported once, measured like a run of ours, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save, save_file

from cssl_cli.errors import DamagedError, InputError
from cssl_cli.host.progress import Silent
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.import_run import import_run
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import ANALYSIS, CHECKPOINT, ENCODER, PROBE, PROJECTOR, STATUS, RunDir
from cssl_cli.runs.weights_source import EXACTLY, Allowances
from tests.support.commands import QUICKLY_MEASURED, Invoke, the_run
from tests.support.hub_cache import in_hub_cache

WIDTH = 2
RESNET = f"encoder={{name: resnet18, width: {WIDTH}}}"


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(QUICKLY_MEASURED)
    return str(path)


def importing(recipe: str, weights: Path | None, *overrides: str, out: Path, told: Silent | None = None, **more: Any):
    allowed = more.pop("allowed", EXACTLY)
    return import_run(recipe, weights, overrides=overrides, allowed=allowed, out=out, reporter=told or Silent(), **more)


def weights_of(settings: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    return materialize(build_encoder(settings), torch.Generator().manual_seed(seed)).state_dict()


def resnet(**settings: Any) -> dict[str, torch.Tensor]:
    return weights_of({"name": "resnet18", "width": WIDTH, **settings})


# ---------------------------------------------------------------------- measured like a run of ours
def test_an_encoder_of_ours_comes_back_with_the_same_numbers(quickly_measured: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(quickly_measured, tmp_path / "own"))
    run = importing(str(own / "recipe.yaml"), own / ENCODER, "name=again", out=tmp_path)
    assert run.path.name.startswith("again-")
    probe(run.path, reporter=Silent())
    analyze(run.path, reporter=Silent())
    assert sorted(
        path.name for path in run.path.iterdir() if path.is_file() and path.suffix in (".json", ".jsonl")
    ) == [
        "analysis.json",
        "environment.json",
        "probe.json",
    ]
    for name in (PROBE, ANALYSIS):
        before, now = RunDir(own).read_json(name), run.read_json(name)
        assert before is not None
        assert now is not None
        assert {**now, "fingerprint": ...} == {**before, "fingerprint": ...}
    for name in (ENCODER, PROJECTOR):
        before, now = RunDir(own).load_weights(name), run.load_weights(name)
        assert all(torch.equal(tensor, now[key]) for key, tensor in before.items())


def test_without_a_projector_its_terms_are_absent_with_the_reason(recipe: str, tmp_path: Path, invoke: Invoke) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in resnet().items()}}, tmp_path / "w.pth")
    done = invoke("import", recipe, tmp_path / "w.pth", RESNET, "--json")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["last_epoch"] is None
    assert found["status"]["imported"]["prefix"] == "module."
    run = the_run(tmp_path)
    for command in (("probe", run), ("analyze", run, "--section", "all"), ("analyze", run, run, run)):
        done = invoke(*command)
        assert done.code == 0, done.stderr
    result = json.loads((run / ANALYSIS).read_text())
    assert "no projector" in result["projector"]["reason"]
    assert result["trained"]["alignment"]["unbiased"]["value"] is not None
    assert {"R_epsilon.png", "spectrum.svg"} & {path.name for path in (run / "figures").iterdir()}
    assert "training.png" not in {path.name for path in (run / "figures").iterdir()}
    (run / PROJECTOR).write_bytes(b"not one of ours")
    (run / ENCODER).write_bytes((run / ENCODER).read_bytes()[:-1])
    with pytest.raises(DamagedError):
        probe(run, reporter=Silent())


def test_the_projector_of_another_author_is_kept(recipe: str, tmp_path: Path) -> None:
    head = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8)).state_dict()
    backbone = {f"module.backbone.{name}": tensor for name, tensor in resnet().items()}
    torch.save({"model": {**backbone, **{f"module.projector.{n}": t for n, t in head.items()}}}, tmp_path / "w.pth")
    told = Told()
    run = importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path, told=told)
    kept = run.load_weights(PROJECTOR)
    assert torch.equal(kept["layers.0.weight"], head["0.weight"])
    assert torch.equal(kept["layers.2.bias"], head["2.bias"])
    assert "the projector (module.projector)" in told.said[-1]
    result = analyze(run.path, reporter=Silent())
    assert result["projector"]["alignment"]["unbiased"]["value"] is not None


def test_a_sweep_has_imported_encoders_among_its_members(tmp_path: Path, invoke: Invoke) -> None:
    for name in ("one", "two"):
        save_file(weights_of({"name": "small", "width": 2}, seed=len(name) + ord(name[0])), tmp_path / name)
    (tmp_path / "base.yaml").write_text(QUICKLY_MEASURED)
    (tmp_path / "both.yaml").write_text(
        "name: both\nbase: base.yaml\naxes:\n  encoder:\n    ours: {train: {epochs: 1}}\n"
        + "".join(
            f"    {name}: {{encoder: {{weights: {tmp_path / name}}}, train: {{epochs: 0}}}}\n"
            for name in ("one", "two")
        )
    )
    done = invoke("import", tmp_path / "base.yaml", tmp_path / "two", "--name", "two", "--out", "runs/both")
    assert done.code == 0, done.stderr
    imported = the_run(tmp_path) / next((tmp_path / "runs" / "both").iterdir()).name
    written = (imported / STATUS).read_bytes()
    done = invoke("sweep", tmp_path / "both.yaml")
    assert done.code == 0, done.stdout
    assert {path.name.partition("-")[0] for path in the_run(tmp_path).glob("*-*")} >= {"ours", "one", "two"}
    assert (imported / STATUS).read_bytes() == written, "the run of cssl import is that of the sweep"
    for command in (("--report", "--json"), ("--report", "--accuracy", "best_knn"), ("--report",)):
        done = invoke("sweep", tmp_path / "both.yaml", *command)
        assert done.code == 0, done.stderr


# ---------------------------------------------------------------------- what the file and the recipe say
def test_what_does_not_fit_is_listed_and_leaves_nothing(recipe: str, tmp_path: Path) -> None:
    state = resnet(stem="imagenet")
    del state["layer1.0.bn1.weight"]
    state["layer9.0.conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError) as refused:
        importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path / "runs")
    for words in (
        "1 name missing: layer1.0.bn1.weight",
        "1 name not in the encoder: layer9.0.conv1.weight",
        "1 name of another shape: conv1.weight [2, 3, 7, 7], here [2, 3, 3, 3]",
        "give encoder.stem=imagenet",
    ):
        assert words in str(refused.value)
    assert not (tmp_path / "runs").exists()
    allowed = Allowances(missing=("layer1.0.bn1.*",), unexpected=("layer9.*",))
    run = importing(recipe, tmp_path / "w.pth", RESNET, "encoder.stem=imagenet", out=tmp_path, allowed=allowed)
    found = run.load_weights(ENCODER)
    assert torch.equal(found["conv1.weight"], state["conv1.weight"])
    assert torch.equal(found["layer1.0.bn1.weight"], torch.ones(WIDTH))
    assert run.status()["imported"]["missing"] == ["layer1.0.bn1.weight"]
    with pytest.raises(InputError, match=r"no such name is concerned: 'layer8\.\*'"):
        importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path, allowed=Allowances(missing=("layer8.*",)))


def test_a_file_without_any_of_the_encoder_is_refused_whatever_is_allowed(recipe: str, tmp_path: Path) -> None:
    torch.save({f"projector.{number}.weight": torch.zeros(16, 16) for number in (0, 2)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"has nothing of the encoder resnet18, but projector\.0\.weight"):
        importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path, allowed=Allowances(("*",), ("*",)))


def test_a_layout_tells_of_a_stem_that_only_looks_like_ours(recipe: str, tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in resnet().items()}
    state |= {"classifier.weight": torch.zeros(10, 16), "classifier.bias": torch.zeros(10)}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.1.2", "epoch": 999}, tmp_path / "solo.ckpt")
    told = Told()
    run = importing(recipe, tmp_path / "solo.ckpt", RESNET, out=tmp_path, told=told)
    assert "encoder.stem=small_padding_2, as the file was trained" in told.said
    assert load_recipe(str(run.path / "recipe.yaml")).settings("encoder")["stem"] == "small_padding_2"
    old = {name.replace("backbone.", "encoder."): tensor for name, tensor in state.items()}  # up to version 1.0.2
    torch.save({"state_dict": old, "pytorch-lightning_version": "1.5.0"}, tmp_path / "old.ckpt")
    run = importing(recipe, tmp_path / "old.ckpt", RESNET, out=tmp_path)
    assert load_recipe(str(run.path / "recipe.yaml")).settings("encoder")["stem"] == "small_padding_2"
    with pytest.raises(InputError, match=r"pads by 2 pixels.*\n.*encoder\.stem=small_padding_2"):
        importing(recipe, tmp_path / "solo.ckpt", RESNET, "encoder.stem=small", out=tmp_path)
    sequence = dict(zip(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), "012345", strict=True))
    state = {f"{sequence[name.partition('.')[0]]}.{name.partition('.')[2]}": t for name, t in resnet().items()}
    torch.save({"state_dict": {f"backbone.{name}": tensor for name, tensor in state.items()}}, tmp_path / "light.ckpt")
    run = importing(recipe, tmp_path / "light.ckpt", RESNET, out=tmp_path)
    assert load_recipe(str(run.path / "recipe.yaml")).settings("encoder")["stem"] == "small_without_relu"
    started = load_recipe(recipe, [RESNET, f"encoder.weights={tmp_path / 'light.ckpt'}"])
    with pytest.raises(InputError, match="no ReLU follows the first batch norm"):
        pretrain(started, out=tmp_path, reporter=Silent())


def test_the_recipe_says_the_normalisation(recipe: str, tmp_path: Path) -> None:
    save_file(weights_of({"name": "small", "width": 2}), tmp_path / "w.safetensors")
    plain = importing(recipe, tmp_path / "w.safetensors", out=tmp_path)
    halves = ["data.mean=[0.5, 0.5, 0.5]", "data.std=[0.25, 0.25, 0.25]"]
    other = importing(recipe, tmp_path / "w.safetensors", *halves, out=tmp_path)
    assert plain.path != other.path
    assert probe(plain.path, reporter=Silent())["content_key"] == probe(other.path, reporter=Silent())["content_key"]
    exported = []
    for run in (plain, other):
        analyze(run.path, reporter=Silent(), export=tmp_path / "features.npz")
        exported.append((tmp_path / "features.npz").read_bytes())
    assert exported[0] != exported[1]
    with pytest.raises(InputError, match="has 1 number, and the images have 3 channels"):
        importing(recipe, tmp_path / "w.safetensors", "data.mean=[0.5]", out=tmp_path)


def test_weights_in_the_cache_are_taken_and_named(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    model = (
        "encoder={name: torchvision, model: squeezenet1_1}",
        "data={name: shapes, num_train: 40, num_test: 40, size: 32}",
    )
    with pytest.raises(InputError, match="nothing is downloaded"):
        importing(recipe, None, *model, out=tmp_path)
    with pytest.raises(InputError, match="no file of weights is named"):
        importing(recipe, None, out=tmp_path)
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    weights = torchvision.models.squeezenet1_1().state_dict()
    torch.save(weights, cached)
    told = Told()
    run = importing(recipe, None, *model, out=tmp_path, told=told)
    assert f"torchvision's squeezenet1_1, IMAGENET1K_V1: {cached}" in told.said
    assert "data.mean=[0.485, 0.456, 0.406], as the file was trained" in told.said
    assert torch.equal(run.load_weights(ENCODER)["features.0.weight"], weights["features.0.weight"])
    assert "classifier.1.weight" in weights
    assert run.status()["imported"]["left_out"] == {"classifier": 2}


def test_weights_in_the_cache_of_the_hub_are_taken_without_a_network(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(pytest.importorskip("huggingface_hub").constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = (
        "encoder={name: timm, model: test_vit, image_size: 32, patch_size: 16}",
        "data={name: shapes, num_train: 40, num_test: 40, size: 32}",
    )
    with pytest.raises(InputError, match="no weights of test_vit are in the cache of timm, and nothing is downloaded"):
        importing(recipe, None, *model, out=tmp_path / "runs")
    weights = timm.create_model("test_vit", img_size=32, patch_size=16).state_dict()
    in_hub_cache(tmp_path / "hub", "timm/test_vit.r160_in1k", "model.safetensors", save(weights))
    told = Told()
    run = importing(recipe, None, *model, out=tmp_path / "runs", told=told)
    assert told.said[0].startswith("timm's test_vit.r160_in1k: ")
    assert "data.mean=[0.5, 0.5, 0.5], as the file was trained" in told.said
    assert torch.equal(run.load_weights(ENCODER)["pos_embed"], weights["pos_embed"])
    assert run.status()["imported"]["left_out"] == {"head": 2}


# ---------------------------------------------------------------------- files
class Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"state_dict": Harm()}, protocol=2), "could run code"),
        (b"no weights", "no file of weights"),
        (b"", r"no file of weights.* \(it is cut short\)"),
        (b"<!DOCTYPE html>", r"no file of weights.* \(unsupported operand 60\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
    ids=["code", "text", "empty", "page", "pointer"],
)
def test_no_code_of_a_file_is_run(
    content: bytes, words: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        importing(recipe, tmp_path / "w.pth", out=tmp_path / "runs")
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "runs").exists()


def test_a_whole_model_is_refused_with_a_command_that_saves_its_weights(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(InputError) as refused:
        importing(recipe, tmp_path / "w.pth", out=tmp_path / "runs")
    found = re.search(r'python -c "(.*)"', refused.value.remedy or "")
    assert found is not None
    for whole in (torch.nn.Linear(2, 2), {"state_dict": {"weight": torch.zeros(2)}, "more": Harm}):
        torch.save(whole, tmp_path / "FILE")
        exec(found[1], {})
        assert "weight" in torch.load(tmp_path / "WEIGHTS.pt", weights_only=True)


def test_another_architecture_is_not_called_another_stem_only(recipe: str, tmp_path: Path) -> None:
    torch.save(resnet(stem="imagenet"), tmp_path / "w.pth")
    with pytest.raises(InputError) as refused:
        importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path)
    assert refused.value.remedy == "Its first convolution is that of another stem: give encoder.stem=imagenet."
    with pytest.raises(InputError) as refused:
        importing(recipe, tmp_path / "w.pth", RESNET.replace("18", "34"), out=tmp_path)
    assert "The rest may be of another architecture: encoder={name: ..., ...}." in (refused.value.remedy or "")


def test_one_file_is_imported_at_a_time_and_named_as_asked(recipe: str, tmp_path: Path, invoke: Invoke) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save(weights_of({"name": "small", "width": 2}), tmp_path / name)
    refused = invoke("import", recipe, tmp_path / "a.pt", tmp_path / "b.pt")
    assert refused.code == 2
    assert "2 files of weights" in refused.stderr
    for name, code in (("1e5", 0), ("No Name", 2)):
        done = invoke("import", recipe, tmp_path / "a.pt", "seed=4", "--name", name)
        assert done.code == code, done.stderr
    assert the_run(tmp_path).name.startswith("1e5-")
    assert load_recipe(str(the_run(tmp_path) / "recipe.yaml")).seed == 4
    assert "imported from a.pt" in invoke("import", recipe, tmp_path / "a.pt", "seed=4", "--name", "1e5").stdout


def test_files_that_hold_no_weights_are_told(recipe: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="its names are epoch, optimizer"):
        importing(recipe, tmp_path / "w.pth", out=tmp_path)
    state = weights_of({"name": "small", "width": 2})
    state["layers.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"layers\.0\.weight holds numbers that are infinite or undefined"):
        importing(recipe, tmp_path / "w.pth", out=tmp_path)
    with pytest.raises(InputError, match="No such file"):
        importing(recipe, tmp_path / "gone.pth", out=tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match="a named pipe, not a file"):
        importing(recipe, tmp_path / "pipe.pth", out=tmp_path)
    header = b'{"__metadata__":' + 100_000 * b"["
    (tmp_path / "deep.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="its header is not one of ours"):
        importing(recipe, tmp_path / "deep.safetensors", out=tmp_path)
    cyclic: dict[str, Any] = {}
    cyclic["model"] = cyclic
    torch.save(cyclic, tmp_path / "w.pth")
    with pytest.raises(InputError, match="it holds no weights: its names are model"):
        importing(recipe, tmp_path / "w.pth", out=tmp_path)
    torch.save({"state_dict": state, "model": state}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="it holds weights under state_dict and under model"):
        importing(recipe, tmp_path / "w.pth", out=tmp_path)


NO_WEIGHTS = {
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "sparse": lambda tensor: tensor.to_sparse(),
    "without its numbers": lambda tensor: tensor.to("meta"),
    "of complex64": lambda tensor: tensor.to(torch.complex64),
    "of int64": lambda tensor: tensor.long(),
    "infinite or undefined in float32": lambda tensor: tensor.double() * 1e300,
    "negative variances": lambda tensor: -tensor,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("words", NO_WEIGHTS)
def test_tensors_that_are_no_weights_of_a_network_are_refused(words: str, recipe: str, tmp_path: Path) -> None:
    state = weights_of({"name": "small", "width": 2})
    name = next(name for name in state if name.endswith("running_var"))
    torch.save({**state, name: NO_WEIGHTS[words](state[name])}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"{re.escape(name)} .*{words}"):
        importing(recipe, tmp_path / "w.pth", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_only_what_is_taken_of_a_file_is_looked_at_and_in_single_precision(recipe: str, tmp_path: Path) -> None:
    state = resnet()
    double = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    head = {"projector.0.weight": torch.ones(16, 16).half().T, "projector.0.bias": torch.ones(16)}
    head |= {"projector.2.weight": torch.ones(8, 16), "projector.2.bias": torch.ones(8)}
    unused = {"queue": torch.full((2,), torch.nan)}
    torch.save({**{f"encoder.{n}": t for n, t in double.items()}, **head, **unused}, tmp_path / "w.pth")
    told = Told()
    run = importing(recipe, tmp_path / "w.pth", RESNET, out=tmp_path / "runs", told=told)
    assert told.said[-1].endswith("the projector (projector); left out: queue (1)")
    kept = run.load_weights(PROJECTOR)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert torch.equal(run.load_weights(ENCODER)["conv1.weight"], state["conv1.weight"])


def test_an_import_that_is_interrupted_is_not_finished_and_one_that_is_done_is_left(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(weights_of({"name": "small", "width": 2}), tmp_path / "w.safetensors")
    save_weights = RunDir.save_weights

    def stopped(run: RunDir, name: str, *rest: Any) -> None:
        save_weights(run, name, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "save_weights", stopped)
        with pytest.raises(KeyboardInterrupt):
            importing(recipe, tmp_path / "w.safetensors", out=tmp_path / "runs")
    path = the_run(tmp_path)
    assert not RunDir(path).finished
    with pytest.raises(InputError, match="has not finished"):
        probe(path, reporter=Silent())
    told = Told()
    run = importing(recipe, tmp_path / "w.safetensors", out=tmp_path / "runs", told=told)
    assert run.finished
    assert "taken from w.safetensors" in told.said[-1]
    (tmp_path / "w.safetensors").unlink()  # a finished run needs it no more
    again = Told()
    pretrain(load_recipe(str(run.path / "recipe.yaml")), out=tmp_path / "runs", reporter=again)
    assert again.said == [f"{run.path} is finished already"]


# ---------------------------------------------------------------------- training from a file
def test_training_starts_from_the_weights_and_goes_on_without_the_file(recipe: str, tmp_path: Path) -> None:
    state = weights_of({"name": "small", "width": 2}, seed=9)
    save_file(state, tmp_path / "w.safetensors")
    overrides = [
        f"encoder.weights={tmp_path / 'w.safetensors'}",
        "method={name: byol, projector: [16, 8], predictor: 8}",
    ]
    started = load_recipe(recipe, [*overrides, "train={steps: 1, batch_size: 64}", "optim={name: sgd, lr: 1e-30}"])
    run = pretrain(started, out=tmp_path / "runs", reporter=Silent())
    found = run.load_weights(ENCODER)
    weights = [name for name in state if name.endswith(".weight")]
    assert all(torch.equal(found[name], state[name]) for name in weights)
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    method = checkpoint["trainer"]["method"]
    assert all(torch.equal(method[f"momentum_encoder.{name}"], state[name]) for name in weights)
    (run.path / ENCODER).unlink()
    (run.path / STATUS).unlink()
    (tmp_path / "w.safetensors").unlink()
    pretrain(load_recipe(str(run.path / "recipe.yaml")), out=tmp_path / "runs", reporter=Silent())
    assert load_file(run.path / ENCODER).keys() == state.keys()
    (run.path / CHECKPOINT).unlink()
    (run.path / STATUS).unlink()
    with pytest.raises(InputError, match="there is no such file"):
        pretrain(load_recipe(str(run.path / "recipe.yaml")), out=tmp_path / "runs", reporter=Silent())
    save_file(weights_of({"name": "small", "width": 2}, seed=8), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not the one that the recipe has the digest of"):
        pretrain(load_recipe(str(run.path / "recipe.yaml")), out=tmp_path / "runs", reporter=Silent())


# ---------------------------------------------------------------------- photographs
def draw_photographs(folder: Path) -> None:
    """Of mixed sizes and shapes."""
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        height, width = (int(side) for side in torch.randint(150, 400, (2,), generator=generator))
        coarse = torch.randint(0, 256, (1, 3, 8, 8), generator=generator).float()
        pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").byte()[0]
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


LARGE = [
    ("resnet18", "{name: resnet18, width: 4, stem: imagenet}", {"name": "resnet18", "width": 4, "stem": "imagenet"}),
    ("torchvision", "{name: torchvision, model: squeezenet1_1}", {"name": "torchvision", "model": "squeezenet1_1"}),
    (
        "timm",
        "{name: timm, model: test_vit, image_size: 64, patch_size: 16}",
        {"name": "timm", "model": "test_vit", "image_size": 64, "patch_size": 16},
    ),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "encoder", "settings"), LARGE, ids=[name for name, _, _ in LARGE])
def test_encoders_of_large_images_are_imported_measured_and_trained(
    name: str, encoder: str, settings: dict[str, Any], recipe: str, tmp_path: Path
) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    draw_photographs(tmp_path / "photographs")
    overrides = [
        f"encoder={encoder}",
        f"data={{name: folder, root: {tmp_path / 'photographs'}, size: 64, test_fraction: 0.5}}",
        "analyze={num_images: 4, classes: null, num_views: 2, bootstrap: 0, refine_pairs: 0, distances: [trained]}",
        "probe={knn_k: 2, center_views: 1, penalties: [0.1]}",
    ]
    torch.save(weights_of(settings), tmp_path / "w.pth")
    run = importing(recipe, tmp_path / "w.pth", *overrides, out=tmp_path / "imported")
    assert probe(run.path, reporter=Silent())["trained"]["knn"]["accuracy"] is not None
    found = analyze(run.path, reporter=Silent())["trained"]["lipschitz"]
    assert found["local_jacobian_largest"]["value"] > 0
    known = name == "resnet18"
    assert (found["spectral_product"]["value"] is not None) == known
    assert known or "no rule for the Lipschitz constant of" in found["spectral_product"]["reason"]
    trained = load_recipe(recipe, [*overrides, "train={epochs: 1, batch_size: 4}"])
    assert pretrain(trained, out=tmp_path / "trained", reporter=Silent()).finished
