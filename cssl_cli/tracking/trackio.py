"""Trackio: a run in its local store, named as the run directory, which ends in the fingerprint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

from cssl_cli.tracking.mirror import Say
from cssl_cli.tracking.records import Point, Records, Values

PROJECT = "cssl"


class Trackio:
    """A run of the project `cssl` in `into`, $TRACKIO_DIR or Trackio's own folder. An earlier one is deleted."""

    def __init__(self, records: Records, into: str | None, say: Say) -> None:  # noqa: ARG002
        if into is not None:
            os.environ["TRACKIO_DIR"] = str(Path(into).absolute())  # read as it is imported
        import trackio

        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            with suppress(ValueError):  # there is no such project yet
                for run in trackio.Api().runs(PROJECT):
                    if run.name == records.name:
                        run.delete()
            self.run = trackio.init(
                PROJECT,
                name=records.name,
                group=records.group,
                config=records.recipe,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self.run.log({**point.values, "train/seconds": point.seconds}, step=point.step)

    def finish(self, summary: Values, step: int, state: str) -> None:  # noqa: ARG002
        import trackio

        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            if summary:
                self.run.log(summary, step=step)
            trackio.finish()  # of the run itself it would leave a second end for the end of the process
