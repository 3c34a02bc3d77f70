"""What of a run directory is mirrored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cssl_cli.errors import DamagedError
from cssl_cli.report.compare.catalogue import TERMS, values_of
from cssl_cli.runs.results import CLASSIFIERS
from cssl_cli.runs.run_dir import ANALYSIS, METRICS, PROBE, TRACE, RunDir
from cssl_cli.sweep.results_index import Found
from cssl_cli.tracking.records import read_points, read_records, read_summary
from tests.support.written_run import STEPS, metrics, place, record_epochs, written_run


def test_the_records_of_a_step_are_one_point(tmp_path: Path) -> None:
    start, _, second = read_points(written_run(tmp_path, epochs=2))
    assert (start.step, start.seconds, start.values) == (0, 0.0, {"trace/alignment": 0.0, "trace/knn": 0.0})
    assert (second.step, second.seconds) == (2 * STEPS, 20.0)
    assert second.values == {
        "train/loss": 5 - 2 / 3,
        "train/alignment": -2 / 3,
        "train/learning_rate": 0.025,
        "train/images_per_second": 100.0,
        "train/epoch": 2.0,
        "trace/alignment": 2 / 7,
        "trace/knn": 0.1,
        "knn/knn": 0.2,
    }


def test_records_of_before_a_kill_that_lie_ahead_are_left_out(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=3)
    run.write_records(METRICS, [metrics(1)])  # went on from an earlier checkpoint: the others are replaced when due
    assert [point.step for point in read_points(run)] == [0, STEPS]


def test_what_could_not_be_measured_is_left_out(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1)
    run.write_records(TRACE, [{**place(1), "error": "the features are not finite"}])
    assert not any(name.startswith("trace/") for point in read_points(run) for name in point.values)


def test_a_run_that_has_not_begun_has_no_points(tmp_path: Path) -> None:
    run = written_run(tmp_path, state=None)
    records = read_records(run)
    assert (records.points, records.summary, records.state, records.last_step) == ((), {}, "new", 0)
    assert records.fingerprint == run.path.name.rpartition("-")[2]
    assert records.name == run.path.name
    assert records.group == tmp_path.name
    assert records.parameters["optim.lr"] == "0.05"


def test_damaged_records_are_not_mirrored(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=2)
    text = run.file(METRICS).read_text()
    run.file(METRICS).write_text(text.replace("100.0", "900.0"))
    with pytest.raises(DamagedError, match=r"metrics\.jsonl"):
        read_points(run)


def test_time_is_that_of_training(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    record_epochs(run, 3)
    records = read_records(run)
    assert records.begun + 30.0 == pytest.approx(run.file(METRICS).stat().st_mtime)


def test_the_summary_has_the_numbers_of_a_sweeps_table(analyzed: Path, tmp_path: Path) -> None:
    run = RunDir(analyzed)
    table = values_of(Found(analyzed, run.latest_result(PROBE), run.latest_result(ANALYSIS)))
    names = [*CLASSIFIERS, "untrained_linear", "pixels_knn", *(term.name for term in TERMS)]
    expected = {f"final/{name}": table[name] for name in names if table[name] is not None}
    summary = read_summary(run)
    assert {name: summary.get(name) for name in expected} == expected
    assert len(expected) > 20
    run = RunDir(shutil.copytree(analyzed, tmp_path / analyzed.name))
    run.remove(ANALYSIS)
    assert "final/linear" in read_summary(run)
    assert "final/alignment" not in read_summary(run)


@pytest.mark.parametrize(("inside", "given"), [("", "."), ("figures", "..")])
def test_the_name_of_a_run_does_not_depend_on_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, given: str
) -> None:
    run = written_run(tmp_path / "sweep", epochs=1)
    (run.path / inside).mkdir(exist_ok=True)
    monkeypatch.chdir(run.path / inside)
    records = read_records(RunDir(Path(given)))
    assert (records.place, records.name, records.group) == (run.path, run.path.name, "sweep")
