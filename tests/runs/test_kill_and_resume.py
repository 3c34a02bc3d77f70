"""Real processes, really killed: what they leave behind and what they come to when started again."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.commands import CommandLine
from tests.support.forked_process import ForkedProcess

STEPS = 32  # a checkpoint after each
LONGER = ["train.epochs=null", f"train.steps={STEPS}", "train.batch_size=32", "train.checkpoint_minutes=0"]
LONGER += ["data.size=8", "encoder.width=2"]


def finished(folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Exit code and messages of a command that ran to its end."""
    process = ForkedProcess(folder, *arguments)
    _, stderr = process.communicate(timeout=300)
    return process.returncode, stderr


def run_path(out: Path) -> Path:
    (path,) = out.iterdir()
    return path


def steps_done(out: Path) -> int:
    """The step of the last checkpoint's epoch record, by the files alone."""
    try:
        lines = (run_path(out) / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (FileNotFoundError, ValueError, IndexError):
        return 0


def wait_for_step(process: ForkedProcess, out: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while steps_done(out) < step and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)


def losses(out: Path) -> list[dict]:
    records = [json.loads(line) for line in (run_path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{"epoch": record["epoch"], "step": record["step"], **record["terms"]} for record in records]


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [
        "{name: simclr, projector: [16, 8]}",
        # That MoCo's queue goes on as it was: tests/train/test_loop.py, in a quarter of the time.
        pytest.param(
            "{name: moco, queue: 200, batch_norm_splits: 2, projector: [16, 8]}", marks=pytest.mark.soak, id="moco"
        ),
    ],
)
def test_a_run_killed_at_random_moments_ends_bit_identical(tiny_recipe: Path, cssl: CommandLine, method: str) -> None:
    folder = tiny_recipe.parent
    arguments = ["pretrain", "tiny.yaml", *LONGER, f"method={method}"]
    if method.startswith("{name: simclr"):
        # Freshly started: forked processes share what differs between real ones, such as the seed of string hashes.
        undisturbed = cssl(*arguments, "--out", "undisturbed")
        assert undisturbed.returncode == 0, undisturbed.stderr
    else:
        assert finished(folder, *arguments, "--out", "undisturbed")[0] == 0
    moments = random.Random(0)
    for step in (4, 12):  # many more: `make soak`
        process = ForkedProcess(folder, *arguments, "--out", "killed")
        wait_for_step(process, folder / "killed", step)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    code, stderr = finished(folder, *arguments, "--out", "killed")
    assert code == 0, stderr
    assert "going on from step" in stderr

    one, other = run_path(folder / "undisturbed"), run_path(folder / "killed")
    assert (one / "encoder.safetensors").read_bytes() == (other / "encoder.safetensors").read_bytes()
    assert losses(folder / "undisturbed") == losses(folder / "killed")
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.long  # beside the others that fork: their server takes seconds to start
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_the_same_command_goes_on(tiny_recipe: Path, number: signal.Signals) -> None:
    folder = tiny_recipe.parent
    # Without a checkpoint on the way: what is saved is saved because of the signal.
    longer = [*LONGER, "train.checkpoint_minutes=60"]
    process = ForkedProcess(folder, "pretrain", "tiny.yaml", *longer, "--out", "runs")
    wait_for_step(process, folder / "runs", 8)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert "Traceback" not in stderr
    assert "goes on from there" in stderr
    status = json.loads((run_path(folder / "runs") / "status").read_text())
    assert status["state"] == "interrupted"
    assert 8 <= status["step"] < STEPS
    resumed, stderr = finished(folder, "pretrain", "tiny.yaml", *longer, "--out", "runs")
    assert resumed == 0, stderr
    assert f"going on from step {status['step']} of {STEPS}" in stderr
    assert json.loads((run_path(folder / "runs") / "status").read_text())["state"] == "finished"


@pytest.mark.long
def test_a_second_process_on_the_same_run_is_refused(tiny_recipe: Path) -> None:
    folder = tiny_recipe.parent
    endless = [*LONGER, "train.steps=1000000"]
    process = ForkedProcess(folder, "pretrain", "tiny.yaml", *endless, "--out", "runs")
    try:
        wait_for_step(process, folder / "runs", 8)
        second, stderr = finished(folder, "pretrain", "tiny.yaml", *endless, "--out", "runs")
    finally:
        process.kill()
        process.communicate()
    assert second == 2
    assert "in use by process" in stderr
    assert "Traceback" not in stderr
