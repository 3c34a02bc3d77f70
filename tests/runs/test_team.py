"""`cssl pretrain` in several processes: the run of one process, and an end that names the rank it is about."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import run

from cssl_cli import api
from cssl_cli.cli import guard
from cssl_cli.errors import InputError
from cssl_cli.host.launched import num_processes, require_one_process
from cssl_cli.runs import following, pretrain, team
from cssl_cli.runs.run_dir import CHECKPOINT, METRICS, STATUS
from cssl_cli.runs.trainer import require_shares
from cssl_cli.train import loop
from tests.support.commands import Invoke, the_run
from tests.support.started_ranks import SILENCE, Start, Started

pytestmark = pytest.mark.long
EPOCHS = 4  # of four steps


def table(folder: Path) -> list[dict[str, Any]]:
    """What each epoch came to, without the times."""
    lines = [json.loads(line) for line in (the_run(folder) / METRICS).read_text().splitlines()]
    timed = ("images_per_second", "seconds", "device_memory_mb")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def require_same(folder: Path, other: Path) -> None:
    """Two runs came to the same, up to rounding, which grows from step to step."""
    ours, theirs = table(folder), table(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert line["terms"] == pytest.approx(expected["terms"], rel=1e-3)


def status(folder: Path) -> dict[str, Any]:
    return json.loads((the_run(folder) / STATUS).read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where one process has trained the run, and what it said at the end."""
    folder = tmp_path_factory.mktemp("alone")
    ((code, told, said),) = Started(folder, 1, EPOCHS).end()
    assert code == 0, said
    return folder, told


def test_two_ranks_train_the_run_of_one_and_one_rank_speaks(start: Start, alone: tuple[Path, str]) -> None:
    two = start("two", 2, EPOCHS)
    leader, follower = two.end()
    assert (leader[0], follower) == (0, (0, "", ""))
    require_same(two.folder, alone[0])
    assert len(leader[1].splitlines()) == len(alone[1].splitlines())
    processes = json.loads((the_run(two.folder) / "environment.json").read_text())["processes"]
    assert [process["ranks"] for process in processes] == [2]


def take_time() -> None:
    """A fifth of a second for each step, so that a signal finds work left."""
    step = loop.Trainer._train_step

    def slow(self: loop.Trainer, batch: torch.Tensor) -> None:
        time.sleep(0.2)
        step(self, batch)

    loop.Trainer._train_step = slow  # type: ignore[method-assign]


@pytest.mark.parametrize("receiver", [0, 1])
def test_a_signal_to_any_rank_saves_and_other_numbers_of_ranks_go_on(
    start: Start, receiver: int, alone: tuple[Path, str]
) -> None:
    part = start("part", 2, EPOCHS, before=(0, take_time))
    part.wait_for(1)
    part.ranks[receiver].send_signal(signal.SIGTERM)
    leader, follower = part.end()
    assert (leader[0], follower) == (128 + signal.SIGTERM, (128 + signal.SIGTERM, "", ""))
    assert "the same command goes on from there" in leader[2]
    assert status(part.folder)["state"] == "interrupted"
    assert (the_run(part.folder) / CHECKPOINT).exists()
    rest = start("part", 3 if receiver else 1, EPOCHS)
    assert [code for code, _, _ in rest.end()] == [0] * len(rest.ranks)
    require_same(part.folder, alone[0])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(start: Start, victim: int) -> None:
    trained = start("run", 2, 4000)
    trained.wait_for(1)
    pid = trained.ranks[victim].pid
    trained.ranks[victim].kill()
    began = time.monotonic()
    ((code, out, said),) = trained.end(of=[1 - victim])
    assert (code, out) == (1, "")
    assert time.monotonic() - began < SILENCE + 10
    if victim == 1:
        assert f"rank 1 (process {pid} on " in said
        assert f"rank 1 (process {pid} on " in status(trained.folder)["error"]
    else:
        assert "rank 0" in said


def test_a_rank_that_hangs_ends_all(start: Start) -> None:
    trained = start("run", 2, 4000)
    trained.wait_for(1)
    pid = trained.ranks[1].pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    ((code, _, said),) = trained.end(of=[0])
    assert code == 1
    assert time.monotonic() - began < SILENCE + 10
    assert f"rank 1 (process {pid} on " in said
    assert "not been heard of" in said
    assert status(trained.folder)["state"] == "failed"


def poison() -> None:
    """Put a NaN into a weight after the fifth step."""
    step = loop.Trainer._train_step

    def poisoned(self: loop.Trainer, batch: torch.Tensor) -> None:
        step(self, batch)
        if self.step == 5:
            with torch.no_grad():
                next(self.method.parameters())[0] = math.nan

    loop.Trainer._train_step = poisoned  # type: ignore[method-assign]


def test_a_nan_is_traced_to_its_rank(start: Start) -> None:
    trained = start("run", 2, 2, before=(1, poison))
    leader, follower = trained.end()
    assert (leader[0], follower[0]) == (1, 1)
    assert "at step 6, first on rank 1 (process " in leader[2]
    assert status(trained.folder)["state"] == "failed"


def test_a_full_disk_of_rank_0_ends_the_others(start: Start) -> None:
    trained = start("run", 2, 2, largest_file=(0, 6000))
    leader, follower = trained.end()
    assert (leader[0], follower) == (1, (1, "", ""))
    assert "checkpoint" in leader[2]


def test_what_cannot_be_dealt_is_said_once(start: Start) -> None:
    leader, follower = start("run", 2, 4, "train.batch_size=33").end()
    assert (leader[0], follower) == (2, (2, "", ""))
    assert "33 images cannot be dealt equally to 2 processes" in leader[2]
    assert "train.batch_size=34" in leader[2]


def test_a_finished_run_is_left_as_it_is_by_all(start: Start) -> None:
    start("run", 1, 1).end()
    leader, follower = start("run", 2, 1).end()
    assert (leader[0], follower) == (0, (0, "", ""))
    assert "finished already" in leader[2]


@pytest.mark.parametrize(("batch_size", "micro_batch", "size"), [(33, None, 2), (32, 16, 4), (4, None, 4)])
def test_shares_that_cannot_be(batch_size: int, micro_batch: int | None, size: int) -> None:
    with pytest.raises(InputError):
        require_shares(batch_size, micro_batch, size)
    require_shares(32, 8, 4)


def test_who_has_started_the_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke) -> None:
    assert num_processes({}) == 1
    assert num_processes({"WORLD_SIZE": "4"}) == 1  # some containers set that alone
    assert num_processes({"RANK": "0", "WORLD_SIZE": "1"}) == 1
    with pytest.raises(InputError, match="MASTER_ADDR"):
        num_processes({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"})
    with pytest.raises(InputError, match="whole number"):
        num_processes({"RANK": "0", "WORLD_SIZE": "many"})
    started = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert num_processes(started) == 4
    for name, value in (("RANK", "4"), ("MASTER_PORT", "0"), ("MASTER_PORT", "65536")):
        with pytest.raises(InputError, match=rf"^{name}: .* whole number from"):
            num_processes({**started, name: value})
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="cssl probe"):
        require_one_process("`cssl probe`")
    with pytest.raises(InputError, match=r"cssl_cli\.api\.pretrain"):
        api.pretrain(api.load_recipe("simclr-shapes"), out=tmp_path)
    for measure in (api.probe, api.analyze):
        with pytest.raises(InputError, match=rf"cssl_cli\.api\.{measure.__name__}"):
            measure(tmp_path)
    outcome = invoke("recipes")
    assert (outcome.code, "`cssl recipes`" in outcome.stderr) == (2, True)
    monkeypatch.setenv("LOCAL_RANK", "1")  # the first process of this machine says it
    monkeypatch.setattr(guard, "PRECEDENCE", 0.0)
    outcome = invoke("recipes")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (2, "", "")


@pytest.mark.parametrize("text", ["soon", "nan", "0"])
def test_the_limit_of_silence_is_checked(text: str) -> None:
    with pytest.raises(InputError, match="CSSL_RANK_TIMEOUT"):
        team._silence({"CSSL_RANK_TIMEOUT": text})
    assert team._silence({}) == team.SILENCE


def see_other_images() -> None:
    prepare = following.prepare_data
    following.prepare_data = lambda *args, **kwargs: replace(prepare(*args, **kwargs), content_key="other")


def compute_otherwise() -> None:
    following.way_of_computing = lambda _: "cuda, bfloat16, compiled steps"


def linger_over_images() -> None:
    load = pretrain.images_of_run

    def slowly(*args: Any, **kwargs: Any) -> Any:
        Path("loading").touch()
        for _ in range(200):
            time.sleep(0.1)
        return load(*args, **kwargs)

    pretrain.images_of_run = slowly


def linger_over_first_step() -> None:
    step = loop.Trainer._train_step

    def slowly(self: loop.Trainer, batch: torch.Tensor) -> None:
        Path("training").touch()
        time.sleep(20)
        step(self, batch)

    loop.Trainer._train_step = slowly  # type: ignore[method-assign]


def fail_at_work() -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    loop.Trainer._train_step = fail  # type: ignore[method-assign, assignment]


def test_an_error_of_another_rank_is_told_by_rank_0(start: Start) -> None:
    leader, follower = start("images", 2, 1, before=(1, see_other_images)).end()
    assert (leader[0], follower) == (2, (2, "", ""))
    assert "the images here are not those of rank 0" in leader[2]
    assert "rank 1 (process " in leader[2]
    leader, follower = start("ways", 2, 1, before=(1, compute_otherwise)).end()
    assert (leader[0], follower) == (2, (2, "", ""))
    assert "computes with cuda, bfloat16, compiled steps, and rank 0 with cpu, float32, uncompiled" in leader[2]
    leader, follower = start("fault", 2, 1, before=(1, fail_at_work)).end()
    assert (leader[0], follower[0]) == (1, 1)
    assert "ZeroDivisionError: a fault of ours" in leader[2]
    assert "Traceback" in follower[2]  # a bug of ours is shown where it is


@pytest.mark.parametrize(
    ("receiver", "slow", "stage"),
    [(1, (0, linger_over_images), "loading"), (0, (1, linger_over_first_step), "training")],
)
def test_a_signal_before_the_first_step_ends_all(
    start: Start, receiver: int, slow: tuple[int, Any], stage: str
) -> None:
    """To a rank that waits in an exchange, whose main thread hears nothing."""
    began = start("run", 2, 4, before=slow)
    while not (began.folder / stage).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    began.ranks[receiver].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    leader, follower = began.end()
    assert time.monotonic() - sent < 12
    assert (leader[0], follower) == (128 + signal.SIGTERM, (128 + signal.SIGTERM, "", ""))
    assert "interrupted\n" in leader[2]


def torchrun() -> None:
    """In place of `cssl`; it need not load torch, and the processes that it starts do."""
    run.main(["--standalone", "--nproc-per-node", "2", "-m", "cssl_cli", "pretrain", "recipe.yaml"])
    sys.exit()


def test_torchrun_starts_them(start: Start) -> None:
    started = start("run", 1, 1, before=(0, torchrun))
    ((code, told, said),) = started.end()
    assert code == 0, said
    assert [line["step"] for line in table(started.folder)] == [4]
    assert str(the_run(started.folder).relative_to(started.folder)) in told
