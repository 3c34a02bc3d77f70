"""Probing and analysing a finished run: the run directory in, probe.json and analysis.json out."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cssl_cli.augment import Augmentation, normalize
from cssl_cli.data import Dataset, ImageSet
from cssl_cli.data.image_set import subset
from cssl_cli.errors import InputError
from cssl_cli.files import replacing
from cssl_cli.features import FeatureExtractor
from cssl_cli.geometry import unit_norm
from cssl_cli.pipeline.pretrain import check_recipe
from cssl_cli.pipeline.setup import (
    EVALUATION_BATCH,
    choose_device,
    initial_method,
    make_augmentation,
    prepare_data,
)
from cssl_cli.probe import CenterAccumulator, run_probes
from cssl_cli.progress import Reporter
from cssl_cli.randomness import stream
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.run_dir import ANALYSIS, PROBE, RECIPE, RunDir
from cssl_cli.theory import analyze_table

FORMAT = 1
CALIBRATION_IMAGES = 2048

Baselines = MutableMapping[tuple[str, ...], dict[str, Any]]


def open_finished(path: Path) -> tuple[RunDir, Recipe]:
    """The run at `path` and its recipe; `InputError` unless it is finished and its recipe is the one it ran with."""
    run = RunDir.open(path)
    recipe = load_recipe(str(run.file(RECIPE)))
    check_recipe(run, recipe)
    if not run.finished:
        status = run.status()
        done = f"at step {status['step']} of {status['num_steps']}" if "step" in status else "not begun"
        raise InputError(
            f"pretraining has not finished ({status['state']}, {done})",
            where=str(path),
            remedy=f"Finish it with: cssl pretrain {run.file(RECIPE)} --out {path.parent}",
        )
    return run, recipe


def trained_encoder(run: RunDir, recipe: Recipe) -> nn.Module:
    encoder = initial_method(recipe).encoder
    try:
        encoder.load_state_dict(run.load_encoder())
    except RuntimeError as error:
        raise InputError(
            "the saved encoder does not fit the recipe", where=str(run.path), remedy="Train again with --restart."
        ) from error
    return encoder


def untrained_encoder(recipe: Recipe, dataset: Dataset) -> nn.Module:
    """The encoder a run starts from, with batch-norm statistics estimated on training images.

    Only the weights are untrained: without its statistics an encoder in eval mode would be a weaker baseline.
    """
    encoder = initial_method(recipe).encoder.train()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
    with torch.inference_mode():
        for batch in dataset.pretrain.images[:CALIBRATION_IMAGES].split(EVALUATION_BATCH):
            encoder(normalize(batch.float() / 255, dataset.mean, dataset.std))
    return encoder


# ---------------------------------------------------------------------- probe
def probe(
    path: Path,
    *,
    reporter: Reporter,
    device_name: str | None = None,
    dataset: Dataset | None = None,
    baselines: Baselines | None = None,
) -> dict[str, Any]:
    """Accuracy of the run's encoder, of the untrained encoder and of raw pixels, under one protocol; writes probe.json.

    `baselines` keeps the last two between calls: runs that share data, views, encoder and seed share them.
    """
    run, recipe = open_finished(path)
    device = choose_device(device_name)
    baselines = {} if baselines is None else baselines
    with run.locked():
        dataset = dataset or prepare_data(recipe, reporter)
        augmentation = make_augmentation(recipe, dataset.pretrain.images.shape[-1])

        def probed(encoder: nn.Module | None, what: str) -> dict[str, Any]:
            return _probe_encoder(recipe, dataset, augmentation, encoder, device, reporter, what)

        result = {
            "format": FORMAT,
            "fingerprint": recipe.fingerprint,
            "settings": recipe.settings("probe"),
            "trained": probed(trained_encoder(run, recipe), "probe the trained encoder"),
            "untrained": _remembered(
                baselines,
                ("untrained", *_deciding(recipe, "data", "augment", "encoder", "probe"), str(recipe.seed)),
                lambda: probed(untrained_encoder(recipe, dataset), "probe the untrained encoder"),
            ),
            "pixels": _remembered(
                baselines,
                ("pixels", *_deciding(recipe, "data", "augment", "probe"), str(recipe.seed)),
                lambda: probed(None, "probe raw pixels"),
            ),
        }
        run.write_json(PROBE, result)
    return result


def _remembered(baselines: Baselines, key: tuple[str, ...], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if key not in baselines:
        baselines[key] = compute()
    return baselines[key]


def _deciding(recipe: Recipe, *blocks: str) -> tuple[str, ...]:
    return tuple(repr(recipe.settings(block)) for block in blocks)


def _labelled(dataset: Dataset, part: str) -> tuple[Tensor, Tensor]:
    images: ImageSet | None = getattr(dataset, part)
    if images is None or images.labels is None:
        raise InputError(
            f"{dataset.name} has no labelled {part} images, which probing needs",
            where="data",
            remedy="Put the images in class folders; unlabelled folders can be pretrained on and analysed.",
        )
    return images.images, images.labels


def _probe_encoder(
    recipe: Recipe,
    dataset: Dataset,
    augmentation: Augmentation,
    encoder: nn.Module | None,
    device: torch.device,
    reporter: Reporter,
    what: str,
) -> dict[str, Any]:
    settings = recipe.settings("probe")
    train_images, train_labels = _labelled(dataset, "train")
    test_images, test_labels = _labelled(dataset, "test")
    extractor = FeatureExtractor(
        encoder, mean=dataset.mean, std=dataset.std, batch_size=EVALUATION_BATCH, device=device
    )
    advance = _counter(reporter, what, 2 * len(train_images) + len(test_images))
    train_features = extractor.clean(train_images, advance=advance)
    test_features = extractor.clean(test_images, advance=advance)
    centers = CenterAccumulator(num_classes=len(dataset.class_names), num_features=train_features.shape[1])
    for block, features in extractor.views(
        train_images,
        augmentation,
        num_views=settings["center_views"],
        generator=stream(recipe.seed, "probe views"),
        include_clean=False,
        advance=advance,
    ):
        centers.add(features, train_labels[block])
    return run_probes(
        train_features.to(device),
        train_labels.to(device),
        test_features.to(device),
        test_labels.to(device),
        centers.centers().to(device),
        class_names=dataset.class_names,
        settings=settings,
        generator=stream(recipe.seed, "probe split"),
    )


# ---------------------------------------------------------------------- analyze
def analyze(
    path: Path,
    *,
    reporter: Reporter,
    device_name: str | None = None,
    num_images: int | None = None,
    num_views: int | None = None,
    export: Path | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """The theoretical terms of the run's encoder and of the untrained one; writes analysis.json.

    `num_images` and `num_views` take the place of the recipe's. `export` receives the table of features behind the
    trained encoder's numbers.
    """
    run, recipe = open_finished(path)
    device = choose_device(device_name)
    settings = recipe.settings("analyze")
    settings |= {name: value for name, value in [("num_images", num_images), ("num_views", num_views)] if value}
    with run.locked():
        dataset = dataset or prepare_data(recipe, reporter)
        augmentation = make_augmentation(recipe, dataset.pretrain.images.shape[-1])
        images, part = _images_to_analyze(dataset, settings["num_images"])
        labels = images.labels
        result: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": recipe.fingerprint,
            "settings": settings,
            "part": part,
            "class_names": list(dataset.class_names) if labels is not None else None,
        }
        encoders = {
            "trained": trained_encoder(run, recipe),
            "untrained": untrained_encoder(recipe, dataset),
        }
        for name, encoder in encoders.items():
            extractor = FeatureExtractor(
                encoder, mean=dataset.mean, std=dataset.std, batch_size=EVALUATION_BATCH, device=device
            )
            table = extractor.view_table(
                images.images,
                augmentation,
                num_views=settings["num_views"],
                generator=stream(recipe.seed, "analyze"),
                advance=_counter(reporter, f"analyze the {name} encoder", len(images.images)),
            )
            table = unit_norm(table)
            if name == "trained" and export is not None:
                export_table(export, table, labels, dataset.class_names)
            terms = analyze_table(
                table,
                labels,
                class_names=dataset.class_names,
                epsilons=settings["epsilons"],
                bootstrap=settings["bootstrap"],
                generator=stream(recipe.seed, "bootstrap"),
            )
            result[name] = {
                term: {quantity: entry.to_dict() for quantity, entry in quantities.items()}
                for term, quantities in terms.items()
            }
        run.write_json(ANALYSIS, result)
    return result


def _images_to_analyze(dataset: Dataset, num_images: int) -> tuple[ImageSet, str]:
    """A class-balanced part of the test images, or of the unlabelled ones when there is no test part."""
    part = "test" if dataset.test is not None else "pretrain"
    images: ImageSet = getattr(dataset, part)
    return subset(images, num_images, num_classes=len(dataset.class_names), where="analyze.num_images"), part


def export_table(path: Path, features: Tensor, labels: Tensor | None, class_names: tuple[str, ...]) -> None:
    """Write the features (N, V, D), view 0 the clean image, with labels (N,) and the weight of each view (V,)."""
    num_views = features.shape[1]
    weights = np.full(num_views, 1 / max(num_views - 1, 1))
    weights[0] = 0.0
    content: dict[str, Any] = {
        "features": features.numpy(),
        "view_weights": weights,
        "class_names": np.array(class_names),
    }
    if labels is not None:
        content["labels"] = labels.numpy()
    with replacing(path, "Give another --export FILE.npz.") as partial, partial.open("wb") as file:
        np.savez(file, **content)


def _counter(reporter: Reporter, task: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        reporter.advance(task, done, total)

    return advance
