"""When a run is mirrored, and that a tracker that fails costs a sentence."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import InputError, Interrupted, RunError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import ENCODER, METRICS, RunDir
from cssl_cli.sweep.workers.messages import Task, decode, encode
from cssl_cli.sweep.workers.stages import Missing, Workshop
from cssl_cli.sweep.workers.worker import _open_workshop
from cssl_cli.tracking import mirror, mlflow, tensorboard
from cssl_cli.tracking.mirror import Mirror, Mirrors, prepare, replay, require_trackers
from cssl_cli.tracking.records import Point, Records
from tests.support.commands import Invoke
from tests.support.written_run import STEPS, record_epochs, written_run


class Recording:
    """A tracker that keeps what it is told."""

    runs: list[Recording]

    def __init__(self, records: Records, into: str | None, say: Callable[[str], object]) -> None:
        self.name, self.into, self.points = records.name, into, list[Point]()
        self.ended: tuple[Any, ...] | None = None
        self.runs.append(self)

    def log(self, points: Sequence[Point]) -> None:
        self.points += points

    def finish(self, summary: dict[str, float], step: int, state: str) -> None:
        self.ended = summary, step, state

    @property
    def steps(self) -> list[int]:
        return [point.step for point in self.points]


class Refusing(Recording):
    """A tracker that fails at one of its calls."""

    at: str
    error: BaseException = OSError(28, "No space left on device")
    calls = 0

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "at"):
            type(self).calls += 1
            raise object.__getattribute__(self, "error")
        return object.__getattribute__(self, name)


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """In place of TensorBoard; the runs that were opened in it."""
    runs: list[Recording] = []
    monkeypatch.setattr(Recording, "runs", runs, raising=False)
    monkeypatch.setattr(tensorboard, "TensorBoard", Recording)
    return runs


def test_each_update_adds_what_is_new(tmp_path: Path, recording: list[Recording]) -> None:
    run = written_run(tmp_path)
    mirrored = Mirror("tensorboard", print, into="there")
    for epoch in (1, 2, 2, 3):
        record_epochs(run, epoch)
        mirrored.update(run)
    run.write_status("interrupted", step=12, num_steps=40)
    mirrored.close()
    (one,) = recording
    assert one.into == "there"
    assert one.steps == [0, STEPS, 2 * STEPS, 3 * STEPS]
    assert one.ended == ({}, 3 * STEPS, "interrupted")


def test_a_run_that_went_back_is_mirrored_anew(tmp_path: Path, recording: list[Recording]) -> None:
    run = written_run(tmp_path, epochs=3)
    mirrored = Mirror("tensorboard", print)
    mirrored.update(run)
    record_epochs(run, 2, speed=50.0)  # from an earlier checkpoint: the same losses, at another speed
    mirrored.update(run)
    assert recording[0].ended is not None
    assert recording[1].steps == [0, STEPS, 2 * STEPS]
    assert recording[1].points[2].values["train/images_per_second"] == 50.0


def test_the_runs_of_a_sweep_follow_one_another(tmp_path: Path, recording: list[Recording]) -> None:
    runs = [written_run(tmp_path, seed=seed, epochs=seed) for seed in (1, 2)]
    mirrors = Mirrors(["tensorboard"], print)
    for run in runs:
        mirrors.update(run)
    mirrors.finish(runs[1])
    assert [(one.name, one.steps[-1]) for one in recording] == [(runs[0].path.name, 4), (runs[1].path.name, 8)]
    assert all(one.ended is not None for one in recording)


@pytest.mark.parametrize("at", ["__init__", "log", "finish"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SystemExit(1), GeneratorExit("gone\nmore")])
def test_a_tracker_that_fails_costs_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: list[Recording], at: str, error: BaseException
) -> None:
    refusing = type("Refusing", (Refusing,), {"at": at, "error": error, "calls": 0})
    if at == "__init__":
        refusing = _raising(error)
    monkeypatch.setattr(tensorboard, "TensorBoard", refusing)
    monkeypatch.setattr(mlflow, "MLflow", Recording)
    said: list[str] = []
    run = written_run(tmp_path, epochs=1)
    with Mirrors(["tensorboard", "mlflow"], said.append) as mirrors:
        for _ in range(2):
            mirrors.update(run)
            mirrors.finish(run)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert said[0].startswith(f"tensorboard failed: {type(error).__name__}")
    assert "cssl track RUN --to tensorboard" in said[0]
    assert len(recording) - (at != "__init__") == 2, "the other tracker has both"


def _raising(error: BaseException) -> Callable[..., Any]:
    def tracker(*_: object) -> Any:
        raise error

    return tracker


def test_a_request_to_stop_is_no_failure_of_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "TensorBoard", _raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Mirrors(["tensorboard"], print).update(written_run(tmp_path, epochs=1))


def test_damaged_records_cost_a_sentence_as_well(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1)
    run.file(METRICS).write_text("{}\n")
    said: list[str] = []
    mirrors = Mirrors(["tensorboard"], said.append)
    mirrors.update(run)
    assert len(said) == 1
    assert "metrics.jsonl" in said[0]
    mirrors.finish(written_run(tmp_path, seed=4, epochs=1))
    assert len(said) == 1, "another run is mirrored all the same"


def test_a_run_that_is_damaged_meanwhile_is_closed(tmp_path: Path, recording: list[Recording]) -> None:
    run, said = written_run(tmp_path, epochs=1), list[str]()
    with Mirrors(["tensorboard"], said.append) as mirrors:
        mirrors.update(run)
        run.file(METRICS).write_text("{}\n")
    assert len(said) == 1
    assert recording[0].ended == ({}, STEPS, "unknown")


def test_a_tracker_must_be_known_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "find_spec", lambda name: None if name == "wandb" else find_spec("json"))
    assert require_trackers(["mlflow", "mlflow", "tensorboard"], "--track") == ("mlflow", "tensorboard")
    with pytest.raises(InputError, match="tensorbord") as unknown:
        require_trackers(["tensorbord"], "--track")
    assert "Did you mean 'tensorboard'" in str(unknown.value)
    with pytest.raises(InputError, match="wandb is not installed") as missing:
        require_trackers(["wandb"], "--track")
    assert "pip install 'cssl-cli[wandb]'" in str(missing.value)


def test_a_folder_that_a_tracker_left_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb_of_before").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    kind = mirror.TRACKERS["wandb"]._replace(needs=("wandb_of_before",))
    monkeypatch.setattr(mirror, "TRACKERS", {"wandb": kind})
    with pytest.raises(InputError, match="wandb is not installed"):
        require_trackers(["wandb"], "--track")


def test_replaying_reports_what_the_tracker_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "TensorBoard", _raising(ImportError("no module of that name")))
    with pytest.raises(RunError, match="tensorboard failed: ImportError: no module of that name"):
        replay(written_run(tmp_path, epochs=1), "tensorboard", None, print)
    monkeypatch.setattr(tensorboard, "TensorBoard", _raising(OSError(30, "Read-only file system", "/runs/tb")))
    with pytest.raises(RunError, match="tensorboard failed: Read-only file system: /runs/tb"):
        replay(written_run(tmp_path, epochs=1), "tensorboard", None, print)


def test_a_store_that_cannot_be_prepared_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(mlflow, "open_store", _raising(ImportError("broken")))
    assert prepare(["mlflow", "tensorboard"], tmp_path, said.append) == ("tensorboard",)
    assert len(said) == 1
    monkeypatch.setattr(mlflow, "open_store", lambda *_: None)
    assert prepare(["mlflow", "tensorboard"], tmp_path, said.append) == ("mlflow", "tensorboard")


# ---------------------------------------------------------------------- training
def test_training_is_the_same_with_a_tracker_and_with_one_that_fails(
    tmp_path: Path, tiny_recipe: Path, recording: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(tiny_recipe), ["train.epochs=2", "probe.every=1", "analyze.every=1", "data.size=8"])
    encoders = []
    for number, tracker in enumerate((None, Recording, _raising(RuntimeError("no network")))):
        monkeypatch.setattr(tensorboard, "TensorBoard", tracker)
        said: list[str] = []
        with Mirrors(["tensorboard"] if tracker else [], said.append) as mirrors:
            run = pretrain(recipe, out=tmp_path / str(number), reporter=Silent(), recorded=mirrors.update)
            mirrors.finish(run)
        assert len(said) == (number == 2)
        encoders.append(run.file(ENCODER).read_bytes())
    assert encoders[0] == encoders[1] == encoders[2]
    (one,) = recording
    assert one.steps == [0, 4, 8], "with the measurements of each epoch"
    assert {"train/loss", "trace/alignment", "knn/knn"} <= one.points[2].values.keys()
    assert one.ended == ({}, 8, "finished")


def test_a_signal_while_a_tracker_is_waited_for_saves_the_run(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe), ["train.epochs=2", "train.checkpoint_minutes=60"])

    def recorded(run: RunDir) -> None:
        if run.read_records(METRICS):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="interrupted") as stopped:
        pretrain(recipe, out=tmp_path, reporter=Silent(), recorded=recorded)
    assert "Saved at step 4 of 8" in str(stopped.value)
    assert stopped.value.exit_code == 128 + signal.SIGTERM


def test_the_members_of_a_sweep_are_mirrored_with_their_results(
    tmp_path: Path, recording: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written_run(tmp_path, epochs=2)

    def stages(self: Workshop, recipe: Any, missing: Missing) -> None:
        self.mirrors.update(run)
        raise OSError("a stage fails")

    monkeypatch.setattr(Workshop, "_stages", stages)
    workshop = Workshop(tmp_path, Silent(), None, None, ["tensorboard"])
    recipe = load_recipe(str(run.file("recipe.yaml")))
    assert workshop.complete(recipe, Missing(probe=True, analysis=True)) is not None
    assert recording[0].ended == ({}, 2 * STEPS, "running"), "closed although the member failed"


def test_workers_are_told_the_trackers() -> None:
    task = Task({}, "home", "log", "cpu", 0, probe=True, analysis=True, heading="", track=["tensorboard"])
    told = decode(encode(task))
    assert isinstance(told, Task)
    assert [one.name for one in _open_workshop(told).mirrors.working] == ["tensorboard"]


# ---------------------------------------------------------------------- the command
def test_a_tracker_that_is_not_installed_is_told_before_training(
    invoke: Invoke, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "find_spec", lambda name: None)
    for command in (["pretrain", "tiny.yaml"], ["sweep", "quickstart"]):
        outcome = invoke(*command, "--track", "wandb")
        assert outcome.code == 2
        assert "--track: wandb is not installed" in outcome.stderr
    assert not (tiny_recipe.parent / "runs").exists()


def test_track_mirrors_runs_and_the_folders_of_sweeps(
    invoke: Invoke, tmp_path: Path, recording: list[Recording]
) -> None:
    runs = [written_run(tmp_path / "runs", seed=seed, epochs=seed, state="finished") for seed in (1, 2)]
    damaged = written_run(tmp_path / "other", seed=3, epochs=1)
    damaged.file(METRICS).write_text("{}\n")
    outcome = invoke("track", damaged.path, "runs", "--to", "tensorboard", "--into", "there")
    assert outcome.code == 2
    assert "metrics.jsonl" in outcome.stderr
    assert {one.name for one in recording} == {run.path.name for run in runs}
    assert outcome.stdout.count("tensorboard: ") == 2
    held = runs[0]
    with held.locked():
        outcome = invoke("track", held.path, "--to", "tensorboard", "--json")
    assert outcome.code == 2
    assert "a process works on the run" in outcome.stderr
    assert '"runs": []' in outcome.stdout


def test_a_home_folder_is_one_as_a_place(
    invoke: Invoke, tmp_path: Path, recording: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = written_run(tmp_path / "runs", epochs=1)
    assert invoke("track", run.path, "--to", "tensorboard", "--into", "~/there").code == 0
    assert recording[0].into == str(tmp_path / "home" / "there")


def test_a_tracker_that_fails_ends_track(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "TensorBoard", _raising(OSError(28, "No space left on device")))
    for seed in (1, 2):
        written_run(tmp_path / "runs", seed=seed, epochs=1)
    outcome = invoke("track", "runs", "--to", "tensorboard")
    assert outcome.code == 1
    assert outcome.stderr.count("tensorboard failed: OSError") == 1, "not tried again with the next run"


def test_track_needs_a_run(invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("track", tmp_path / "nothing", "--to", "tensorboard")
    assert outcome.code == 2
    assert "there is no such run directory" in outcome.stderr


def test_an_imported_run_has_no_steps(tmp_path: Path, recording: list[Recording]) -> None:
    run = written_run(tmp_path, state="finished")
    Mirror("tensorboard", print).finish(RunDir(run.path))
    assert recording[0].points == []
    assert recording[0].ended == ({}, 0, "finished")
