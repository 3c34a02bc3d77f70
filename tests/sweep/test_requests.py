"""What of a sweep is refused before its first member, and what its plan says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe
from cssl_cli.runs import memory
from cssl_cli.runs.run_dir import CHECKPOINT, RunDir
from cssl_cli.sweep.memory_check import require_memory
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import member_path, run_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import TINY_RECIPE, Invoke

SWEEP = """
name: widths
base: tiny.yaml
axes:
  encoder.width: [4, 8, 16, 9]
  probe.knn_k: [5, 10]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Four runs with two members each."""
    (tmp_path / "tiny.yaml").write_text(TINY_RECIPE)
    (tmp_path / "widths.yaml").write_text(SWEEP)
    return load_sweep(str(tmp_path / "widths.yaml"))


def flat(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------- the device
@pytest.mark.parametrize("options", [(), ("--jobs", "2"), ("--dry-run",), ("--concentration-only",)])
def test_a_device_that_is_not_supported_is_told_once(sweep: Sweep, invoke: Invoke, options: tuple[str, ...]) -> None:
    refused = invoke("sweep", "widths.yaml", "--device", "mps", *options)
    assert refused.code == 2
    assert flat(refused.stderr).count("Apple GPUs (mps) are not supported") == 1
    assert refused.stdout == ""
    assert not Path("runs").exists()


def test_a_device_that_is_not_there_is_told_once(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cuda:99' cannot be used") as refused:
        run_sweep(SweepRequest(sweep, tmp_path / "runs", device="cuda:99"), Silent())
    assert refused.value.where == "--device"
    assert [path.name for path in (tmp_path / "runs" / "widths").iterdir()] == ["sweep.json"]


# ---------------------------------------------------------------------- the plan
def test_the_plan_tells_what_failed_before_its_first_checkpoint(sweep: Sweep, invoke: Invoke, tmp_path: Path) -> None:
    paths = list(dict.fromkeys(member_path(sweep, member, tmp_path / "runs") for member in sweep.members))
    for path, checkpoint in ((paths[1], False), (paths[2], True)):
        run = RunDir(path)
        path.mkdir(parents=True)
        run.write_status("failed", step=0, num_steps=12, error="the loss became infinite")
        if checkpoint:
            run.file(CHECKPOINT).touch()
    planned = json.loads(invoke("sweep", "widths.yaml", "--dry-run", "--json").stdout)
    states = {Path(member["run"]).name: member["state"] for member in planned}
    assert [states[path.name] for path in paths] == ["new", "failed", "half-finished", "new"]


# ---------------------------------------------------------------------- memory
@pytest.fixture
def gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member needs as many GiB as its encoder is wide; 30 are free."""

    def largest_need(recipe: Recipe, *_: object, **__: object) -> float:
        return recipe.encoder.width * 2.0**30

    monkeypatch.setattr(memory, "largest_need", largest_need)
    monkeypatch.setattr(memory, "free_memory", lambda: 30 * 2.0**30)


@pytest.mark.parametrize(
    ("jobs", "what", "remedy"),
    [
        (None, None, None),
        (1, None, None),
        (2, None, None),  # at most 8 + 16, 16 + 9; the members of a run never work at the same time
        (3, "3 members at a time do not fit in memory: they need about 33 GiB, 30 are free", "--jobs 2"),
        (50, "4 members at a time do not fit in memory: they need about 37 GiB, 30 are free", "--jobs 2"),
    ],
)
@pytest.mark.usefixtures("gibibytes")
def test_the_memory_of_runs_at_work_at_the_same_time_is_added_up(
    sweep: Sweep, tmp_path: Path, jobs: int | None, what: str | None, remedy: str | None
) -> None:
    work = [(member, member_path(sweep, member, tmp_path)) for member in sweep.members]
    if what is None:
        return require_memory(work, device_name="cpu", jobs=jobs)
    with pytest.raises(InputError) as refused:
        require_memory(work, device_name="cpu", jobs=jobs)
    assert (refused.value.what, refused.value.where) == (what, "--jobs")
    assert refused.value.remedy == f"Give {remedy}, or use a machine with more memory."
    return None


@pytest.mark.usefixtures("gibibytes")
def test_members_that_are_finished_need_no_memory(tmp_path: Path) -> None:
    require_memory([], device_name="cpu", jobs=4)


@pytest.mark.usefixtures("gibibytes")
def test_a_sweep_that_does_not_fit_with_so_many_jobs_is_refused(sweep: Sweep, invoke: Invoke) -> None:
    for options in ((), ("--dry-run",)):
        refused = invoke("sweep", "widths.yaml", "--jobs", "3", *options)
        assert refused.code == 2
        assert "--jobs: 3 members at a time do not fit in memory" in flat(refused.stderr)
        assert not Path("runs").exists()
    assert invoke("sweep", "widths.yaml", "--jobs", "2", "--dry-run").code == 0


def test_the_largest_stage_is_what_a_member_needs(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GPU", Path("/nowhere"))
    recipe = sweep.members[0].recipe
    training = sum(memory.of_training(recipe).values())
    images = sum(memory.of_images(recipe).values())
    analysis = sum(memory.of_analysis(recipe, memory.known_test_images(recipe)).values())
    assert memory.largest_need(recipe, "cpu") == training > max(images, analysis)
    assert memory.largest_need(recipe, "cpu", trained=True) == max(images, analysis)
