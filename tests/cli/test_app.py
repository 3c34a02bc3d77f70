"""The command line as a user meets it: results on stdout, sentences on stderr, exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cssl_cli.__main__ import wait_briefly
from cssl_cli.runs.run_dir import CHECKPOINT, ENVIRONMENT, RECIPE, RunDir
from tests.support.commands import QUICKLY_MEASURED, Invoke, the_run


# ---------------------------------------------------------------------- the way through
def test_pretrain_probe_analyze(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    trained = invoke("pretrain", tiny_recipe, "--json")
    assert trained.code == 0, trained.stderr
    content = json.loads(trained.stdout)
    assert content["status"] == {"state": "finished", "step": 12, "num_steps": 12}
    run = Path(content["run"])
    assert (run / RECIPE).exists()

    probed = invoke("probe", run, "--json")
    assert probed.code == 0, probed.stderr
    scores = json.loads(probed.stdout)
    assert scores == RunDir(run).read_json("probe.json")
    for encoder in ("trained", "untrained", "pixels"):
        for classifier in ("linear", "knn", "nearest_center"):
            score = scores[encoder][classifier]
            assert 0 <= score["interval"][0] <= score["accuracy"] <= score["interval"][1] <= 1
            assert score["num_images"] == 100
            assert score["accuracy"] == pytest.approx(np.mean(list(score["per_class"].values())))

    analyzed = invoke("analyze", run, "--export", "table.npz", "--json")
    assert analyzed.code == 0, analyzed.stderr
    analysis = json.loads(analyzed.stdout)
    table = np.load(tmp_path / "table.npz")
    assert table["precision"] == "float32"
    check_against_exported_table(analysis["trained"], table)

    again = invoke("pretrain", tiny_recipe)
    assert again.code == 0
    assert "finished already" in again.stderr
    for command in ("probe", "analyze"):
        shown = invoke(command, run)
        assert shown.code == 0
        assert max(map(len, shown.stdout.splitlines())) <= 100
        assert "\x1b" not in shown.stdout


def test_piped_progress_is_plain_lines_that_tell_where_training_stands(invoke: Invoke, tiny_recipe: Path) -> None:
    trained = invoke("pretrain", tiny_recipe)
    last = [line for line in trained.stderr.splitlines() if line.startswith("pretrain:")][-1]
    assert re.fullmatch(r"pretrain: 100%  epoch 3/3  loss [\d.]+  lr \S+  [\d,]+ images/s  \(alignment .*\)", last)
    assert "\x1b" not in trained.stderr


def check_against_exported_table(terms: dict, table: np.lib.npyio.NpzFile) -> None:
    """Recompute with loops what the analysis says, from the features it exports."""
    features, labels = table["features"].astype(float), table["labels"]
    assert features.shape[:2] == (50, 4)
    assert np.allclose(np.linalg.norm(features, axis=2), 1, atol=1e-5)
    assert table["view_weights"].tolist() == [0, 1 / 3, 1 / 3, 1 / 3]
    pairs = [(a, b) for a in range(1, 4) for b in range(1, 4) if a != b]
    alignment = np.mean([np.sum((image[a] - image[b]) ** 2) for image in features for a, b in pairs])
    assert terms["alignment"]["unbiased"]["value"] == pytest.approx(alignment, rel=1e-6)
    diameters = [max(np.linalg.norm(u - v) for u in image for v in image) for image in features]
    for epsilon, share in zip(
        terms["R_epsilon"]["epsilons"]["value"], terms["R_epsilon"]["curve"]["value"], strict=True
    ):
        assert share == pytest.approx(np.mean([diameter > epsilon for diameter in diameters]))
    centers = [features[labels == k, 1:].mean(axis=(0, 1)) for k in range(10)]
    products = [centers[k] @ centers[m] for k in range(10) for m in range(10) if k != m]
    assert terms["class_centers"]["mean_inner_product"]["value"] == pytest.approx(np.mean(products), rel=1e-6)
    check_unscaled_terms(terms, features * table["norms"][:, :, None])


def check_unscaled_terms(terms: dict, raw: np.ndarray) -> None:
    """What others define on features as the encoder gives them is measured on those."""
    singular = np.linalg.svd(raw[:, 0], compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    assert terms["effective_rank"]["rankme"]["value"] == pytest.approx(np.exp(-shares @ np.log(shares)), rel=1e-5)
    views = raw[:, 1:]
    means = views.mean(axis=1)
    deviations = (views - means[:, None]).reshape(-1, raw.shape[2])
    within = deviations.T @ deviations / (len(raw) * 2) + 1e-4 * np.eye(raw.shape[2])
    spectrum = np.linalg.eigvals(np.linalg.solve(within, np.cov(means.T))).real.clip(0)
    shares = spectrum / spectrum.sum() + 1e-7
    assert terms["lidar"]["lidar"]["value"] == pytest.approx(np.exp(-shares @ np.log(shares)), rel=1e-4)
    flat = views.reshape(-1, raw.shape[2])
    standard = (means - flat.mean(axis=0)) / np.where(flat.std(axis=0) > 1e-6, flat.std(axis=0), np.inf)
    redundancy = np.square(standard.T @ standard / len(raw) - np.eye(raw.shape[2])).sum()
    assert terms["cross_correlation"]["redundancy_loss_plug_in"]["value"] == pytest.approx(redundancy, rel=1e-5)


def test_the_resolved_recipe_gives_the_run_again(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe, "train.epochs=1").code == 0
    run = the_run(tmp_path)
    assert invoke("pretrain", run / RECIPE, "--out", "again").code == 0
    other = tmp_path / "again" / run.name
    ours, theirs = load_file(run / "encoder.safetensors"), load_file(other / "encoder.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_unlabelled_folder_is_pretrained_on_and_analysed_and_not_probed(invoke: Invoke, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(80):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    small = ["data.size=16", "encoder={name: small, width: 4}", "train={epochs: 1, batch_size: 16}"]
    options = ["optim.warmup_epochs=0", "analyze={num_images: 20, num_views: 4}"]
    pretrained = invoke("pretrain", "simclr-folder", "data.root=images", *small, *options)
    assert pretrained.code == 0
    assert "Next: cssl analyze" in pretrained.stdout
    probed = invoke("probe", the_run(tmp_path))
    assert probed.code == 2
    assert "no labelled" in probed.stderr
    analyzed = invoke("analyze", the_run(tmp_path), "--no-figures")
    assert analyzed.code == 0, analyzed.stderr
    assert "no labels" in analyzed.stdout
    assert "cssl probe" not in analyzed.stdout


def test_restart_discards_what_the_directory_holds(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe, "train.epochs=1").code == 0
    (the_run(tmp_path) / "probe.json").write_text("{}")
    again = invoke("pretrain", tiny_recipe, "train.epochs=1", "--restart")
    assert again.code == 0
    assert "finished already" not in again.stderr
    assert not (the_run(tmp_path) / "probe.json").exists()


def test_dry_run_shows_the_plan_and_runs_nothing(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    shown = invoke("pretrain", tiny_recipe, "train.epochs=7", "--dry-run")
    assert shown.code == 0
    assert "epochs: 7" in shown.stdout
    assert not (tmp_path / "runs").exists()


def test_recipes_are_listed_printed_copied_and_drawn(invoke: Invoke, tmp_path: Path) -> None:
    assert "simclr-cifar10" in invoke("recipes").stdout
    names = [listing["name"] for listing in json.loads(invoke("recipes", "--json").stdout)]
    assert {"quickstart", "simclr-cifar10", "barlow_twins-cifar10", "simclr-folder"} <= set(names)
    for name in names:
        assert f"name: {name}" in invoke("recipes", name).stdout
    # Of this one something is missing that only its user knows.
    assert invoke("recipes", "simclr-folder").stdout.endswith("is required; give it as data.root=PATH\n")
    assert "data.root" in invoke("recipes", "simclr-folder", "seed=-1").stderr
    assert invoke("recipes", "simclr-shapes", "--copy").code == 0
    assert invoke("recipes", "simclr-shapes", "--copy", "mine.yaml").code == 0
    assert (tmp_path / "simclr-shapes.yaml").read_text() == (tmp_path / "mine.yaml").read_text()
    refused = invoke("recipes", "simclr-shapes", "--copy", "mine.yaml")
    assert refused.code == 2
    assert "a file already" in refused.stderr
    assert invoke("pretrain", "mine.yaml", "--dry-run").code == 0
    drawn = invoke("recipes", "simclr-shapes", "data.num_train=100", "data.num_test=10", "--views", "views.png")
    assert drawn.code == 0, drawn.stderr
    assert Image.open(tmp_path / "views.png").size[0] > 500


@pytest.mark.parametrize("name", ["pretrain", "probe", "analyze", "sweep", "recipes"])
def test_every_command_has_help_with_examples(invoke: Invoke, name: str) -> None:
    shown = invoke(name, "--help")
    assert shown.code == 0
    assert re.search(rf"\n +cssl {name}", shown.stdout.partition("Examples:")[2])


# ---------------------------------------------------------------------- bad input
def edited(tiny: Path, old: str, new: str) -> str:
    text = tiny.read_text()
    assert old in text
    tiny.write_text(text.replace(old, new))
    return str(tiny)


def corrupt_folder(tmp_path: Path) -> str:
    for number in range(4):
        folder = tmp_path / "images" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(folder / f"{number}.png")
    (tmp_path / "images" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return str(tmp_path / "images")


BAD_INPUT = {
    "unknown recipe": (lambda tiny, tmp: ["simclr-cifar"], ["simclr-cifar10"]),
    "missing file": (lambda tiny, tmp: ["nowhere.yaml"], ["nowhere.yaml"]),
    "misspelt field": (lambda tiny, tmp: [edited(tiny, "batch_size", "batchsize")], ["train.batchsize", "batch_size"]),
    "misspelt override": (lambda tiny, tmp: [tiny, "train.epoch=3"], ["train.epoch", "epochs"]),
    "wrong type": (lambda tiny, tmp: [edited(tiny, "epochs: 3", "epochs: three")], ["train.epochs", "three"]),
    "out of range": (
        lambda tiny, tmp: [edited(tiny, "temperature: 0.5", "temperature: -1")],
        ["method.temperature", "-1"],
    ),
    "empty file": (lambda tiny, tmp: [edited(tiny, tiny.read_text(), "")], ["empty"]),
    "python tag": (
        lambda tiny, tmp: [edited(tiny, "name: tiny", "name: !!python/object/apply:os.system [ls]")],
        ["tag"],
    ),
    "missing data": (lambda tiny, tmp: ["simclr-folder", f"data.root={tmp / 'gone'}"], ["gone"]),
    "no data given": (lambda tiny, tmp: ["simclr-folder"], ["data.root"]),
    "corrupt image": (lambda tiny, tmp: ["simclr-folder", f"data.root={corrupt_folder(tmp)}"], ["broken.png"]),
    "unwritable output": (lambda tiny, tmp: [tiny, "--out", tiny], ["--out"]),
    "unknown device": (lambda tiny, tmp: [tiny, "--device", "abacus"], ["abacus", "--device"]),
    "Apple GPU": (lambda tiny, tmp: [tiny, "--device", "mps"], ["mps", "no float64", "--device", "Give cpu"]),
    "batch larger than the data": (lambda tiny, tmp: [tiny, "train.batch_size=300"], ["train.batch_size", "256"]),
    "a sweep where a recipe is wanted": (lambda tiny, tmp: ["quickstart"], ["cssl sweep"]),
    "malformed override": (lambda tiny, tmp: [tiny, "epochs"], ["epochs", "="]),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_answered_in_a_few_lines(case: str, invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    make_arguments, expected = BAD_INPUT[case]
    refused = invoke("pretrain", *make_arguments(tiny_recipe, tmp_path))
    assert refused.code == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    message = refused.stderr[refused.stderr.index("error:") :]
    assert len(message.splitlines()) <= 8
    for words in expected:
        assert words in message
    assert refused.stdout == ""


def test_several_faults_are_listed_at_once(invoke: Invoke, tiny_recipe: Path) -> None:
    edited(tiny_recipe, "temperature: 0.5", "temperatur: 0.5")
    edited(tiny_recipe, "lr: 0.05", "lr: 0")
    refused = invoke("pretrain", tiny_recipe, "train.epochs=0")
    assert refused.code == 2
    for field in ("method.temperatur", "optim.lr", "train.epochs"):
        assert field in refused.stderr


def test_a_truncated_checkpoint(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe).code == 0
    run = the_run(tmp_path)
    (run / "status").unlink()
    checkpoint = run / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    refused = invoke("pretrain", tiny_recipe)
    assert refused.code == 2
    assert re.search(r"checkpoint\.pt.*damaged", refused.stderr)
    assert "--restart" in refused.stderr
    assert invoke("pretrain", tiny_recipe, "--restart").code == 0


def test_a_run_directory_of_another_recipe(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe).code == 0
    run = the_run(tmp_path)
    text = (run / RECIPE).read_text()
    (run / RECIPE).write_text(text.replace("seed: 3", "seed: 4"))
    for command in ("probe", "analyze"):
        refused = invoke(command, run)
        assert refused.code == 2
        assert "another recipe" in refused.stderr
    environment = json.loads((run / ENVIRONMENT).read_text())
    RunDir(run).write_json(ENVIRONMENT, {**environment, "fingerprint": "0000000000"})
    refused = invoke("pretrain", tiny_recipe)
    assert refused.code == 2
    assert "another recipe" in refused.stderr


def test_other_images_than_the_run_began_with(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe).code == 0
    run = the_run(tmp_path)
    (run / "status").unlink()
    environment = json.loads((run / ENVIRONMENT).read_text())
    RunDir(run).write_json(ENVIRONMENT, {**environment, "content_key": "other"})
    refused = invoke("pretrain", tiny_recipe)
    assert refused.code == 2
    assert "images are not those" in refused.stderr


def test_an_unfinished_run_is_not_probed(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe).code == 0
    run = the_run(tmp_path)
    (run / "encoder.safetensors").unlink()
    for state, words in [
        ("finished", "encoder.safetensors is missing"),
        ("running", "not finished (killed, step 12 of"),
    ]:
        RunDir(run).write_status(state, step=0, num_steps=12)
        for command in ("probe", "analyze"):
            refused = invoke(command, run)
            assert refused.code == 2
            assert words in refused.stderr
            assert f"Finish it with: cssl pretrain {run}/recipe.yaml --out {run.parent}" in refused.stderr
    copied = Path(shutil.copytree(run, run.with_name("of mine")))
    assert f"It has the recipe of {run}: copy that run again" in invoke("analyze", copied).stderr
    shutil.rmtree(run)
    assert f"Rename its folder to {run.name}, where it is looked for" in invoke("analyze", copied).stderr
    spaced = Path(shutil.copytree(copied, tmp_path / "my runs" / run.name))
    told = invoke("analyze", spaced).stderr
    assert f"Finish it with: cssl pretrain '{spaced}/recipe.yaml' --out '{spaced.parent}'" in told
    missing = invoke("probe", tmp_path / "runs" / "nothing")
    assert missing.code == 2
    assert copied.name in missing.stderr


def test_json_of_recipes_names_what_was_written(invoke: Invoke, tmp_path: Path) -> None:
    assert json.loads(invoke("recipes", "simclr-shapes", "--copy", "--json").stdout) == {"path": "simclr-shapes.yaml"}
    few = ["data.num_train=100", "data.num_test=10"]
    drawn = invoke("recipes", "simclr-shapes", *few, "--views", "views.png", "--json")
    assert json.loads(drawn.stdout) == {"path": "views.png"}
    for wrong in (["--copy"], ["--views", "v.png"], ["quickstart", "seeds=3"]):
        assert invoke("recipes", *wrong).code == 2


def test_brackets_in_names_are_not_markup(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    trained = invoke("pretrain", tiny_recipe, "train.epochs=1", "--out", "out [bold] [/x]")
    assert trained.code == 0, trained.stderr
    assert "out [bold] [/x]/tiny-" in trained.stdout


def test_an_empty_block_is_no_augmentation(invoke: Invoke, tiny_recipe: Path) -> None:
    shown = json.loads(invoke("pretrain", tiny_recipe, "augment={}", "--dry-run", "--json").stdout)
    assert set(shown["recipe"]["augment"].values()) == {None}


def test_tables_fit_eighty_columns(invoke: Invoke, analyzed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command, *options in (["probe"], ["analyze", "--no-figures"]):
        lines = invoke(command, analyzed, *options).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line.endswith(" ") for line in lines)
        assert any(re.match(r"nearest centre, % +unbiased +\d", line) for line in lines) or command == "probe"


def test_too_few_images_to_analyse_are_said_before_the_training(
    invoke: Invoke, tiny_recipe: Path, tmp_path: Path
) -> None:
    refused = invoke("pretrain", tiny_recipe, "analyze.num_images=9")
    assert refused.code == 2
    assert "analyze.num_images" in refused.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["status", "environment.json", "probe.json", "metrics.jsonl", "recipe.yaml"])
def test_damaged_files_of_a_run_are_sentences(
    name: str, invoke: Invoke, quickly_measured: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(quickly_measured, tmp_path / "runs" / quickly_measured.name)
    (tmp_path / "quick.yaml").write_text(QUICKLY_MEASURED)
    for content in ("[1]", "{}", '{"half'):
        for arguments in (
            ["probe", run],
            ["analyze", run, "--no-figures"],
            ["pretrain", "quick.yaml", "train.epochs=1"],
        ):
            (run / name).write_text(content)
            outcome = invoke(*arguments)
            assert outcome.code in (0, 2), outcome.stderr
            assert "Traceback" not in outcome.stderr


def test_a_value_that_an_option_does_not_take_is_told_in_our_words(invoke: Invoke) -> None:
    refused = invoke("report", "quickstart", "--format", "xls")
    assert refused.code == 2
    assert "Invalid value for '--format': 'xls' is not one of" in refused.stderr


def test_usage_errors_exit_with_2(invoke: Invoke) -> None:
    assert invoke("pretrain").code == 2
    assert invoke("train").code == 2
    assert invoke("pretrain", "simclr-shapes", "--nonsense").code == 2


def test_an_infinite_loss_fails_the_run_with_1(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    failed = invoke("pretrain", tiny_recipe, "optim.lr=1e30", "train.precision=float32")
    assert failed.code == 1, failed.stderr
    assert "at step" in failed.stderr
    assert "optim.lr" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert json.loads((the_run(tmp_path) / "status").read_text())["state"] == "failed"


def test_threads_wait_briefly_unless_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, spins in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)):
        monkeypatch.setattr(os, "environ", dict(given))
        wait_briefly()
        assert os.environ.get("GOMP_SPINCOUNT") == spins
