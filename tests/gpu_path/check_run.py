"""Pretraining, probe and analysis from end to end on an emulated CUDA device: the CPU's numbers, on one device."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cssl_cli.features.probe import softmax_regression
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs import concentrate
from cssl_cli.runs.analyze import analyze
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.probe import probe
from cssl_cli.runs.run_dir import METRICS, RunDir
from cssl_cli.theory.companions import risk_decomposition
from tests.gpu_path.emulated_cuda import CUDA, MixedDevices, emulated_cuda, host_indices, waits
from tests.support.commands import TINY_RECIPE

OVERRIDES = (
    "data={name: shapes, num_train: 128, num_test: 60, size: 16}",
    "train={steps: 4, batch_size: 64, precision: float32}",
    "analyze={num_images: 20, classes: [bar, cross, ring, square], num_views: 3, epsilons: [0.2], deltas: [0.5, 1]}",
    "analyze={bootstrap: 20, refine_pairs: 2, distances: [pixels, trained]}",
    "probe={penalties: [0.1], shots: [2], draws: 2, finetune: {epochs: 1, min_steps: 2, lr: 0.001}}",
)
ABOUT_TIME = {"seconds", "images_per_second", "device_memory_mb"}
METHODS = {
    "simclr": "{name: simclr, projector: [16, 8]}",
    "moco": "{name: moco, projector: [16, 8], queue: 300, batch_norm_splits: 4}",
    "byol": "{name: byol, projector: [16, 8], predictor: 16}",
    "barlow_twins": "{name: barlow_twins, projector: [16, 16]}",
}


def recipe_of(folder: Path, method: str) -> Recipe:
    """With one of them, its terms and accuracies through training."""
    path = folder / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    through_training = ["probe.every=1", "analyze.every=1"] if method == "simclr" else []
    return load_recipe(str(path), [*OVERRIDES, *through_training, f"method={METHODS[method]}"])


def pretrained(recipe: Recipe, folder: Path, device: str) -> RunDir:
    with emulated_cuda() if device == "cuda" else contextlib.nullcontext():
        return pretrain(recipe, out=folder / device, reporter=Silent(), device_name=device)


def differences(one: Any, two: Any, where: str = "", *, part: float) -> list[tuple[str, Any, Any]]:
    """What differs by more than a `part` of itself (of 0.01, if that is more)."""
    if isinstance(one, dict):
        names = [name for name in one if name not in ABOUT_TIME]
        return [d for name in names for d in differences(one[name], two[name], f"{where}.{name}", part=part)]
    if isinstance(one, list | tuple) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}[{i}]", part=part)]
    if isinstance(one, float) and isinstance(two, float | int):
        return [(where, one, two)] if abs(one - two) > part * max(1e-2, abs(one), abs(two)) else []
    return [(where, one, two)] if one != two else []


@pytest.mark.parametrize("method", METHODS)
def test_pretraining_gives_the_numbers_of_the_cpu(method: str, tmp_path: Path) -> None:
    recipe, found = recipe_of(tmp_path, method), []
    for device in ("cpu", "cuda"):
        run = pretrained(recipe, tmp_path, device)
        found.append([json.loads(line)["terms"] for line in run.file(METRICS).read_text().splitlines()])
    assert len(found[0]) == 2
    # Emulated batch norms add up as torch's do on a CPU, which errs by 1e-5, and training makes that more.
    assert differences(*found, part=1e-2) == []


def test_probe_and_analysis_give_the_numbers_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one encoder, that was trained on the CPU. Searches of many equal steps end after a few, which spares half."""
    monkeypatch.setattr(softmax_regression, "MAX_ITERATIONS", 6)
    monkeypatch.setattr(risk_decomposition, "PENALTIES", (1.0, 10.0))
    monkeypatch.setattr(concentrate, "REFINE_STEPS", 3)
    run = pretrained(recipe_of(tmp_path, "simclr"), tmp_path, "cpu")
    measured = []
    for device in ("cpu", "cuda"):
        with emulated_cuda() if device == "cuda" else contextlib.nullcontext():
            options: dict[str, Any] = {"reporter": Silent(), "device_name": device}
            measured.append({"probe": probe(run.path, **options), "analysis": analyze(run.path, **options, again=True)})
    print("\nwaits:", *waits.most_common(20), "by indices of the host:", *host_indices.most_common(20), sep="\n    ")
    found = differences(*measured, part=1e-3)
    print(f"{len(found)} numbers differ by more than a thousandth", *found[:20], sep="\n    ")
    assert len(found) <= MAY_DIFFER


MAY_DIFFER = (
    5  # none did; bounds may turn on a rounding: an order of nearly equal numbers, a search that stops elsewhere
)


# ---------------------------------------------------------------------- what the emulation refuses
def test_company_of_the_host_is_refused() -> None:
    with emulated_cuda():
        images = torch.ones(3, device=CUDA)
        assert images.device == CUDA
        for company in (lambda: images + torch.ones(3), lambda: torch.arange(3)[images.long()]):
            with pytest.raises(MixedDevices):
                company()
        assert float(images.sum()) == 3
        assert sum(waits.values()) == 1
