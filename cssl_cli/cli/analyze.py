"""What `cssl analyze` was asked for, and its doing: runs or a recipe in, reports and figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.cli.terminal import TerminalReporter
from cssl_cli.errors import DamagedError, InputError, RunError, shown_path, unknown_name
from cssl_cli.host.files import exists, is_folder
from cssl_cli.host.paths import is_override, user_path
from cssl_cli.host.progress import Reporter
from cssl_cli.report.analysis import MIN_RUNS, SECTIONS, show_analysis, show_runs
from cssl_cli.report.compare.catalogue import LINEAR, accuracy_named
from cssl_cli.report.sections.concentration import show_concentration
from cssl_cli.runs.run_dir import FIGURES, PROBE, RECIPE, TRACE, RunDir

OF_RECIPES = "concentration"  # the section that a recipe has without a run


@dataclass(frozen=True)
class Request:
    """`runs` to analyse, or a `recipe` by name or file; `changes` replace settings of the recipe's analyze block.

    `data_root` is where the images lie, in place of the recipes' data.root.
    """

    runs: tuple[Path, ...]
    recipe: str | None
    overrides: tuple[str, ...]
    changes: Mapping[str, Any]
    sections: tuple[str, ...]
    export: Path | None
    again: bool
    data_root: str | None = None
    precision: str = "float32"

    @classmethod
    def read(
        cls,
        targets: Sequence[str],
        *,
        images: int | None,
        views: int | None,
        classes: str | None,
        controls: bool,
        sections: Sequence[str],
        export: Path | None,
        again: bool,
        data_root: str | None = None,
        precision: str = "float32",
    ) -> Request:
        """Sort the arguments into runs, a recipe and overrides; `InputError` where they do not go together."""
        overrides = tuple(target for target in targets if is_override(target) and not _is_there(target))
        named = [target for target in targets if target not in overrides]
        runs = tuple(user_path(target) for target in named if _is_run(target))
        recipes = [target for target in named if not _is_run(target)]
        if not named:
            raise InputError("nothing is named to analyze", remedy="Give run directories, or a recipe.")
        if recipes and (runs or len(recipes) > 1):
            raise InputError(
                f"{' '.join(named)} are not all run directories",
                remedy="Give one or more runs, or a single recipe. Several recipes are compared by: "
                "cssl sweep NAME --concentration-only",
            )
        if export is not None and (recipes or len(runs) > 1):
            raise InputError("--export writes the features of one run", remedy="Give one run directory.")
        if controls and recipes:
            raise InputError(
                "a recipe without a run has no encoder to set beside the controls",
                where="--controls",
                remedy="Leave it out, or give the directory of a finished run.",
            )
        if precision != "float32" and recipes:
            raise InputError(
                "a recipe without a run has no features that would take long",
                where="--precision",
                remedy="Leave it out, or give the directory of a finished run.",
            )
        for name in sections:
            if name not in (*SECTIONS, "all"):
                raise unknown_name("section", name, (*SECTIONS, "all"), where="--section")
            if recipes and name not in (OF_RECIPES, "all"):
                raise InputError(
                    f"a recipe without a run has no {name}, only a concentration",
                    where="--section",
                    remedy="Leave it out, or give the directory of a finished run.",
                )
            if len(runs) > 1:
                raise InputError(
                    "sections are those of one run; several runs give one table",
                    where="--section",
                    remedy="Leave it out, or give one run directory.",
                )
        changes: dict[str, Any] = {"num_images": images, "num_views": views}
        if controls:  # without the option the run's recipe says
            changes["controls"] = True
        if classes is not None:
            changes["classes"] = tuple(name.strip() for name in classes.split(",") if name.strip())
        return cls(
            runs=runs,
            recipe=recipes[0] if recipes else None,
            overrides=overrides,
            changes={name: value for name, value in changes.items() if value is not None},
            sections=tuple(SECTIONS) if "all" in sections else tuple(dict.fromkeys(sections)),
            export=export,
            again=again,
            data_root=data_root,
            precision=precision,
        )


def _is_run(target: str) -> bool:
    """A directory, or what can only be meant as one, so that the complaint is about a missing run."""
    path = user_path(target)
    return is_folder(path) or (len(path.parts) > 1 and path.suffix not in (".yaml", ".yml"))


def measure(
    request: Request, *, figures: bool, device_name: str | None, as_json: bool, accuracy: str = LINEAR.name
) -> None:
    """Measure what was asked for, draw the figures, print the report; of three runs what predicts the `accuracy`."""
    compared = accuracy_named(accuracy)
    if compared != LINEAR and len(request.runs) < MIN_RUNS:
        raise InputError(
            f"rank correlations with the {compared.label} take {MIN_RUNS} runs",
            where="--accuracy",
            remedy="Leave it out, or give more run directories.",
        )
    if request.recipe is not None:
        with TerminalReporter() as reporter:
            result = _measure_recipe(request, reporter, device_name)
        return show_concentration(result, as_json)
    with TerminalReporter() as reporter:
        results = {path: _measure_run(path, request, reporter, device_name) for path in request.runs}
        for path in request.runs:
            _tell_of_damaged_probe(path, reporter)
        failed = _draw(results, reporter) if figures else None
    if len(results) > 1:
        show_runs(results, as_json, accuracy=compared)
    else:
        ((path, result),) = results.items()
        show_analysis(path, result, request.sections, as_json)
    if failed is not None:
        raise failed
    return None


def _is_there(target: str) -> bool:
    """Whether there is a file or a folder of this name; `~blur` is no user's home."""
    try:
        return exists(user_path(target))
    except InputError:
        return False


def _measure_recipe(request: Request, reporter: TerminalReporter, device_name: str | None) -> dict[str, Any]:
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.concentrate import analyze_recipe

    assert request.recipe is not None
    recipe = load_recipe(request.recipe, request.overrides)
    return analyze_recipe(
        recipe, reporter=reporter, device_name=device_name, changes=request.changes, data_root=request.data_root
    )


def _measure_run(path: Path, request: Request, reporter: TerminalReporter, device_name: str | None) -> dict[str, Any]:
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.analyze import analyze

    recipe = None
    if request.overrides:
        file = str(RunDir.open(path).file(RECIPE))
        recipe = load_recipe(file, request.overrides)
        if recipe.fingerprint != load_recipe(file).fingerprint:
            moved = any(text.startswith("data.root=") for text in request.overrides)
            raise InputError(
                f"{' '.join(request.overrides)} would change the encoder of a finished run",
                where=str(path),
                remedy="Where the same images lie elsewhere now, give that folder with --data-root DIR."
                if moved
                else "Override fields of analyze, such as analyze.bootstrap=1000, or pretrain another run.",
            )
    return analyze(
        path,
        reporter=reporter,
        device_name=device_name,
        recipe=recipe,
        changes=request.changes,
        export=request.export,
        again=request.again,
        data_root=request.data_root,
        precision=request.precision,
    )


def _tell_of_damaged_probe(path: Path, reporter: Reporter) -> None:
    """Its accuracies stand beside the terms, if they can be relied on."""
    try:
        RunDir(path).latest_result(PROBE)
    except DamagedError as error:
        reporter.say(f"{error}\nThe report is without its accuracies.")


def _draw(results: Mapping[Path, Mapping[str, Any]], reporter: Reporter) -> RunError | None:
    """Draw the figures of each run; what was measured is worth its report where they cannot be written, too.

    Gives the error for after the report. A folder that may not be written to is none: it is said, and that is all.
    """
    from cssl_cli.report.figures.figures import draw_figures

    failed = None
    for path, result in results.items():
        run = RunDir(path)
        try:
            draw_figures(result, run.read_records(TRACE), run.file(FIGURES))
            reporter.say(f"figures in {shown_path(run.file(FIGURES))}")
        except InputError as error:
            reporter.say(f"no figures were drawn: {error}")
        except RunError as error:
            failed = error
    return failed
