"""A run directory as training writes it, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cssl_cli.recipe import load_recipe
from cssl_cli.runs.run_dir import EPOCH_KNN, METRICS, TRACE, RunDir
from tests.support.commands import TINY_RECIPE

STEPS = 4  # in an epoch


def written_run(folder: Path, *, seed: int = 3, epochs: int = 0, of: int = 3, state: str | None = "running") -> RunDir:
    """A run of `of` epochs after so many; without a `state` it has not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    recipe = load_recipe(str(folder / "tiny.yaml"), [f"seed={seed}"])
    (folder / "tiny.yaml").unlink()
    run = RunDir.at(folder, name=recipe.name, fingerprint=recipe.fingerprint)
    run.create(recipe.to_yaml())
    if state is not None:
        run.write_status(state, step=0, num_steps=of * STEPS)
    if epochs:
        record_epochs(run, epochs)
    return run


def record_epochs(run: RunDir, epochs: int, *, speed: float = 100.0) -> None:
    """What is on disk when so many epochs have been trained, at so many images a second."""
    run.write_records(METRICS, [metrics(epoch, speed) for epoch in range(1, epochs + 1)])
    run.write_records(TRACE, [{**place(epoch), **_terms(epoch)} for epoch in range(epochs + 1)])
    run.write_records(EPOCH_KNN, [{**place(epoch), "knn": epoch / 10, "k": 10} for epoch in range(1, epochs + 1)])


def place(epoch: int) -> dict[str, int]:
    return {"epoch": epoch, "step": epoch * STEPS}


def metrics(epoch: int, speed: float = 100.0) -> dict[str, Any]:
    return {
        **place(epoch),
        "terms": {"loss": 5 - epoch / 3, "alignment": -epoch / 3},
        "learning_rate": 0.05 / epoch,
        "images_per_second": speed,
        "seconds": 10.0,
        "device_memory_mb": None,
    }


def _terms(epoch: int) -> dict[str, Any]:
    return {"num_images": 50, "num_views": 5, "epsilon": 0.5, "alignment": epoch / 7, "rankme": None, "knn": epoch / 20}
