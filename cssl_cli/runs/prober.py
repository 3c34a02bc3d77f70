"""One protocol for every encoder: its features of labelled images, and the accuracies of classifiers on them."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.errors import InputError
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.probe import (
    CenterAccumulator,
    FewLabels,
    among_first,
    center_probe,
    feature_probes,
    few_center_probes,
    score,
)
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.least_memory import least_memory
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe import Recipe
from cssl_cli.runs import memory
from cssl_cli.runs.finished import counter, trained_part, untrained_encoder
from cssl_cli.runs.images import place_images
from cssl_cli.runs.results import CLASSIFIERS
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.runs.setup import augmentation_of, make_augmentation, make_extractor
from cssl_cli.train.finetune import finetune, num_steps

Baselines = MutableMapping[tuple[str, ...], dict[str, Any]]
CROP_AND_FLIP: dict[str, dict[str, Any]] = {"crop": {}, "flip": {}}


class Prober:
    """Accuracies on the images of `dataset`, which are normalised by its statistics.

    `errors` of the features, due to lower precision, by encoder. Several `ranks` share the features; rank 0 fits the
    classifiers, and the others have no scores.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        device: torch.device,
        reporter: Reporter,
        precision: str,
        ranks: Ranks = ALONE,
    ) -> None:
        self.precision, self.ranks, self.leads = precision, ranks, ranks.rank == 0
        self.errors: dict[str, Any] = {}
        self.recipe, self.dataset, self.device, self.reporter = recipe, dataset, device, reporter
        self.settings = recipe.settings("probe")
        self.few = FewLabels.of(self.settings, partial(stream, recipe.seed))
        self.train_images, self.train_labels = _labelled(dataset, "train")
        self.test_images, self.test_labels = _labelled(dataset, "test")

    def encoders(self, run: RunDir, own: Recipe, baselines: Baselines) -> dict[str, dict[str, Any]]:
        """The scores of a run's encoder, of the untrained one and of raw pixels; the run's `own` images may be others.

        `baselines` keeps those of the last two, for runs that share what they depend on.
        """
        return {
            "trained": self.scores("trained", lambda: trained_part(run, own, "encoder"), {}, ()),
            "untrained": self.scores(
                "untrained", lambda: untrained_encoder(self.recipe, self.dataset.channels), baselines, ("encoder",)
            ),
            "pixels": self.scores("pixels", lambda: None, baselines, ()),
        }

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
                ranks=self.ranks,
            )
            advance = counter(
                self.reporter,
                "probe raw pixels" if name == "pixels" else f"probe the {name} encoder",
                len(self.test_images) + len(self.train_images) * (1 + (on_features not in known)),
            )
            test_features = extractor.clean(self.test_images, advance=advance).to(self.device)
            num_fits = self.few.num_fits(self.train_labels) * (1 if on_features in known else len(CLASSIFIERS))
            called = "raw pixels" if name == "pixels" else f"the {name} encoder"
            few = replace(self.few, advance=counter(self.reporter, f"few labels for {called}", num_fits))
            known[on_centers] = {"nearest_center": self.by_center(extractor, test_features, few, advance)}
            if on_features not in known:
                known[on_features] = self.by_features(extractor, test_features, few, advance)
            if extractor.error is not None:
                known[of_errors] = extractor.error
        if of_errors in known:
            self.errors[name] = known[of_errors]
        return {**known[on_features], **known[on_centers], **self.finetuned(name, make_encoder, known, blocks)}

    def by_features(
        self, extractor: FeatureExtractor, test_features: Tensor, few: FewLabels, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        features = extractor.clean(self.train_images, advance=advance)
        if not self.leads:
            return {}
        return feature_probes(
            features.to(self.device),
            self.train_labels,
            test_features,
            self.test_labels,
            class_names=self.dataset.class_names,
            settings=self.settings,
            generator=stream(self.recipe.seed, "probe split"),
            few=few,
        )

    def by_center(
        self, extractor: FeatureExtractor, test_features: Tensor, few: FewLabels, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        augmentation = make_augmentation(self.recipe, self.dataset)
        names = self.dataset.class_names
        centers = CenterAccumulator(len(names), test_features.shape[1], keep=bool(few.levels))
        num_views = self.settings["center_views"]
        for block, features in extractor.views(
            self.train_images,
            augmentation,
            num_views=num_views,
            generator=stream(self.recipe.seed, "probe views"),
            advance=advance,
        ):
            centers.add(features, self.train_labels[block])
        if not self.leads:
            return {}
        found = center_probe(
            centers.centers(), test_features, self.test_labels, class_names=names, center_views=num_views
        )
        labels = self.train_labels, test_features, self.test_labels
        return {**found, **few_center_probes(few, centers, found, *labels, class_names=names)}

    def circumstances(self, *blocks: str) -> tuple[str, ...]:
        return (self.precision, str(self.recipe.seed), *(repr(self.recipe.settings(block)) for block in blocks))

    # ------------------------------------------------------------------ fine-tuning
    def finetuned(
        self, name: str, make_encoder: Callable[[], nn.Module | None], known: Baselines, blocks: tuple[str, ...]
    ) -> dict[str, Any]:
        """`finetune`: the score of the encoder trained on with labels; nothing where not asked for, or of pixels."""
        settings = self.settings.get("finetune")
        if settings is None or name == "pixels" or not self.leads:
            return {}
        seen = ("augment",) if settings["views"] == "recipe" else ()
        key = (name, "finetune", *self.circumstances("data", "probe", *seen, *blocks))
        if key not in known:
            known[key] = {"finetune": self._finetuned(name, make_encoder, settings)}
        return known[key]

    def _finetuned(
        self, name: str, make_encoder: Callable[[], nn.Module | None], settings: dict[str, Any]
    ) -> dict[str, Any]:
        self._require_memory(settings)
        encoder = make_encoder()
        assert encoder is not None
        weights, labels, num_classes = encoder.state_dict(), self.train_labels, len(self.dataset.class_names)
        if settings["views"] == "recipe":
            augmentation = make_augmentation(self.recipe, self.dataset)
        else:
            augmentation = augmentation_of(CROP_AND_FLIP, self.dataset)
        images = place_images(self.train_images, self.device)
        advance = counter(self.reporter, f"fine-tune the {name} encoder", self._steps(settings))

        def fit(rows: Tensor, generator: torch.Generator) -> dict[str, Any]:
            encoder = plain_encoder(self.recipe, weights, self.dataset.channels)
            head = finetune(
                encoder,
                images,
                labels,
                rows,
                num_classes,
                augmentation,
                mean=self.dataset.mean,
                std=self.dataset.std,
                settings=settings,
                device=self.device,
                generator=generator,
                advance=advance,
            )
            extractor = make_extractor(
                encoder,
                mean=self.dataset.mean,
                std=self.dataset.std,
                image_size=self.dataset.image_size,
                device=self.device,
            )
            logits = head(extractor.clean(self.test_images).to(self.device)).cpu()
            in_top = among_first(logits, self.test_labels, num_classes)
            found = score(logits.argmax(dim=1), self.test_labels, self.dataset.class_names, in_top)
            return {**found, "selection": "last_epoch", "steps": num_steps(len(rows), settings)}

        whole = fit(torch.arange(len(labels)), stream(self.recipe.seed, "probe finetune"))
        return {**whole, **self.few.scores(labels, whole, fit, ["steps"])}

    def _require_memory(self, settings: dict[str, Any]) -> None:
        """`InputError` if a batch does not fit, of which at least so much is kept for its gradients."""
        encoder = build_encoder(self.recipe.settings("encoder"), self.dataset.channels)
        image = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        least, batch = least_memory(encoder, image), min(settings["batch_size"], len(self.train_labels))
        needs = {  # views and what is kept of them; the weights, their gradients and momenta
            "probe.finetune.batch_size": 4.0 * batch * (math.prod(image) + least.kept),
            "encoder": 4.0 * 3 * least.weights,
        }
        on_gpu = self.device.type == "cuda"
        memory.require(needs, torch.cuda.mem_get_info(self.device)[0] if on_gpu else memory.free_memory())

    def _steps(self, settings: dict[str, Any]) -> int:
        """Steps of all trainings of an encoder."""
        total = num_steps(len(self.train_labels), settings)
        for level in self.few.levels:
            labelled = len(self.few.rows(self.train_labels, level, 0))
            total += num_steps(labelled, settings) * self.few.draws * (labelled < len(self.train_labels))
        return total


def plain_encoder(recipe: Recipe, weights: dict[str, Any], channels: int) -> Encoder:
    """The encoder as it is built for itself: what a method or the saving of memory changed depends on batches."""
    encoder = build_encoder(recipe.settings("encoder"), channels)
    materialize(encoder, stream(recipe.seed, "init"))
    encoder.load_state_dict(weights)
    return encoder


def _labelled(dataset: Dataset, part: str) -> tuple[Tensor, Tensor]:
    images: ImageSet | None = getattr(dataset, part)
    if images is None or images.labels is None:
        raise InputError(
            f"{dataset.name} has no labelled {part} images, which probing needs",
            where="data",
            remedy="Put the images in class folders; without, cssl pretrain and cssl analyze work.",
        )
    return images.images, images.labels
