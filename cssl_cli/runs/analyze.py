"""Analyzing a finished run: the run directory in, analysis.json out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset
from cssl_cli.errors import DamagedError
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.files import replacing, require_writable
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.concentrate import concentration_in, concentrations, facts, feature_table
from cssl_cli.runs.device import choose_device, require_feature_precision
from cssl_cli.runs.finished import (
    finished_run_data,
    open_finished,
    projector_reason,
    stored_result,
    trained_part,
    untrained_encoder,
)
from cssl_cli.runs.options import require_precision, with_precision
from cssl_cli.runs.run_dir import ANALYSIS, RESULTS_FORMAT, RunDir
from cssl_cli.runs.views import Material, gather
from cssl_cli.theory.analysis import Absent, LossSettings, analyze_table, pixel_theorem_1
from cssl_cli.theory.control_encoders import control_features
from cssl_cli.theory.lipschitz.bounds import lipschitz
from cssl_cli.theory.projection import projection

LIPSCHITZ_IMAGES = 500  # at most, when searching for the largest ratio of distances
PROJECT_BLOCK = 4096  # features per pass through the projector
DEFAULT_TEMPERATURE = 0.5  # of the losses, for a method that has none
# Bounds that assume a function of the image, or that need a long search for main parts.
NOT_OF_CONTROLS = ("R_epsilon_bounds", "theorem_1", "explicit_tau")


def analyze(
    path: Path,
    *,
    reporter: Reporter,
    device_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    export: Path | None = None,
    again: bool = False,
    dataset: Dataset | None = None,
    recipe: Recipe | None = None,
    data_root: str | None = None,
    precision: str = "float32",
) -> dict[str, Any]:
    """The theory's terms of the run's encoder, its projector and the untrained encoder; writes analysis.json.

    With the setting `controls`, the control encoders are measured, too (theory/control_encoders.py). `recipe` replaces
    the run's own for how to measure, and `changes` replace settings of its analyze block. A result already measured
    with the same settings is read, and becomes analysis.json again, unless `again`. `export` receives the features of
    the trained encoder, also for a read-only run. `data_root` is where the images are now, in place of the recipe's
    data.root. `precision` is that of the features; any but float32 is recorded in the settings, with its error.
    """
    if export is not None:
        require_writable(export.parent, "Give another --export FILE.npz.")
    run, recipe = open_finished(path, reporter, recipe)
    device = choose_device(device_name)
    require_precision(precision)
    settings = with_precision(recipe.settings("analyze") | dict(changes or {}), precision)

    def gathered() -> tuple[Dataset, Material]:
        require_feature_precision(precision, device)
        images = finished_run_data(run, recipe, dataset, reporter, data_root)
        return images, gather(recipe, images, settings, device)

    result = None
    if not again:
        with suppress(DamagedError):  # reported below
            result = run.recall_result(ANALYSIS, settings)
    if result is None:
        with run.locked():
            before = stored_result(run, ANALYSIS, settings, reporter)
            if again or before is None:
                return _measure(run, recipe, settings, *gathered(), reporter, export)
            run.make_latest(ANALYSIS, before)  # another process has measured it since, or the latest is damaged
            result = before
    if export is not None:
        _, material = gathered()
        extractor = material.extractor(trained_part(run, recipe, "encoder"))
        export_table(export, feature_table(extractor, material, "features of the trained encoder", reporter), material)
    return result


def _measure(
    run: RunDir,
    recipe: Recipe,
    settings: Mapping[str, Any],
    dataset: Dataset,
    material: Material,
    reporter: Reporter,
    export: Path | None,
) -> dict[str, Any]:
    """Measure under the run's lock, and write analysis.json."""
    encoders = {"trained": trained_part(run, recipe, "encoder"), "untrained": untrained_encoder(recipe)}
    extractors = {name: material.extractor(encoder) for name, encoder in encoders.items()}
    raw = {
        name: feature_table(extractor, material, f"features of the {name} encoder", reporter)
        for name, extractor in extractors.items()
    }
    errors = {name: extractor.error for name, extractor in extractors.items() if extractor.error is not None}
    no_projector = projector_reason(run)
    if no_projector is None:
        raw["projector"] = _projected(trained_part(run, recipe, "projector"), raw["trained"], material.device)
    if export is not None:
        export_table(export, raw["trained"], material)
    loss = LossSettings(
        temperature=recipe.settings("method").get("temperature", DEFAULT_TEMPERATURE),
        batch_size=recipe.train.batch_size,
    )
    terms = _Terms(recipe, settings, material, loss, reporter)
    result: dict[str, Any] = {
        "format": RESULTS_FORMAT,
        "fingerprint": recipe.fingerprint,
        "content_key": dataset.content_key,
        "encoder_sha256": run.encoder_digest(),
        "settings": settings,
        **facts(material),
        **({"feature_error": errors} if errors else {}),
        "loss_settings": {**asdict(loss), "of_the_method": "temperature" in recipe.settings("method")},
        **terms.of_encoders(raw),
        **({} if no_projector is None else {"projector": {"reason": no_projector}}),
        "concentration": concentrations(material, settings, raw, recipe.seed, reporter),
        "projection": projection(unit_norm(raw["trained"][:, 0]), material.labels, len(material.class_names)),
    }
    if settings["controls"]:
        result["controls"] = terms.of_controls(raw)
    for number, (name, encoder) in enumerate(encoders.items(), start=1):
        result[name]["lipschitz"] = _lipschitz(encoder, material, raw[name], recipe.seed)
        result[name]["theorem_1"] |= pixel_theorem_1(result[name], result["concentration"].get("pixels"))
        reporter.advance("Lipschitz constants", number, len(encoders))
    run.write_result(ANALYSIS, result)
    return result


@dataclass(frozen=True)
class _Terms:
    """Measures the terms of every encoder: on the same images and views, with the same settings."""

    recipe: Recipe
    settings: Mapping[str, Any]
    material: Material
    loss: LossSettings
    reporter: Reporter

    def of_encoders(self, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        """All terms of all encoders, as JSON types."""
        return {
            name: self.of(name, features, raw["untrained"] if name == "trained" else None)
            for name, features in raw.items()
        }

    def of_controls(self, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        """The terms of the control encoders; `concentration` too, if it is measured for the trained encoder.

        A control that cannot be made has a `reason` instead.
        """
        made = control_features(
            raw["trained"],
            self.material.labels,
            num_classes=len(self.material.class_names),
            generator=stream(self.recipe.seed, "controls"),
        )
        return {
            name: {"reason": table.reason} if isinstance(table, Absent) else self._of_control(name, table, raw)
            for name, table in made.items()
        }

    def _of_control(self, name: str, table: Tensor, raw: Mapping[str, Tensor]) -> dict[str, Any]:
        found = self.of(f"{name.replace('_', '-')} control's", table, raw["untrained"], without=NOT_OF_CONTROLS)
        if "trained" in self.settings["distances"]:
            found["concentration"] = concentration_in(
                name, self.material, self.settings, table, self.recipe.seed, self.reporter
            )
        return found

    def of(
        self, name: str, features: Tensor, baseline: Tensor | None, *, without: Collection[str] = ()
    ) -> dict[str, Any]:
        """The terms of raw `features` (N, V, D), as JSON types; ARC compares with `baseline`."""
        on_device = features.to(self.material.device)
        terms = analyze_table(
            unit_norm(on_device.double()),  # float32 would lose the smallest distances
            self.material.labels,
            class_names=self.material.class_names,
            epsilons=self.settings["epsilons"],
            bootstrap=self.settings["bootstrap"],
            loss=self.loss,
            raw=on_device,
            theta=self.material.view_parameters,
            baseline=None if baseline is None else baseline.to(self.material.device),
            generator=stream(self.recipe.seed, "bootstrap"),
            without=without,
            advance=partial(self.reporter.advance, f"terms of the {name} features"),
        )
        return {term: _as_dicts(quantities) for term, quantities in terms.items()}


def _lipschitz(encoder: nn.Module, material: Material, features: Tensor, seed: int) -> dict[str, Any]:
    """Bounds on the encoder's Lipschitz constant, from some of the images and raw features (N, V, D)."""
    generator = stream(seed, "lipschitz")
    rows = torch.randperm(len(features), generator=generator)[:LIPSCHITZ_IMAGES]
    chosen = features[rows]
    if material.precision != "float32":  # for close views, rounding would decide the ratio
        exact = replace(material, precision="float32").extractor(encoder)
        chosen = exact.view_table(material.images[rows], material.augmentation, material.theta[rows])
    found = lipschitz(
        encoder.to(material.device).eval(),
        material.views(rows),
        chosen.to(material.device),
        mean=material.mean,
        std=material.std,
        generator=generator,
        norms=features.double().norm(dim=2),
    )
    return _as_dicts(found)


def _as_dicts(quantities: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry.to_dict() for name, entry in quantities.items()}


@torch.inference_mode()
def _projected(projector: nn.Module, features: Tensor, device: torch.device) -> Tensor:
    """The projector's outputs (N, V, P) for raw encoder features (N, V, D)."""
    projector = projector.to(device).eval()
    blocks = [projector(block.to(device)).float().cpu() for block in features.flatten(0, 1).split(PROJECT_BLOCK)]
    return torch.cat(blocks).unflatten(0, features.shape[:2])


def export_table(path: Path, features: Tensor, material: Material) -> None:
    """Write raw features (N, V, D) scaled to unit norm, their `norms` (N, V), labels (N,) and each view's weight (V,).

    View 0 is the clean image.
    """
    num_views = features.shape[1]
    weights = np.full(num_views, 1 / max(num_views - 1, 1))
    weights[0] = 0.0 if num_views > 1 else 1.0
    content: dict[str, Any] = {
        "features": unit_norm(features.double()).numpy(),
        "norms": features.double().norm(dim=2).numpy(),
        "view_weights": weights,
        "class_names": np.array(material.class_names),
        "precision": np.array(material.precision),  # of the features
    }
    if material.labels is not None:
        content["labels"] = material.labels.numpy()
    with replacing(path, "Give another --export FILE.npz.") as partial, partial.open("wb") as file:
        np.savez(file, **content)
