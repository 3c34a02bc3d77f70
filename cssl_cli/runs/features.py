"""Measuring features that another program computed: arrays in, the content of analysis.json or probe.json out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cssl_cli.errors import InputError
from cssl_cli.features.arrays import FeatureArrays
from cssl_cli.features.files import read_features
from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.probe import CenterAccumulator, FewLabels, center_probe, feature_probes, few_center_probes
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe.measurement import Measurement
from cssl_cli.recipe.recipe import probe_settings
from cssl_cli.runs import memory
from cssl_cli.runs.concentrate import PIXEL_DISTANCES, concentration_in_features
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.encoder_terms import DEFAULT_TEMPERATURE, EncoderTerms
from cssl_cli.runs.run_dir import RESULTS_FORMAT
from cssl_cli.runs.stored import Origin, require
from cssl_cli.runs.views import choose
from cssl_cli.theory.alignment.theorem_2 import ViewParameters
from cssl_cli.theory.analysis import Absent, LossSettings, pixel_theorem_1
from cssl_cli.theory.projection import projection
from cssl_cli.theory.terms import TERMS

NO_PIXELS = "this needs the images, and a file of features has none"
NO_TABLE = "the file has no features of {} (an array {})"
CENTER_IMAGES = 4096  # training images that are added to the class centres at a time


def load_features(path: Path, reporter: Reporter, *, training: bool) -> FeatureArrays:
    """The features in a file, as far as memory allows; see `read_features`."""
    arrays = read_features(path, training=training, largest=memory.free_memory(), notice=reporter.say)
    try:
        origin = require(Origin, arrays.about)
    except ValueError as error:
        remedy = "Export it again, or leave settings out of it."
        raise InputError(f"settings cannot be read: about.{error}", where=str(path), remedy=remedy) from error
    return replace(arrays, about={name: fact for name, fact in origin.model_dump().items() if fact is not None})


# ---------------------------------------------------------------------- terms
@dataclass(frozen=True)
class _Table:
    """What the terms are measured on: `runs.views.Measured` without images."""

    arrays: FeatureArrays
    device: torch.device

    @property
    def labels(self) -> Tensor | None:
        return self.arrays.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.arrays.class_names

    @property
    def num_images(self) -> int:
        return len(self.arrays.features)

    @property
    def num_views(self) -> int:
        return self.arrays.features.shape[1]

    @property
    def view_parameters(self) -> ViewParameters | None:
        if self.arrays.continuous is None or self.arrays.states is None:
            return None
        return ViewParameters(self.arrays.continuous, self.arrays.states, self.arrays.discrete)


def analyze_features(
    arrays: FeatureArrays, measurement: Measurement, *, reporter: Reporter, device_name: str | None = None
) -> dict[str, Any]:
    """The terms of the features, as `runs.analyze.analyze` gives them for a run; what needs pixels has a `reason`.

    All stored views are measured, or the first `analyze.num_views` where that is given, of at most
    `analyze.num_images` images, as many of each class. Raises InputError for settings that the arrays cannot meet.
    """
    device = choose_device(device_name)
    digest, seed = arrays.digest, measurement.seed
    settings = measurement.analyze.model_dump(by_alias=True)
    arrays = _chosen(arrays, settings, reporter, asked="num_views" in measurement.analyze.model_fields_set)
    settings["num_views"] = arrays.features.shape[1]
    about = dict(arrays.about)
    if "precision" in about:
        settings["precision"] = about["precision"]
    temperature = measurement.method.temperature
    loss = LossSettings(temperature or DEFAULT_TEMPERATURE, measurement.train.batch_size)
    terms = EncoderTerms(seed, settings, _Table(arrays, device), loss, reporter)
    tables = {"trained": arrays.features, "untrained": arrays.untrained, "projector": arrays.projector}
    raw = {name: table for name, table in tables.items() if table is not None}
    result: dict[str, Any] = {
        "format": RESULTS_FORMAT,
        "features_sha256": digest,
        **({"exported_from": about} if about else {}),
        "seed": seed,
        "settings": settings,
        "part": about.get("part"),
        "num_images": len(arrays.features),
        "class_names": None if arrays.labels is None else list(arrays.class_names),
        **({"views_of_two_kinds": True} if "view_2" in arrays.discrete else {}),
        **({"feature_error": about["feature_error"]} if "precision" in settings else {}),
        # Of features from elsewhere nobody knows which temperature they were trained at.
        "loss_settings": {**asdict(loss), "of_the_method": temperature is not None or (False if about else None)},
        **terms.of_encoders(raw),
        "concentration": {name: _concentration(name, raw, terms) for name in settings["distances"]},
        "projection": projection(unit_norm(arrays.features[:, 0]), arrays.labels, len(arrays.class_names)),
    }
    for name, called in (("untrained", "the untrained encoder"), ("projector", "the projector")):
        result.setdefault(name, {"reason": NO_TABLE.format(called, name)})
    if settings["controls"]:
        result["controls"] = terms.of_controls(raw)
    for name in raw.keys() - {"projector"}:
        result[name]["lipschitz"] = _absent("lipschitz", NO_PIXELS)
        result[name]["theorem_1"] |= pixel_theorem_1(result[name], None)
    return result


def _chosen(arrays: FeatureArrays, settings: Mapping[str, Any], reporter: Reporter, *, asked: bool) -> FeatureArrays:
    """The images and views to measure; `asked`: whether their number is more than a default."""
    num_views = arrays.features.shape[1]
    if asked and settings["num_views"] > num_views:
        raise InputError(
            f"{settings['num_views']} views, and there are {num_views} of each image",
            where="analyze.num_views",
            remedy=f"Give at most {num_views}, the clean image included.",
        )
    chosen = choose(arrays.labels, len(arrays.features), arrays.class_names, settings)
    rows = chosen.rows
    if rows is not None and len(rows) < chosen.out_of:
        share = "" if arrays.labels is None else ", as many of each class"
        reporter.say(f"measured on {len(rows):,} of {chosen.out_of:,} images{share}; --images N takes another number")
    arrays = replace(arrays, labels=chosen.labels, class_names=chosen.class_names)
    views = min(settings["num_views"], num_views) if asked else num_views

    def part(table: Tensor | None, num: int) -> Tensor | None:
        if table is None:
            return None
        return table[:, :num] if rows is None else table[rows, :num]

    features = part(arrays.features, views)
    assert features is not None
    needs = {
        "analyze.num_images": 16.0 * features.numel(),
        "analyze.bootstrap": 8.0 * len(features) * settings["bootstrap"],
    }
    memory.require(needs, memory.free_memory())
    return replace(
        arrays,
        features=features,
        untrained=part(arrays.untrained, views),
        projector=part(arrays.projector, views),
        continuous=part(arrays.continuous, views - 1),
        states=part(arrays.states, views - 1),
    )


def _concentration(name: str, raw: Mapping[str, Tensor], terms: EncoderTerms) -> dict[str, Any]:
    if name in PIXEL_DISTANCES:
        return _absent("concentration", NO_PIXELS)
    if name not in raw:
        return _absent("concentration", NO_TABLE.format("the untrained encoder", name))
    return concentration_in_features(name, terms.measured, terms.settings, raw[name], terms.seed, terms.reporter)


def _absent(name: str, reason: str) -> dict[str, Any]:
    """Every quantity of a term, without a value."""
    (term,) = (term for term in TERMS if term.name == name)
    return {quantity.name: Absent(reason).to_dict() for quantity in term.quantities}


# ---------------------------------------------------------------------- accuracies
def probe_features(
    arrays: FeatureArrays, measurement: Measurement, *, device_name: str | None = None, where: str | None = None
) -> dict[str, Any]:
    """Accuracies on the clean images of classifiers fitted on `train_features`, as `runs.probe.probe` gives them.

    Class centres are means over the augmented views of the training images, over the clean ones where there are no
    others (`center_views` is then 0). Raises InputError without labels or training features; `where` is the file that
    they are missing in.
    """
    if measurement.probe.finetune is not None:
        raise InputError(
            "fine-tuning needs the encoder and the images, and a file of features has none",
            where="probe.finetune",
            remedy="Leave it out, or give the directory of a run.",
        )
    device = choose_device(device_name)
    if arrays.labels is None:
        raise InputError(
            "there are no labels to compare predictions with",
            where=where or "labels",
            remedy="Add labels, train_features and train_labels; without, cssl analyze works.",
        )
    if arrays.train_features is None or arrays.train_labels is None:
        raise InputError(
            "there are no features to fit classifiers on",
            where=where or "train_features",
            remedy="Add train_features (images, width) and train_labels (images), of other images than features: those "
            "of the training set.",
        )
    settings, names = probe_settings(measurement.probe), arrays.class_names
    few = FewLabels.of(settings, partial(stream, measurement.seed))
    clean = arrays.features[:, 0].to(device)
    found = feature_probes(
        arrays.train_features[:, 0].to(device),
        arrays.train_labels,
        clean,
        arrays.labels,
        class_names=names,
        settings=settings,
        generator=stream(measurement.seed, "probe split"),
        few=few,
    )
    augmented = arrays.train_features.shape[1] - 1
    centers = CenterAccumulator(num_classes=len(names), num_features=clean.shape[1], keep=bool(few.levels))
    for block, labels in zip(
        arrays.train_features.split(CENTER_IMAGES), arrays.train_labels.split(CENTER_IMAGES), strict=True
    ):
        centers.add(block[:, 1:] if augmented else block, labels)
    found["nearest_center"] = center_probe(
        centers.centers(), clean, arrays.labels, class_names=names, center_views=augmented
    )
    found["nearest_center"] |= few_center_probes(
        few, centers, found["nearest_center"], arrays.train_labels, clean, arrays.labels, class_names=names
    )
    return {
        "format": RESULTS_FORMAT,
        "features_sha256": arrays.digest,
        "seed": measurement.seed,
        "settings": {**settings, "center_views": augmented},
        "trained": found,
    }
