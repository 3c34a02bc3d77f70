"""Analyzing a finished run: the run directory in, analysis.json out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset
from cssl_cli.errors import DamagedError
from cssl_cli.features.arrays import FeatureArrays
from cssl_cli.features.files import write_features
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.files import require_writable
from cssl_cli.host.progress import Reporter, Silent
from cssl_cli.host.randomness import stream
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.recipe import Recipe
from cssl_cli.runs.concentrate import concentration_parts, concentrations, facts, feature_table
from cssl_cli.runs.dealing import Part, dealt
from cssl_cli.runs.device import choose_device, require_feature_precision
from cssl_cli.runs.encoder_terms import DEFAULT_TEMPERATURE, EncoderTerms, as_dicts
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
from cssl_cli.runs.team import Team
from cssl_cli.runs.views import Material, gather
from cssl_cli.theory.analysis import LossSettings, pixel_theorem_1
from cssl_cli.theory.lipschitz.bounds import lipschitz
from cssl_cli.theory.projection import projection

LIPSCHITZ_IMAGES = 500  # at most, when searching for the largest ratio of distances
PROJECT_BLOCK = 4096  # features per pass through the projector


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
    team: Team | None = None,
) -> dict[str, Any]:
    """The theory's terms of the run's encoder, its projector and the untrained encoder; writes analysis.json.

    With the setting `controls`, the control encoders are measured, too (theory/control_encoders.py). `recipe` replaces
    the run's own for how to measure, and `changes` replace settings of its analyze block. A result already measured
    with the same settings is read, and becomes analysis.json again, unless `again`. `export` receives the features of
    the trained encoder, also for a read-only run. `data_root` is where the images are now, in place of the recipe's
    data.root. `precision` is that of the features; any but float32 is recorded in the settings, with its error.
    The ranks of a `team` share the features and the terms, and rank 0 does the rest (`take_part` is the others').
    """
    team = team or Team(ALONE)
    if export is not None:
        require_writable(export.parent, "Give another --export FILE.npz.")
    run, recipe = open_finished(path, reporter, recipe)
    device = choose_device(team.device_name(device_name))
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
                with team.rank_0_first():
                    images, material = gathered()
                return _measure(run, recipe, settings, images, material, reporter, export, team)
            run.make_latest(ANALYSIS, before)  # another process has measured it since, or the latest is damaged
            result = before
    if export is not None:
        images, material = gathered()
        _export(export, recipe, run, images, material, settings, _Features.of(run, recipe, material, reporter))
    return result


def take_part(
    path: Path,
    *,
    team: Team,
    device_name: str | None,
    changes: Mapping[str, Any],
    recipe: Recipe | None,
    data_root: str | None,
) -> None:
    """What the ranks other than 0 do of an analysis: some of the features, and of the terms. They write nothing."""
    run, recipe = open_finished(path, Silent(), recipe)
    device = choose_device(team.device_name(device_name))
    settings = recipe.settings("analyze") | dict(changes)
    with team.rank_0_first():
        images = finished_run_data(run, recipe, None, Silent(), data_root)
        material = gather(recipe, images, settings, device)
    with team.explaining():
        features = _Features.of(run, recipe, material, Silent(), team.ranks)
    dealt(_parts(recipe, settings, material, features, Silent()), team)


def _measure(
    run: RunDir,
    recipe: Recipe,
    settings: Mapping[str, Any],
    dataset: Dataset,
    material: Material,
    reporter: Reporter,
    export: Path | None,
    team: Team,
) -> dict[str, Any]:
    """Measure under the run's lock, and write analysis.json."""
    with team.explaining():
        features = _Features.of(run, recipe, material, reporter, team.ranks)
    if export is not None:
        _export(export, recipe, run, dataset, material, settings, features)
    found = dealt(_parts(recipe, settings, material, features, reporter), team)
    result: dict[str, Any] = {
        "format": RESULTS_FORMAT,
        **_of_run(recipe, dataset, run),
        "settings": settings,
        **facts(material),
        **({"feature_error": features.errors} if features.errors else {}),
        "loss_settings": {**asdict(_loss(recipe)), "of_the_method": "temperature" in recipe.settings("method")},
        **{name: found[f"terms {name}"] for name in features.raw},
        **({} if features.no_projector is None else {"projector": {"reason": features.no_projector}}),
        "concentration": concentrations(found, settings),
        "projection": found["projection"],
    }
    if settings["controls"]:
        result["controls"] = found["controls"]
    for name in features.encoders:
        result[name]["lipschitz"] = found["lipschitz"][name]
        result[name]["theorem_1"] |= pixel_theorem_1(result[name], result["concentration"].get("pixels"))
    run.write_result(ANALYSIS, result)
    return result


def _parts(
    recipe: Recipe, settings: Mapping[str, Any], material: Material, features: _Features, reporter: Reporter
) -> dict[str, Part]:
    """What is made of the features, in parts that need nothing of each other; those that take longest come first."""
    terms = EncoderTerms(recipe.seed, settings, material, _loss(recipe), reporter)
    return {
        **concentration_parts(material, settings, features.raw, recipe.seed, reporter),
        **({"controls": partial(terms.of_controls, features.raw)} if settings["controls"] else {}),
        "lipschitz": partial(_lipschitz, features, material, recipe.seed, reporter),
        **{f"terms {name}": part for name, part in terms.parts(features.raw).items()},
        "projection": lambda: projection(
            unit_norm(features.raw["trained"][:, 0]), material.labels, len(material.class_names)
        ),
    }


def _loss(recipe: Recipe) -> LossSettings:
    return LossSettings(
        temperature=recipe.settings("method").get("temperature", DEFAULT_TEMPERATURE),
        batch_size=recipe.train.batch_size,
    )


def _of_run(recipe: Recipe, images: Dataset, run: RunDir) -> dict[str, Any]:
    """The images and the encoder that were measured."""
    return {
        "fingerprint": recipe.fingerprint,
        "content_key": images.content_key,
        "encoder_sha256": run.encoder_digest(),
    }


@dataclass(frozen=True)
class _Features:
    """Both encoders, the `raw` features (N, V, …) of them and of the projector, and the errors of lower precision.

    `no_projector` says why there is no projector, None if there is.
    """

    encoders: Mapping[str, nn.Module]
    raw: Mapping[str, Tensor]
    errors: Mapping[str, Any]
    no_projector: str | None

    @classmethod
    def of(cls, run: RunDir, recipe: Recipe, material: Material, reporter: Reporter, ranks: Ranks = ALONE) -> _Features:
        encoders = {
            "trained": trained_part(run, recipe, "encoder"),
            "untrained": untrained_encoder(recipe, material.channels),
        }
        extractors = {name: material.extractor(encoder, ranks) for name, encoder in encoders.items()}
        raw = {
            name: feature_table(extractor, material, f"features of the {name} encoder", reporter)
            for name, extractor in extractors.items()
        }
        errors = {name: extractor.error for name, extractor in extractors.items() if extractor.error is not None}
        no_projector = projector_reason(run)
        if no_projector is None:
            raw["projector"] = _projected(trained_part(run, recipe, "projector"), raw["trained"], material.device)
        return cls(encoders, raw, errors, no_projector)


def _lipschitz(features: _Features, material: Material, seed: int, reporter: Reporter) -> dict[str, Any]:
    """Bounds on the Lipschitz constant of each encoder."""
    found = {}
    for number, (name, encoder) in enumerate(features.encoders.items(), start=1):
        found[name] = _lipschitz_of(encoder, material, features.raw[name], seed)
        reporter.advance("Lipschitz constants", number, len(features.encoders))
    return found


def _lipschitz_of(encoder: nn.Module, material: Material, features: Tensor, seed: int) -> dict[str, Any]:
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
    return as_dicts(found)


@torch.inference_mode()
def _projected(projector: nn.Module, features: Tensor, device: torch.device) -> Tensor:
    """The projector's outputs (N, V, P) for raw encoder features (N, V, D)."""
    projector = projector.to(device).eval()
    blocks = [projector(block.to(device)).float().cpu() for block in features.flatten(0, 1).split(PROJECT_BLOCK)]
    return torch.cat(blocks).unflatten(0, features.shape[:2])


def _export(
    path: Path,
    recipe: Recipe,
    run: RunDir,
    images: Dataset,
    material: Material,
    settings: Mapping[str, Any],
    features: _Features,
) -> None:
    """Write the features of the encoders and the projector, with all that their terms are measured with."""
    raw, views = features.raw, material.view_parameters
    of_images = {key: entry for key, entry in settings.items() if key != "precision"}
    arrays = FeatureArrays(
        features=raw["trained"],
        labels=material.labels,
        class_names=material.class_names,
        projector=raw.get("projector"),
        untrained=raw["untrained"],
        continuous=views.continuous,
        states=views.states,
        discrete=views.discrete,
        settings={
            "seed": recipe.seed,
            "method": {"temperature": recipe.settings("method").get("temperature")},
            "train": {"batch_size": recipe.train.batch_size},
            "analyze": of_images,
        },
        about={
            "part": material.part,
            **_of_run(recipe, images, run),
            **({"precision": material.precision, "feature_error": features.errors} if features.errors else {}),
        },
    )
    write_features(path, arrays, precision=material.precision)
