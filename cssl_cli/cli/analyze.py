"""`cssl analyze`: the theory's terms of runs, or the concentration of a recipe's augmented images."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cssl_cli.cli.options import (
    Accuracy,
    Correlations,
    DataRoot,
    Device,
    Html,
    Json,
    Precision,
    read_data_root,
    read_path,
)
from cssl_cli.errors import DamagedError, RunError
from cssl_cli.host.launched import require_float32, require_one_process
from cssl_cli.host.progress import Silent, warn
from cssl_cli.runs.options import require_device_name, require_precision

if TYPE_CHECKING:
    from cssl_cli.cli.requests import AnalyzeRequest
    from cssl_cli.host.progress import Reporter
    from cssl_cli.recipe import Recipe
    from cssl_cli.runs.team import Team

EXAMPLES = (
    "cssl analyze runs/simclr-shapes-0123456789",
    "cssl analyze runs/simclr-shapes-0123456789 --section certificates --section classes",
    "cssl analyze runs/simclr-cifar10-0123456789 --classes cat,dog,ship --views 4 --images 3000",
    "cssl analyze runs/simclr-shapes-0123456789 --controls",
    "cssl analyze runs/* --no-figures",
    "cssl analyze features.npz --out measured",
    "cssl analyze ours.npz theirs.npz",
    "cssl analyze simclr-cifar10 augment.jitter.strength=1",
)


def analyze(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... | FEATURES... | RECIPE [KEY=VALUE]...",
            help="Finished runs, files of features (.npz, .safetensors), or one recipe to measure untrained.",
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
    figures: Annotated[bool, typer.Option(help="Draw the figures into the run directory, or into --out.")] = True,
    html: Html = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=read_path, help="Keep what was measured of files of features here."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    accuracy: Accuracy = "linear",
    correlations: Correlations = False,
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the theory's terms of finished runs.

    Alignment, divergence, concentration, Lipschitz constants, certificates, the losses' parts and companion measures,
    for encoder, projector and the untrained encoder, with the accuracies of cssl probe beside them. Several runs give
    one table, three or more also which terms predict the accuracy. Files of features that any encoder gave are measured
    as far as that needs no images; several give one table, too. A recipe in place of a run gives the concentration of
    its augmented images, before any training.
    """
    from cssl_cli.cli import requests

    sorted_targets = requests.Targets.sort(targets)
    require_device_name(device)
    require_precision(precision)
    requests.require_run(sorted_targets, controls=controls, precision=precision, export=export)
    requests.require_out(out, bool(sorted_targets.features))
    request = requests.AnalyzeRequest(
        sorted_targets,
        requests.analyze_changes(images=images, views=views, classes=classes, controls=controls),
        requests.read_sections(section or [], sorted_targets),
        export=export,
        figures=figures,
        html=html,
        out=out,
        again=again,
        accuracy=requests.read_accuracy(accuracy, sorted_targets),
        correlations=correlations,
        data_root=read_data_root(data_root),
        device=device,
        precision=precision,
    )
    if sorted_targets.features or len(sorted_targets.runs) > 1:
        require_one_process("`cssl analyze` of files, or of several runs")
    require_float32(precision)
    if sorted_targets.features:
        from cssl_cli.cli.features import analyze_files, require_as_they_are

        require_as_they_are(sorted_targets.features, data_root=data_root, precision=precision)
        return analyze_files(request, as_json)
    return _measure_recipe(request, as_json) if sorted_targets.recipe is not None else _measure_runs(request, as_json)


def _measure_recipe(request: AnalyzeRequest, as_json: bool) -> None:
    """The concentration of a recipe's augmented images."""
    from cssl_cli.recipe import load_recipe

    assert request.targets.recipe is not None
    recipe = load_recipe(request.targets.recipe, request.targets.overrides)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.sections.concentration import show_concentration
    from cssl_cli.runs.concentrate import analyze_recipe
    from cssl_cli.runs.team import team_of

    with team_of(request.device) as team:
        with TerminalReporter() if team.leads else nullcontext(Silent()) as reporter:
            result = analyze_recipe(
                recipe,
                reporter=reporter,
                device_name=request.device,
                changes=request.changes,
                data_root=request.data_root,
                team=team,
            )
        if team.leads:
            show_concentration(result, as_json)


def _measure_runs(request: AnalyzeRequest, as_json: bool) -> None:
    """The terms of runs, with figures and report."""
    from cssl_cli.runs.overrides import recipe_with

    recipes = {path: recipe_with(request.targets.overrides, path) for path in request.targets.runs}
    from cssl_cli.runs.team import team_of

    with team_of(request.device) as team:
        if team.leads:
            _lead(request, recipes, team, as_json)
        else:
            from cssl_cli.runs.analyze import take_part

            ((path, recipe),) = recipes.items()
            take_part(
                path,
                team=team,
                device_name=request.device,
                changes=request.changes,
                recipe=recipe,
                data_root=request.data_root,
            )


def _lead(request: AnalyzeRequest, recipes: Mapping[Path, Recipe | None], team: Team, as_json: bool) -> None:
    """Measure and print as the one process there is, or as rank 0 of several."""
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.analysis import show_analysis, show_runs
    from cssl_cli.runs.analyze import analyze as measure

    with TerminalReporter() as reporter:
        results = {
            path: measure(
                path,
                reporter=reporter,
                device_name=request.device,
                recipe=recipe,
                changes=request.changes,
                export=request.export,
                again=request.again,
                data_root=request.data_root,
                precision=request.precision,
                team=team,
            )
            for path, recipe in recipes.items()
        }
        for path in recipes:
            tell_of_damaged_probe(path, reporter)
        failed = _draw(results, reporter, figures=request.figures, html=request.html)
    if len(results) > 1:
        show_runs(results, as_json, accuracy=request.accuracy, every=request.correlations)
    else:
        ((path, result),) = results.items()
        show_analysis(path, result, request.sections, as_json)
    if failed is not None:
        raise failed


def tell_of_damaged_probe(path: Path, reporter: Reporter) -> None:
    """Warn about a damaged probe.json: its accuracies would stand beside the terms."""
    from cssl_cli.runs.run_dir import PROBE, RunDir

    try:
        RunDir(path).latest_result(PROBE)
    except DamagedError as error:
        warn(reporter, f"{error}\nThe report is without its accuracies.")


def _draw(
    results: Mapping[Path, Mapping[str, Any]], reporter: Reporter, *, figures: bool, html: bool
) -> RunError | None:
    """Draw the figures of each run, and write its page; see `draw_into`."""
    from cssl_cli.cli.figures import draw_into, write_page_into
    from cssl_cli.runs.run_dir import FIGURES, TRACE, RunDir

    failed = None
    for path, result in results.items():
        run, kept = RunDir(path), dict[str, Any]()
        if figures:
            failed = draw_into(run.file(FIGURES), result, run.read_records(TRACE), reporter, kept) or failed
        if html:
            failed = write_page_into(path, reporter, kept if figures else None) or failed
    return failed
