"""Probing a finished run: the run directory in, probe.json out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cssl_cli.data import Dataset
from cssl_cli.errors import shown_path
from cssl_cli.host.progress import Reporter
from cssl_cli.nn.ranks import ALONE
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device, require_feature_precision
from cssl_cli.runs.finished import finished_run_data, open_finished, stored_result
from cssl_cli.runs.options import require_precision, with_precision
from cssl_cli.runs.prober import Baselines, Prober
from cssl_cli.runs.run_dir import PROBE, RESULTS_FORMAT
from cssl_cli.runs.team import Team


def probe(
    path: Path,
    *,
    reporter: Reporter,
    device_name: str | None = None,
    dataset: Dataset | None = None,
    recipe: Recipe | None = None,
    baselines: Baselines | None = None,
    again: bool = True,
    data_root: str | None = None,
    precision: str = "float32",
    team: Team | None = None,
) -> dict[str, Any]:
    """Accuracy of the run's encoder, of the untrained encoder and of raw pixels, under one protocol; writes probe.json.

    `recipe` replaces the run's own for how to measure. `baselines` keeps the scores of the last two between calls, for
    runs that share what these depend on. Unless `again`, a result already measured with the same settings is read; in a
    read-only folder it always is. `data_root` is where the images are now, in place of the recipe's data.root.
    `precision` is that of the features; any but float32 is recorded in the settings, with its error. The ranks of a
    `team` share the features; rank 0 does the rest, and the others return nothing.
    """
    team = team or Team(ALONE)
    run, recipe = open_finished(path, reporter, recipe)
    device = choose_device(team.device_name(device_name))
    require_precision(precision)
    settings = with_precision(recipe.settings("probe"), precision)
    baselines = {} if baselines is None else baselines
    if again and team.leads and not run.is_writable() and (stored := run.read_result(PROBE, settings)) is not None:
        reporter.say(f"{shown_path(run.path)} may only be read: its accuracies are those measured before")
        return stored
    with run.locked() if team.leads else nullcontext():
        if team.leads:
            before = stored_result(run, PROBE, settings, reporter)
            if before is not None and not again:
                return before
        with team.rank_0_first():
            require_feature_precision(precision, device)
            dataset = finished_run_data(run, recipe, dataset, reporter, data_root)
        prober = Prober(recipe, dataset, device, reporter, precision, team.ranks)
        with team.explaining():
            accuracies = prober.encoders(run, recipe, baselines)
        if not team.leads:
            return {}
        result = {
            "format": RESULTS_FORMAT,
            "fingerprint": recipe.fingerprint,
            "content_key": dataset.content_key,
            "encoder_sha256": run.encoder_digest(),
            "settings": settings,
            **accuracies,
        }
        if prober.errors:
            result["feature_error"] = prober.errors
        run.write_result(PROBE, result)
    return result
