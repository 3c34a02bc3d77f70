"""`cssl_cli.api`: the results of the commands, from arrays and paths; and the pages that show it."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

from cssl_cli import api
from cssl_cli.host.progress import Silent
from cssl_cli.report.figures import figures
from cssl_cli.runs.finished import trained_part
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.runs.setup import make_extractor
from tests.support.commands import Invoke

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ["analyze.bootstrap=0", "analyze.deltas=[0.5, 1.0]", "analyze.epsilons=[0.2, 0.5]", "probe.penalties=[0.1]"]
LABELS = np.repeat([0, 1, 2], 5)
FEATURES = 2 * np.eye(3, 6)[LABELS][:, None] + 0.3 * np.random.default_rng(0).standard_normal((15, 3, 6))


# ---------------------------------------------------------------------- the same as the commands
def test_a_run_is_measured_as_by_the_commands(invoke: Invoke, analyzed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(analyzed, tmp_path / "run")
    terms, accuracies = api.analyze(run), api.probe(run, overrides=["probe.knn_k=3"])
    assert terms == json.loads(invoke("analyze", run, "--json", "--no-figures").stdout)
    assert accuracies == json.loads(invoke("probe", run, "probe.knn_k=3", "--json").stdout)
    few = ["data.num_train=60", "data.num_test=40"]
    elsewhere = api.probe(run, data="shapes", overrides=few)
    assert elsewhere == json.loads(invoke("probe", run, "--data", "shapes", *few, "--json").stdout)
    assert api.probe(run, data="shapes", overrides=few, again=True) == elsewhere
    assert accuracies["trained"]["knn"]["k"] == 3
    with pytest.raises(api.InputError, match="would change the encoder"):
        api.analyze(run, overrides=["seed=9"])


def test_features_are_measured_as_by_the_commands(invoke: Invoke, tmp_path: Path) -> None:
    train = {"train_features": FEATURES + 0.1, "train_labels": LABELS}
    np.savez(tmp_path / "f.npz", features=FEATURES, labels=LABELS, untrained=FEATURES - 1, **train)
    terms = json.loads(invoke("analyze", "f.npz", *QUICK, "--json").stdout)
    assert api.analyze_features(FEATURES, LABELS, untrained=FEATURES - 1, overrides=QUICK) == terms
    assert api.analyze_features(tmp_path / "f.npz", overrides=QUICK) == terms
    scores = json.loads(invoke("probe", "f.npz", *QUICK, "--json").stdout)
    assert api.probe_features(FEATURES, LABELS, *train.values(), overrides=QUICK) == scores
    assert api.probe_features("f.npz", overrides=QUICK) == scores


def test_arrays_of_numpy_and_torch_are_the_same() -> None:
    by_numpy = api.analyze_features(FEATURES, LABELS, class_names=["a", "b", "c"], overrides=QUICK)
    tensors = torch.from_numpy(FEATURES), torch.from_numpy(LABELS)
    assert api.analyze_features(*tensors, class_names=("a", "b", "c"), overrides=QUICK) == by_numpy


def test_results_are_of_json_types_and_of_their_own() -> None:
    labels = list(LABELS)
    terms = api.analyze_features(FEATURES.tolist(), labels, overrides=QUICK)
    assert json.loads(json.dumps(terms, allow_nan=False)) == terms


# ---------------------------------------------------------------------- the encoder
def test_the_encoder_gives_the_features_that_are_measured(run: Path) -> None:
    encoder = api.load_encoder(run, device="cpu")
    recipe = api.load_recipe(str(run / "recipe.yaml"))
    dataset = prepare_data(recipe, Silent())
    images = dataset.test.images[:20]
    measured = make_extractor(
        trained_part(RunDir(run), recipe, "encoder"),
        mean=dataset.mean,
        std=dataset.std,
        image_size=dataset.image_size,
        device=torch.device("cpu"),
    ).clean(images)
    assert torch.allclose(encoder(images), measured, atol=1e-5)
    assert torch.allclose(encoder(images.float() / 255), measured, atol=1e-5)
    assert encoder(images).shape == (20, encoder.num_features)
    assert not encoder(images).requires_grad
    assert not encoder.training


def test_an_encoder_of_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(api.InputError, match="no such run directory"):
        api.load_encoder(tmp_path / "gone")


# ---------------------------------------------------------------------- progress and errors
def test_progress_is_told_and_may_be_left_out(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    api.analyze_features(FEATURES, LABELS, overrides=[*QUICK, "analyze.num_images=6"], progress=told.append)
    assert told[0] == "measured on 6 of 15 images, as many of each class; --images N takes another number"
    assert any(re.fullmatch(r"terms of the trained features: \d+ done", line) for line in told)
    api.analyze_features(FEATURES, LABELS, overrides=QUICK)
    assert api.pretrain(api.load_recipe(str(run / "recipe.yaml")), out=run.parent, progress=told.append) == run
    assert told[-1].endswith("is finished already")
    assert capfd.readouterr() == ("", "")


def test_errors_are_sentences() -> None:
    with pytest.raises(api.InputError, match="features: labels has shape"):
        api.analyze_features(FEATURES, LABELS[:-1])
    with pytest.raises(api.InputError, match="labels cannot go with a file of features"):
        api.analyze_features("f.npz", LABELS)
    with pytest.raises(api.InputError, match="data_root"):
        api.pretrain(api.load_recipe("simclr-shapes"), data_root="gone")
    for overrides in ("seed=1", [1]):
        with pytest.raises(api.InputError, match="overrides: no list of str"):
            api.load_recipe("simclr-shapes", overrides)
        with pytest.raises(api.InputError, match="overrides: no list of str"):
            api.analyze_features(FEATURES, LABELS, overrides=overrides)
    assert issubclass(api.InputError, api.CsslError)


def test_paths_and_devices_may_be_those_of_their_libraries(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("based_on: simclr-shapes\nname: mine\n")
    assert api.load_recipe(tmp_path / "mine.yaml", ["seed=4"]).seed == 4
    by_name = api.probe_features(FEATURES, LABELS, FEATURES, LABELS, device="cpu", overrides=QUICK)
    assert (
        api.probe_features(FEATURES, LABELS, FEATURES, LABELS, device=torch.device("cpu"), overrides=QUICK) == by_name
    )


def test_the_order_in_memory_changes_no_number() -> None:
    turned = np.ascontiguousarray(FEATURES.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert api.analyze_features(turned, LABELS, overrides=QUICK) == api.analyze_features(
        FEATURES, LABELS, overrides=QUICK
    )


def test_every_function_is_typed_and_documented() -> None:
    for name in api.__all__:
        function = getattr(api, name)
        if not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters.values()
        assert all(parameter.annotation is not parameter.empty for parameter in parameters), name
        assert function.__annotations__["return"], name
        assert function.__doc__, name
    assert get_type_hints(api.load_recipe)["return"] is api.Recipe


# ---------------------------------------------------------------------- the pages
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages show, on fewer images and for less time."""
    load, analyze, probe = api.load_recipe, api.analyze_features, api.probe_features
    shorter = [
        *("data.size=16", "data.num_train=100", "data.num_test=60", "train.epochs=1", "train.batch_size=50"),
        *(
            "encoder.width=2",
            "optim.warmup_epochs=0",
            "analyze.num_images=20",
            "analyze.num_views=3",
            "analyze.bootstrap=0",
        ),
        *("analyze.refine_pairs=0", "analyze.distances=[trained]", "analyze.deltas=[1.0]", "probe.penalties=[1.0]"),
    ]
    monkeypatch.setattr(api, "load_recipe", lambda name, overrides=(): load(name, [*overrides, *shorter]))
    monkeypatch.setattr(
        api,
        "analyze_features",
        lambda *arrays, overrides=(), **options: analyze(
            *arrays, overrides=["analyze.num_images=40", "analyze.deltas=[1.0]", *overrides], **options
        ),
    )
    monkeypatch.setattr(api, "probe_features", partial(probe, overrides=["probe.penalties=[1.0]"]))
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {"class_centers": figures.ANALYSIS_FIGURES["class_centers"]})


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.long
def test_the_snippets_of_the_page_about_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quickly(monkeypatch)
    names: dict[str, Any] = {}
    for snippet in snippets("python.md"):
        exec(snippet, names)
    assert (names["run"] / "analysis.json").exists()
    assert (names["run"] / "figures" / "class_centers.png").exists()
    assert names["encoder"](names["images"]).shape == (8, names["encoder"].num_features)
    assert names["scores"]["trained"]["knn"]["num_images"] == 200
    printed = capsys.readouterr().out
    assert "features: labels has shape (299,), and features has 300 images" in printed


def test_the_snippet_that_makes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    names: dict[str, Any] = {
        "encoder": nn.Sequential(nn.Flatten(), nn.Linear(48, 5)),
        "images": torch.rand(12, 3, 4, 4, generator=generator),
        "labels": [0, 1, 2] * 4,
        "augment": lambda images: images + 0.1 * torch.randn(images.shape, generator=generator),
        "normalize": lambda images: images - 0.5,
    }
    (snippet,) = snippets("own-features.md")
    exec(snippet, names)
    with np.load("features.npz") as stored:
        features = stored["features"]
    assert features.shape == (12, 8, 5)
    clean = names["encoder"](names["images"] - 0.5).detach()
    assert features[:, 0] == pytest.approx(clean.numpy(), abs=1e-6)
    assert invoke("analyze", "features.npz", *QUICK).code == 0


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_are_stored_without_output(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quickly(monkeypatch)
    mpl.use("agg")
    names: dict[str, Any] = {}
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        exec(compile(ast.parse("".join(cell["source"])), path.name, "exec"), names)
    names["plt"].close("all")
    printed = capsys.readouterr().out
    assert re.search(r"alignment +0\.\d+ +\d\.\d+\n", printed)
    found = [names["terms"][name]["trained"]["alignment"]["unbiased"]["value"] for name in names["encoders"]]
    assert found[0] < found[1]
