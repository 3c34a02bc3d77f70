"""Runs the stages of members, keeping what members share between them."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, Interrupted, RunError
from cssl_cli.host.progress import Reporter, warn
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.halving import require_reached
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.tracking.mirror import Mirrors


class UnexpectedError(RunError):
    """A bug, or a failure of a library (memory, a device); the process cannot be trusted after it."""


@dataclass(frozen=True)
class Failure:
    """Why a member failed: the `error`, and a `sentence` for readers who know which member it is."""

    error: CsslError
    sentence: str


class Workshop:
    """Runs the stages of members and keeps what they share: the loaded images and the baselines.

    `home` is the folder of the run directories; `data_root` replaces the recipes' data.root; `track` names the trackers
    that mirror the runs.
    """

    def __init__(
        self,
        home: Path,
        reporter: Reporter,
        device_name: str | None,
        data_root: str | None = None,
        track: Sequence[str] = (),
    ) -> None:
        self.home, self.reporter, self.device_name, self.data_root = home, reporter, device_name, data_root
        self.baselines: dict[tuple[str, ...], dict[str, Any]] = {}
        self.data: tuple[str, Any] = ("", None)
        self.mirrors = Mirrors(track, lambda sentence: self.reporter.notice(sentence))

    def complete(self, recipe: Recipe, missing: Missing) -> Failure | None:
        """Run the missing stages; returns the failure, if any. Raises `Interrupted`."""
        run = RunDir.at(self.home, name=recipe.name, fingerprint=recipe.fingerprint)
        failed: CsslError | None = None
        try:
            with self.mirrors:  # which closes the run in the trackers, however it ends
                self._stages(recipe, missing)
        except Interrupted:
            raise
        except CsslError as error:
            failed = error
            # The frames that it passed hold the trainer, which would stay in memory while the next member trains.
            failed.__traceback__ = failed.__cause__ = failed.__context__ = None
        except Exception as error:  # a bug in one member must not cost a whole sweep; its traceback is kept
            first_line = str(error).partition("\n")[0]
            failed = UnexpectedError(f"{type(error).__name__}: {first_line}", remedy=self._keep_traceback(run))
        # Trainers, traced encoders and what torch saved are in circles, which Python may leave for a dozen members.
        gc.collect()
        if failed is None:
            return None
        failure = Failure(failed, failed.of(str(run.path)))
        self.reporter.say(f"failed: {failure.sentence}")
        return failure

    def _keep_traceback(self, run: RunDir) -> str:
        """Write the current traceback to the run and say where it is; report it if it cannot be written."""
        text = traceback.format_exc()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_bytes("error.log", text.encode(errors="backslashreplace"))
        except (OSError, CsslError):
            warn(self.reporter, text)
            return "The traceback could not be saved; it is among the messages."
        return f"The traceback is in {run.file('error.log')}."

    def _stages(self, recipe: Recipe, missing: Missing) -> None:
        from cssl_cli.runs.analyze import analyze
        from cssl_cli.runs.pretrain import pretrain
        from cssl_cli.runs.probe import probe

        dataset = self.dataset(recipe)
        options: dict[str, Any] = {
            "reporter": self.reporter,
            "device_name": self.device_name,
            "dataset": dataset,
            "data_root": self.data_root,
        }
        run = pretrain(recipe, out=self.home, recorded=self.mirrors.update, until=missing.until, **options)
        if missing.until is not None:
            return require_reached(run, missing.until, labelled=dataset.train is not None and dataset.test is not None)
        if missing.analysis:
            analyze(run.path, recipe=recipe, **options)
        if dataset.train is None or dataset.test is None:
            self.reporter.notice("the images have no labels: there are no accuracies")
        elif missing.probe:
            probe(run.path, recipe=recipe, baselines=self.baselines, again=False, **options)
        self.mirrors.finish(run)
        return None

    def dataset(self, recipe: Recipe) -> Any:
        """The recipe's images, kept until a recipe with other data comes."""
        from cssl_cli.runs.images import prepare_data

        key = repr(recipe.settings("data", data_root=self.data_root))
        if self.data[0] != key:
            self.data = (key, prepare_data(recipe, self.reporter, data_root=self.data_root, own=[self.home]))
        return self.data[1]
