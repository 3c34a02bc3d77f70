"""The files of a run and how each is read, and a reporter that keeps what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cssl_cli.errors import CsslError
from cssl_cli.host.progress import Silent
from cssl_cli.report.figures.figures import DRAWN_FROM
from cssl_cli.runs.run_dir import (
    ANALYSIS,
    CHECKPOINT,
    ENCODER,
    ENVIRONMENT,
    EPOCH_KNN,
    METRICS,
    PROBE,
    PROJECTOR,
    RECIPE,
    STATUS,
    TRACE,
    RunDir,
)
from cssl_cli.sweep.concentration import CONCENTRATION
from cssl_cli.sweep.results_index import INDEX

READERS: dict[str, Callable[[RunDir], Any]] = {
    RECIPE: lambda run: run.read_verified(RECIPE),
    ENVIRONMENT: lambda run: run.environment(),
    STATUS: lambda run: run.status(),
    METRICS: lambda run: run.read_records(METRICS),
    TRACE: lambda run: run.read_records(TRACE),
    EPOCH_KNN: lambda run: run.read_records(EPOCH_KNN),
    CHECKPOINT: lambda run: run.load_checkpoint(),
    ENCODER: lambda run: run.load_weights(ENCODER),
    PROJECTOR: lambda run: run.load_weights(PROJECTOR),
    PROBE: lambda run: run.latest_result(PROBE),
    ANALYSIS: lambda run: run.latest_result(ANALYSIS),
    DRAWN_FROM: lambda run: run.read_json(DRAWN_FROM),
    INDEX: lambda run: run.read_json(INDEX),
    CONCENTRATION: lambda run: run.read_json(CONCENTRATION),
}


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def refusal(read: Callable[[RunDir], Any], run: RunDir) -> CsslError | None:
    """The error of a reader; any other exception is a bug."""
    try:
        read(run)
    except CsslError as error:
        return error
    return None
