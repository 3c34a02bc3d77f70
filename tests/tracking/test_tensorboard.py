"""TensorBoard's own reader finds each step once, whatever became of the processes that mirrored them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.runs.run_dir import RunDir
from cssl_cli.tracking.mirror import Mirror, replay
from cssl_cli.tracking.records import read_points
from tests.support.forked_process import ForkedProcess
from tests.support.written_run import record_epochs, written_run

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def reader(run: RunDir) -> Any:
    return accumulators.EventAccumulator(str(run.path.parent / "tensorboard" / run.path.name))


def scalars(accumulator: Any) -> dict[tuple[str, int], float]:
    """The numbers by tag and step, of which none may be there twice."""
    accumulator.Reload()
    found = [(tag, event) for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag)]
    by_step = {(tag, event.step): event.value for tag, event in found}
    assert len(by_step) == len(found), "a step is there twice"
    return by_step


def expected(run: RunDir) -> Mapping[tuple[str, int], Any]:
    points = {(name, one.step): value for one in read_points(run) for name, value in one.values.items()}
    return {place: pytest.approx(value, rel=1e-6) for place, value in points.items()}  # TensorBoard has float32


def test_every_step_is_there_once_after_kills(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    open_since = reader(run)
    for epochs, speed in ((2, 100.0), (3, 100.0), (2, 50.0), (3, 50.0)):  # killed twice, and went back once
        killed = Mirror("tensorboard", print)
        record_epochs(run, epochs, speed=speed)
        killed.update(run)
        assert scalars(reader(run)) == expected(run)
        assert scalars(open_since) == expected(run), "nor does one that was open meanwhile see any twice"


def test_a_run_is_mirrored_beside_it_from_within_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written_run(tmp_path, epochs=1)
    monkeypatch.chdir(run.path)
    replay(RunDir(Path()), "tensorboard", None, print)
    assert scalars(reader(run)) == expected(run)
    assert not run.file("tensorboard").exists()


def test_the_recipe_is_a_text_and_the_time_that_of_training(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=2)
    replay(run, "tensorboard", None, print)
    accumulator = reader(run)
    accumulator.Reload()
    text = accumulator.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    name: tiny\n" in text
    first, second = accumulator.Scalars("train/loss")
    assert second.wall_time - first.wall_time == pytest.approx(10.0, abs=1e-3)


def test_files_of_others_stay(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1)
    folder = tmp_path / "into" / run.path.name
    folder.mkdir(parents=True)
    theirs = folder / "events.out.tfevents.1.host"
    theirs.touch()
    for _ in range(2):
        replay(run, "tensorboard", str(tmp_path / "into"), print)
    assert theirs.exists()
    sizes = sorted(path.stat().st_size > 0 for path in folder.iterdir())
    assert sizes == [False, False, True], "theirs, our first emptied, our second"


@pytest.mark.long
def test_a_run_killed_and_resumed_shows_each_step_once(tiny_recipe: Path) -> None:
    """Killed before its first checkpoint, so that it goes back to the beginning, and again later."""
    folder = tiny_recipe.parent
    arguments = ["pretrain", "tiny.yaml", "train.epochs=12", "probe.every=3", "--track", "tensorboard"]
    arguments += ["data.size=8", "encoder.width=2"]

    def latest() -> int:
        try:
            (path,) = (folder / "runs").glob("*/metrics.jsonl")
            return json.loads(path.read_text().splitlines()[-1])["epoch"]
        except (OSError, ValueError):
            return 0

    for minutes, epoch in ((60, 3), (0, 7)):
        process = ForkedProcess(folder, *arguments, f"train.checkpoint_minutes={minutes}")
        deadline = time.monotonic() + 120
        while latest() < epoch and process.poll() is None:
            assert time.monotonic() < deadline, "the run does not get on"
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert process.returncode == -9, "it ended before it could be killed"
        if minutes:
            (metrics,) = (folder / "runs").glob("*/metrics.jsonl")
            metrics.unlink()  # so that `latest` waits for the next process
    process = ForkedProcess(folder, *arguments)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "going on from step" in stderr
    assert "tensorboard failed" not in stderr
    (path,) = (folder / "runs").glob("*/metrics.jsonl")
    run = RunDir(path.parent)
    found = scalars(reader(run))
    assert found == expected(run)
    assert sorted(step for tag, step in found if tag == "train/loss") == [4 * epoch for epoch in range(1, 13)]
