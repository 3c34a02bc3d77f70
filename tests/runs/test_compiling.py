"""When a step is compiled or captured, what a run says and remembers of it, and where the compiler's cache lies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from cssl_cli.errors import InputError, Interrupted
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs import trainer as trainers
from cssl_cli.runs.compiling import COMPILER_CACHE, compiles, keep_compiler_cache
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import ENCODER, RunDir
from cssl_cli.train import captured_step
from cssl_cli.train.loop import Plan
from cssl_cli.train.step import Compiled
from tests.support.commands import TINY_RECIPE
from tests.support.graph_on_cpu import GraphOnCpu


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return load_recipe(str(path), ["data.size=8", "encoder.width=2", *overrides])


class Listener(Silent):
    """Remembers what was said, and asks the run to end at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.said = stop_at, []  # type: ignore[var-annotated]

    def say(self, message: str) -> None:
        self.said.append(message)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if task == "pretrain" and done == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def compiled_of_processes(run: RunDir) -> list[Compiled]:
    return [process["compiled"] for process in (run.environment() or {})["processes"]]


# ---------------------------------------------------------------------- when
@pytest.mark.parametrize(
    ("device", "vectors", "least"),
    [
        ("cpu", "AVX512", 20_000),
        ("cpu", "AVX2", None),
        ("cpu", "DEFAULT", None),
        ("cuda", "AVX2", 20_000),
        ("mps", "AVX512", None),
    ],
)
def test_a_run_is_compiled_as_the_recipe_says_or_where_that_pays(
    device: str, vectors: str, least: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)

    def decided(num_steps: int, setting: Compiled | None) -> Compiled:
        return compiles(setting, Plan(1000, 100, num_steps, warmup_steps=0), torch.device(device))

    assert decided(1, True) is True
    assert decided(10**6, False) is False
    if least is None:
        assert decided(10**6, None) is False
    else:
        assert decided(least - 1, None) is False
        assert decided(least, None) is True  # and no graph, before one has been seen to run


def test_a_graph_is_captured_on_a_gpu_only(tmp_path: Path) -> None:
    plan = Plan(1000, 100, 10, warmup_steps=0)
    assert compiles("graph", plan, torch.device("cuda", 1)) == "graph"
    with pytest.raises(InputError, match="device is cpu") as found:
        pretrain(recipe(tmp_path, "train.compile=graph"), out=tmp_path / "runs", reporter=Silent(), device_name="cpu")
    assert found.value.where == "train.compile"
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------- the compiler's cache
def test_the_compilers_cache_is_kept_with_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSSL_CACHE", str(tmp_path))
    monkeypatch.setenv(COMPILER_CACHE, "/elsewhere")
    keep_compiler_cache()
    assert os.environ[COMPILER_CACHE] == "/elsewhere"
    monkeypatch.delenv(COMPILER_CACHE)
    keep_compiler_cache()
    assert Path(os.environ[COMPILER_CACHE]) == tmp_path / "compiler"
    assert (tmp_path / "compiler").is_dir()


def test_where_no_cache_can_be_the_compiler_takes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv(COMPILER_CACHE, raising=False)
    for given in (str(tmp_path / "file"), "$UNKNOWN/cache"):
        monkeypatch.setenv("CSSL_CACHE", given)
        keep_compiler_cache()
        assert COMPILER_CACHE not in os.environ


# ---------------------------------------------------------------------- what a run remembers
def test_the_environment_says_what_was_compiled_and_what_changes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler fails in the first process and works in the second."""
    chosen = recipe(tmp_path, "train.compile=true", "train.checkpoint_minutes=0")
    real = torch.compile

    def failing(function: object, **_: object) -> object:
        def compiled(*_: object) -> object:
            raise RuntimeError("no compiler")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(Interrupted):
        pretrain(chosen, out=tmp_path / "runs", reporter=Listener(stop_at=2))
    monkeypatch.setattr(torch, "compile", lambda function, **_: real(function, backend="eager"))
    listener = Listener()
    run = pretrain(chosen, out=tmp_path / "runs", reporter=listener)
    assert compiled_of_processes(run) == [False, True]
    assert any("compiled False → True" in sentence for sentence in listener.said)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are captured, on a CPU."""
    monkeypatch.setattr(trainers, "compiles", lambda *_, **__: "graph")
    monkeypatch.setattr(captured_step, "CudaRecorder", GraphOnCpu)
    monkeypatch.setattr("cssl_cli.augment.op.on_cpu", lambda _: False)


@pytest.mark.usefixtures("graphs")
def test_a_captured_run_is_interrupted_and_goes_on_as_it_was(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "analyze.every=1")
    whole = pretrain(chosen, out=tmp_path / "whole", reporter=Silent(), device_name="cpu")
    with pytest.raises(Interrupted):
        pretrain(chosen, out=tmp_path / "runs", reporter=Listener(stop_at=6), device_name="cpu")
    listener = Listener()
    run = pretrain(chosen, out=tmp_path / "runs", reporter=listener, device_name="cpu")
    assert compiled_of_processes(run) == ["graph", "graph"]
    assert listener.said[0].startswith("going on from step 6 of 12")
    assert listener.said[1].startswith("captured")
    assert run.file(ENCODER).read_bytes() == whole.file(ENCODER).read_bytes()


@pytest.mark.usefixtures("graphs")
def test_a_run_that_could_not_be_captured_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GraphOnCpu, "record", lambda *_: 1 / 0)
    listener = Listener()
    run = pretrain(recipe(tmp_path), out=tmp_path / "runs", reporter=listener, device_name="cpu")
    assert compiled_of_processes(run) == [False]
    assert listener.said == ["the step could not be captured as a CUDA graph and runs uncompiled (division by zero)"]
