"""benchmarks/gpu_check.py: all of it in its smallest size, what becomes of a stage that fails, what it computes."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_check
import gpu_equality
import gpu_runs
import gpu_speed
import gpu_tables
import pytest
import torch
from gpu_findings import Findings, Setting

from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe

ROOT = Path(__file__).parents[2]
NOTHING = {"checks": {}, "numbers": {}, "speeds": {}, "notes": []}


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path / "findings.json")


def setting(tmp_path: Path, images: Path | None = None) -> Setting:
    return Setting("cpu", True, images, tmp_path, time.monotonic() + 3600)


# ------------------------------------------------------------------------------------------------------- all of it
@pytest.mark.soak
def test_every_stage_in_its_smallest_size(tmp_path: Path):
    options = ["--device", "cpu", "--small", "--wheels", tmp_path, "--out", tmp_path]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu_check.py", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert {letter: stage["outcome"] for letter, stage in content["stages"].items()} == dict.fromkeys(
        gpu_check.STAGES, "done"
    )
    # What a bfloat16 step rounds is seen: the comparison compares.
    assert not content["stages"]["b"]["checks"]["simclr, bfloat16: weights"]["seen"].startswith("0,")
    for shown in ("images/s", "of the matrix rate", "SimCLR a, 1 epochs, knn, %", "cssl analyze, s", "checks passed"):
        assert shown in done.stdout
    assert content["stages"]["d"]["checks"]["SIGTERM interrupts a run"]["passed"]


# ------------------------------------------------------------------------------------------------- stages that fail
def run_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str, limit: float = 3600) -> dict[str, Any]:
    stages = {name: gpu_check.Stage(name, f"tests.support.gpu_check_stages:{name}", limit) for name in names}
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    monkeypatch.setattr(gpu_check, "LEAST_SECONDS", 0)
    options = argparse.Namespace(
        device="cpu", small=False, images=None, only=names, seconds=3600, out=tmp_path, start="forkserver"
    )
    folder = tmp_path / "own"
    folder.mkdir()
    return gpu_check.run_stages(options, folder)


def test_a_stage_that_raises_or_dies_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    content = run_stages(tmp_path, monkeypatch, "raises", "dies", "right")
    stages = content["stages"]
    assert stages["raises"]["outcome"] == "failed"
    assert stages["raises"]["error"] == "ValueError: no such kernel"
    assert stages["raises"]["numbers"] == {"before the error, s": 1.5}
    assert "Traceback" in (tmp_path / "raises.log").read_text()
    assert stages["dies"]["outcome"] == "died of SIGKILL"
    assert stages["dies"]["numbers"] == {"before the end, s": 2.5}
    assert stages["right"]["outcome"] == "done"
    assert stages["right"]["notes"] == ["on cpu"]
    assert "said aloud" in (tmp_path / "right.log").read_text()
    assert json.loads((tmp_path / "gpu-check.json").read_text()) == content
    assert not gpu_check.is_good(content)
    gpu_tables.show(content)
    shown = capsys.readouterr().out
    assert "1 of 1 checks passed" in shown
    assert "STAGE raises: failed, ValueError: no such kernel" in shown
    assert "STAGE dies: died of SIGKILL" in shown


def test_a_stage_out_of_time_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    content = run_stages(tmp_path, monkeypatch, "hangs", limit=0.1)
    assert content["stages"]["hangs"]["outcome"] == "out of time"
    assert not gpu_check.is_good(content)


def test_what_a_stage_has_started_ends_with_it():
    line = ["sh", "-c", "sleep 600 & echo $!; wait"]
    stage: Any = subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True, text=True)
    stage.join = lambda seconds: stage.wait()
    started = int(stage.stdout.readline())
    assert running(started)
    gpu_check.end(stage)
    stage.stdout.close()
    while running(started):  # a signal takes a moment
        time.sleep(0.01)


def running(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_a_check_that_fails_and_no_speed_makes_it_fail(tmp_path, monkeypatch):
    content = run_stages(tmp_path, monkeypatch, "wrong", "right")
    assert content["stages"]["wrong"]["outcome"] == "done"
    assert not gpu_check.is_good(content)
    assert gpu_tables.verdict(content["stages"]) == ["1 of 2 checks passed", "FAILED (wrong) it is right: 5, not 4"]
    del content["stages"]["wrong"]
    assert gpu_check.is_good(content)


def test_no_stage_is_begun_without_time(tmp_path, monkeypatch):
    content = run_stages(tmp_path, monkeypatch, "right", limit=-1)
    assert content["stages"]["right"]["outcome"] == "no time left"
    assert not gpu_check.is_good(content)


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--only", "az"], "there is no stage z"), (["--images", "gone"], "there is no gone")]
)
def test_what_is_asked_for_must_be_there(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu_check.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_check.parse()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- what it finds
def test_an_undefined_number_is_within_no_limit(findings: Findings):
    findings.at_most("small", 0.5, 1)
    findings.at_most("large", 2.0, 1)
    findings.at_most("undefined", float("nan"), 1)
    passed = {name: check["passed"] for name, check in json.loads(findings.path.read_text())["checks"].items()}
    assert passed == {"small": True, "large": False, "undefined": False}


@pytest.mark.parametrize("fault", ["term", "weight", None])
def test_steps_with_other_numbers_are_told(fault: str | None, findings: Findings):
    start, end = torch.zeros(4), torch.ones(4)
    expected = {"loss": torch.tensor([2.0, 1.0, 1.0]), "part": torch.zeros(3)}
    found = {name: values.clone() for name, values in expected.items()}
    if fault == "term":
        found["part"][2] = 0.01
    moved = end + (0.1 if fault == "weight" else 0)
    gpu_equality.compare(findings, "case", (found, moved), (expected, end), start, {"terms": 1e-3, "weights": 0.05})
    passed = [check["passed"] for check in findings.content["checks"].values()]
    assert passed == [fault != "term", fault != "weight"]


def test_an_augmentation_or_a_loss_with_other_numbers_is_told(findings: Findings, tmp_path: Path, monkeypatch):
    right = gpu_equality.off_diagonal_squares
    monkeypatch.setattr(
        gpu_equality,
        "off_diagonal_squares",
        lambda a, b, rows: right(a, b, rows=rows) * (1 if a.dtype == torch.float64 else 1.001),
    )
    gpu_equality.losses(findings, setting(tmp_path), torch.device("cpu"))
    wrong = [name for name, check in findings.content["checks"].items() if not check["passed"]]
    assert len(findings.content["checks"]) == 5 * 2 * 2
    assert len(wrong) == 2 * 2 * 2
    assert all("covariances" in name or "correlations" in name for name in wrong)


def test_results_are_compared_number_by_number():
    one = {"a": [1.0, {"b": 2}], "name": "x", "only": 1}
    two = {"a": [1.001, {"b": 3}], "name": "y"}
    pairs = sorted(gpu_runs.numbers_of(one, two, "r"))
    assert pairs == [("r.a[0]", 1.0, 1.001), ("r.a[1].b", 2, 3)]
    assert [gpu_runs.differ(*pair[1:]) for pair in pairs] == [False, True]
    assert gpu_runs.differ(float("nan"), 1.0)
    assert not gpu_runs.differ(float("inf"), float("inf"))


def test_compiling_pays_from_the_step_on_that_has_brought_it_in():
    eager = {"first_step_seconds": 2.0, "milliseconds": 17.0}
    assert gpu_speed.break_even(eager, eager) == {}
    compiled = gpu_speed.break_even(eager, {"first_step_seconds": 32.0, "milliseconds": 15.0})
    assert compiled == pytest.approx({"compile_seconds": 30.0, "break_even_steps": 30 / 0.002})
    slower = gpu_speed.break_even(eager, {"first_step_seconds": 32.0, "milliseconds": 18.0})
    assert slower == {"compile_seconds": 30.0}


def test_kernels_of_a_trace(findings: Findings, tmp_path: Path):
    events = [
        {"cat": "kernel", "name": "sm90_xmma_fprop", "ts": 0, "dur": 30},
        {"cat": "kernel", "name": "batch_norm_collect", "ts": 40, "dur": 15},
        {"cat": "kernel", "name": "vectorized_elementwise", "ts": 85, "dur": 15},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 0, "dur": 10},
        {"cat": "cpu_op", "name": "aten::conv2d", "ts": 0, "dur": 500},
    ]
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    assert gpu_speed.on_the_device(findings, "case", path) == {"kernels": 1, "busy": 0.6}
    assert findings.content["numbers"] == pytest.approx(
        {
            "case: products and convolutions, ms on the device": 0.01,
            "case: batch norms, ms on the device": 0.005,
            "case: everything else, ms on the device": 0.005,
        }
    )
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events[3:]}).encode()))
    assert gpu_speed.on_the_device(findings, "case", path) == {}


@pytest.mark.filterwarnings("ignore:called a synchronizing", "ignore:something else")
def test_waits_are_counted_after_the_first_steps(monkeypatch: pytest.MonkeyPatch):
    def steps(*_: object) -> Iterator[None]:
        for number in range(100):
            for _ in range(2 if number < gpu_speed.SETTLING_STEPS else 1):
                warnings.warn("called a synchronizing CUDA operation (Triggered internally ...)", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            yield

    modes: list[str] = []
    monkeypatch.setattr(gpu_speed, "cssl_steps", steps)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    recipe: Any = None
    waits = gpu_speed.waits_of(recipe, recipe, torch.device("cuda"))
    assert modes == ["warn", "default"]
    assert waits == 1


def test_columns_that_nothing_has_are_left_out():
    lines = gpu_tables.speed_table({"eager": {"images_per_second": 29000.4}, "compiled": {"waits": 0.0, "other": 1}})
    assert lines == [["", "images/s", "waits a step"], ["eager", "29,000", ""], ["compiled", "", "0"]]
    assert gpu_tables.aligned(lines)[1] == "eager       29,000              "


# ------------------------------------------------------------------------------------------------ what is brought along
def test_a_wheel_is_used_where_the_package_is_missing_or_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("missing_one-1.0-py3-none-any.whl", "there-2.10.1-py3-none-any.whl", "newer-2.9-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{name.partition('-')[0]}.py", "")

    def version(name: str) -> str:
        if name == "missing_one":
            raise gpu_check.importlib.metadata.PackageNotFoundError(name)
        return "2.9.5"

    monkeypatch.setattr(gpu_check.importlib.metadata, "version", version)
    target = gpu_check.unpack_wheels(tmp_path, tmp_path / "packages")
    assert sorted(path.name for path in target.iterdir()) == ["missing_one.py", "there.py"]
    assert list(gpu_check.unpack_wheels(tmp_path / "nowhere", tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["cifar10", "folder"])
def test_images_are_taken_from_a_folder_or_an_archive(kind: str, packed: bool, tmp_path: Path):
    inside = {"cifar10": "cifar-10-batches-py", "folder": "pictures/train/cat"}[kind]
    folder = tmp_path / "brought"
    (folder / inside).mkdir(parents=True)
    (folder / inside / "file").touch()
    images = Path(shutil.make_archive(str(tmp_path / "archive"), "gztar", folder)) if packed else folder
    block = json.loads(gpu_runs.data_block(setting(tmp_path, images)))
    root = tmp_path / "images" if packed else folder
    assert block["name"] == kind
    assert Path(block["root"]) == (root if kind == "cifar10" else root / "pictures")
    recipe = load_recipe("simclr-cifar10", [f"data={json.dumps(block)}"])
    assert recipe.data.name == kind


def test_an_interruption_is_sent_at_its_step(monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    reporter: Silent = gpu_runs.Interrupting(3)
    for step in range(1, 6):
        reporter.advance("pretrain", step, 5)
    assert len(sent) == 1
