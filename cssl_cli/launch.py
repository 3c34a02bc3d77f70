"""Running the members of a sweep: what is finished is read, what is half-finished goes on, the rest starts."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, InputError, Interrupted, InUseError, RunError
from cssl_cli.files import require_writable
from cssl_cli.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.run_dir import ANALYSIS, PROBE, RESULTS_FORMAT, RunDir
from cssl_cli.sweep import Member, Sweep


@dataclass(frozen=True)
class MemberResult:
    """A member of a sweep with what its run directory holds, or the sentence that says why it failed."""

    member: Member
    path: Path
    probe: dict[str, Any] | None
    analysis: dict[str, Any] | None
    error: str | None


def member_path(sweep: Sweep, member: Member, out: Path) -> Path:
    return RunDir.at(out / sweep.name, name=member.recipe.name, fingerprint=member.recipe.fingerprint).path


def read_member(sweep: Sweep, member: Member, out: Path) -> MemberResult:
    """What is on disk of a member; results that are damaged, or of other settings than the recipe's, do not count."""
    run = RunDir(member_path(sweep, member, out))
    probe = _read_result(run, PROBE, member.recipe.settings("probe"))
    analysis = _read_result(run, ANALYSIS, member.recipe.settings("analyze"))
    return MemberResult(member, run.path, probe, analysis, None)


def _read_result(run: RunDir, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = run.read_json(name) if run.finished else None
    except InputError:
        return None
    if content is None or content.get("format") != RESULTS_FORMAT or content.get("settings") != _as_json(settings):
        return None
    return content


def _as_json(settings: Any) -> Any:
    """Settings as they look after a round trip through JSON: tuples are lists."""
    if isinstance(settings, dict):
        return {key: _as_json(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_as_json(value) for value in settings]
    return settings


def run_sweep(sweep: Sweep, *, out: Path, reporter: Reporter, device_name: str | None = None) -> list[MemberResult]:
    """Pretrain, probe and analyse every member that is not finished, in order; a failure does not stop the rest.

    Members that another process works on are taken up once more after the others.
    """
    require_writable(out / sweep.name, "Choose another folder with --out DIR.")
    workshop = _Workshop(out / sweep.name, reporter, device_name)
    results: dict[str, MemberResult] = {}
    again = _pass(sweep, sweep.members, out, workshop, results)
    _pass(sweep, again, out, workshop, results)
    return [results[member.name] for member in sweep.members]


def _pass(
    sweep: Sweep, members: Sequence[Member], out: Path, workshop: _Workshop, results: dict[str, MemberResult]
) -> list[Member]:
    """Complete the members that are not finished and enter their results; returns those that were in use."""
    in_use = []
    for number, member in enumerate(members, start=1):
        result = read_member(sweep, member, out)
        if result.probe is None or result.analysis is None:
            workshop.reporter.say(f"[{number}/{len(members)}] {member.name}")
            error = workshop.complete(member.recipe, result)
            result = replace(read_member(sweep, member, out), error=None if error is None else error.what)
            if isinstance(error, InUseError):
                in_use.append(member)
        results[member.name] = result
    return in_use


class _Workshop:
    """Carries members through their stages and keeps what they share: the loaded images and the baselines."""

    def __init__(self, out: Path, reporter: Reporter, device_name: str | None) -> None:
        self.out, self.reporter, self.device_name = out, reporter, device_name
        self.baselines: dict[tuple[str, ...], dict[str, Any]] = {}
        self.data: tuple[str, Any] = ("", None)

    def complete(self, recipe: Recipe, so_far: MemberResult) -> CsslError | None:
        """Do the stages that are missing; the failure, or None."""
        try:
            self._stages(recipe, so_far)
        except Interrupted:
            raise
        except CsslError as error:
            self.reporter.say(f"failed: {error}")
            return error
        except Exception as error:  # a bug in one member must not cost a night's sweep; its traceback is kept
            log = so_far.path / "error.log"
            with suppress(OSError):
                so_far.path.mkdir(parents=True, exist_ok=True)
                log.write_text(traceback.format_exc(), encoding="utf-8")
            self.reporter.say(f"failed: {type(error).__name__}: {error} (traceback in {log})")
            return RunError(f"{type(error).__name__}: {error}")
        return None

    def _stages(self, recipe: Recipe, so_far: MemberResult) -> None:
        from cssl_cli.pipeline.analyze import analyze
        from cssl_cli.pipeline.pretrain import pretrain
        from cssl_cli.pipeline.probe import probe

        dataset = self._dataset(recipe)
        options: dict[str, Any] = {"reporter": self.reporter, "device_name": self.device_name, "dataset": dataset}
        run = pretrain(recipe, out=self.out, **options)
        if so_far.analysis is None:
            analyze(run.path, **options)
        if dataset.train is None or dataset.test is None:
            self.reporter.say("the images have no labels: there are no accuracies")
        elif so_far.probe is None:
            probe(run.path, baselines=self.baselines, **options)

    def _dataset(self, recipe: Recipe) -> Any:
        from cssl_cli.pipeline.setup import prepare_data

        key = repr(recipe.settings("data"))
        if self.data[0] != key:
            self.data = (key, prepare_data(recipe, self.reporter))
        return self.data[1]
