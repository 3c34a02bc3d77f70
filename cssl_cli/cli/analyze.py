"""`cssl analyze`: the theory's terms of runs, or the concentration of a recipe's augmented images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cssl_cli.cli.options import (
    Accuracy,
    DataRoot,
    Device,
    Json,
    Precision,
    read_data_root,
    read_path,
)
from cssl_cli.errors import DamagedError, InputError, RunError, shown_path, unknown_name
from cssl_cli.host.files import exists, is_folder
from cssl_cli.host.paths import is_override, user_path
from cssl_cli.runs.options import require_device_name, require_precision

if TYPE_CHECKING:
    from cssl_cli.host.progress import Reporter
    from cssl_cli.recipe import Recipe
    from cssl_cli.report.compare.catalogue import Column

EXAMPLES = (
    "cssl analyze runs/simclr-shapes-0123456789",
    "cssl analyze runs/simclr-shapes-0123456789 --section certificates --section classes",
    "cssl analyze runs/simclr-cifar10-0123456789 --classes cat,dog,ship --views 4 --images 3000",
    "cssl analyze runs/simclr-shapes-0123456789 --controls",
    "cssl analyze runs/* --no-figures",
    "cssl analyze simclr-cifar10 augment.jitter.strength=1",
)
OF_RECIPES = "concentration"  # the section that a recipe has without a run


@dataclass(frozen=True)
class Targets:
    """Runs to analyze, or a recipe by name or file, and the overrides of what is measured."""

    runs: tuple[Path, ...]
    recipe: str | None
    overrides: tuple[str, ...]

    @classmethod
    def sort(cls, arguments: Sequence[str]) -> Targets:
        """The arguments by what they are; `InputError` where they do not go together."""
        overrides = tuple(argument for argument in arguments if is_override(argument) and not _is_there(argument))
        named = [argument for argument in arguments if argument not in overrides]
        runs = tuple(user_path(argument) for argument in named if _is_run(argument))
        recipes = [argument for argument in named if not _is_run(argument)]
        if not named:
            raise InputError("nothing is named to analyze", remedy="Give run directories, or a recipe.")
        if recipes and (runs or len(recipes) > 1):
            raise InputError(
                f"{' '.join(named)} are not all run directories",
                remedy="Give one or more runs, or a single recipe. Several recipes are compared by: "
                "cssl sweep NAME --concentration-only",
            )
        return cls(runs, recipes[0] if recipes else None, overrides)


@dataclass(frozen=True)
class Request:
    """What to measure of the targets, how, and what to show of it.

    `changes` replace settings of the recipe's analyze block; `data_root` is where the images lie, in place of the
    recipes' data.root. Of three runs it is shown what predicts the `accuracy`.
    """

    targets: Targets
    changes: Mapping[str, Any]
    sections: tuple[str, ...]
    export: Path | None
    figures: bool
    again: bool
    accuracy: Column
    data_root: str | None
    device: str | None
    precision: str


def analyze(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... | RECIPE [KEY=VALUE]...", help="Finished runs, or one recipe to measure untrained."
        ),
    ],
    images: Annotated[int | None, typer.Option(min=2, help="Images to measure on, in place of the recipe's.")] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Views of each, the clean one included.")] = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,...", help="Measure these classes only.")] = None,
    section: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Print a section too; all: every one. May be repeated.")
    ] = None,
    controls: Annotated[
        bool,
        typer.Option("--controls", help="Measure two encoders made without training, too: which terms do they fool?"),
    ] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", parser=read_path, help="Write the features measured on.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures into the run directory.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    accuracy: Accuracy = "linear",
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the theory's terms of finished runs.

    Alignment, divergence, concentration, Lipschitz constants, certificates, the losses' parts and companion measures,
    for encoder, projector and the untrained encoder, with the accuracies of cssl probe beside them. Several runs give
    one table, three or more also which terms predict the accuracy. A recipe in place of a run gives the concentration
    of its augmented images, before any training.
    """
    sorted_targets = Targets.sort(targets)
    require_device_name(device)
    require_precision(precision)
    _require_run(sorted_targets, controls=controls, precision=precision, export=export)
    request = Request(
        sorted_targets,
        _changes(images=images, views=views, classes=classes, controls=controls),
        _read_sections(section or [], sorted_targets),
        export=export,
        figures=figures,
        again=again,
        accuracy=_read_accuracy(accuracy, sorted_targets),
        data_root=read_data_root(data_root),
        device=device,
        precision=precision,
    )
    return _measure_recipe(request, as_json) if sorted_targets.recipe is not None else _measure_runs(request, as_json)


# ---------------------------------------------------------------------- what is asked for
def _is_run(target: str) -> bool:
    """A directory, or what can only be meant as one, so that the complaint is about a missing run."""
    path = user_path(target)
    return is_folder(path) or (len(path.parts) > 1 and path.suffix not in (".yaml", ".yml"))


def _is_there(target: str) -> bool:
    """Whether there is a file or a folder of this name; `~blur` is no user's home."""
    try:
        return exists(user_path(target))
    except InputError:
        return False


def _require_run(targets: Targets, *, controls: bool, precision: str, export: Path | None) -> None:
    """`InputError` where an option needs a run, or a single one, and there is none."""
    if export is not None and len(targets.runs) != 1:
        raise InputError("--export writes the features of one run", remedy="Give one run directory.")
    if targets.recipe is None:
        return
    lacking = None
    if controls:
        lacking = "--controls", "a recipe without a run has no encoder to set beside the controls"
    elif precision != "float32":
        lacking = "--precision", "a recipe without a run has no features that would take long"
    if lacking is not None:
        where, what = lacking
        raise InputError(what, where=where, remedy="Leave it out, or give the directory of a finished run.")


def _changes(*, images: int | None, views: int | None, classes: str | None, controls: bool) -> dict[str, Any]:
    """Settings of the analyze block in place of the recipe's."""
    changes: dict[str, Any] = {"num_images": images, "num_views": views}
    if controls:  # without the option the run's recipe says
        changes["controls"] = True
    if classes is not None:
        changes["classes"] = tuple(name.strip() for name in classes.split(",") if name.strip())
    return {name: value for name, value in changes.items() if value is not None}


def _read_sections(names: Sequence[str], targets: Targets) -> tuple[str, ...]:
    """The sections to print; `InputError` for one that there is not, or not of these targets."""
    from cssl_cli.report.analysis import SECTIONS

    for name in names:
        if name not in (*SECTIONS, "all"):
            raise unknown_name("section", name, (*SECTIONS, "all"), where="--section")
        if targets.recipe is not None and name not in (OF_RECIPES, "all"):
            raise InputError(
                f"a recipe without a run has no {name}, only a concentration",
                where="--section",
                remedy="Leave it out, or give the directory of a finished run.",
            )
        if len(targets.runs) > 1:
            raise InputError(
                "sections are those of one run; several runs give one table",
                where="--section",
                remedy="Leave it out, or give one run directory.",
            )
    return tuple(SECTIONS) if "all" in names else tuple(dict.fromkeys(names))


def _read_accuracy(name: str, targets: Targets) -> Column:
    """The accuracy that is to be predicted; `InputError` where there is nothing to predict it from."""
    from cssl_cli.report.analysis import MIN_RUNS
    from cssl_cli.report.compare.catalogue import LINEAR, accuracy_named

    accuracy = accuracy_named(name)
    if accuracy != LINEAR and len(targets.runs) < MIN_RUNS:
        raise InputError(
            f"rank correlations with the {accuracy.label} take {MIN_RUNS} runs",
            where="--accuracy",
            remedy="Leave it out, or give more run directories.",
        )
    return accuracy


# ---------------------------------------------------------------------- doing it
def _measure_recipe(request: Request, as_json: bool) -> None:
    """The concentration of a recipe's augmented images."""
    from cssl_cli.recipe import load_recipe

    assert request.targets.recipe is not None
    recipe = load_recipe(request.targets.recipe, request.targets.overrides)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.sections.concentration import show_concentration
    from cssl_cli.runs.concentrate import analyze_recipe

    with TerminalReporter() as reporter:
        result = analyze_recipe(
            recipe,
            reporter=reporter,
            device_name=request.device,
            changes=request.changes,
            data_root=request.data_root,
        )
    show_concentration(result, as_json)


def _measure_runs(request: Request, as_json: bool) -> None:
    """The terms of runs, their figures and their report."""
    paths = request.targets.runs
    recipes = {path: _recipe_with(request.targets.overrides, path) for path in paths}
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.analysis import show_analysis, show_runs
    from cssl_cli.runs.analyze import analyze as measure

    with TerminalReporter() as reporter:
        results = {
            path: measure(
                path,
                reporter=reporter,
                device_name=request.device,
                recipe=recipes[path],
                changes=request.changes,
                export=request.export,
                again=request.again,
                data_root=request.data_root,
                precision=request.precision,
            )
            for path in paths
        }
        for path in paths:
            tell_of_damaged_probe(path, reporter)
        failed = _draw(results, reporter) if request.figures else None
    if len(results) > 1:
        show_runs(results, as_json, accuracy=request.accuracy)
    else:
        ((path, result),) = results.items()
        show_analysis(path, result, request.sections, as_json)
    if failed is not None:
        raise failed


def _recipe_with(overrides: Sequence[str], path: Path) -> Recipe | None:
    """The run's recipe with other settings of its measurement; None without any."""
    if not overrides:
        return None
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.run_dir import RECIPE, RunDir

    file = str(RunDir.open(path).file(RECIPE))
    recipe = load_recipe(file, overrides)
    if recipe.fingerprint != load_recipe(file).fingerprint:
        moved = any(text.startswith("data.root=") for text in overrides)
        raise InputError(
            f"{' '.join(overrides)} would change the encoder of a finished run",
            where=str(path),
            remedy="Where the same images lie elsewhere now, give that folder with --data-root DIR."
            if moved
            else "Override fields of analyze, such as analyze.bootstrap=1000, or pretrain another run.",
        )
    return recipe


def tell_of_damaged_probe(path: Path, reporter: Reporter) -> None:
    """Its accuracies stand beside the terms, if they can be relied on."""
    from cssl_cli.runs.run_dir import PROBE, RunDir

    try:
        RunDir(path).latest_result(PROBE)
    except DamagedError as error:
        reporter.say(f"{error}\nThe report is without its accuracies.")


def _draw(results: Mapping[Path, Mapping[str, Any]], reporter: Reporter) -> RunError | None:
    """Draw the figures of each run; what was measured is worth its report where they cannot be written, too.

    Gives the error for after the report. A folder that may not be written to is none: it is said, and that is all.
    """
    from cssl_cli.report.figures.figures import draw_figures
    from cssl_cli.runs.run_dir import FIGURES, TRACE, RunDir

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
