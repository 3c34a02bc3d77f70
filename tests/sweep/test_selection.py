"""Parts of a sweep: by rows, by shards, by time; the table of the rest is what is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent, SweepProgress
from cssl_cli.recipe import Recipe
from cssl_cli.sweep import run as launch
from cssl_cli.sweep.duration import parse_duration
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import run_sweep
from cssl_cli.sweep.selection import select
from cssl_cli.sweep.sweep import load_sweep
from cssl_cli.sweep.workers.stages import Failure, Missing, Workshop
from tests.support.commands import QUICKLY_MEASURED, CommandLine
from tests.support.run_files import Told

SWEEP = """
name: parts
base: tiny.yaml
axes:
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    crop-flip: {augment: {jitter: null, gray: null, blur: null}}
    full: {}
  probe.knn_k: [5, 10]
seeds: [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "steps: 2"))
    (tmp_path / "parts.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(members) -> list[str]:
    return list(dict.fromkeys(member.row for member in members))


def test_rows_are_chosen_by_patterns(folder: Path) -> None:
    sweep = load_sweep("parts.yaml")
    assert rows_of(select(sweep)) == ["crop-5", "crop-10", "crop-flip-5", "crop-flip-10", "full-5", "full-10"]
    assert rows_of(select(sweep, only=["full-*"])) == ["full-5", "full-10"]
    assert rows_of(select(sweep, only=["*-5"], skip=["crop-*"])) == ["full-5"]
    assert rows_of(select(sweep, only=["full-10", "crop-5"])) == ["crop-5", "full-10"]
    assert len(select(sweep, only=["full-5"])) == 2


def test_a_pattern_without_a_row_is_refused_with_the_nearest(folder: Path) -> None:
    sweep = load_sweep("parts.yaml")
    with pytest.raises(InputError, match="no row is called 'ful-5'") as caught:
        select(sweep, only=["ful-5"])
    assert "'full-5'" in str(caught.value.remedy)
    with pytest.raises(InputError, match="no member is left"):
        select(sweep, only=["full-5"], skip=["full-*"])


def test_shards_share_the_runs_without_overlap_and_keep_what_trains_once_together(folder: Path) -> None:
    sweep = load_sweep("parts.yaml")
    shards = [select(sweep, shard=f"{index}/4") for index in range(1, 5)]
    names = [member.name for shard in shards for member in shard]
    assert sorted(names) == sorted(member.name for member in sweep.members)
    runs = [{member.recipe.fingerprint for member in shard} for shard in shards]
    assert [len(run) for run in runs] == [2, 2, 1, 1]  # six runs: three augmentations, two seeds
    assert all(not one & other for i, one in enumerate(runs) for other in runs[:i])


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_shard_that_makes_no_sense_is_refused(folder: Path, shard: str) -> None:
    with pytest.raises(InputError, match="names no share"):
        select(load_sweep("parts.yaml"), shard=shard)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0s", "1h 30m", "1w", "m30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no duration"):
        parse_duration(text)


def test_a_part_is_run_and_shown_and_the_whole_is_written(folder: Path, cssl_here: CommandLine) -> None:
    done = cssl_here("sweep", "parts.yaml", "--only", "full-5", "--out", "runs")
    assert done.returncode == 0, done.stderr
    assert "full-5" in done.stdout
    assert "crop" not in done.stdout.partition("Written")[0]
    rows = json.loads((folder / "runs" / "parts" / "table.json").read_text())["rows"]
    assert [row["row"] for row in rows if row["cells"]["knn"]] == ["full-5"]
    assert len(rows) == 6
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}
    shown = cssl_here("sweep", "parts.yaml", "--report", "--out", "runs", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["rows"] == rows
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "options",
    [("--report", "--dry-run"), ("--report", "--concentration-only"), ("--report", "--budget", "1h")],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused(
    folder: Path, cssl_here: CommandLine, options: tuple[str, ...]
) -> None:
    done = cssl_here("sweep", "parts.yaml", *options)
    assert done.returncode == 2
    assert "exclude one another" in done.stderr
    assert not (folder / "runs").exists()


def test_after_the_budget_no_member_is_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep("parts.yaml")
    completed: list[str] = []
    monkeypatch.setattr(launch.time, "monotonic", lambda: 5.5 * len(completed))
    monkeypatch.setattr(launch.Workshop, "complete", lambda self, recipe, so_far: completed.append(recipe.name))
    said = []

    class Listening(Silent):
        def say(self, message: str) -> None:
            said.append(message)

    results = run_sweep(SweepRequest(sweep, folder / "runs", seconds=10.0), Listening())
    assert len(completed) == 2
    assert len(results) == len(sweep.members)
    assert all(result.error is None for result in results)
    assert said[-1] == "the budget is used up: 10 of 12 members not started; the same command goes on"


def test_each_member_is_told_with_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Clockwork(Workshop):
        def complete(self, recipe: Recipe, missing: Missing) -> Failure | None:
            now[0] += 60.0 if recipe.name.startswith("simclr") else 120.0
            return None

    class Listener(Told):
        def show(self, progress: SweepProgress) -> None:
            shown.append((progress.finished, len(progress.running), progress.waiting))

    shown: list[tuple[int, int, int]] = []
    monkeypatch.setattr(launch, "Workshop", Clockwork)
    monkeypatch.setattr(launch.time, "monotonic", lambda: now[0])
    listener = Listener()
    run_sweep(SweepRequest(load_sweep("quickstart"), tmp_path), listener)
    names = [member.name for member in load_sweep("quickstart").members]
    left = ["", ", about 5:00 left", ", about 4:00 left", ", about 3:00 left", ", about 2:30 left", ", about 1:24 left"]
    told = [f"[{number}/6] {names[number - 1]}{said}" for number, said in enumerate(left, start=1)]
    assert listener.said == told
    assert shown == [(done, 1, 5 - done) for done in range(6)]
