"""Probing a finished run: the run directory in, probe.json out."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.errors import InputError, shown_path
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.probe import CenterAccumulator, center_probe, feature_probes
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device, require_feature_precision
from cssl_cli.runs.finished import (
    counter,
    finished_run_data,
    open_finished,
    stored_result,
    trained_part,
    untrained_encoder,
)
from cssl_cli.runs.options import require_precision, with_precision
from cssl_cli.runs.run_dir import PROBE, RESULTS_FORMAT
from cssl_cli.runs.setup import make_augmentation, make_extractor

Baselines = MutableMapping[tuple[str, ...], dict[str, Any]]


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
) -> dict[str, Any]:
    """Accuracy of the run's encoder, of the untrained encoder and of raw pixels, under one protocol; writes probe.json.

    `recipe` replaces the run's own for how to measure. `baselines` keeps the scores of the last two between calls, for
    runs that share what these depend on. Unless `again`, a result already measured with the same settings is read; in a
    read-only folder it always is. `data_root` is where the images are now, in place of the recipe's data.root.
    `precision` is that of the features; any but float32 is recorded in the settings, with its error.
    """
    run, recipe = open_finished(path, reporter, recipe)
    device = choose_device(device_name)
    require_precision(precision)
    settings = with_precision(recipe.settings("probe"), precision)
    baselines = {} if baselines is None else baselines
    if again and not run.is_writable() and (stored := run.read_result(PROBE, settings)) is not None:
        reporter.say(f"{shown_path(run.path)} may only be read: its accuracies are those measured before")
        return stored
    with run.locked():
        before = stored_result(run, PROBE, settings, reporter)
        if before is not None and not again:
            return before
        require_feature_precision(precision, device)
        dataset = finished_run_data(run, recipe, dataset, reporter, data_root)
        prober = _Prober(recipe, dataset, device, reporter, precision)
        result = {
            "format": RESULTS_FORMAT,
            "fingerprint": recipe.fingerprint,
            "content_key": dataset.content_key,
            "encoder_sha256": run.encoder_digest(),
            "settings": settings,
            "trained": prober.scores("trained", lambda: trained_part(run, recipe, "encoder"), {}, ()),
            "untrained": prober.scores(
                "untrained", lambda: untrained_encoder(recipe, dataset.channels), baselines, ("encoder",)
            ),
            "pixels": prober.scores("pixels", lambda: None, baselines, ()),
        }
        if prober.errors:
            result["feature_error"] = prober.errors
        run.write_result(PROBE, result)
    return result


class _Prober:
    """One protocol for every encoder: features of the clean images, centres over views, three classifiers."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, device: torch.device, reporter: Reporter, precision: str
    ) -> None:
        self.precision = precision
        self.errors: dict[str, Any] = {}  # of the features, due to lower precision, by encoder
        self.recipe, self.dataset, self.device, self.reporter = recipe, dataset, device, reporter
        self.settings = recipe.settings("probe")
        self.train_images, self.train_labels = _labelled(dataset, "train")
        self.test_images, self.test_labels = _labelled(dataset, "test")

    def scores(
        self, name: str, make_encoder: Callable[[], nn.Module | None], known: Baselines, blocks: tuple[str, ...]
    ) -> dict[str, Any]:
        """The scores of an encoder (None: pixels), from `known` if already measured under the same circumstances.

        They depend on the data, the probe, the seed and `blocks` of the recipe; class-centre scores also depend on the
        augmentation.
        """
        on_features = (name, "features", *self.circumstances("data", "probe", *blocks))
        on_centers = (name, "centers", *self.circumstances("data", "probe", "augment", *blocks))
        of_errors = (*on_centers, "errors")
        if on_features not in known or on_centers not in known:
            extractor = make_extractor(
                make_encoder(),
                mean=self.dataset.mean,
                std=self.dataset.std,
                image_size=self.dataset.image_size,
                device=self.device,
                precision=self.precision,
            )
            advance = counter(
                self.reporter,
                "probe raw pixels" if name == "pixels" else f"probe the {name} encoder",
                len(self.test_images) + len(self.train_images) * (1 + (on_features not in known)),
            )
            test_features = extractor.clean(self.test_images, advance=advance).to(self.device)
            known[on_centers] = {"nearest_center": self.by_center(extractor, test_features, advance)}
            if on_features not in known:
                known[on_features] = self.by_features(extractor, test_features, advance)
            if extractor.error is not None:
                known[of_errors] = extractor.error
        if of_errors in known:
            self.errors[name] = known[of_errors]
        return {**known[on_features], **known[on_centers]}

    def by_features(
        self, extractor: FeatureExtractor, test_features: Tensor, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        return feature_probes(
            extractor.clean(self.train_images, advance=advance).to(self.device),
            self.train_labels,
            test_features,
            self.test_labels,
            class_names=self.dataset.class_names,
            settings=self.settings,
            generator=stream(self.recipe.seed, "probe split"),
        )

    def by_center(
        self, extractor: FeatureExtractor, test_features: Tensor, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        augmentation = make_augmentation(self.recipe, self.dataset)
        centers = CenterAccumulator(num_classes=len(self.dataset.class_names), num_features=test_features.shape[1])
        num_views = self.settings["center_views"]
        for block, features in extractor.views(
            self.train_images,
            augmentation,
            num_views=num_views,
            generator=stream(self.recipe.seed, "probe views"),
            advance=advance,
        ):
            centers.add(features, self.train_labels[block])
        return center_probe(
            centers.centers(),
            test_features,
            self.test_labels,
            class_names=self.dataset.class_names,
            center_views=num_views,
        )

    def circumstances(self, *blocks: str) -> tuple[str, ...]:
        return (self.precision, str(self.recipe.seed), *(repr(self.recipe.settings(block)) for block in blocks))


def _labelled(dataset: Dataset, part: str) -> tuple[Tensor, Tensor]:
    images: ImageSet | None = getattr(dataset, part)
    if images is None or images.labels is None:
        raise InputError(
            f"{dataset.name} has no labelled {part} images, which probing needs",
            where="data",
            remedy="Put the images in class folders; without, cssl pretrain and cssl analyze work.",
        )
    return images.images, images.labels
