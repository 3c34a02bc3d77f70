"""The content of a run directory's files, one model per kind of file: a missing or changed field means damage."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Stored(BaseModel):
    """Strict types; unknown fields are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


M = TypeVar("M", bound=Stored)


class Process(Stored):
    """What one process worked with; `compiled` is missing from older files, when nothing was compiled.

    `data_root`, if present, is not checked: a folder's name may not be valid text.
    """

    torch: str
    device: str
    threads: int
    precision: str
    compiled: bool | Literal["graph"] = False


class Environment(Stored):
    """environment.json. `checksums`: whether the run was begun by a version that writes them into every file."""

    fingerprint: str
    content_key: str
    labelled: bool = True
    checksums: bool = False
    processes: list[Process] = Field(min_length=1)


class Stopped(Stored):
    """Where successive halving stopped a run: at `epoch` of its `epochs`, with its k-NN accuracy there.

    place: that of its row among the num_rows that reached the epoch; num_kept went on, one in `eta`.
    """

    epoch: int = Field(ge=0)
    epochs: int = Field(ge=1)
    knn: float | None
    place: int = Field(ge=1)
    num_rows: int = Field(ge=1)
    num_kept: int = Field(ge=1)
    eta: int = Field(ge=2)


class Status(Stored):
    """status. A failed run has the `error`, where it was if not in the run itself, and the `remedy`."""

    state: Literal["running", "interrupted", "failed", "finished"]
    step: int = Field(0, ge=0)
    num_steps: int | None = Field(None, ge=0)
    error: str | None = None
    where: str | None = None
    remedy: str | None = None
    stopped: Stopped | None = None

    @model_validator(mode="after")
    def _within(self) -> Status:
        if self.num_steps is not None and self.step > self.num_steps:
            raise ValueError(f"step {self.step} is beyond the last, {self.num_steps}")
        return self


class Record(Stored):
    """A record of trace.jsonl or knn.jsonl: numbers, None for unavailable ones, or the `error`."""

    __pydantic_extra__: dict[str, float | str | None]

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)


class Epoch(Stored):
    """A record of metrics.jsonl."""

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    terms: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float = Field(ge=0)
    device_memory_mb: float | None = None


class FeatureError(Stored):
    """The error of features in less than float32, as defined in `feature_precision.py`."""

    of_length: float
    largest: float
    of_spread: float | None
    num_views: int


class Result(Stored):
    """The head of probe.json or analysis.json: how, on which images and for which encoder it was measured.

    `feature_error`, by encoder, is present if the settings name a precision of features.
    """

    format: int
    fingerprint: str
    content_key: str
    settings: dict[str, Any]
    encoder_sha256: str | None = None
    feature_error: dict[str, FeatureError] = {}

    @model_validator(mode="after")
    def _says_its_error(self) -> Result:
        if "precision" in self.settings and not self.feature_error:
            raise ValueError("features in another precision than float32, without the error that it made")
        return self


class Share(Stored):
    """An accuracy over the test images."""

    accuracy: float
    interval: list[float] = Field(min_length=2, max_length=2)


class MeanShare(Stored):
    """An accuracy over the test images, averaged over draws of labelled training images."""

    accuracy: float
    sd: float | None
    n: int = Field(ge=1)
    interval: list[float] | None = Field(min_length=2, max_length=2)
    accuracies: list[float] = Field(min_length=1)


class FewLabelsScore(MeanShare):
    """What probe.json says of a classifier with few labelled images."""

    label_fraction: float | None = None
    shots: int | None = None
    labelled_images: int
    top_5: MeanShare | None = None

    @model_validator(mode="after")
    def _one_level(self) -> FewLabelsScore:
        if (self.label_fraction is None) == (self.shots is None):
            raise ValueError("it is not of either a label_fraction or shots")
        return self


class Score(Share):
    """What probe.json says of a classifier. `top_5` is there for more than ten classes, `few_labels` if asked for."""

    top_5: Share | None = None
    few_labels: list[FewLabelsScore] = []
    num_images: int
    per_class: dict[str, float | None]
    images_per_class: dict[str, int] = {}
    warnings: list[str] = []


class _Linear(Score):
    penalty: float
    validation_accuracy: float | None


class _KNN(Score):
    k: int
    temperature: float


class _NearestCenter(Score):
    center_views: int


class _Finetuned(Score):
    steps: int


class _Scores(Stored):
    linear: _Linear
    knn: _KNN
    nearest_center: _NearestCenter
    finetune: _Finetuned | None = None

    @model_validator(mode="after")
    def _of_the_same_classes(self) -> _Scores:
        classes = self.linear.per_class.keys()
        others = [self.knn.per_class.keys(), self.nearest_center.per_class.keys()]
        others += [self.linear.images_per_class.keys()] if self.linear.images_per_class else []
        others += [] if self.finetune is None else [self.finetune.per_class.keys()]
        if any(other != classes for other in others):
            raise ValueError("the classifiers are of different classes")
        if len({tuple(map(_level, one.few_labels)) for one in (self.linear, self.knn, self.nearest_center)}) > 1:
            raise ValueError("the classifiers are of different numbers of labelled images")
        return self


def _level(entry: FewLabelsScore) -> tuple[float | None, int | None]:
    return entry.label_fraction, entry.shots


class Probe(Result):
    """probe.json."""

    trained: _Scores
    untrained: _Scores
    pixels: _Scores

    @model_validator(mode="after")
    def _of_the_same_levels(self) -> Probe:
        encoders = (self.trained, self.untrained, self.pixels)
        finetuned = [one.finetune for one in (self.trained, self.untrained) if one.finetune is not None]
        scores = [*(one.linear for one in encoders), *finetuned]
        if len({tuple(map(_level, one.few_labels)) for one in scores}) > 1:
            raise ValueError("the encoders are of different numbers of labelled images")
        if len(finetuned) == 1:
            raise ValueError("one encoder is fine-tuned, and the other is not")
        if finetuned and not isinstance(self.settings.get("finetune"), dict):
            raise ValueError("the settings do not say how it was fine-tuned")
        return self


class _OtherImages(Stored):
    name: str
    data: dict[str, Any]
    image_size: int
    original_size: int
    mean: list[float]
    std: list[float]


class Transfer(Probe):
    """A file of transfer/: accuracies on other images, whose key is `content_key`."""

    transfer: _OtherImages


class OneNumber(Stored):
    """A quantity that is one number, or None with the `reason`."""

    value: float | None
    interval: list[float] | None = Field(None, min_length=2, max_length=2)
    reason: str | None = None


class RankedSet(Stored):
    """A set of augmentations in rank.json. `settings`: the images and the augmentation, and how they were ranked."""

    settings: dict[str, Any]
    content_key: str
    rows: list[str]
    share: OneNumber
    shared: OneNumber
    about_class: OneNumber


class Ranking(Stored):
    """rank.json."""

    format: int
    sets: list[RankedSet]


class Origin(Stored):
    """Where the features in a file are from: the run, and the images, that `cssl analyze --export` measured.

    `feature_error` as in `Result`, with the `precision` that made it.
    """

    model_config = ConfigDict(extra="ignore")

    part: str | None = None
    fingerprint: str | None = None
    content_key: str | None = None
    encoder_sha256: str | None = None
    precision: str | None = None
    feature_error: dict[str, FeatureError] | None = None

    @model_validator(mode="after")
    def _says_its_error(self) -> Origin:
        if (self.precision is None) != (not self.feature_error):
            raise ValueError("a precision of the features without the error that it made, or vice versa")
        return self


class TrainerState(Stored):
    """The trainer's part of a checkpoint; the trainer checks its tensors itself."""

    step: int = Field(ge=0)
    method: dict[str, Any]
    optimizer: dict[str, Any]
    epoch_terms: dict[str, Any]


class Checkpoint(Stored):
    """checkpoint.pt. Older ones have no `fingerprint`."""

    fingerprint: str | None = None
    trainer: TrainerState
    metrics: list[Epoch]
    trace: list[Record] = []
    epoch_knn: list[Record] = []

    @model_validator(mode="after")
    def _agree(self) -> Checkpoint:
        latest: list[Epoch | Record] = [*self.metrics[-1:], *self.trace[-1:], *self.epoch_knn[-1:]]
        for record in latest:
            if record.step > self.trainer.step:
                raise ValueError(f"a record is of step {record.step}, the weights are of step {self.trainer.step}")
        return self


def require(model: type[M], content: Any) -> M:
    """`content` as `model`; ValueError that names the first invalid field."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{field}: {what[:1].lower()}{what[1:]}" if field else what) from None
