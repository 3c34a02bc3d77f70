"""The profile of a step: its parts, its operations counted independently, its trace, and what it leaves behind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cssl_cli.errors import InUseError
from cssl_cli.host.progress import Silent
from cssl_cli.nn.encoder import build_encoder
from cssl_cli.nn.flops import count_flops, forward_flops
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products, log_sum_exp_over_keys
from cssl_cli.nn.off_diagonal import off_diagonal_squares
from cssl_cli.recipe import load_recipe
from cssl_cli.runs import trainer as trainers
from cssl_cli.runs.machine import copy_rate, matrix_rate
from cssl_cli.runs.profile import PARTS, profile
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.train import captured_step
from cssl_cli.train.step import Compiled
from tests.support.commands import Invoke
from tests.support.graph_on_cpu import GraphOnCpu


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cssl_cli.runs.profile.SECONDS", 0.05)
    monkeypatch.setattr("cssl_cli.runs.machine.MATRIX_SIDE", {"cpu": 256})
    monkeypatch.setattr("cssl_cli.runs.machine.COPY_BYTES", {"cpu": 2**20})


def test_operations_are_those_of_the_layers() -> None:
    left, right = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert count_flops(lambda: (left @ right).sum().backward()) == 3 * 2 * 3 * 5 * 7
    # The small encoder of width w on a side of s: 3×3 kernels, each stage doubling the channels and halving the side.
    width, side = 4, 16
    stages = [(3, width, side), (width, 2 * width, 8), (2 * width, 4 * width, 4), (4 * width, 8 * width, 2)]
    expected = sum(2 * 9 * num_in * num_out * out_side**2 for num_in, num_out, out_side in stages)
    assert forward_flops(build_encoder({"name": "small", "width": width}), side) == expected


@pytest.mark.parametrize("tile", [100, 4])
def test_operations_of_the_losses_are_those_of_their_products(tile: int) -> None:
    z = torch.randn(10, 3, requires_grad=True)
    whole = 2 * 10 * 10 * 3  # a product of all pairs
    forward = whole if tile == 100 else 2 * 3 * (4 * 4 + 4 * 4 + 2 * 2 + 4 * 4 + 4 * 2 + 4 * 2)  # tiles of 4, 4 and 2
    again = 0 if tile == 100 else forward
    found = count_flops(lambda: log_sum_exp_of_inner_products(z, temperature=0.5, tile=tile).sum().backward())
    assert found == forward + again + whole
    keys = torch.randn(7, 3)
    assert count_flops(lambda: log_sum_exp_over_keys(z, keys, temperature=0.5).sum().backward()) == 2 * 2 * 10 * 7 * 3
    assert count_flops(lambda: log_sum_exp_over_keys(z.detach(), keys, temperature=0.5)) == 2 * 10 * 7 * 3
    a, b = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    assert count_flops(lambda: off_diagonal_squares(a, b).backward()) == 3 * 2 * 6 * 4 * 4
    assert count_flops(lambda: off_diagonal_squares(a, a).backward()) == 2 * 2 * 6 * 4 * 4


def test_rates_are_positive_and_finite() -> None:
    cpu = torch.device("cpu")
    for rate in (matrix_rate(cpu, torch.float32), copy_rate(cpu)):
        assert 1e6 < rate < 1e16


def test_products_are_of_random_numbers_that_no_stream_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "mm", lambda *both, out: factors.extend(both))
    before = torch.get_rng_state()
    matrix_rate(torch.device("cpu"), torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), before)
    left, right = (factor.float() for factor in factors[:2])
    assert left.std() > 0.9
    assert not torch.equal(left, right)


@pytest.mark.parametrize("compiled", [False, True, "graph"])
def test_parts_operations_and_trace(
    tiny_recipe: Path, tmp_path: Path, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_with(function, backend="eager"))
    monkeypatch.setattr(captured_step, "CudaRecorder", GraphOnCpu)
    monkeypatch.setattr("cssl_cli.augment.op.on_cpu", lambda _: compiled != "graph")
    monkeypatch.setattr(trainers, "compiles", lambda *_, **__: compiled)
    recipe = load_recipe(str(tiny_recipe))
    run, content = profile(recipe, out=tmp_path / "runs", reporter=Silent())
    parts: dict[str, Any] = content["parts"]
    assert list(parts) == list(PARTS)
    assert (parts["loss"] is None) == (compiled is True)
    assert content["compiled"] == compiled
    assert all(seconds > 0 for seconds in parts.values() if seconds is not None)
    # Backward takes twice the operations of forward, less those of the first layer's input, plus the loss's own.
    images = 2 * content["batch_size"]
    forward = images * forward_flops(build_encoder(recipe.settings("encoder")), 16)
    assert 2 * forward < content["flops"] < 4 * forward
    with gzip.open(run.file("trace.json.gz")) as file:
        events = json.load(file)["traceEvents"]
    assert any("convolution" in event["name"] for event in events)
    assert json.loads(run.file("profile.json").read_text())["seconds"] == content["seconds"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["profiles"]  # no run


def test_the_report_names_the_parts_and_the_rates(invoke: Invoke, tiny_recipe: Path, tmp_path: Path) -> None:
    found = invoke("pretrain", tiny_recipe, "--profile", "--out", str(tmp_path))
    assert found.code == 0, found.stderr
    for words in (
        "augmentation",
        "backward",
        "optimizer",
        "step as in training",
        "images/s in batches of",
        "not compiled",
    ):
        assert words in found.stdout
    content = json.loads(invoke("pretrain", tiny_recipe, "--profile", "--out", str(tmp_path), "--json").stdout)
    rate = content["flops"] / content["seconds"]
    assert 0 < rate < content["matrix_rate"] * 2
    assert content["profile"].startswith(str(tmp_path / "profiles"))


def test_the_report_says_how_slow_float64_is(
    invoke: Invoke, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {torch.float32: 64e12, torch.bfloat16: 256e12, torch.float64: 1e12}
    monkeypatch.setattr("cssl_cli.runs.profile.matrix_rate", lambda _, dtype: rates[dtype])
    found = invoke("pretrain", tiny_recipe, "--profile", "--out", str(tmp_path))
    assert "1/64 of the rate in float32" in " ".join(found.stdout.split())
    rates[torch.float64] = 32e12
    found = invoke("pretrain", tiny_recipe, "--profile", "--out", str(tmp_path))
    assert "32.0 TFLOP/s of matrix products here, 50 % of the rate" in " ".join(found.stdout.split())


@pytest.mark.parametrize("other", ["--dry-run", "--restart"])
def test_a_profile_goes_with_nothing_that_trains(invoke: Invoke, tiny_recipe: Path, other: str) -> None:
    found = invoke("pretrain", tiny_recipe, "--profile", other)
    assert found.code == 2
    assert other in found.stderr


def test_a_trace_that_cannot_be_written_leaves_nothing_behind(
    invoke: Invoke, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: str) -> None:
        Path(path).write_bytes(b"half of a trace")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.profiler.profile.export_chrome_trace", full)
    found = invoke("pretrain", tiny_recipe, "--profile", "--out", tmp_path)
    assert found.code == 1
    assert "No space left on device" in found.stderr
    assert [path.name for path in tmp_path.glob("profiles/*/*") if "trace" in path.name] == []


def test_a_trace_is_not_taken_for_a_leftover_while_it_is_written(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(_: object, path: str) -> None:
        Path(path).write_bytes(b"a trace")
        with pytest.raises(InUseError), RunDir(Path(path).parent).locked():
            pass

    monkeypatch.setattr("torch.profiler.profile.export_chrome_trace", written)
    run, _ = profile(load_recipe(str(tiny_recipe)), out=tmp_path, reporter=Silent())
    assert run.file("trace.json.gz").read_bytes() == b"a trace"


def test_a_profile_that_cannot_be_written_is_refused_before_anything_is_measured(
    invoke: Invoke, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cssl_cli.runs.profile.matrix_rate", lambda *_: 1 / 0)
    (tmp_path / "file").touch()
    found = invoke("pretrain", tiny_recipe, "--profile", "--out", tmp_path / "file")
    assert found.code == 2
    assert "--out" in found.stderr
