"""The run directory under faults: refused writes, full disks, kills, damaged files, a second process."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cssl_cli.errors import DamagedError, InputError, InUseError, RunError
from cssl_cli.runs.run_dir import ANALYSIS, CHECKPOINT, ENCODER, METRICS, RECIPE, RESULTS_FORMAT, RunDir


def settings(num_views: int = 4) -> dict[str, object]:
    return {"num_views": num_views, "epsilons": (0.1, 0.2), "deltas": (0.5,), "classes": None}


def result(num_views: int = 4) -> dict[str, object]:
    """An analysis without a quantity, as it is read."""
    return {
        "format": RESULTS_FORMAT,
        "fingerprint": "0123456789",
        "content_key": "k",
        "settings": json.loads(json.dumps(settings(num_views))),
        "part": "test",
        "num_images": 9,
        "class_names": None,
        "loss_settings": {"temperature": 0.5, "batch_size": 8, "of_the_method": True},
        "trained": {},
        "concentration": {},
    }


def test_results_of_other_settings_are_kept_beside_the_latest(run: RunDir) -> None:
    run.write_status("finished")
    run.save_weights(ENCODER, {}, {})
    for views in (4, 8, 4, 16):
        run.write_result(ANALYSIS, {**result(views), "settings": settings(views), "views": views})
    for views in (4, 8, 16):
        found = run.read_result(ANALYSIS, settings(views))
        assert found is not None
        assert found["views"] == views
    assert run.read_result(ANALYSIS, settings(5)) is None
    assert json.loads(run.file(ANALYSIS).read_text())["views"] == 16
    assert len(run.results(ANALYSIS)) == 3


def test_a_result_asked_for_again_is_the_latest_again(run: RunDir) -> None:
    run.write_status("finished")
    run.save_weights(ENCODER, {}, {})
    for views in (4, 8):
        run.write_result(ANALYSIS, result(views))
    assert run.recall_result(ANALYSIS, settings(5)) is None
    for views in (4, 4, 8):
        assert run.recall_result(ANALYSIS, settings(views)) == result(views)
        assert run.read_json(ANALYSIS) == result(views)
        assert len(run.results(ANALYSIS)) == 2


def test_a_result_asked_for_again_is_found_where_nothing_may_be_written(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_status("finished")
    run.save_weights(ENCODER, {}, {})
    for views in (4, 8):
        run.write_result(ANALYSIS, result(views))
    refused: Exception = InputError("cannot be written: Read-only file system")

    def locked(self: RunDir) -> None:
        raise refused

    monkeypatch.setattr(RunDir, "locked", locked)
    assert run.recall_result(ANALYSIS, settings(4)) == result(4)
    assert run.read_json(ANALYSIS) == result(8)
    refused = InUseError("in use")
    with pytest.raises(InUseError):
        run.recall_result(ANALYSIS, settings(4))


def test_results_of_another_format_do_not_count_and_damaged_ones_are_told(run: RunDir) -> None:
    run.write_status("finished")
    run.save_weights(ENCODER, {}, {})
    run.write_json(ANALYSIS, {**result(), "format": RESULTS_FORMAT + 1})
    assert run.read_result(ANALYSIS, settings()) is None
    for text in ("{", "[1]", "{}", '{"format": null}', json.dumps({**result(), "settings": 3})):
        run.file(ANALYSIS).write_text(text)
        with pytest.raises(DamagedError, match=r"analysis\.json: the file is damaged") as error:
            run.read_result(ANALYSIS, settings())
        assert "cssl analyze" in str(error.value)
        run.write_result(ANALYSIS, result())
        assert run.read_result(ANALYSIS, settings()) == result()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir.at(tmp_path, name="r", fingerprint="0123456789")
    run.create("name: r\n")
    return run


def recipe_text(run: RunDir) -> str:
    """Without the comment that holds the checksum."""
    return run.file(RECIPE).read_text().partition("# checksum")[0]


def files(run: RunDir) -> set[str]:
    return {path.name for path in run.path.iterdir()}


def test_create_and_open(run: RunDir, tmp_path: Path) -> None:
    assert run.path == tmp_path / "r-0123456789"
    assert recipe_text(run) == "name: r\n"
    assert RunDir.open(run.path).path == run.path
    assert run.status()["state"] == "new"
    assert not run.finished


def test_create_leaves_an_existing_recipe_as_it_is(run: RunDir, tmp_path: Path) -> None:
    run.create("name: other\n")
    assert recipe_text(run) == "name: r\n"


def test_a_directory_that_another_process_makes_is_in_use(tmp_path: Path) -> None:
    # Who holds the lock removes what is begun aside, so that a recipe written without it could vanish half-way.
    run = RunDir.at(tmp_path, name="r", fingerprint="0123456789")
    run.path.mkdir()
    with run.locked(), pytest.raises(InUseError):
        run.create("name: r\n")
    run.create("name: r\n")
    assert recipe_text(run) == "name: r\n"
    with run.locked():
        run.create("name: r\n")  # it is there: nothing is to be written


def test_a_missing_run_is_answered_with_the_runs_there_are(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        RunDir.open(tmp_path / "r-99")
    assert "r-0123456789" in str(error.value)
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        RunDir.open(tmp_path)


def test_a_parent_that_is_a_file_cannot_hold_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written") as error:
        RunDir.at(tmp_path / "file" / "runs", name="r", fingerprint="0").create("")
    assert "--out" in str(error.value)


# ---------------------------------------------------------------------- whole files only
class DiskFullError(OSError):
    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(run: RunDir) -> None:
    run.write_text("file", "old")
    before = files(run)
    with pytest.raises(RunError, match="No space left") as error, run.replacing("file") as partial:
        partial.write_text("half of the ne")
        raise DiskFullError
    assert "intact" in str(error.value)
    assert run.file("file").read_text() == "old"
    assert files(run) == before


def test_a_checkpoint_that_cannot_be_replaced_leaves_the_old_one(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_checkpoint({"step": 1})

    def refuse(self: Path, target: Path) -> None:
        raise DiskFullError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(RunError, match="No space left"):
            run.save_checkpoint({"step": 2})
    assert run.load_checkpoint() == {"step": 1}


def test_a_disk_that_fills_up_under_a_checkpoint_is_told_as_such(run: RunDir) -> None:
    run.save_checkpoint({"step": 1})
    state = {"step": 2, "weights": [torch.rand(3000) for _ in range(4)]}
    size = 4 * 4 * 3000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # At every place of the file: torch, asked to write to it, tells of some in words of its own.
        for limit in range(size // 50, size, size // 50):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(RunError, match=r"cannot be written: File too large"):
                run.save_checkpoint(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert run.load_checkpoint() == {"step": 1}


def test_what_a_killed_process_left_aside_is_removed_under_the_lock(run: RunDir) -> None:
    run.file(".checkpoint.pt.1.partial").write_text("half")
    with run.locked():
        assert ".checkpoint.pt.1.partial" not in files(run)


def test_json_round_trip_refuses_nan(run: RunDir) -> None:
    run.write_json("a.json", {"x": [1, 2.5, None]})
    assert run.read_json("a.json") == {"x": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("a.json", {"x": float("nan")})
    assert run.read_json("a.json") == {"x": [1, 2.5, None]}
    assert run.read_json("missing.json") is None


def test_damaged_json_is_named(run: RunDir) -> None:
    run.file("probe.json").write_text('{"half')
    with pytest.raises(InputError, match=r"probe\.json"):
        run.read_json("probe.json")


def test_metrics_round_trip(run: RunDir) -> None:
    assert run.read_records(METRICS) == []
    rest = {"terms": {"loss": 1.5}, "learning_rate": 0.1, "images_per_second": 9.0, "seconds": 2.0}
    records = [{"epoch": 1, "step": 4, **rest}, {"epoch": 2, "step": 8, **rest}]
    run.write_records(METRICS, records)
    assert run.read_records(METRICS) == records
    assert run.file(METRICS).read_text().count("\n") == 2


# ---------------------------------------------------------------------- checkpoints and encoders
@pytest.mark.parametrize("keep", [0, 10, 200, -20])
def test_a_truncated_checkpoint_is_an_error_with_a_remedy(run: RunDir, keep: int) -> None:
    run.save_checkpoint({"weights": torch.arange(100.0)})
    content = run.file(CHECKPOINT).read_bytes()
    run.file(CHECKPOINT).write_bytes(content[:keep])
    with pytest.raises(InputError, match="damaged") as error:
        run.load_checkpoint()
    assert "--restart" in str(error.value)


def test_a_checkpoint_cannot_run_code(run: RunDir) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (run.file("owned"),))

    torch.save({"evil": Evil()}, run.file(CHECKPOINT))
    with pytest.raises(InputError, match="damaged"):
        run.load_checkpoint()
    assert not run.file("owned").exists()


def test_encoder_round_trip_and_damage(run: RunDir) -> None:
    weights = {"a": torch.arange(12.0).view(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)}
    run.save_weights(ENCODER, weights, {"recipe": "r"})
    assert torch.equal(run.load_weights(ENCODER)["a"], weights["a"])
    run.file(ENCODER).write_bytes(run.file(ENCODER).read_bytes()[:50])
    with pytest.raises(InputError, match="encoder"):
        run.load_weights(ENCODER)


def test_finished_needs_both_status_and_encoder(run: RunDir) -> None:
    run.write_status("finished", step=1)
    assert not run.finished
    run.save_weights(ENCODER, {"a": torch.zeros(1)}, {})
    assert run.finished
    run.write_status("failed", step=1)
    assert not run.finished


# ---------------------------------------------------------------------- one process at a time
HOLD = """
import sys
from pathlib import Path
from cssl_cli.runs.run_dir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_directory_in_use_is_refused_and_freed_by_the_death_of_its_holder(run: RunDir) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid}"), run.locked():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.locked():
        pass
