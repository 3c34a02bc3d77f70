"""Images that have moved since a run began: --data-root, what it checks, and what is said without it."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cssl_cli.data import load_dataset
from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.concentration import concentrate_sweep
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import run_sweep
from cssl_cli.sweep.sweep import load_sweep
from cssl_cli.sweep.workers.messages import Notice, decode, encode
from cssl_cli.sweep.workers.worker import _LogReporter, _open_workshop

RECIPE = """
name: tiny
data: {name: folder, root: ROOT, size: 8}
augment: {crop: {scale: [0.4, 1.0]}, flip: {p: 0.5}}
encoder: {name: small, width: 4}
method: {name: simclr, projector: [8, 4]}
optim: {name: sgd, lr: 0.01}
train: {epochs: 1, batch_size: 4}
probe: {knn_k: 2, center_views: 1, penalties: [0.1]}
analyze: {num_images: 4, num_views: 2, bootstrap: 2, refine_pairs: 1, distances: [pixels], epsilons: [0.5]}
"""


def write_images(root, seed=0):
    generator = np.random.default_rng(seed)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A finished run, whose images are at `old` no more but at `new`."""
    folder = tmp_path_factory.mktemp("moved")
    write_images(folder / "old")
    (folder / "tiny.yaml").write_text(RECIPE.replace("ROOT", str(folder / "old")))
    pretrain(load_recipe(str(folder / "tiny.yaml")), out=folder / "runs", reporter=Silent())
    (folder / "old").rename(folder / "new")
    write_images(folder / "others", seed=1)
    return folder


@pytest.fixture
def moved(begun, tmp_path):
    """`begun`, with a copy of the run to change."""
    shutil.copytree(begun / "runs", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    return begun, run


def refused(measure):
    with pytest.raises(InputError) as caught:
        measure()
    return caught.value


def test_a_finished_run_is_measured_where_its_images_are_now(moved, invoke):
    folder, run = moved
    probed = invoke("probe", run, "--data-root", folder / "new", "--json")
    assert json.loads(probed.stdout)["trained"]["linear"]["num_images"] == 2
    assert f"{folder / 'new'}: 10 images for training, 2 for testing" in probed.stderr
    analyzed = invoke("analyze", run, "--data-root", folder / "new", "--json", "--no-figures")
    assert json.loads(analyzed.stdout)["num_images"] == 2
    assert str(folder / "old") in (run / "recipe.yaml").read_text()


@pytest.mark.parametrize("measure", [probe, analyze])
def test_without_it_the_message_says_where_they_were(moved, measure):
    folder, run = moved
    error = refused(lambda: measure(run, reporter=Silent()))
    assert error.where == str(folder / "old")
    assert error.remedy.startswith("The images of this run were there.")
    assert "--data-root DIR" in error.remedy


@pytest.mark.parametrize("measure", [probe, analyze])
def test_other_images_are_refused(moved, measure):
    folder, run = moved
    error = refused(lambda: measure(run, reporter=Silent(), data_root=str(folder / "others")))
    assert f"the images in {folder / 'others'} are not those that this run began with" in error.what
    assert not list(run.glob("*probe.json")) + list(run.glob("*analysis.json"))


def test_an_unfinished_run_goes_on_where_its_images_are_now(moved):
    folder, run = moved
    before = (run / "encoder.safetensors").read_bytes()
    recipe = load_recipe(str(run / "recipe.yaml"))
    for name in ("status", "encoder.safetensors", "checkpoint.pt"):
        (run / name).unlink()
    assert "--data-root DIR" in refused(lambda: pretrain(recipe, out=run.parent, reporter=Silent())).remedy
    others = {"out": run.parent, "reporter": Silent(), "data_root": str(folder / "others")}
    assert "are not those" in refused(lambda: pretrain(recipe, **others)).what
    assert pretrain(recipe, **others | {"data_root": str(folder / "new")}).path == run
    assert (run / "encoder.safetensors").read_bytes() == before
    of_processes = RunDir(run).environment()["processes"]
    assert [process.get("data_root") for process in of_processes] == [None, str(folder / "new")]


def test_how_the_images_were_found_is_told_once_of_all_runs(moved, invoke):
    folder, run = moved
    copy = shutil.copytree(run, run.parent / "copy")
    analyzed = invoke("analyze", run, copy, "--data-root", folder / "new", "--no-figures")
    assert analyzed.code == 0, analyzed.stderr
    assert analyzed.stderr.count("10 images for training, 2 for testing") == 1


def test_a_worker_tells_the_sweep_how_the_images_were_found(moved, tmp_path):
    folder, run = moved
    sent = []
    prepare_data(load_recipe(str(run / "recipe.yaml")), _LogReporter(sent.append), data_root=str(folder / "new"))
    (found,) = [message.text for message in sent if isinstance(message, Notice)]
    assert found.startswith(f"{folder / 'new'}: 10 images for training")
    assert decode(encode(Notice(found)).strip()) == Notice(found)


def test_an_override_of_the_root_is_answered_with_the_option(moved, invoke):
    folder, run = moved
    outcome = invoke("analyze", run, f"data.root={folder / 'new'}")
    assert outcome.code == 2
    assert "--data-root DIR" in outcome.stderr


@pytest.mark.parametrize("command", [["probe", "RUN"], ["analyze", "RUN"], ["pretrain", "RECIPE"], ["sweep", "SWEEP"]])
def test_a_folder_that_is_not_there_is_refused_at_once(moved, invoke, command, tmp_path):
    folder, run = moved
    (tmp_path / "sweep.yaml").write_text(f"name: s\nbase: {run / 'recipe.yaml'}\naxes: {{}}\n")
    places = {"RUN": run, "RECIPE": run / "recipe.yaml", "SWEEP": tmp_path / "sweep.yaml"}
    outcome = invoke(*(places.get(word, word) for word in command), "--data-root", folder / "gone")
    assert outcome.code == 2
    assert f"--data-root: there is no folder {folder / 'gone'}" in outcome.stderr


def test_images_that_lie_in_no_folder(tiny_recipe):
    error = refused(lambda: prepare_data(load_recipe(str(tiny_recipe)), Silent(), data_root="/tmp"))
    assert error.where == "--data-root"


def write_sweep(path, axes, base):
    path.write_text(f"name: s\nbase: {base}\nseeds: [0]\naxes: {axes}\n")
    return load_sweep(str(path))


def test_a_sweep_reads_all_images_from_there(moved, tmp_path):
    folder, run = moved
    sweep = write_sweep(tmp_path / "s.yaml", "{flip: {more: {augment: {flip: {p: 1.0}}}}}", run / "recipe.yaml")
    request = SweepRequest(sweep, tmp_path / "out", data_root=str(folder / "new"))
    (result,) = run_sweep(request, Silent())
    assert result.error is None
    assert result.probe["trained"]["linear"]["num_images"] == 2
    (row,) = concentrate_sweep(request, Silent())["rows"]
    assert row["content_key"] == result.analysis["content_key"]


@pytest.mark.parametrize("root", ["folder, root: /elsewhere", "shapes"])
def test_a_sweep_over_several_folders_has_no_one_root(moved, tmp_path, root):
    folder, run = moved
    axes = f"{{data: {{here: {{}}, there: {{data: {{name: {root}}}}}}}}}"
    sweep = write_sweep(tmp_path / "s.yaml", axes, run / "recipe.yaml")
    request = SweepRequest(sweep, tmp_path / "out", data_root=str(folder / "new"))
    for start in (run_sweep, concentrate_sweep):
        assert refused(lambda start=start: start(request, Silent())).where == "--data-root"


def test_a_worker_is_told(moved, tmp_path):
    from cssl_cli.sweep.workers.messages import Task

    folder, run = moved
    task = Task({}, str(tmp_path), "", "cpu", 0, probe=True, analysis=True, heading="", data_root=str(folder / "new"))
    workshop = _open_workshop(decode(encode(task).strip()))
    assert len(workshop.dataset(load_recipe(str(run / "recipe.yaml"))).train) == 10


# The folder that cssl works in


@pytest.mark.parametrize("flat", [False, True])
def test_pretraining_in_the_folder_of_images(tmp_path, monkeypatch, flat):
    root = write_images(tmp_path / "images")
    if flat:
        for name in ("a", "b"):
            for path in sorted((root / name).iterdir()):
                path.rename(root / f"{name}{path.name}")
            (root / name).rmdir()
    monkeypatch.chdir(root)
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("ROOT", "."))
    keys = set()
    for out in ("runs", "results/more", "."):  # each run lies among the images of the next
        recipe = load_recipe(str(tmp_path / "tiny.yaml"))
        run = pretrain(recipe, out=root / out, reporter=Silent())
        keys.add(run.read_json("environment.json")["content_key"])
    assert len(keys) == 1
    assert probe(run.path, reporter=Silent()) if not flat else analyze(run.path, reporter=Silent())


def test_images_that_are_refused_leave_nothing_behind(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("ROOT", str(tmp_path / "images")))
    recipe = load_recipe(str(tmp_path / "tiny.yaml"))
    refused(lambda: pretrain(recipe, out=tmp_path / "runs", reporter=Silent()))
    assert not (tmp_path / "runs").exists()


def test_no_picture_of_views_among_the_images(tmp_path, invoke):
    root = write_images(tmp_path / "images")
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("ROOT", str(root)))
    outcome = invoke("recipes", tmp_path / "tiny.yaml", "--views", root / "views.png")
    assert outcome.code == 2
    assert "would be taken for one of them" in outcome.stderr
    assert not (root / "views.png").exists()


# Links


def test_a_link_is_kept_as_it_is_given(tmp_path, monkeypatch):
    root = write_images(tmp_path / "job1")
    (tmp_path / "stable").symlink_to(root)
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("ROOT", "stable"))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("tiny.yaml")
    assert recipe.settings("data")["root"] == str(tmp_path / "stable")
    (tmp_path / "stable").unlink()
    root.rename(tmp_path / "job2")
    (tmp_path / "stable").symlink_to(tmp_path / "job2")
    assert load_recipe("tiny.yaml").fingerprint == recipe.fingerprint


@pytest.mark.parametrize(
    ("given", "expected"), [("x/../images/", "images"), ("./images//", "images"), ("link/../images", "link/../images")]
)
def test_a_path_is_shortened_where_that_names_the_same_folder(tmp_path, monkeypatch, given, expected):
    for folder in ("x", "images", "far/away"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("ROOT", given))
    monkeypatch.chdir(tmp_path)
    assert load_recipe("tiny.yaml").settings("data")["root"] == str(tmp_path / expected)


def test_environment_is_not_written_over_by_a_refused_root(moved):
    folder, run = moved
    before = (run / "environment.json").read_bytes()
    refused(lambda: probe(run, reporter=Silent(), data_root=str(folder / "others")))
    assert (run / "environment.json").read_bytes() == before


def test_torchvision_sets_name_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    settings = {"name": "cifar10", "root": str(tmp_path / "file"), "limit": None, "limit_test": None}
    error = refused(lambda: load_dataset(settings, cache_dir=tmp_path / "cache", progress=None))
    assert error.where == str(tmp_path / "file")
    assert "a file, not a folder" in error.what


def test_images_in_a_folder_that_no_recipe_can_name_are_refused_before_they_are_trained_on(
    tmp_path, monkeypatch
) -> None:
    folder = tmp_path / os.fsdecode(b"im\xe9gs")
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="is in a folder whose name is no UTF-8"):
        load_recipe("simclr-folder", ["data.root=."])
