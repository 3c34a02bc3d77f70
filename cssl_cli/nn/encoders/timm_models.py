"""Networks of the library timm (pytorch-image-models), without their classifiers; the extra `[timm]` installs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cssl_cli.errors import InputError, nearest, unknown_name
from cssl_cli.nn.encoders.cached_weights import CachedWeights
from cssl_cli.nn.encoders.library import LibraryEncoder
from cssl_cli.recipe.ranges import Count, ModelName, Size


@dataclass(frozen=True, kw_only=True)
class Settings:
    """a network of timm, without its classifier; needs pip install 'cssl_cli[timm]'"""

    model: ModelName
    """timm's name of it, such as vit_tiny_patch16_224"""
    image_size: Size | None = None
    """side of the images, for models of a fixed size, such as vision transformers; null: the model's own"""
    patch_size: Count | None = None
    """side of the patches, for models that take one; null: the model's own"""
    channels: Count = 3
    """channels of the images, which decide it anyway; another number than 3 must be theirs"""


def build(name: str, settings: Settings, channels: int) -> LibraryEncoder:  # noqa: ARG001
    """The network as the recipe's `encoder` block says."""
    timm = _timm()
    if not timm.is_model(settings.model):
        guess = nearest(settings.model, timm.list_models())
        raise InputError(
            f"unknown model of timm {settings.model!r}",
            where="encoder.model",
            remedy=f"{f'Did you mean {guess!r}? ' if guess else ''}timm.list_models() has them all.",
        )
    if settings.channels not in (3, channels):
        raise InputError(
            f"is {settings.channels}, and the images have {channels} channel{'s' if channels > 1 else ''}",
            where="encoder.channels",
            remedy="Leave it out.",
        )
    given = {"img_size": settings.image_size, "patch_size": settings.patch_size}
    options = {key: value for key, value in given.items() if value is not None}
    published = _published(timm.models, settings.model)
    size = settings.image_size or (224 if published is None else int(published.input_size[1]))
    try:
        return LibraryEncoder(
            partial(_network, settings.model, channels, options),
            image=(channels, size, size),
            called=f"timm's {settings.model}",
            key=("timm", settings, channels),
        )
    except InputError as error:
        cause = error.__cause__
        refused = next((field for field, key in _FIELDS.items() if f"'{key}'" in str(cause)), None)
        if not isinstance(cause, TypeError) or refused is None:
            raise
        raise InputError(
            f"timm's {settings.model} takes none", where=f"encoder.{refused}", remedy="Leave it out."
        ) from cause


_FIELDS = {"image_size": "img_size", "patch_size": "patch_size", "channels": "in_chans"}


def _network(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = _timm().create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    return model


def _published(models: ModuleType, name: str) -> Any:
    """What timm says of the weights of this name, None where it has none. `InputError` for an unknown tag."""
    try:
        return models.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = models.get_arch_pretrained_cfgs(name.partition(".")[0])
        raise unknown_name("model of timm", name, known, where="encoder.model") from error


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            "the library timm is not installed", where="encoder.name", remedy="Install it: pip install 'cssl_cli[timm]'"
        ) from error
    return timm


# ---------------------------------------------------------------------- weights that have been downloaded
def cached_weights(settings: Settings) -> Sequence[CachedWeights]:
    """timm's weights of the model that lie in torch's cache or in that of the Hugging Face hub.

    Of a model without a tag, such as resnet18 for resnet18.a1_in1k, those of its default tag come first.
    """
    models = _timm().models
    default = _published(models, settings.model)
    if default is None:
        return []
    others = {} if "." in settings.model else models.get_arch_pretrained_cfgs(settings.model)
    return [
        weights
        for known in (default, *(other for other in others.values() if other.tag != default.tag))
        for weights in _of(settings.model.partition(".")[0], known)
    ]


def _of(name: str, known: Any) -> list[CachedWeights]:
    """Those of one tag, which timm's configuration describes."""
    paths = _from_the_hub(known.hf_hub_id, known.hf_hub_filename) if known.hf_hub_id else []
    if known.url and not known.url.endswith(".npz"):  # which are of another library
        paths.append(Path(torch.hub.get_dir(), "checkpoints", known.url.rpartition("/")[2]))
    tag = f".{known.tag}" if known.tag else ""
    return [
        CachedWeights(f"timm's {name}{tag}", path, tuple(known.mean), tuple(known.std))
        for path in paths
        if path.is_file()
    ]


def _from_the_hub(name: str, file: str | None) -> list[Path]:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return []
    files = [file] if file else ["model.safetensors", "pytorch_model.bin"]
    found = [try_to_load_from_cache(name, file) for file in files]
    return [Path(path) for path in found if isinstance(path, str)]
