"""The blocks of a recipe: every field with its type, range, default and meaning.

Those of data sets, augmentations and methods are in their own files (declared.py); the defaults of all others are here
and nowhere else. The line under a field is its description. The text of a type's range is derived from its constraints,
or given by `Allowed` (ranges.py) where those cannot say it; faults and docs/recipe-fields.md both use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cssl_cli.errors import InputError
from cssl_cli.recipe.field_types import (
    ChannelDeviationList,
    ChannelMeanList,
    DecayPair,
    DeltaGrid,
    Digest,
    Distances,
    EpsilonGrid,
    LabelFractions,
    Names,
    PenaltyGrid,
    Shots,
)
from cssl_cli.recipe.ranges import (
    Added,
    Count,
    Decay,
    File,
    ImageCount,
    NonNegative,
    Positive,
    Share,
    Undeciding,
    Widths,
)
from cssl_cli.recipe.validators import file_digest


class Block(BaseModel):
    """A mapping of a recipe: frozen, strict about types, without unknown fields; null means "not given"."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        # An unknown field stays, null or not, and is refused.
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: item for key, item in value.items() if item is not None or key not in known}


class DeclaredBlock(Block):
    """What a file of the numeric core declares (declared.py)."""

    model_config = ConfigDict(use_attribute_docstrings=False)
    declared: ClassVar[type]  # the class `Settings` of the file


# ---------------------------------------------------------------------------------------------------------------- data
class _AnyData(Block):
    name: str
    limit: ImageCount | None = None
    """train on so many images only, the same number of each class; null: on all"""
    limit_test: ImageCount | None = None
    """test on so many images only, the same number of each class; null: on all"""
    mean: ChannelMeanList | None = None
    """what is subtracted from the channels, on the 0..1 scale; null: their mean over the training images"""
    std: ChannelDeviationList | None = None
    """what the channels are divided by then; null: their standard deviation over the training images"""


class DataBlock(_AnyData, DeclaredBlock):
    """What every data set takes, and what the file of one declares."""

    @field_validator("store_size", check_fields=False)
    @classmethod
    def _stored_no_smaller(cls, store_size: int | None, info: ValidationInfo) -> int | None:
        size = info.data.get("size", ...)
        if store_size is None or size is ...:  # its own fault is told
            return store_size
        if size is None:
            raise ValueError("needs data.size, the side that the encoder sees; give it, too")
        if store_size < size:
            raise ValueError(f"is less than data.size, {size}; give at least that")
        return store_size


# ------------------------------------------------------------------------------------------------------------- augment
class OtherViewBlock(Block):
    """The operations of a second view that is made otherwise; null: not applied. Once read, it has them all."""

    model_config = ConfigDict(use_attribute_docstrings=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, value: Any) -> Any:
        """Here it is: it takes away an operation of the first view."""
        return value


class AugmentBlock(Block):
    """The operations, in the order of application, whatever the order in a recipe."""

    model_config = ConfigDict(use_attribute_docstrings=False)
    if TYPE_CHECKING:
        fade: DeclaredBlock | None
        view_2: OtherViewBlock | None

    @property
    def of_views(self) -> tuple[dict[str, DeclaredBlock | None], dict[str, DeclaredBlock | None]]:
        """The operations of either view by name; None: not applied."""
        first = {name: getattr(self, name) for name in type(self).model_fields if name != "view_2"}
        return first, first if self.view_2 is None else {name: getattr(self.view_2, name) for name in first}

    @model_validator(mode="after")
    def _the_rest_is_as_in_the_first(self) -> AugmentBlock:
        """What view_2 does not say is as in the first view; if it says nothing else, it is left out."""
        said = self.view_2
        if said is None:
            return self
        first = self.of_views[0]
        whole = {
            name: _over(own, getattr(said, name)) if name in said.model_fields_set else own
            for name, own in first.items()
        }
        differs = any(own != whole[name] for name, own in first.items())
        other = type(said).model_construct(_fields_set=set(whole), **whole) if differs else None
        return self.model_copy(update={"view_2": other})


def _over(below: DeclaredBlock | None, above: DeclaredBlock | None) -> DeclaredBlock | None:
    """The block `below` with what is given of `above`."""
    if below is None or above is None:
        return above
    given = {name: getattr(above, name) for name in above.model_fields_set}
    return below.model_copy(update=given)


# ------------------------------------------------------------------------------------------------------------- encoder
class _AnyEncoder(Block):
    name: str
    weights: Annotated[File | None, Undeciding()] = None
    """a file of weights to start from, as `cssl import` takes it; null: random weights"""
    weights_sha256: Digest | None = Field(default=None, validate_default=True)
    """the SHA-256 digest of that file; null: of the file as it is"""

    @field_validator("weights_sha256")
    @classmethod
    def _of_the_file(cls, digest: str | None, info: ValidationInfo) -> str | None:
        weights = info.data.get("weights", ...)
        if weights is ...:  # its own fault is told
            return digest
        if weights is None and digest is not None:
            raise ValueError("is of no file; give encoder.weights, too")
        return file_digest(weights) if weights is not None and digest is None else digest


class EncoderBlock(_AnyEncoder, DeclaredBlock):
    """What every encoder takes, and what the file of one declares."""


# -------------------------------------------------------------------------------------------------------------- method
class MethodBlock(DeclaredBlock):
    """What the file of a method declares."""

    name: str
    if TYPE_CHECKING:
        projector: Widths  # every method has one, in its own place among the fields

    def check_batches(self, batch_size: int, micro_batch: int | None) -> None:
        """Raises `Disagreement` where the method cannot be trained in such batches."""
        check = getattr(self.declared, "check_batches", None)
        if check is not None:
            try:
                check(self, batch_size, micro_batch)  # the block has the fields of the class
            except NameError as error:
                raise InputError(
                    f"check_batches cannot be called: {error}",
                    where=f"methods/{self.name}.py",
                    remedy="It is read without the rest of its file: let it use what the file imports, not what it "
                    "defines.",
                ) from error


# --------------------------------------------------------------------------------------------------------------- optim
class OptimBlock(Block):
    name: str
    lr: Positive
    """learning rate at its highest"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """course of the learning rate after the warm-up"""
    warmup_epochs: Annotated[int, Ge(0)] = 0
    """epochs over which the learning rate rises from 0"""
    decay_norm_and_bias: bool = True
    """whether weight decay applies to biases and normalization layers, too"""


class SGD(OptimBlock):
    name: Literal["sgd"]
    """stochastic gradient descent"""
    momentum: Decay = 0.9
    """momentum"""
    weight_decay: NonNegative = 5e-4
    """L2 penalty in the gradient"""
    nesterov: bool = False
    """Nesterov momentum"""

    @field_validator("nesterov")
    @classmethod
    def _nesterov_needs_momentum(cls, nesterov: bool, info: ValidationInfo) -> bool:
        if nesterov and info.data.get("momentum") == 0:
            raise ValueError("needs optim.momentum > 0")
        return nesterov


class AdamW(OptimBlock):
    name: Literal["adamw"]
    """Adam with decoupled weight decay"""
    betas: DecayPair = (0.9, 0.999)
    """decay rates of the two moments"""
    weight_decay: NonNegative = 0.01
    """decoupled weight decay"""


class LARS(OptimBlock):
    name: Literal["lars"]
    """layer-wise adaptive rates for large batches, as in the code of SimCLR (Chen et al., arXiv 2002.05709)"""
    momentum: Decay = 0.9
    """momentum"""
    weight_decay: NonNegative = 1e-6
    """L2 penalty in the gradient"""
    trust_coefficient: Positive = 0.001
    """step length relative to the norm of a layer's weights"""


# ----------------------------------------------------------------------------------------------- train, probe, analyze
class Train(Block):
    epochs: Annotated[int, Ge(0)] | None = None
    """duration in passes over the training images; this or steps; 0: the encoder is that of encoder.weights"""
    steps: Count | None = Field(default=None, validate_default=True)
    """duration in batches; this or epochs"""
    batch_size: Annotated[int, Ge(2)] = 512
    """images in a batch, each seen in two views"""
    micro_batch: Annotated[int, Ge(2)] | None = None
    """images that the encoder takes, and its batch norms normalise, at a time: any batch fits; null: all of them"""
    checkpoint_activations: Annotated[bool, Undeciding()] = False
    """whether activations inside the encoder's blocks are computed again instead of kept; the same result"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the encoder; auto: bfloat16 where the device computes in it"""
    compile: bool | Literal["graph"] | None = None
    """whether the step is compiled, or captured as a CUDA graph; null: compiled from 20,000 steps, CPUs with AVX-512"""
    checkpoint_minutes: Annotated[NonNegative, Undeciding()] = 1.0
    """least time between two checkpoints"""

    @field_validator("micro_batch")
    @classmethod
    def _whole_micro_batches(cls, micro_batch: int | None, info: ValidationInfo) -> int | None:
        batch = info.data.get("batch_size")
        if micro_batch is not None and batch is not None and batch % micro_batch:
            raise ValueError(f"does not divide train.batch_size, {batch}; give a divisor of it")
        return micro_batch

    @field_validator("steps")
    @classmethod
    def _one_duration(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if "epochs" in info.data and (steps is None) == (info.data["epochs"] is None):
            raise ValueError(
                "or train.epochs is required; give exactly one of them"
                if steps is None
                else "and train.epochs are both given; give exactly one of them"
            )
        return steps


class Finetune(Block):
    epochs: Count = 20
    """duration in passes over the labelled training images"""
    min_steps: Count = 200
    """batches at least, as few labelled images make few an epoch"""
    batch_size: Annotated[int, Ge(2)] = 128
    """images in a batch; all of them where there are fewer"""
    lr: Positive = 0.05
    """learning rate at the first step, from which it falls to 0 by a cosine; Nesterov momentum 0.9"""
    weight_decay: NonNegative = 1e-4
    """L2 penalty in the gradient"""
    views: Literal["crop_flip", "recipe"] = "crop_flip"
    """what a training image is seen through: crop and flip with their defaults, or the recipe's augment block"""


class Probe(Block):
    knn_k: Count = 200
    """neighbours of the k-NN classifier; fewer where the classes are small"""
    knn_temperature: Positive = 0.1
    """a neighbour of cosine similarity s weighs exp(s / temperature)"""
    center_views: Count = 4
    """views of each image behind the class centres"""
    penalties: PenaltyGrid = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    """L2 penalties among which the linear classifier's is chosen"""
    validation_fraction: Share = 0.1
    """share of the training images on which the penalty is chosen"""
    every: Count | None = None
    """epochs of training between k-NN accuracies on all test images; null: none through training"""
    label_fraction: Annotated[LabelFractions | None, Added()] = None
    """shares of each class's training images to classify with, too; null: all of them only"""
    shots: Annotated[Shots | None, Added()] = None
    """training images of each class to classify with, too; null: all of them only"""
    draws: Annotated[Count, Added()] = 5
    """random choices of so few labelled images, over which accuracies are averaged"""
    finetune: Annotated[Finetune | None, Added()] = None
    """training of encoder and classifier together on labelled images; null: none, {}: with the defaults"""


class Analyze(Block):
    num_images: ImageCount = 1000
    """test images to measure, the same number of each class"""
    num_views: Count = 8
    """stored views of each, the clean image included"""
    classes: Names | None = None
    """the classes to measure; null: all"""
    epsilons: EpsilonGrid = tuple(round(0.1 * step, 1) for step in range(1, 16))
    """values of epsilon at which R_epsilon is measured"""
    deltas: DeltaGrid = tuple(round(0.1 * step, 1) for step in range(1, 16))
    """values of delta at which sigma is measured, in medians of the distance between clean images of two classes"""
    distances: Distances = ("pixels", "standardized_pixels", "untrained", "trained")
    """distances between views in which concentration is measured: pixels, standardized_pixels, untrained, trained"""
    refine_pairs: Annotated[int, Ge(0)] = 500
    """pairs of images for which the least pixel distance of two views is also searched for; 0: none"""
    bootstrap: Annotated[int, Ge(0), Le(1_000_000)] = 200
    """resamples behind each bootstrap interval; fewer than 20: no such intervals"""
    controls: bool = False
    """whether two encoders that are made without training are measured too, on the same images and views"""
    every: Count | None = None
    """epochs of training between measurements of the cheap terms; null: none through training"""
