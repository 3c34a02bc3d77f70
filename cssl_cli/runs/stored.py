"""The content of a run directory's files, one model per kind of file: a missing or changed field means damage."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class _Stored(BaseModel):
    """Strict types; unknown fields are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


M = TypeVar("M", bound=_Stored)


class Process(_Stored):
    """What one process worked with; `compiled` is missing from older files, when nothing was compiled.

    `data_root`, if present, is not checked: a folder's name may not be valid text.
    """

    torch: str
    device: str
    threads: int
    precision: str
    compiled: bool | Literal["graph"] = False


class Environment(_Stored):
    """environment.json. `checksums`: whether the run was begun by a version that writes them into every file."""

    fingerprint: str
    content_key: str
    labelled: bool = True
    checksums: bool = False
    processes: list[Process] = Field(min_length=1)


class Status(_Stored):
    """status. A failed run has the `error`, where it was if not in the run itself, and the `remedy`."""

    state: Literal["running", "interrupted", "failed", "finished"]
    step: int = Field(0, ge=0)
    num_steps: int | None = Field(None, ge=0)
    error: str | None = None
    where: str | None = None
    remedy: str | None = None

    @model_validator(mode="after")
    def _within(self) -> Status:
        if self.num_steps is not None and self.step > self.num_steps:
            raise ValueError(f"step {self.step} is beyond the last, {self.num_steps}")
        return self


class Record(_Stored):
    """A record of trace.jsonl or knn.jsonl: numbers, None for unavailable ones, or the `error`."""

    __pydantic_extra__: dict[str, float | str | None]

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)


class Epoch(_Stored):
    """A record of metrics.jsonl."""

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    terms: dict[str, float]
    learning_rate: float
    images_per_second: float
    seconds: float = Field(ge=0)
    device_memory_mb: float | None = None


class FeatureError(_Stored):
    """The error of features in less than float32, as defined in `feature_precision.py`."""

    of_length: float
    largest: float
    of_spread: float | None
    num_views: int


class Result(_Stored):
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


class Origin(_Stored):
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


class TrainerState(_Stored):
    """The trainer's part of a checkpoint; the trainer checks its tensors itself."""

    step: int = Field(ge=0)
    method: dict[str, Any]
    optimizer: dict[str, Any]
    epoch_terms: dict[str, Any]


class Checkpoint(_Stored):
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
