"""Every benchmark runs in its smallest setting and writes what it measured; what they share computes what it says."""

from __future__ import annotations

import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import contenders
import losses
import measuring
import numpy as np
import pytest
import streaming
import torch
from contenders import step_flops
from scaling_figure import Panel, draw
from step_choices import WAYS

from cssl_cli.cli.app import app
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder
from cssl_cli.nn.flops import forward_flops
from cssl_cli.recipe import load_recipe
from cssl_cli.runs import machine
from cssl_cli.theory.estimate import Estimate, Sample

ROOT = Path(__file__).parents[2]
RUN = ["--threads", "1"]


# ------------------------------------------------------------------------------------------------------ what is shared
def test_the_spread_is_half_the_interquartile_range_over_the_median():
    assert measuring.relative_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((4 - 2) / 2 / 3)
    assert measuring.relative_spread([7.0]) is None
    assert measuring.relative_spread([2.0, 2.0]) == 0


def test_a_ratio_is_taken_within_each_round():
    # The machine is slower by half in the second round, which the ratio does not show.
    assert measuring.ratio([3.0, 6.0, 3.0], [1.0, 2.0, 1.0]) == {"ratio": 3.0, "spread": 0.0, "better": "higher"}
    found = measuring.ratio([1.0, 4.0], [1.0, 2.0], better="lower")
    assert found["ratio"] == statistics.median([1.0, 2.0])
    assert found["better"] == "lower"


def test_candidates_take_turns_and_warm_up_uncounted():
    order: list[str] = []
    candidates = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    seconds = measuring.alternate(candidates, 2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.soak
def test_memory_of_a_process_of_its_own_is_not_that_of_its_parent():
    size = 2**28
    held = torch.ones(size, dtype=torch.uint8)
    assert measuring.peak_memory() > size
    assert measuring.in_own_process(measuring.peak_memory) < measuring.peak_memory()
    del held


def test_operations_of_a_step_follow_from_the_shapes(tmp_path: Path):
    """Two convolutions' worth of arithmetic by hand: each product and sum counted, backward twice the forward.

    The first convolution's backward is that of its weights alone: images need no gradient.
    """
    recipe = load_recipe(
        "simclr-shapes",
        [
            "encoder={name: small, width: 2}",
            "method.projector=[4, 3]",
            "train={epochs: 1, batch_size: 5}",
            "optim.warmup_epochs=0",
        ],
    )
    views, side = 10, 16
    sizes = [(3, 2, side), (2, 4, side // 2), (4, 8, side // 4), (8, 16, side // 8)]
    convolutions = [2 * 9 * num_in * num_out * out * out for num_in, num_out, out in sizes]
    assert forward_flops(build_encoder(recipe.settings("encoder")), side) == sum(convolutions)
    linear = 2 * (16 * 4 + 4 * 3)
    least = views * (3 * (sum(convolutions) + linear) - convolutions[0])
    found = step_flops(recipe, side, torch.device("cpu"))
    # What the loss multiplies is at most the similarities of all views and their gradients, a few times over.
    assert least <= found <= least + 6 * 2 * views * views * 3


@pytest.mark.page
def test_the_figure_is_drawn_in_both_forms(tmp_path: Path):
    panels = [Panel("Pretraining, images/s", "batch size", [8, 16], [[1.0, 2.0], [3.0]], (0,))]
    machine = {"device": "cpu", "processor": "one", "threads": 1, "precision": "float32"}
    written = draw(panels, machine, tmp_path / "figures" / "scaling.svg")
    assert sorted(path.name for path in written) == ["scaling.png", "scaling.svg"]
    assert all(path.stat().st_size > 1000 for path in written)


# ---------------------------------------------------------------------------------------------------------- the scripts
Run = Callable[..., dict[str, Any]]


class InThisProcess(Executor):
    """In place of a process of its own, which would take seconds to start."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments, **named))
        return done


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A script's `main` in this process, which measures the machine only roughly; returns what it wrote."""
    monkeypatch.setattr(machine, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(machine, "COPY_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(measuring, "process_of_its_own", InThisProcess)
    monkeypatch.setattr(contenders, "_TRAININGS", {})  # left unfinished, with their threads

    def main(script: str, *arguments: object) -> dict[str, Any]:
        path = tmp_path / "results" / f"{script}.json"
        monkeypatch.setattr("sys.argv", [script, *RUN, "--json", str(path), *map(str, arguments)])
        importlib.import_module(script).main()
        return checked(path)

    return main


def checked(path: Path) -> dict[str, Any]:
    written = json.loads(path.read_text())
    assert written["machine"]["threads"] == 1
    assert written["machine"]["matrix_product"]["float32"] > 0
    assert written["machine"]["copy"] > 0
    assert written["numbers"]
    for found in written["ratios"].values():
        assert found["ratio"] > 0
        assert found["better"] in ("higher", "lower")
    return written


def test_pretrain_vs_lightly_measures_cssl_where_lightly_is_not_there(run: Run):
    small = ("--encoder", "small", "--width", 2, "--batch-size", 8, "--images", 40, "--steps", 1, "--repetitions", 1)
    written = run("pretrain_vs_lightly", "--no-lightly", *small, "--set", "method.projector=[8, 4]")
    assert "cssl, images/s: small width 2, batch 8" in written["numbers"]
    assert list(written["ratios"]) == ["cssl, share of the matrix rate: small width 2, batch 8"]


def test_augment(run: Run):
    written = run("augment", "--batch", 4, "--side", 16, "--repetitions", 1)
    assert list(written["ratios"]) == ["cssl, 1 thread over torchvision: 4 images of side 16"]


def test_losses(run: Run):
    written = run("losses", "--batches", 40, "--widths", 40, "--rounds", 1, "--seconds", 0)
    assert len(written["ratios"]) == 2 * 2
    assert written["numbers"]["NT-Xent, plain formula, bytes: B = 40"] > 0


@pytest.mark.parametrize(("name", "loss"), losses.LOSSES.items())
def test_both_ways_of_a_loss_are_the_same_loss(name: str, loss: losses.Loss):
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(24, 10, generator=generator).requires_grad_() for _ in range(2)]
    plain, ours = (function(*views) for function in loss.ways.values())
    assert torch.allclose(plain, ours, rtol=1e-5), name
    of_plain, of_ours = (torch.autograd.grad(value, views) for value in (plain, ours))
    for expected, found in zip(of_plain, of_ours, strict=True):
        assert torch.allclose(expected, found, rtol=1e-4, atol=1e-6), name


def test_memory_of_a_loss_is_growth_after_the_same_on_a_few_images(monkeypatch: pytest.MonkeyPatch):
    most = 1_000

    def growing(z_1: torch.Tensor, z_2: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, 1_700 if len(z_1) == losses.BARLOW_TWINS_BATCH else 1_200)
        return (z_1 * z_2).sum()

    monkeypatch.setattr(measuring, "peak_memory", lambda: most)
    monkeypatch.setitem(losses.LOSSES, "Barlow Twins", losses.Loss("P", {"growing": growing}))
    assert losses.measure(torch.get_num_threads(), 0.0, "Barlow Twins", "growing", 8).memory == 1_700 - 1_200


def test_streaming(run: Run, capsys: pytest.CaptureFixture[str]):
    small = ("--encoder", "small", "--width", 1, "--batch-size", 4, "--images", 12, "--size", 16)
    written = run("streaming", *small, "--steps", 1, "--repetitions", 1, "--set", "method.projector=[8, 4]")
    case = "small width 1, batch 4, side 16"
    assert all(written["numbers"][f"{way}, images/s: {case}"] > 0 for way in streaming.WAYS)
    assert [name.partition(":")[0] for name in written["ratios"]] == [
        "streamed from host memory over resident",
        "streamed from a mapped file over resident",
        "streamed from host memory over plain copies in the loop",
    ]
    assert "only the overhead of the gathering thread" in capsys.readouterr().out


@pytest.mark.parametrize("way", streaming.WAYS)
def test_images_are_the_same_however_they_come(way: str, tmp_path: Path):
    path = streaming.write_random_images(tmp_path / "images.npy", 20, 4)
    written = torch.from_numpy(np.load(path))
    orders = torch.randperm(20, generator=torch.Generator().manual_seed(0)).split(5)
    batches = list(streaming.images_of(way, path, torch.device("cpu")).batches(orders))
    assert all(torch.equal(batch, written[indices]) for batch, indices in zip(batches, orders, strict=True))


@pytest.mark.soak
def test_step_choices(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr("step_choices.keep_freed_memory", lambda: True)  # not of the process that tests
    sizes = ("--encoder", "small", "--width", 2, "--batch-size", 20, "--steps", 1, "--repetitions", 1)
    written = run("step_choices", *sizes)
    case = "small width 2, batch 20"
    assert [name for name, _, _ in (ratio.partition(", times") for ratio in written["ratios"])] == list(WAYS)[1:]
    distances = {name: value for name, value in written["numbers"].items() if name.startswith("gradient")}
    # Rounding to 8 and to 24 bits, amplified by the layers.
    for name in ("float32 from float64", "float32 in NCHW from float64", "float32, compiled from float64"):
        assert 0 < distances[f"gradient, {name}: {case}"] < 1e-3
    assert distances[f"gradient, float32, compiled from plain: {case}"] < 1e-3
    for name in ("bfloat16 from float64", "bfloat16, compiled from float64"):
        assert 1e-3 < distances[f"gradient, {name}: {case}"] < 1


def test_step_choices_without_kept_memory(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("step_choices.keep_freed_memory", lambda: False)
    monkeypatch.setattr("step_choices.WAYS", {name: way for name, way in WAYS.items() if not way["compiled"]})
    written = run(
        "step_choices",
        "--encoder",
        "small",
        "--width",
        2,
        "--batch-size",
        20,
        "--steps",
        1,
        "--repetitions",
        1,
        "--no-gradients",
    )
    assert [name.partition(", times")[0] for name in written["ratios"]] == ["channels_last"]


@pytest.mark.soak
def test_wide_batches(run: Run):
    sizes = ("--encoder", "small", "--width", 2, "--side", 16, "--batch-size", 8, "--micro-batch", 2)
    written = run("wide_batches", *sizes, "--repetitions", 1)
    assert len(written["ratios"]) == 3
    peaks = [value for name, value in written["numbers"].items() if "bytes" in name]
    assert peaks[0] > peaks[1] > peaks[2] >= peaks[3] > 0  # the projector, here, takes most


def test_terms(run: Run):
    sizes = ("--images", 10, "--classes", 2, "--views", 3, "--width", 8, "--bootstrap", 5)
    assert len(run("terms", *sizes, "--repetitions", 2)["ratios"]) == 1


def test_concentration(run: Run):
    sizes = ("--images", 6, "--classes", 2, "--views", 3, "--side", 16, "--width", 8, "--pairs", 0)
    assert len(run("concentration", *sizes)["ratios"]) == 3


def test_analysis(run: Run):
    written = run(
        "analysis", "--encoder", "small", "--width", 1, "--images", 20, "--views", 2, "--distances", "trained"
    )
    assert len(written["ratios"]) == 1


def test_features(run: Run):
    sizes = ("--width", 1, "--images", 8, "--train", 400, "--test", 20, "--features", 8, "--neighbours", 5)
    written = run("features", *sizes, "--classes", 3, "--repetitions", 1)
    assert len(written["ratios"]) == 4


@pytest.mark.soak
def test_ranks(run: Run):
    sizes = ("--ranks", 1, 2, "--batch-size", 16, "--steps", 1, "--repetitions", 1)
    written = run("ranks", "--recipes", "simclr-shapes", *sizes)
    assert len(written["ratios"]) == 3
    assert all(value > 0 for value in written["numbers"].values())


@pytest.mark.soak
def test_large_sweep(run: Run, tmp_path: Path):
    written = run("large_sweep", "--members", 8, "--keep", tmp_path / "large")
    assert len(written["numbers"]) == 2 * 7
    assert "8 rows" in (tmp_path / "large" / "page.html").read_text()


def test_a_large_sweep_is_made_whole_and_measured_where_its_commands_succeed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    large_sweep = importlib.import_module("large_sweep")
    monkeypatch.chdir(tmp_path)
    finds = "import os, sys; open('peak.txt', 'w').write('1'); sys.exit(not os.path.exists(sys.argv[1]))"
    monkeypatch.setattr(large_sweep, "MEASURED", finds)
    monkeypatch.setattr(large_sweep, "COMMANDS", {"found": ["{file}"], "gone": ["nowhere"]})
    home, made = Path("kept") / "runs" / "large", []

    def make(file: Path, members: int) -> None:
        made.append(members)
        (home / "sweep.json").touch()

    monkeypatch.setattr(large_sweep, "make", make)
    home.mkdir(parents=True)
    Path("kept/large.yaml").touch()  # and no more: it was interrupted
    for _ in range(2):
        assert len(run("large_sweep", "--members", 8, "--keep", "kept", "--only", "found")["numbers"]) == 2
    assert made == [8]
    with pytest.raises(SystemExit, match="gone ended with 1"):
        run("large_sweep", "--keep", "kept")


def test_startup(run: Run, monkeypatch: pytest.MonkeyPatch):
    startup = importlib.import_module("startup")
    started = []

    def in_this_process(*arguments: str, cache: Path | None = None, threads: int | None = None) -> None:
        started.append(arguments)
        if arguments[:1] == ("-m",):
            monkeypatch.setenv("CSSL_CACHE", str(cache or os.environ["CSSL_CACHE"]))
            with pytest.raises(SystemExit) as ended:
                app(list(arguments[2:]), prog_name="cssl")
            assert not ended.value.code

    monkeypatch.setattr(startup, "python", in_this_process)
    written = run("startup", "--images", 130, "--repetitions", 1, "--pretrain-repetitions", 1)
    assert len(written["ratios"]) == 2 * 2 + 2
    assert ("-c", "import torch") in started


@pytest.mark.soak
def test_interval_coverage(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interval_coverage.BATCH_TABLES", 2)
    monkeypatch.setattr("interval_coverage.NEW_IMAGES", 100)
    written = run("interval_coverage", "--tables", 2, "--designs", "2x5", "--large", 100)
    assert list(written["ratios"]) == []
    assert all(0 <= share <= 1 for share in written["numbers"].values())
    counted = {name.partition(":")[0] for name in written["numbers"]}
    # Every interval of an analysis, but the certificates' and the stars', which hold by construction.
    assert counted == intervals_of_an_analysis() | {
        f"concentration.{name}" for name in ("mean_sigma_low", "nearest_same_class")
    }


def test_spectrum_coverage(run: Run):
    written = run("spectrum_coverage", "--designs", "80x20", "--tables", 2, "--kinds", "flat", "hash", "--views", 2)
    names = ("shared", "of_image", "about_class", "share", "leading_label_energy")
    kinds = ("80x20 flat", "80x20 hash")
    assert set(written["numbers"]) == {
        f"{what} {n}: {k}" for what in ("mean", "coverage") for n in names for k in kinds
    }
    assert all(0 <= value <= 1 for name, value in written["numbers"].items() if name.startswith("coverage"))
    assert 0.95 < written["numbers"]["mean shared: 80x20 hash"] < 1.05


def test_spectrum_coverage_tells_bias_and_intervals_that_do_not_hold():
    benchmark = importlib.import_module("spectrum_coverage")

    def estimates(*values: float):
        return [Estimate(value, "", "consistent", Sample(9, 3), interval=(value - 1, value + 1)) for value in values]

    fault = benchmark.fault
    assert fault(100.0, estimates(101, 102, 103, 102), 4) is None
    assert fault(100.0, estimates(105.0, 105.1, 104.9, 105.0), 4) == "the mean is off by 5.0%"
    assert fault(100.0, estimates(95, 115, 99, 111), 4) is None  # within its error
    assert fault(100.0, estimates(100, 101, 99, 100), 1) == "1 of 4 intervals hold"
    table = benchmark.Population("flat", 5).table(12, 3, 0, block=5)
    assert (table.features.shape, table.features.dtype) == ((12, 4, 5), torch.float32)
    assert table.features[10:].std() > 0.1


def intervals_of_an_analysis() -> set[str]:
    """TERM.QUANTITY of what has an interval that no other test holds to its law."""
    population = importlib.import_module("interval_coverage").Population(2, "wide")
    measured = population.analyze(*population.draw(5, stream(0, "table")), None, bootstrap=50, seed=0)
    return {
        f"{term}.{name}"
        for term, quantities in measured.items()
        for name, quantity in quantities.items()
        if isinstance(quantity, Estimate) and quantity.interval is not None
        # Binomial or from others of these.
        if term not in ("population", "info_nce_paper", "risk_decomposition")
        and (term, name) != ("nt_xent", "mean_bound")
    }


def test_type_1_error(run: Run, capsys: pytest.CaptureFixture[str]):
    written = run("type_1_error", "--tables", 1, "--only", "10 pairs of 5 × 2 methods, parts 95 %")
    assert list(written["ratios"]) == []
    assert len(written["numbers"]) == 7  # τ over rows and over parts, what it could be, ρ, any term, within, methods
    assert all(0 <= share <= 1 for share in written["numbers"].values())
    assert "| 10 pairs of 5 × 2 methods, parts 95 %, methods differ | 1 |" in capsys.readouterr().out


def test_differences_are_as_often_beyond_seed_noise_as_their_p_is_small():
    single, beyond, _ = importlib.import_module("type_1_error").of_differences(3, 1, 200, np.random.default_rng(0))
    assert single == beyond
    assert single <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.soak
def test_scaling(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scaling.OTHER_IMAGES", 30)
    figure = tmp_path / "growth.svg"
    written = run(
        "scaling", "--batch-sizes", 4, 8, "--widths", 1, 2, "--width", 1, "--batch-size", 4, "--turn-images", 8,
        "--repetitions", 1, "--analysis-images", 20, "--analysis-views", 2, "--figure", figure,
    )  # fmt: skip
    assert len(written["ratios"]) == 5
    assert figure.exists()


def test_a_script_finds_its_parts_from_any_folder(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--help"],  # which loads no torch for that
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Is the package right on a GPU" in done.stdout


def test_every_benchmark_says_what_it_measures():
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith('"""'), path.name
        assert len(first) > 20, path.name
