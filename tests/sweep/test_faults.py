"""Sweeps in several processes, really killed, interrupted, doubled and out of space: what comes of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RunDir
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import member_path, run_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import QUICKLY_MEASURED
from tests.support.forked_process import ForkedProcess

SWEEP = """
name: faults
base: tiny.yaml
seeds: [0, 1, 2]
"""
STEPS = 20  # 5 epochs of 4 batches
TIMEOUT = 300.0
RUN_FILES = {"encoder.safetensors", "projector.safetensors"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe and the sweep, and an undisturbed run of it."""
    folder = tmp_path_factory.mktemp("faults")
    recipe = QUICKLY_MEASURED.replace("epochs: 3", f"steps: {STEPS}, checkpoint_minutes: 0")
    assert f"steps: {STEPS}" in recipe
    (folder / "tiny.yaml").write_text(recipe)
    (folder / "faults.yaml").write_text(SWEEP)
    results = run_sweep(SweepRequest(load_sweep(str(folder / "faults.yaml")), folder / "undisturbed"), Silent())
    assert not any(result.error for result in results)
    return folder


@pytest.fixture
def sweep(files: Path) -> Sweep:
    return load_sweep(str(files / "faults.yaml"))


@pytest.fixture
def start(files: Path, tmp_path: Path) -> Iterator[Callable[..., ForkedProcess]]:
    """Start `cssl sweep` on the files, under a folder of the test's own."""
    begun: list[ForkedProcess] = []

    def start_one(*options: str, largest_file: int | None = None) -> ForkedProcess:
        arguments = ("sweep", files / "faults.yaml", "--out", tmp_path / "runs", *options)
        begun.append(ForkedProcess(tmp_path, *arguments, largest_file=largest_file))
        return begun[-1]

    yield start_one
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process: ForkedProcess) -> tuple[int | None, str]:
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in stderr
    return process.returncode, stderr


def runs_of(sweep: Sweep, out: Path) -> list[RunDir]:
    return [RunDir(member_path(sweep, member, out)) for member in sweep.members]


def events(sweep: Sweep, out: Path) -> int:
    """How far all members are together: epochs, and results."""
    total = 0
    for run in runs_of(sweep, out):
        records = run.file("metrics.jsonl")
        total += len(records.read_text().splitlines()) if records.exists() else 0
        total += sum(run.file(name).exists() for name in ("encoder.safetensors", PROBE, ANALYSIS))
    return total


def holders(sweep: Sweep, out: Path) -> list[int]:
    """The processes that work on a member at this moment."""
    return [
        int(run.file("lock").read_text().split()[1])
        for run in runs_of(sweep, out)
        if run.in_use() and run.file("lock").read_text()
    ]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.03)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def training(run: RunDir) -> list[dict]:
    records = run.read_records("metrics.jsonl")
    return [{"epoch": record["epoch"], "step": record["step"], "terms": record["terms"]} for record in records]


def assert_as_undisturbed(sweep: Sweep, files: Path, out: Path) -> None:
    for one, other in zip(runs_of(sweep, files / "undisturbed"), runs_of(sweep, out), strict=True):
        for name in RUN_FILES:
            assert one.file(name).read_bytes() == other.file(name).read_bytes(), (one.path.name, name)
        for name in (PROBE, ANALYSIS):
            assert one.file(name).read_bytes() == other.file(name).read_bytes(), (one.path.name, name)
        assert training(one) == training(other)
        assert not list(other.path.glob(".*.partial"))


def finished_at(sweep: Sweep, out: Path) -> dict[str, int]:
    """When each member that has finished its training was finished."""
    return {
        run.path.name: run.file("encoder.safetensors").stat().st_mtime_ns for run in runs_of(sweep, out) if run.finished
    }


@pytest.mark.long
def test_a_sweep_killed_at_random_moments_ends_bit_identical_and_trains_nothing_twice(
    sweep: Sweep, files: Path, tmp_path: Path, start: Callable[..., ForkedProcess]
) -> None:
    out = tmp_path / "runs"
    moments = random.Random(0)
    finished: dict[str, int] = {}
    options = ("--jobs", "2", "--retry", "20")
    whole = len(sweep.members) * (STEPS // 4 + 3)

    def at_work_at(goal: int, process: ForkedProcess) -> list[int]:
        """The processes that work on members when these are so far together."""
        found: list[int] = []

        def is_so_far() -> bool:
            found[:] = holders(sweep, out) if events(sweep, out) >= goal else []
            return bool(found) or process.poll() is not None

        wait_until(is_so_far, "the sweep does not get on")
        assert process.poll() is None, "it ended before it could be killed"
        return found

    process = start(*options)
    for kill in range(2):  # many more: `make soak`
        at_work = at_work_at(whole * (kill + 1) // 4 + moments.randrange(3), process)
        if kill == 0:
            time.sleep(moments.uniform(0, 0.05))
            process.kill()
            process.communicate()
            wait_until(lambda at_work=at_work: not any(map(is_alive, at_work)), "workers outlive the sweep")
            process = start(*options)
        else:
            os.kill(moments.choice(at_work), signal.SIGKILL)
        now = finished_at(sweep, out)
        assert {name: now[name] for name in finished} == finished, "what had finished was trained again"
        finished = now
    code, stderr = ended(process)
    assert code == 0, stderr
    assert "killed (signal 9, SIGKILL: often out of memory); attempt " in stderr
    assert {name: finished_at(sweep, out)[name] for name in finished} == finished
    assert_as_undisturbed(sweep, files, out)


@pytest.mark.long
def test_two_sweeps_at_once_share_the_members(
    sweep: Sweep, files: Path, tmp_path: Path, start: Callable[..., ForkedProcess]
) -> None:
    both = [start("--jobs", "1"), start("--jobs", "1")]
    outcomes = [ended(process) for process in both]
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    for run in runs_of(sweep, tmp_path / "runs"):
        environment = json.loads(run.file("environment.json").read_text())
        assert len(environment["processes"]) == 1, "two processes trained a member"
    if any("run by another process" in stderr for _, stderr in outcomes):
        assert ended(start("--jobs", "1"))[0] == 0
    assert_as_undisturbed(sweep, files, tmp_path / "runs")


@pytest.mark.long
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_an_interrupt_lets_every_member_save(
    sweep: Sweep,
    files: Path,
    tmp_path: Path,
    start: Callable[..., ForkedProcess],
    number: signal.Signals,
    workers: int,
) -> None:
    out = tmp_path / "runs"
    endless = ["train.steps=100000", "train.checkpoint_minutes=60"]
    process = start("--jobs", str(workers), *endless)
    longer = load_sweep(str(files / "faults.yaml"), endless)
    started = runs_of(longer, out)[:workers]
    wait_until(
        lambda: all(len(training(run)) >= 2 for run in started) or process.poll() is not None, "no member gets on"
    )
    at_work = holders(longer, out)
    assert len(at_work) == workers
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
    else:
        process.send_signal(number)
    code, stderr = ended(process)
    assert code == 128 + number, stderr
    assert "the same command goes on" in stderr
    assert not any(map(is_alive, at_work))
    for run in started:
        status = run.status()
        assert status["state"] == "interrupted"
        assert status["step"] >= training(run)[-1]["step"] > 0
        assert run.load_checkpoint()["trainer"]["step"] == status["step"]


@pytest.mark.long
def test_a_disk_that_is_full_costs_no_finished_member(
    sweep: Sweep, files: Path, tmp_path: Path, start: Callable[..., ForkedProcess]
) -> None:
    out = tmp_path / "runs"
    for run in runs_of(sweep, files / "undisturbed")[:2]:
        shutil.copytree(run.path, out / sweep.name / run.path.name)
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for run in runs_of(sweep, out)[:2]
        for path in run.path.iterdir()
    }
    code, stderr = ended(start("--jobs", "1", largest_file=8192))  # no file may grow beyond
    assert code == 1
    assert ": cannot be written: File too large" in stderr
    assert "Free some space" in stderr
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    code, stderr = ended(start("--jobs", "1"))
    assert code == 0, stderr
    assert_as_undisturbed(sweep, files, out)
