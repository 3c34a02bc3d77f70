"""Torchvision's classification networks, without their classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.nn.encoders.cached_weights import CachedWeights
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.recipe.ranges import ModelName, Size


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a classification network of torchvision, without its classifier"""

    model: ModelName
    """torchvision's name of it, such as convnext_tiny"""
    image_size: Size | None = None
    """side of the images, for models of a fixed size, such as vit_b_16; null: the model's own"""


OWN_SIZE = 224  # that torchvision's networks are made for; all but the vision transformers take others
_HEADS = ("fc", "classifier", "heads", "head")
# With branches of a classifier's training, of which a feature needs none; and weights drawn as published.
_OPTIONS: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


def build(name: str, settings: Settings, channels: int) -> LibraryEncoder:  # noqa: ARG001
    """The network as the recipe's `encoder` block says."""
    known = torchvision.models.list_models(module=torchvision.models)
    if settings.model not in known:
        raise unknown_name("model of torchvision", settings.model, known, where="encoder.model")
    options = dict(_OPTIONS.get(settings.model, {}))
    if settings.image_size is not None:
        options |= _with_size(settings.model, settings.image_size)
    size = settings.image_size or (299 if settings.model == "inception_v3" else OWN_SIZE)
    return LibraryEncoder(
        partial(_network, settings.model, channels, options),
        image=(channels, size, size),
        called=f"torchvision's {settings.model}",
        key=("torchvision", settings, channels),
    )


def _network(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if channels != 3:
        _set_channels(model, channels)
    head = next(head for head in _HEADS if hasattr(model, head))
    setattr(model, head, without_classifier(getattr(model, head)))
    return model


def _set_channels(model: nn.Module, channels: int) -> None:
    """Give the network another first convolution, with initial weights as torch draws them."""
    name, first = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    assert first.in_channels == 3, f"{name} takes no images"
    around, _, own = name.rpartition(".")
    other = nn.Conv2d(
        channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(model.get_submodule(around), own, other)


def without_classifier(head: nn.Module) -> nn.Module:
    """A head without its last layer of weights, and without the dropout before that."""
    if isinstance(head, nn.Linear):
        return nn.Identity()
    layers = list(head.named_children())
    number = max(number for number, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
    gone = [number, *([number - 1] if number and isinstance(layers[number - 1][1], nn.Dropout) else [])]
    for place in gone:
        setattr(head, layers[place][0], nn.Identity())
    return head


def _with_size(name: str, size: int) -> dict[str, Any]:
    kind = name.partition("_")[0]
    if kind == "vit":
        return {"image_size": size}
    if kind == "maxvit":
        return {"input_size": (size, size)}
    raise InputError(
        f"torchvision's {name} takes images of any size",
        where="encoder.image_size",
        remedy="Leave it out, and give data.size.",
    )


# ---------------------------------------------------------------------- weights that have been downloaded
def cached_weights(settings: Settings) -> Sequence[CachedWeights]:
    """Torchvision's weights of the model that lie in torch's cache, its default ones first."""
    choices: Any = torchvision.models.get_model_weights(settings.model)
    found = []
    for weights in dict.fromkeys([choices.DEFAULT, *choices]):
        path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
        if path.is_file():
            preset = weights.transforms()
            # These two networks of torchvision's normalise once more with ½ and ½ where they have its weights.
            of_half = settings.model in _OPTIONS
            mean, std = ((0.5,) * 3, (0.5,) * 3) if of_half else (tuple(preset.mean), tuple(preset.std))
            found.append(CachedWeights(f"torchvision's {settings.model}, {weights.name}", path, mean, std))
    return found
