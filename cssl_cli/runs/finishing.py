"""The end of a run: its weights exported, with what they say of themselves, and its status."""

from __future__ import annotations

from typing import Any

import torch

from cssl_cli.data import Dataset
from cssl_cli.host.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs.environment import enter_environment, environment
from cssl_cli.runs.run_dir import ENCODER, PROJECTOR, RunDir
from cssl_cli.runs.setup import initial_method
from cssl_cli.runs.weights_source import StartingWeights, described
from cssl_cli.train.loop import Trainer


def finish(run: RunDir, recipe: Recipe, trainer: Trainer, dataset: Dataset) -> None:
    """Export encoder and projector and mark the run finished, in this order."""
    facts = _facts(recipe, dataset)
    run.save_weights(PROJECTOR, trainer.method.projector.state_dict(), facts)
    run.save_weights(ENCODER, trainer.method.encoder.state_dict(), facts)
    run.write_status("finished", step=trainer.step, num_steps=trainer.plan.num_steps)


def take_over(
    run: RunDir,
    recipe: Recipe,
    weights: StartingWeights,
    dataset: Dataset,
    device: torch.device,
    reporter: Reporter,
    data_root: str | None,
) -> None:
    """Make a finished run of weights from elsewhere, in the same order: environment, projector, encoder, status."""
    encoder = initial_method(recipe, channels=dataset.channels).encoder
    encoder.load_state_dict(weights.encoder, strict=False)  # what is missing was allowed to be
    here = environment(device, torch.float32, compiled=False)
    enter_environment(run, recipe, dataset, here, reporter, data_root)
    facts = _facts(recipe, dataset) | {"imported": weights.origin}
    if weights.projector is not None:
        run.save_weights(PROJECTOR, weights.projector, facts)
    run.save_weights(ENCODER, encoder.state_dict(), facts)
    run.write_status("finished", step=0, num_steps=0, imported=weights.origin)
    reporter.say(described(weights.origin))


def _facts(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What the header of a file of weights says."""
    settings = recipe.settings("encoder")
    architecture = {name: value for name, value in settings.items() if not name.startswith(("name", "weights"))}
    return {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
        "encoder": recipe.encoder.name,
        **architecture,
        "mean": dataset.mean,
        "std": dataset.std,
        "image_size": dataset.image_size,
    }
