"""What a run directory has to tell a tracker: numbers by step, the recipe, and what was measured at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from cssl_cli.recipe import load_recipe
from cssl_cli.runs.results import CLASSIFIERS, ENCODERS, SHARE_DIGITS, number, part, quantities_of, quoted
from cssl_cli.runs.run_dir import ANALYSIS, EPOCH_KNN, METRICS, PROBE, RECIPE, TRACE, RunDir
from cssl_cli.theory.shown import shown_in
from cssl_cli.theory.term import In

Values = dict[str, float]
# Of the records beside metrics.jsonl, what is the same in each: how it was measured.
PROTOCOL = {"epoch", "step", "num_images", "num_views", "epsilon", "k", "temperature", "error"}


@dataclass(frozen=True)
class Point:
    """The numbers of a step, by name; `seconds` of training had been recorded by then."""

    step: int
    seconds: float
    values: Values


@dataclass(frozen=True)
class Records:
    """A run as trackers take it.

    `group` is the name of the folder of the runs, which is that of its sweep. `begun` is when the first step was
    trained, in seconds since the epoch, as if training had never paused. `summary` is empty before the run is measured.
    """

    run: RunDir
    fingerprint: str
    recipe: dict[str, Any]
    points: tuple[Point, ...]
    summary: Values
    state: str
    begun: float

    @property
    def place(self) -> Path:
        """The run directory by its own name, also where it was given as `.` or `..`."""
        path = self.run.path.absolute()
        return path.resolve() if ".." in path.parts else path

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def group(self) -> str:
        return self.place.parent.name

    @property
    def last_step(self) -> int:
        return self.points[-1].step if self.points else 0

    @property
    def parameters(self) -> dict[str, str]:
        """The recipe's fields by dotted name."""
        return dict(_flat(self.recipe))


def read_records(run: RunDir) -> Records:
    """What the directory says now; `DamagedError` if a file of it cannot be trusted, `InputError` for the recipe."""
    recipe = load_recipe(str(run.file(RECIPE)))
    points = read_points(run)
    latest = run.file(METRICS if run.file(METRICS).exists() else RECIPE).stat().st_mtime
    return Records(
        run,
        (run.environment() or {}).get("fingerprint", recipe.fingerprint),
        recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        points,
        read_summary(run),
        run.status()["state"],
        latest - (points[-1].seconds if points else 0.0),
    )


def read_points(run: RunDir) -> tuple[Point, ...]:
    """The numbers by step, from metrics.jsonl, trace.jsonl and knn.jsonl; unavailable ones are left out.

    What goes beyond the last epoch of metrics.jsonl is of before a kill, and is trained again.
    """
    metrics = run.read_records(METRICS)
    last = metrics[-1]["step"] if metrics else 0
    seconds = dict(zip((one["step"] for one in metrics), accumulate(one["seconds"] for one in metrics), strict=True))
    by_step: dict[int, Values] = {one["step"]: _of_epoch(one) for one in metrics}
    for name in (TRACE, EPOCH_KNN):
        for record in run.read_records(name):
            found = {key: number(value) for key, value in record.items() if key not in PROTOCOL}
            named = {f"{name.removesuffix('.jsonl')}/{key}": value for key, value in found.items() if value is not None}
            if named and record["step"] <= last:
                by_step.setdefault(record["step"], {}).update(named)
    return tuple(Point(step, seconds.get(step, 0.0), values) for step, values in sorted(by_step.items()))


def _of_epoch(record: Mapping[str, Any]) -> Values:
    names = ("learning_rate", "images_per_second", "device_memory_mb", "epoch")
    found = {**record["terms"], **{name: record.get(name) for name in names}}
    return {f"train/{name}": float(value) for name, value in found.items() if value is not None}


def read_summary(run: RunDir) -> Values:
    """The accuracies of probe.json and the quoted numbers of analysis.json, named as in a sweep's table."""
    if not run.finished:
        return {}
    probe, analysis = run.latest_result(PROBE), run.latest_result(ANALYSIS)
    found: dict[str, Any] = {
        classifier if encoder == "trained" else f"{encoder}_{classifier}": part(probe, encoder, classifier).get(
            "accuracy"
        )
        for encoder in ENCODERS
        for classifier in CLASSIFIERS
    }
    for shown in shown_in(In.SWEEP):
        with suppress(LookupError, TypeError):  # an older analysis lacks newer terms
            known = quoted(quantities_of(analysis, shown), shown.declared, part(analysis, "settings"))
            if known is not None:
                found[shown.name] = round(known[0], SHARE_DIGITS) if shown.declared.complement else known[0]
    return {f"final/{name}": value for name, given in found.items() if (value := number(given)) is not None}


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
