"""From a recipe to the objects it names: augmentation, encoder, method, and the feature extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.augment import Augmentation, build_augmentation
from cssl_cli.data import Dataset
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method, build_method
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.nn.least_memory import LeastMemory, least_memory
from cssl_cli.nn.ranks import ALONE, Ranks
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe import Recipe

EVALUATION_BATCH = {"cpu": 64, "cuda": 512}  # on a CPU, activations then stay in its caches


def make_augmentation(recipe: Recipe, dataset: Dataset) -> Augmentation:
    """The recipe's augmentation of these images, as they are stored; `InputError` if it does not suit them."""
    return augmentation_of(recipe.settings("augment"), dataset)


def augmentation_of(settings: Mapping[str, Any], dataset: Dataset) -> Augmentation:
    """The same of the settings of an `augment` block."""
    return build_augmentation(
        settings,
        image_size=dataset.image_size,
        store_size=dataset.pretrain.images.shape[-1],
        channels=dataset.channels,
    )


def make_extractor(
    encoder: nn.Module | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image_size: int,
    device: torch.device,
    precision: str = "float32",
    ranks: Ranks = ALONE,
) -> FeatureExtractor:
    """Features of `encoder` (None: pixels) for images with these statistics, in batches that suit the device."""
    return FeatureExtractor(
        encoder,
        mean=mean,
        std=std,
        image_size=image_size,
        batch_size=EVALUATION_BATCH[device.type],
        device=device,
        precision=precision,
        ranks=ranks,
    )


def require_encoder(recipe: Recipe, dataset: Dataset) -> None:
    """`InputError` unless the recipe's encoder can be built, and takes and trains on images of this kind."""
    encoder = build_encoder(recipe.settings("encoder"), dataset.channels)
    if isinstance(encoder, LibraryEncoder):
        encoder.require((dataset.channels, dataset.image_size, dataset.image_size))
        with torch.device("meta"):
            build_method(recipe.settings("method"), encoder)
        _keep_less(encoder, recipe)


def memory_of_library(recipe: Recipe, dataset: Dataset) -> LeastMemory | None:
    """What training the recipe's encoder on such images takes at least, if it is a library's; else it is known."""
    encoder = build_encoder(recipe.settings("encoder"), dataset.channels)
    if not isinstance(encoder, LibraryEncoder):
        return None
    return least_memory(encoder, (dataset.channels, dataset.image_size, dataset.image_size))


def initial_method(recipe: Recipe, weights: Mapping[str, Tensor] | None = None, *, channels: int = 3) -> Method:
    """Encoder, heads and loss, with initial weights from the recipe's seed, the encoder's from `weights` if given.

    The encoder takes images of so many `channels`.
    """
    with torch.device("meta"):
        method = build_method(recipe.settings("method"), build_encoder(recipe.settings("encoder"), channels))
    generator = stream(recipe.seed, "init")
    materialize(method, generator)
    if weights is not None:
        method.encoder.load_state_dict(weights)
    method.after_initialization(generator)
    for encoder in method.modules():
        if isinstance(encoder, Encoder):  # including the momentum encoder
            _keep_less(encoder, recipe)
    return method


def _keep_less(encoder: Encoder, recipe: Recipe) -> None:
    train = recipe.train
    if train.checkpoint_activations or train.micro_batch is not None:
        encoder.keep_less(
            checkpoint_activations=train.checkpoint_activations,
            micro_batch=train.micro_batch,
            batch_size=train.batch_size,
        )
