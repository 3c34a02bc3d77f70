"""Carrying members of a sweep through their stages, with what they share kept between them."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, Interrupted, RunError
from cssl_cli.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.run_dir import RunDir


@dataclass(frozen=True)
class Missing:
    """Which results of a member are not there yet."""

    probe: bool
    analysis: bool


class UnexpectedError(RunError):
    """A bug, or a library's failure (memory, a device): after it, the process is not to be trusted."""


class Workshop:
    """Carries members through their stages and keeps what they share: the loaded images and the baselines.

    `home` is where the run directories are, `data_root` where the images lie, in place of the recipes' data.root.
    """

    def __init__(self, home: Path, reporter: Reporter, device_name: str | None, data_root: str | None = None) -> None:
        self.home, self.reporter, self.device_name, self.data_root = home, reporter, device_name, data_root
        self.baselines: dict[tuple[str, ...], dict[str, Any]] = {}
        self.data: tuple[str, Any] = ("", None)

    def complete(self, recipe: Recipe, missing: Missing) -> CsslError | None:
        """Do the stages that are missing; the failure, or None. `Interrupted` is raised."""
        try:
            self._stages(recipe, missing)
        except Interrupted:
            raise
        except CsslError as error:
            self.reporter.say(f"failed: {error}")
            return error
        except Exception as error:  # a bug in one member must not cost a night's sweep; its traceback is kept
            run = RunDir.at(self.home, name=recipe.name, fingerprint=recipe.fingerprint)
            log = run.file("error.log")
            with suppress(OSError, CsslError):
                run.path.mkdir(parents=True, exist_ok=True)
                run.write_bytes(log.name, traceback.format_exc().encode(errors="backslashreplace"))
            first_line = str(error).partition("\n")[0]
            self.reporter.say(f"failed: {type(error).__name__}: {error} (traceback in {log})")
            return UnexpectedError(f"{type(error).__name__}: {first_line}")
        return None

    def _stages(self, recipe: Recipe, missing: Missing) -> None:
        from cssl_cli.pipeline.analyze import analyze
        from cssl_cli.pipeline.pretrain import pretrain
        from cssl_cli.pipeline.probe import probe

        dataset = self.dataset(recipe)
        options: dict[str, Any] = {
            "reporter": self.reporter,
            "device_name": self.device_name,
            "dataset": dataset,
            "data_root": self.data_root,
        }
        run = pretrain(recipe, out=self.home, **options)
        if missing.analysis:
            analyze(run.path, recipe=recipe, **options)
        if dataset.train is None or dataset.test is None:
            self.reporter.say("the images have no labels: there are no accuracies")
        elif missing.probe:
            probe(run.path, recipe=recipe, baselines=self.baselines, again=False, **options)

    def dataset(self, recipe: Recipe) -> Any:
        """The recipe's images; kept until a recipe with other data comes."""
        from cssl_cli.pipeline.setup import prepare_data

        key = repr(recipe.settings("data", data_root=self.data_root))
        if self.data[0] != key:
            self.data = (key, prepare_data(recipe, self.reporter, data_root=self.data_root, own=[self.home]))
        return self.data[1]
