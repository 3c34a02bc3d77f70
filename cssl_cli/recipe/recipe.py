"""A recipe: its blocks together, what must hold between them, and the fingerprint of what decides a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from cssl_cli.errors import InputError
from cssl_cli.host.paths import UnknownPath, expand
from cssl_cli.recipe.blocks import (
    LARS,
    SGD,
    AdamW,
    Analyze,
    AugmentBlock,
    Block,
    DataBlock,
    EncoderBlock,
    MethodBlock,
    Probe,
    Train,
)
from cssl_cli.recipe.declared import augment_block, data_blocks, encoder_blocks, method_blocks
from cssl_cli.recipe.field_types import Name, Seed
from cssl_cli.recipe.ranges import Added, Disagreement, Undeciding
from cssl_cli.recipe.yaml_text import dump

BETWEEN_BLOCKS = ("train", "optim", "method", "encoder")  # what must hold between them is a fault of the first
_DECIDING = ("data", "augment", "encoder", "method", "optim", "train")
FINGERPRINT_FORMAT = 3  # raise it when an equal recipe begins to mean another result


if TYPE_CHECKING:
    AnyData = DataBlock
    Augment = AugmentBlock
    AnyEncoder = EncoderBlock
    AnyMethod = MethodBlock
else:
    AnyData = Annotated[reduce(or_, data_blocks()), Field(discriminator="name")]
    Augment = augment_block()
    AnyEncoder = Annotated[reduce(or_, encoder_blocks()), Field(discriminator="name")]
    AnyMethod = Annotated[reduce(or_, method_blocks()), Field(discriminator="name")]


def place_of(data: Iterable[str]) -> str | None:
    """Which field of a `data` block says where the images lie; None of a block without one."""
    return next((field for field in ("root", "file", "path") if field in data), None)


class Recipe(Block):
    """Everything that decides a run."""

    name: Name
    """what the run is called; decides nothing else"""
    seed: Seed = 0
    """from which all random numbers of the run follow"""
    data: AnyData
    """the images"""
    augment: Augment
    """what makes two views of an image; {} for no augmentation"""
    encoder: AnyEncoder
    """the network that is trained"""
    method: AnyMethod
    """the loss and its projector"""
    optim: Annotated[SGD | AdamW | LARS, Field(discriminator="name")]
    """how the weights are updated"""
    train: Train
    """how long, in what batches"""
    probe: Probe = Probe()
    """classifiers on the frozen features"""
    analyze: Analyze = Analyze()
    """terms of the theory"""

    @field_validator("train")
    @classmethod
    def _training_outlasts_warmup(cls, train: Train, info: ValidationInfo) -> Train:
        optim = info.data.get("optim")
        if optim is not None and train.epochs and optim.warmup_epochs >= train.epochs:
            last = f"{train.epochs} epoch{'s' if train.epochs > 1 else ''}"
            raise Disagreement(
                f"lasts {last} and must last longer than optim.warmup_epochs, {optim.warmup_epochs}; "
                f"give optim.warmup_epochs={train.epochs // 10}, or more epochs",
                *("train.epochs", "optim.warmup_epochs"),
            )
        return train

    @field_validator("train")
    @classmethod
    def _without_training_there_are_weights(cls, train: Train, info: ValidationInfo) -> Train:
        encoder = info.data.get("encoder")
        if encoder is not None and train.epochs == 0 and encoder.weights is None:
            raise Disagreement(
                "lasts 0 epochs, which is for an encoder trained elsewhere; give its file as encoder.weights, or more "
                "epochs",
                *("train.epochs", "encoder.weights"),
            )
        return train

    @field_validator("train")
    @classmethod
    def _batches_suit_the_method(cls, train: Train, info: ValidationInfo) -> Train:
        method = info.data.get("method")
        if method is not None:
            method.check_batches(train.batch_size, train.micro_batch)
        return train

    def settings(self, block: str, *, data_root: str | None = None) -> dict[str, Any]:
        """One block as a plain dict, its keys as in a file: what the numeric core is built from.

        Environment variables in the place of the images are replaced; `InputError` where one is not set. `data_root`
        is the folder where the images, or the file of them, lie now, in place of that. Of `probe`, without the fields
        that are younger than the block, at their defaults: stored accuracies are found by these settings.
        """
        if block == "probe":
            return probe_settings(self.probe)
        settings: dict[str, Any] = getattr(self, block).model_dump(by_alias=True)
        place = place_of(settings) if block == "data" else None
        if place is None or (settings[place] is None and data_root is None):
            return settings
        if data_root is not None:
            moved = str(Path(data_root, Path(settings[place]).name)) if place == "file" else data_root
            return {**settings, place: moved}
        try:
            settings[place] = expand(settings[place])
        except UnknownPath as error:
            raise InputError(
                f"{settings[place]!r} {error}", where=f"data.{place}", remedy="Set it, or write the path out."
            ) from error
        return settings

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a document: the classes of its blocks, made of what files declare, have no place of their own."""
        return type(self).model_validate, (self.model_dump(mode="json", by_alias=True),)

    @property
    def place(self) -> str | None:
        """The folder or file of the images, as it is written; None if the recipe names none."""
        field = place_of(type(self.data).model_fields)
        place: str | None = getattr(self.data, field) if field else None
        return place if place and place[0] in "/$" else None  # else a name on the Hub

    def to_yaml(self) -> str:
        """The recipe as a file with every default written out; loading it gives an equal recipe."""
        return dump(self.model_dump(mode="json", by_alias=True))

    @property
    def fingerprint(self) -> str:
        """10 hex digits over all that decides the trained encoder; names the run directory.

        Not the name, nor where the weights to start from lie (their digest decides), nor how often a checkpoint is
        written, nor what is computed again to save memory, nor how the finished encoder is measured: recipes that
        differ in `probe` and `analyze` only share one run.
        """
        return Fingerprints().of(self)


class Fingerprints:
    """The fingerprints of many recipes that share blocks: what is hashed of a block is written out once."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[Block, str]] = {}  # by identity, which the block, being kept, keeps

    def of(self, recipe: Recipe) -> str:
        """The recipe's fingerprint."""
        # Without what is not given: an operation or an option that a later version adds changes no fingerprint.
        parts = {key: self._block(getattr(recipe, key)) for key in _DECIDING}
        parts |= {"format": str(FINGERPRINT_FORMAT), "seed": str(recipe.seed)}
        # What is recorded during training cannot be had afterwards.
        if recipe.analyze.every is not None:
            parts["recorded_every"] = str(recipe.analyze.every)
        if recipe.probe.every is not None:
            probe = recipe.probe
            parts["probed"] = _canonical([probe.every, probe.knn_k, probe.knn_temperature])
        document = ",".join(f'"{key}":{parts[key]}' for key in sorted(parts))
        return hashlib.sha256(f"{{{document}}}".encode()).hexdigest()[:10]

    def _block(self, block: Block) -> str:
        if id(block) not in self._written:
            self._written[id(block)] = block, _canonical(deciding(block))
        return self._written[id(block)][1]


def deciding(block: Block) -> dict[str, Any]:
    """What is given of a block and decides results, as JSON types: not the folder of a named image set, for example.

    A field that was added later counts only where it is not at its default.
    """
    undeciding = {name for name, info in type(block).model_fields.items() if Undeciding() in info.metadata}
    return block.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude=undeciding | _not_there_before(block)
    )


def probe_settings(probe: Probe) -> dict[str, Any]:
    """The settings by which accuracies are stored and found, without younger fields at their defaults.

    The number of draws counts where something is drawn.
    """
    left_out = _not_there_before(probe) - {"draws"}
    drawn = probe.label_fraction is not None or probe.shots is not None
    return probe.model_dump(by_alias=True, exclude=left_out if drawn else left_out | {"draws"})


def _not_there_before(block: Block) -> set[str]:
    """The fields that are younger than their block and at their defaults."""
    fields = type(block).model_fields.items()
    return {name for name, info in fields if Added() in info.metadata and getattr(block, name) == info.get_default()}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
