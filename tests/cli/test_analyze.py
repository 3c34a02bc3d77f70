"""`cssl analyze` from its arguments to its report: what it takes, what it refuses, what it keeps."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cssl_cli.cli.requests import Targets
from cssl_cli.recipe import load_recipe
from cssl_cli.report.analysis import show_runs
from cssl_cli.report.figures import figures
from cssl_cli.runs.run_dir import ANALYSIS, RunDir
from cssl_cli.runs.weights_file import facts_in
from cssl_cli.sweep.ranking import RANK, HowToRank
from cssl_cli.theory.estimate import Direction
from tests.support.commands import QUICKLY_MEASURED, TINY_RECIPE, Invoke, the_run


def leaves(content: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(content, list):
        for value in content:
            yield from leaves(value, path)
    else:
        yield path, content


def quantities(content: dict) -> Iterator[tuple[str, dict]]:
    for encoder in ("trained", "projector", "untrained"):
        for term, entries in content[encoder].items():
            yield from ((f"{encoder}.{term}.{name}", entry) for name, entry in entries.items())
    for distance, entries in content["concentration"].items():
        yield from ((f"concentration.{distance}.{name}", entry) for name, entry in entries.items())


# ---------------------------------------------------------------------- what comes out
def test_every_quantity_says_how_it_was_estimated_and_how_it_errs(invoke: Invoke, run: Path) -> None:
    done = invoke("analyze", run, "--json", "--no-figures")
    assert done.code == 0, done.stderr
    content = json.loads(done.stdout)
    assert RunDir(run).read_json(ANALYSIS) == {k: v for k, v in content.items() if k != "verdicts"}
    found = dict(quantities(content))
    assert len(found) > 250
    for name, entry in found.items():
        if entry["value"] is None:
            assert len(entry["reason"]) > 15, name
        else:
            assert entry["errs"] in get_args(Direction), name
            assert len(entry["estimator"]) > 10, name
            of_the_weights_alone = name.endswith("spectral_product_unscaled")
            assert (entry["num_images"] >= 1) != of_the_weights_alone, name
            assert (entry["num_views"] >= 1) != of_the_weights_alone, name
            assert "interval" in entry, name


def test_the_report_has_summary_verdicts_and_the_sections_asked_for(invoke: Invoke, run: Path) -> None:
    plain = invoke("analyze", run, "--no-figures")
    assert plain.code == 0, plain.stderr
    for words in (
        "linear, %",
        "alignment",
        "mean μk·μl",
        "1−σ",
        "certified ≤, new images",
        "error, new images",
        "--section",
    ):
        assert words in plain.stdout, words
    assert "Lipschitz constant of the encoder with unit-norm output" not in plain.stdout
    everything = invoke("analyze", run, "--no-figures", "--section", "all")
    for words in ("Lipschitz constant of", "NT-Xent", "RankMe", "nearest centre of", "Theorem 2", "Divergence"):
        assert words in everything.stdout, words
    assert max(map(len, everything.stdout.splitlines())) <= 100
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", everything.stdout)


def test_measured_once_it_is_read_again_unless_asked(invoke: Invoke, run: Path) -> None:
    assert invoke("analyze", run, "--no-figures").code == 0
    content = json.loads((run / "analysis.json").read_text())
    RunDir(run).write_json("analysis.json", {**content, "num_images": 12345})
    assert "12,345" in invoke("analyze", run, "--no-figures").stdout
    assert "12,345" not in invoke("analyze", run, "--no-figures", "--again").stdout
    assert json.loads((run / "analysis.json").read_text()) == content


def test_classes_and_views_are_settings_of_their_own(invoke: Invoke, run: Path) -> None:
    assert invoke("analyze", run, "--no-figures").code == 0
    whole = json.loads((run / "analysis.json").read_text())
    some = json.loads(
        invoke("analyze", run, "--no-figures", "--json", "--classes", "bar,square,star", "--views", 2).stdout
    )
    assert some["class_names"] == ["bar", "square", "star"]
    assert some["settings"]["num_views"] == 2
    assert len(some["trained"]["class_centers"]["inner_products"]["value"]) == 3
    assert json.loads(invoke("analyze", run, "--no-figures", "--json").stdout)["class_names"] == whole["class_names"]


def test_several_runs_are_one_table(invoke: Invoke, run: Path) -> None:
    other = shutil.copytree(run, run.parent / "other")
    shown = invoke("analyze", run, other, "--no-figures")
    assert shown.code == 0, shown.stderr
    assert run.name in shown.stdout
    assert "other" in shown.stdout
    content = json.loads(invoke("analyze", run, other, "--json", "--no-figures").stdout)
    assert set(content["runs"]) == {str(run), str(other)}
    assert "before training" not in shown.stdout


def test_several_runs_of_a_sweep_that_was_ranked_show_the_share(invoke: Invoke, run: Path) -> None:
    other = shutil.copytree(run, run.parent / "other")
    assert invoke("analyze", run, "--no-figures").code == 0
    share, unknown = {"value": 0.0123, "interval": [0.01, 0.02]}, {"value": None, "reason": "unknown"}
    entry = {
        "rows": ["x"],
        "settings": HowToRank(4000, 0).settings(load_recipe(str(run / "recipe.yaml"))),
        "content_key": json.loads((run / "analysis.json").read_text())["content_key"],
        **{"share": share, "shared": unknown, "about_class": unknown},
    }
    RunDir(run.parent).write_json(RANK, {"format": 1, "sets": [entry]})
    shown = " ".join(invoke("analyze", run, other, "--no-figures").stdout.split())
    assert "share before training, % 1.23 1.23" in shown
    assert "Share before training: what two views of an image share about its class" in shown
    content = json.loads(invoke("analyze", run, other, "--json", "--no-figures").stdout)
    assert [one["ranking"]["share"] for one in content["runs"].values()] == [share, share]
    reported = list(csv.DictReader(invoke("report", run, other, "--format", "csv").stdout.splitlines()))
    of_share = [[row[f"share before training{end}"] for end in ("", " low", " high")] for row in reported]
    assert of_share == [["0.0123", "0.01", "0.02"]] * 2


def test_rank_correlations_take_three_runs(invoke: Invoke, run: Path) -> None:
    refused = invoke("analyze", run, "--accuracy", "knn")
    assert refused.code == 2
    assert "--accuracy: rank correlations with the k-NN accuracy take 3 runs" in refused.stderr
    assert "Did you mean 'nearest_center'?" in invoke("analyze", run, "--accuracy", "nearest_centre").stderr
    others = [shutil.copytree(run, run.parent / name) for name in ("second", "third")]
    shown = invoke("analyze", run, *others, "--no-figures").stdout
    assert "take three rows that have it in all their seeds; there is 1." in " ".join(shown.split())  # one recipe


def test_runs_measured_unlike_one_another_are_told_apart(
    invoke: Invoke, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert invoke("analyze", run, "--no-figures").code == 0
    one = json.loads((run / "analysis.json").read_text())
    other = json.loads((run / "analysis.json").read_text())
    del other["concentration"]["pixels"]
    other["settings"]["epsilons"] = [0.2, 0.7]
    for first, second in ((one, other), (other, one)):
        show_runs({run: first, run.parent / "other": second}, as_json=False)
        shown = capfd.readouterr().out
        assert "cannot be compared" in shown
        assert "R_ε at ε = 0.5" in shown
        assert "R_ε at ε = 0.7" in shown


def test_figures_are_drawn_into_the_run_directory(invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = ("class_centers", "r_epsilon")  # each of them: tests/report/figures
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {name: figures.ANALYSIS_FIGURES[name] for name in some})
    assert invoke("analyze", run).code == 0
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {"figures.json", *(f"{figure}.{kind}" for figure in some for kind in ("png", "svg"))}


def test_figures_and_analysis_are_of_the_same_settings(
    invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {name: figures.ANALYSIS_FIGURES[name] for name in ("class_centers", "projection")}
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", some)

    def views(name: str) -> object:
        return json.loads((run / name).read_text())["settings"]["num_views"]

    def drawn() -> set[str]:
        return {path.stem for path in (run / "figures").glob("*.svg")}

    for asked, has_centers in ((3, True), (1, False), (3, True), (1, False)):  # one of them measured, once
        assert invoke("analyze", run, "--views", asked).code == 0
        assert views("analysis.json") == views("figures/figures.json") == asked
        assert drawn() == {"projection", *(["class_centers"] if has_centers else [])}
        assert len(list(run.glob("analysis*.json"))) <= 2


# ---------------------------------------------------------------------- before training
def test_the_report_is_printed_where_no_figures_can_be_written(invoke: Invoke, run: Path) -> None:
    shutil.rmtree(run / "figures", ignore_errors=True)
    (run / "figures").write_text("in the way")
    done = invoke("analyze", run)
    assert done.code == 0
    assert done.stdout == invoke("analyze", run, "--no-figures").stdout
    assert "no figures were drawn: " in done.stderr
    assert "leave the figures out with --no-figures" in done.stderr


@pytest.mark.parametrize("form", ["lr=0.01", "./lr=0.01", "lr=0.01/RUN", "out/lr=0.01/RUN", "~/lr=0.01/RUN"])
def test_an_existing_directory_is_a_run_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / form.removeprefix("~/")).mkdir(parents=True)
    targets = Targets.sort([form, "analyze.bootstrap=20", "~probe"])
    assert [path.resolve() for path in targets.runs] == [tmp_path / form.removeprefix("~/")]
    assert targets.overrides == ("analyze.bootstrap=20", "~probe")


def test_a_recipe_file_is_one_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1.yaml").write_text("")
    assert Targets.sort(["lr=1.yaml", "lr=2.yaml"]).recipe == "lr=1.yaml"
    assert Targets.sort(["out/lr=2.yaml"]).recipe == "out/lr=2.yaml"


def test_a_recipe_is_measured_without_a_run(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    shown = invoke("analyze", tiny_recipe, "analyze.refine_pairs=20", "--section", "concentration")
    assert shown.code == 0, shown.stderr
    for words in ("pixels (the paper's)", "standardised", "untrained", "nearest, %", "→"):
        assert words in shown.stdout
    content = json.loads(invoke("analyze", tiny_recipe, "analyze.refine_pairs=0", "--json").stdout)
    assert set(content["concentration"]) == {"pixels", "standardized_pixels", "untrained"}
    assert not (tmp_path / "runs").exists()


def test_a_sweep_is_ranked_without_training(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "name: two\nbase: tiny.yaml\nseeds: 2\naxes:\n  augment:\n    full: {}\n"
        "    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}\n"
    )
    shown = invoke("sweep", "two.yaml", "--concentration-only", "analyze.refine_pairs=0")
    assert shown.code == 0, shown.stderr
    assert {path.name for path in (tmp_path / "runs" / "two").iterdir()} == {"concentration.json"}
    content = json.loads((tmp_path / "runs" / "two" / "concentration.json").read_text())
    assert [row["row"] for row in content["rows"]] == ["full", "crop"]
    yardsticks = {row["concentration"]["pixels"]["yardstick"]["value"] for row in content["rows"]}
    assert len(yardsticks) == 1


# ---------------------------------------------------------------------- what is refused, and what is only absent
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/gone"], "no such run directory"),
        (["nothing-of-this-name"], "nothing-of-this-name"),
        (["RUN", "simclr-shapes"], "not all run directories"),
        (["simclr-shapes", "simclr-cifar10"], "not all run directories"),
        (["RUN", "--section", "certificate"], "certificates"),
        (["RUN", "--classes", "circle,sqare"], "Did you mean 'square'"),
        (["RUN", "--classes", "circle"], "at least two classes"),
        (["RUN", "--classes", "sta"], "Did you mean 'star'"),
        (
            ["simclr-shapes", "data.num_test=100", "data.num_train=100", "--section", "classes"],
            "a recipe without a run",
        ),
        (["RUN", "RUN", "--section", "classes"], "sections are those of one run"),
        (["RUN", "seed=4"], "would change the encoder"),
        (["RUN", "analyze.num_view=4"], "analyze.num_views"),
        (["RUN", "--images", "3"], "analyze.num_images"),
        (["simclr-shapes", "--export", "t.npz"], "one run"),
        (["simclr-shapes", "analyze.distances=[trained]"], "without a trained encoder"),
    ],
)
def test_bad_requests_end_in_a_sentence(invoke: Invoke, run: Path, arguments: list[str], words: str) -> None:
    refused = invoke("analyze", *[run if argument == "RUN" else argument for argument in arguments])
    assert refused.code == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_one_view_leaves_what_needs_more_absent(invoke: Invoke, run: Path) -> None:
    done = invoke("analyze", run, "--views", 1, "--section", "all", "--no-figures")
    assert done.code == 0, done.stderr
    assert "at least two augmented views" in " ".join(done.stdout.split())
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", done.stdout)


def overwrite(run: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = run / "encoder.safetensors"
    with path.open("rb") as file:
        facts = facts_in(file)
    weights = load_file(path)
    floating = {name: change(tensor) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    RunDir(run).save_weights(path.name, floating, facts)


def test_an_encoder_that_gives_nan_fails_with_a_sentence(invoke: Invoke, run: Path) -> None:
    overwrite(run, lambda tensor: torch.full_like(tensor, torch.nan))
    failed = invoke("analyze", run)
    assert failed.code == 1
    assert "NaN" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_encoder_whose_outputs_are_all_equal_is_reported_as_such(invoke: Invoke, run: Path) -> None:
    overwrite(run, torch.zeros_like)
    done = invoke("analyze", run, "--section", "all", "--no-figures")
    assert done.code == 0, done.stderr
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", done.stdout)
    content = json.loads((run / "analysis.json").read_text())
    assert all(value == value for _, value in leaves(content) if isinstance(value, float))
    assert content["trained"]["certificate_c"]["error_bound"]["vacuous"] is True
    assert "All outputs of the encoder and of the projector coincide" in done.stdout


def write_images(folder: Path, counts: dict[str, int]) -> None:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def test_a_class_with_one_image(invoke: Invoke, tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "train", {"a": 20, "b": 20, "c": 20})
    write_images(tmp_path / "images" / "test", {"a": 9, "b": 1, "c": 9})
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    settings = "data={name: folder, root: images, size: 8}", "analyze.classes=null", "train={epochs: 1, batch_size: 16}"
    assert invoke("pretrain", "tiny.yaml", *settings).code == 0
    done = invoke("analyze", the_run(tmp_path), "--section", "all", "--no-figures")
    assert done.code == 0, done.stderr
    assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|None", done.stdout)
    content = json.loads((the_run(tmp_path) / "analysis.json").read_text())
    assert content["trained"]["spread"]["within_per_class"]["value"]["b"] is None


# ---------------------------------------------------------------------- through training
def test_the_trace_shows_training_and_changes_nothing(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    assert invoke("pretrain", tiny_recipe, "--out", "plain").code == 0
    assert invoke("pretrain", tiny_recipe, "analyze.every=2", "--out", "traced").code == 0
    (plain,), (traced,) = ((tmp_path / out).iterdir() for out in ("plain", "traced"))
    assert plain.name != traced.name
    ours, theirs = load_file(plain / "encoder.safetensors"), load_file(traced / "encoder.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    records = [json.loads(line) for line in (traced / "trace.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["step"]) for record in records] == [(0, 0), (2, 8), (3, 12)]
    for record in records:
        for name in ("alignment", "mean_inner_product", "R_epsilon", "uniformity", "rankme", "nearest_center", "knn"):
            assert record[name] is not None, name
    assert len({record["alignment"] for record in records}) == 3


def test_the_trace_goes_on_after_an_interruption(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    from cssl_cli.runs.training_trace import TermTrace

    assert invoke("pretrain", tiny_recipe, "analyze.every=1", "--out", "whole").code == 0
    measure = TermTrace.measure

    def stopped(self: TermTrace, *arguments: object, epoch: int, step: int) -> dict:
        if epoch == 2:
            raise KeyboardInterrupt
        return measure(self, *arguments, epoch=epoch, step=step)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TermTrace, "measure", stopped)
        assert invoke("pretrain", tiny_recipe, "analyze.every=1", "train.checkpoint_minutes=0").code == 130
    assert invoke("pretrain", tiny_recipe, "analyze.every=1").code == 0
    (whole,) = (tmp_path / "whole").iterdir()
    assert (the_run(tmp_path) / "trace.jsonl").read_text() == (whole / "trace.jsonl").read_text()


def test_knn_through_training_is_that_of_the_probe_and_changes_nothing(
    invoke: Invoke, tiny_recipe: Path, tmp_path: Path
) -> None:
    assert invoke("pretrain", tiny_recipe, "--out", "plain").code == 0
    assert invoke("pretrain", tiny_recipe, "probe.every=2", "--out", "recorded").code == 0
    (plain,), (recorded,) = ((tmp_path / out).iterdir() for out in ("plain", "recorded"))
    ours, theirs = load_file(plain / "encoder.safetensors"), load_file(recorded / "encoder.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    records = [json.loads(line) for line in (recorded / "knn.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["step"]) for record in records] == [(2, 8), (3, 12)]
    assert invoke("probe", recorded).code == 0
    probed = json.loads((recorded / "probe.json").read_text())["trained"]["knn"]
    last = records[-1]
    assert last["knn"] == probed["accuracy"]
    assert (last["num_images"], last["k"], last["temperature"]) == (
        probed["num_images"],
        probed["k"],
        probed["temperature"],
    )


def test_knn_through_training_goes_on_after_an_interruption(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    from cssl_cli.runs.training_trace import KnnTrace

    assert invoke("pretrain", tiny_recipe, "probe.every=1", "--out", "whole").code == 0
    measure = KnnTrace.measure

    def stopped(self: KnnTrace, *arguments: object, epoch: int, step: int) -> dict:
        if epoch == 2:
            raise KeyboardInterrupt
        return measure(self, *arguments, epoch=epoch, step=step)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KnnTrace, "measure", stopped)
        assert invoke("pretrain", tiny_recipe, "probe.every=1", "train.checkpoint_minutes=0").code == 130
    assert invoke("pretrain", tiny_recipe, "probe.every=1").code == 0
    (whole,) = (tmp_path / "whole").iterdir()
    assert (the_run(tmp_path) / "knn.jsonl").read_text() == (whole / "knn.jsonl").read_text()


def test_knn_through_training_needs_labels_and_says_so(invoke: Invoke, tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"": 20})
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    data = "data={name: folder, root: images, size: 16}"
    done = invoke("pretrain", "tiny.yaml", data, "train={epochs: 1, batch_size: 8}", "probe.every=1")
    assert done.code == 0, done.stderr
    assert "no k-NN accuracies" in done.stderr
    assert not (the_run(tmp_path) / "knn.jsonl").exists()
