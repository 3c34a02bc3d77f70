"""Features in bfloat16 or TF32: asked for, never silently, and with the error that they make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cssl_cli.errors import DamagedError, InputError
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.precision import RoughEncoder
from cssl_cli.host.progress import Silent
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.report.analysis import show_runs
from cssl_cli.runs.device import require_feature_precision
from cssl_cli.runs.probe import Baselines, probe
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RunDir
from tests.support.commands import Invoke

CPU = torch.device("cpu")
QUICK = (
    "analyze={bootstrap: 0, refine_pairs: 0, distances: [pixels], deltas: [1], epsilons: [0.5], classes: [bar, ring]}",
    *("--images", 20, "--views", 3),
)


class Flat(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_the_error_is_that_of_the_batches_compared() -> None:
    encoder = RoughEncoder(Flat(), Flat, "bfloat16")
    generator = torch.Generator().manual_seed(0)
    compared, spread = [], 0.0
    for number in range(1, 12):
        images = torch.randn(5, 3, 2, 2, generator=generator)
        features = encoder(images)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, images.flatten(1).to(torch.bfloat16).float(), rtol=0, atol=0)
        if number in (1, 2, 3, 5, 9):
            exact = images.flatten(1).double()
            compared.append(exact)
            spread += (exact - exact.mean(dim=0)).square().sum().item()
    exact = torch.cat(compared)
    errors = (exact.to(torch.bfloat16).double() - exact).norm(dim=1)
    found = encoder.error
    assert found["num_views"] == 25
    assert found["of_length"] == pytest.approx((errors.square().sum() / exact.square().sum()).sqrt().item())
    assert found["of_spread"] == pytest.approx((errors.square().sum() / spread).sqrt().item())
    assert found["largest"] == pytest.approx((errors / exact.norm(dim=1)).max().item())


def test_features_that_are_all_one_have_no_spread_and_those_of_length_zero_no_error() -> None:
    encoder = RoughEncoder(Flat(), Flat, "bfloat16")
    encoder(torch.zeros(4, 3, 2, 2))
    assert encoder.error == {"of_length": 0.0, "largest": 0.0, "of_spread": None, "num_views": 4}


def test_an_extractor_says_what_error_it_made() -> None:
    with torch.device("meta"):
        network = build_encoder({"name": "small", "width": 8})
    materialize(network, torch.Generator().manual_seed(0))
    images = torch.randint(256, (70, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def extractor(encoder: nn.Module | None, precision: str) -> FeatureExtractor:
        options = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "image_size": 16, "batch_size": 32, "device": CPU}
        return FeatureExtractor(encoder, precision=precision, **options)

    plain, rough = extractor(network, "float32"), extractor(network, "bfloat16")
    exact, found = plain.clean(images).double(), rough.clean(images).double()
    assert plain.error is None
    assert rough.error is not None
    assert rough.error["num_views"] == 70
    apart = ((found - exact).square().sum() / exact.square().sum()).sqrt().item()
    assert 1e-4 < apart < 0.02
    assert rough.error["of_length"] == pytest.approx(apart)
    pixels = extractor(None, "bfloat16")
    torch.testing.assert_close(pixels.clean(images), extractor(None, "float32").clean(images), rtol=0, atol=0)
    assert pixels.error is None


def test_tf32_is_allowed_for_these_features_and_nothing_else() -> None:
    seen: list[bool] = []

    class Watched(Flat):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(images)

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        RoughEncoder(Watched(), Watched, "tf32")(torch.ones(2, 3, 2, 2))
        assert seen == [True, False]  # then compared with float32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 6), True), ((9, 0), True)])
def test_a_precision_is_that_of_the_device(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: capability[0] >= 8)
    for name in ("bfloat16", "tf32"):
        if has:
            require_feature_precision(name, torch.device("cuda"))
        else:
            with pytest.raises(InputError, match=name):
                require_feature_precision(name, torch.device("cuda"))
    require_feature_precision("float32", torch.device("cuda"))
    require_feature_precision("bfloat16", CPU)


@pytest.mark.parametrize("command", ["probe", "analyze"])
def test_what_cannot_be_is_refused(invoke: Invoke, run: Path, command: str) -> None:
    done = invoke(command, run, "--precision", "tf32", "--device", "cpu")
    assert done.code == 2
    assert "cpu does not compute in tf32" in done.stderr
    done = invoke(command, run, "--precision", "bf16")
    assert done.code == 2
    assert "bfloat16" in done.stderr


def test_a_recipe_has_no_features_in_another_precision(invoke: Invoke, tiny_recipe: Path) -> None:
    done = invoke("analyze", tiny_recipe, "--precision", "bfloat16")
    assert done.code == 2
    assert "--precision" in done.stderr


def require_error(result: dict[str, Any]) -> None:
    assert result["settings"]["precision"] == "bfloat16"
    for encoder in ("trained", "untrained"):
        assert 0 < result["feature_error"][encoder]["of_length"] < 0.05
        assert result["feature_error"][encoder]["num_views"] > 0


def test_accuracies_carry_the_precision_and_do_not_replace_others(invoke: Invoke, run: Path) -> None:
    plain = RunDir(run).read_json(PROBE)
    assert plain is not None
    done = invoke("probe", run, "--precision", "bfloat16")
    assert done.code == 0, done.stderr
    assert "Features in bfloat16, off those in float32 by" in " ".join(done.stdout.split())
    rough = RunDir(run).read_result(PROBE, {**plain["settings"], "precision": "bfloat16"})
    assert rough is not None
    require_error(rough)
    assert RunDir(run).read_result(PROBE, plain["settings"]) == plain


def test_terms_carry_the_precision_and_do_not_replace_others(
    invoke: Invoke, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = json.loads(invoke("analyze", run, *QUICK, "--no-figures", "--json").stdout)
    assert "feature_error" not in plain
    assert "precision" not in plain["settings"]
    done = invoke("analyze", run, *QUICK, "--no-figures", "--precision", "bfloat16")
    assert done.code == 0, done.stderr
    assert "Terms of features in bfloat16, off those in float32 by" in " ".join(done.stdout.split())
    rough = RunDir(run).read_json(ANALYSIS)
    assert rough is not None
    require_error(rough)
    kept = RunDir(run).read_result(ANALYSIS, plain["settings"])
    assert kept is not None
    assert kept["trained"] == plain["trained"]
    assert rough["trained"]["alignment"] != plain["trained"]["alignment"]
    # Ratios of views that are close would be those of rounding: they are of features in float32.
    assert rough["trained"]["lipschitz"]["largest_ratio"] == plain["trained"]["lipschitz"]["largest_ratio"]
    capfd.readouterr()
    show_runs({run: plain, run.parent / "other": rough}, as_json=False)
    assert "in different precision" in " ".join(capfd.readouterr().out.split())


def test_a_baseline_that_is_known_keeps_its_error(run: Path) -> None:
    known: Baselines = {}
    for _ in range(2):
        result = probe(run, reporter=Silent(), baselines=known, precision="bfloat16")
        assert set(result["feature_error"]) == {"trained", "untrained"}


def test_what_is_stored_in_tf32_is_shown_where_nothing_computes_in_it(run: Path) -> None:
    stored = RunDir(run).latest_result(PROBE)
    assert stored is not None
    error = {"of_length": 1e-4, "largest": 2e-4, "of_spread": None, "num_views": 100}
    changed = {**stored, "settings": {**stored["settings"], "precision": "tf32"}, "feature_error": {"trained": error}}
    RunDir(run).write_result(PROBE, changed)
    shown = probe(run, reporter=Silent(), device_name="cpu", again=False, precision="tf32")
    assert shown["settings"]["precision"] == "tf32"
    with pytest.raises(InputError, match="cpu does not compute in tf32"):
        probe(run, reporter=Silent(), device_name="cpu", precision="tf32")
    del changed["feature_error"]
    RunDir(run).write_result(PROBE, changed)
    with pytest.raises(DamagedError, match="without the error that it made"):
        RunDir(run).latest_result(PROBE)


def test_accuracies_in_a_lower_precision_are_told_of_any_run(
    invoke: Invoke, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert invoke("analyze", run, *QUICK, "--no-figures").code == 0
    result = RunDir(run).latest_result(ANALYSIS)
    other = Path(shutil.copytree(run, run.parent / "other"))
    assert invoke("probe", other, "--precision", "bfloat16").code == 0
    RunDir(run).file(PROBE).unlink()
    assert result is not None
    show_runs({run: result, other: result}, as_json=False)
    assert "other: Accuracies of features in bfloat16" in " ".join(capfd.readouterr().out.split())
    show_runs({run: result, other: result}, as_json=True)
    content = json.loads(capfd.readouterr().out)["runs"]
    assert content[str(other)]["accuracy_precision"] == "bfloat16"
    assert "accuracy_precision" not in content[str(run)]
