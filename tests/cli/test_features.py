"""`cssl analyze FEATURES` and `cssl probe FEATURES`, from their arguments to their reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.report.figures import figures
from tests.support.commands import Invoke

QUICK = ("analyze.bootstrap=0", "analyze.deltas=[0.5, 1.0]", "analyze.epsilons=[0.2, 0.5]", "probe.penalties=[0.1]")
LABELS = np.repeat([0, 1, 2], 6)


def features(seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centers = 2 * np.eye(3, 8)[LABELS][:, None]
    return (centers + 0.3 * generator.standard_normal((18, 3, 8))).astype(np.float16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.npz"
    names = ["cat", "dog", "ship"]
    of_training = {"train_features": features(1), "train_labels": LABELS}
    np.savez(path, features=features(), labels=np.array(names)[LABELS], class_names=names, **of_training)
    return path


def test_the_report_is_that_of_a_run_without_what_the_file_lacks(invoke: Invoke, file: Path) -> None:
    done = invoke("analyze", file, *QUICK, "--section", "all")
    assert done.code == 0, done.stderr
    assert re.search(r"errs +encoder\n", done.stdout)
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 100
    said = " ".join(done.stdout.split())
    for words in (
        "alignment unbiased",
        "Terms: 18 images, 3 views each (the clean image and 2 augmented), features scaled to unit norm",
        "Class by class",
        "ship",
        "–: this needs the images, and a file of features has none.",
        "–: the file has no features of the untrained encoder (an array untrained).",
        "batches of 18 (all images; 512 asked for), T = 0.5 (by default)",
        f"Accuracies: cssl probe {file}",
    ):
        assert words in said, words
    for words in ("projector", "test image", "in training"):
        assert words not in said, words
    assert [path.name for path in file.parent.iterdir()] == ["f.npz"]


def test_json_has_the_terms_and_the_verdicts(invoke: Invoke, file: Path) -> None:
    content = json.loads(invoke("analyze", file, *QUICK, "--json", "--views", 2, "--classes", "cat,ship").stdout)
    assert content["class_names"] == ["cat", "ship"]
    assert content["settings"]["num_views"] == 2
    assert content["settings"]["bootstrap"] == 0
    assert content["trained"]["alignment"]["unbiased"]["value"] is None  # of a single augmented view
    assert content["verdicts"][0].startswith("For new images error")


@pytest.mark.parametrize(("labelled", "views"), [(False, 3), (True, 1), (False, 1)])
def test_files_with_less(invoke: Invoke, tmp_path: Path, labelled: bool, views: int) -> None:
    path = tmp_path / "f.safetensors"
    tensors = {"features": torch.from_numpy(features()[:, :views].squeeze().copy())}
    save_file(tensors | ({"labels": torch.from_numpy(LABELS)} if labelled else {}), path)
    done = invoke("analyze", path, *QUICK, "--section", "all")
    assert done.code == 0, done.stderr
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", done.stdout)
    said = " ".join(done.stdout.split())
    assert ("the images have no labels" in said) != labelled
    assert ("views" in said.partition("–: ")[2]) == (views == 1) or not labelled
    assert re.search(r"RankMe +consist\. +\d", done.stdout)


def test_controls_are_measured_too(invoke: Invoke, file: Path) -> None:
    content = json.loads(invoke("analyze", file, *QUICK, "--json", "--controls").stdout)
    assert content["controls"]["hash"]["alignment"]["unbiased"]["value"] == pytest.approx(0.005, rel=0.5)
    assert content["fooled"]["hash"]["counts"] is True


# ---------------------------------------------------------------------- accuracies
def test_accuracies_by_class(invoke: Invoke, file: Path) -> None:
    done = invoke("probe", file, *QUICK, "probe.knn_k=3")
    assert done.code == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert re.search(r"trained +100\.0 +\[81\.5, 100\.0\] +100\.0", said)
    assert "18 test images, 95 % intervals; frozen features. Linear" in said
    assert "k = 3" in said
    assert "class centres over 2 views of each training image" in said
    assert "untrained" not in said
    content = json.loads(invoke("probe", file, *QUICK, "--json").stdout)
    assert list(content["trained"]["linear"]["per_class"]) == ["cat", "dog", "ship"]


def test_centres_of_clean_training_images_are_called_that(invoke: Invoke, tmp_path: Path) -> None:
    clean = features()[:, 0]
    np.savez(tmp_path / "f.npz", features=clean, labels=LABELS, train_features=clean, train_labels=LABELS)
    done = invoke("probe", "f.npz", *QUICK)
    assert "class centres over the clean training images." in " ".join(done.stdout.split())


def test_what_probing_needs_is_said(invoke: Invoke, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=features(), labels=LABELS)
    refused = invoke("probe", "f.npz")
    assert refused.code == 2
    assert "Add train_features (images, width) and train_labels (images)" in refused.stderr
    assert "f.npz: there are no features to fit classifiers on" in refused.stderr


# ---------------------------------------------------------------------- --out
def test_out_keeps_what_was_measured_and_puts_accuracies_beside_terms(
    invoke: Invoke, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {"class_centers": figures.ANALYSIS_FIGURES["class_centers"]})
    content = json.loads(invoke("analyze", file, *QUICK, "--out", "kept", "--json").stdout)
    kept = SealedFolder(tmp_path / "kept")
    assert kept.read_json("analysis.json") == {name: value for name, value in content.items() if name != "verdicts"}
    assert {path.name for path in (kept.path / "figures").iterdir()} >= {"class_centers.png", "class_centers.svg"}
    probed = json.loads(invoke("probe", file, *QUICK, "--out", "kept", "--json").stdout)
    assert kept.read_json("probe.json") == probed
    beside = invoke("analyze", file, *QUICK, "--out", "kept", "--no-figures")
    assert beside.code == 0, beside.stderr
    assert re.search(r"linear, % +unbiased +100\.0 +\[81\.5, 100\.0\]\n", beside.stdout)
    assert "Accuracies: 18 test images" in beside.stdout


def test_results_of_other_features_and_of_runs_are_never_replaced(invoke: Invoke, file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", features=features(9), labels=LABELS)
    assert invoke("probe", file, *QUICK, "--out", "kept").code == 0
    before = (tmp_path / "kept" / "probe.json").read_bytes()
    refused = invoke("analyze", "other.npz", *QUICK, "--out", "kept")
    assert refused.code == 2
    assert "kept: probe.json there is of other features\n  Give another --out DIR." in refused.stderr
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    refused = invoke("analyze", file, *QUICK, "--out", "run")
    assert refused.code == 2
    assert "run: it is the directory of a run" in refused.stderr
    assert (tmp_path / "kept" / "probe.json").read_bytes() == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.yaml"}


# ---------------------------------------------------------------------- several files
def test_several_files_give_one_table_with_the_numbers_of_each(invoke: Invoke, file: Path, tmp_path: Path) -> None:
    of_training = {"train_features": features(3), "train_labels": LABELS}
    np.savez(tmp_path / "g.npz", features=features(2)[:, :2], labels=LABELS, **of_training)
    both = json.loads(invoke("analyze", file, "g.npz", *QUICK, "--json").stdout)
    assert both == {
        "files": {str(path): json.loads(invoke("analyze", path, *QUICK, "--json").stdout) for path in (file, "g.npz")}
    }
    probed = json.loads(invoke("probe", file, "g.npz", *QUICK, "--json").stdout)
    assert probed == {
        "files": {str(path): json.loads(invoke("probe", path, *QUICK, "--json").stdout) for path in (file, "g.npz")}
    }
    done = invoke("probe", file, "g.npz", file, *QUICK, "--out", "kept")
    assert done.code == 0, done.stderr
    assert re.search(r"f\.npz +100\.0 +\[81\.5, 100\.0\].*18\ng\.npz +100\.0", done.stdout)
    done = invoke("analyze", file, "g.npz", *QUICK, "--out", "kept", "--no-figures")
    assert done.code == 0, done.stderr
    assert re.search(r"f\.npz +100\.0 +100\.0 +100\.0\ng\.npz +100\.0", done.stdout)
    assert re.search(r"alignment +0\.\d+ +–\n", done.stdout)
    assert "the terms cannot be compared" in " ".join(done.stdout.split())  # of 3 views and of 2
    assert {path.name for path in (tmp_path / "kept" / "g").iterdir()} == {"analysis.json", "probe.json"}


def test_files_of_the_same_name_are_told_apart(invoke: Invoke, file: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "sub" / "f.npz", features=features(2), labels=np.array(["cat", "dog", "ship"])[LABELS])
    done = invoke("analyze", "f.npz", "sub/f.npz", *QUICK)
    assert re.search(r"\nf\.npz +–.*\nsub/f\.npz +–", done.stdout)
    assert "Accuracies: cssl probe FILE... --out DIR" in done.stdout
    assert "cannot be compared" not in done.stdout


# ---------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyze", "gone.npz"], "gone.npz: there is no such file"),
        (["probe", "gone.npz"], "gone.npz: there is no such file"),
        (["analyze", "f.npy"], "features are read from .npz and .safetensors files"),
        (["probe", "weights.pt"], "features are read from .npz and .safetensors files"),
        (["analyze", "FILE", "gone.npz"], "gone.npz: there is no such file"),
        (["analyze", "FILE", "simclr-shapes"], "cannot be measured together: not all are files of features"),
        (["probe", "FILE", "runs/gone"], "cannot be measured together: not all are files of features"),
        (["analyze", "FILE", "sub/f.npz", "--section", "all"], "sections are those of one file"),
        (["analyze", "FILE", "sub/f.npz", "--out", "kept"], "two of the files are called f"),
        (["analyze", "FILE", "--precision", "bfloat16"], "--precision: features from a file are measured as they are"),
        (["analyze", "FILE", "--data-root", "."], "--data-root: features from a file are measured as they are"),
        (["analyze", "FILE", "--export", "g.npz"], "--export writes the features of one run"),
        (["analyze", "FILE", "--accuracy", "knn"], "take 3 runs"),
        (["analyze", "FILE", "--section", "classs"], "classes"),
        (["analyze", "FILE", "--views", "4"], "4 views, and there are 3 of each image"),
        (["analyze", "FILE", "analyze.bootstap=3"], "did you mean analyze.bootstrap?"),
        (["analyze", "FILE", "optim.lr=1"], "Known: seed, method, train, probe, analyze"),
        (["probe", "FILE", "probe.knn_k=0"], "probe.knn_k"),
        (["analyze", "simclr-shapes", "--out", "kept"], "--out keeps what is measured of a file of features"),
        (["probe", "runs/gone", "--out", "kept"], "--out keeps what is measured of a file of features"),
    ],
)
def test_bad_requests_end_in_a_sentence(
    invoke: Invoke, file: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.npz").touch()
    refused = invoke(*[file if argument == "FILE" else argument for argument in arguments])
    assert refused.code == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""


def test_a_folder_is_no_file_of_features(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "run.npz").mkdir()
    assert "not a run directory" in invoke("analyze", "run.npz").stderr


def test_a_run_is_probed_with_other_settings(invoke: Invoke, run: Path) -> None:
    done = invoke("probe", run, "probe.knn_k=3", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["trained"]["knn"]["k"] == 3
    assert "would change the encoder" in invoke("probe", run, "train.epochs=9").stderr
    assert "no value is given" in invoke("probe", run, "another").stderr
