"""The commands. Errors become sentences and exit codes here; everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

import cssl_cli
from cssl_cli.cli.guard import exit_code_of
from cssl_cli.errors import CsslError, InputError, shown_path
from cssl_cli.host.paths import user_path
from cssl_cli.host.streams import print_error

if TYPE_CHECKING:
    from cssl_cli.recipe import Recipe
    from cssl_cli.sweep.run import MemberResult
    from cssl_cli.sweep.sweep import Member

P = ParamSpec("P")
R = TypeVar("R")


class _Guarded(TyperGroup):
    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        sys.exit(exit_code_of(lambda: self._main(*args, **kwargs)))

    def _main(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().main(*args, **kwargs)
        except SystemExit as ended:
            if ended.code == 130:  # what typer makes of a KeyboardInterrupt; the guard knows of which signal
                raise KeyboardInterrupt from ended
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            Path.cwd()
        except OSError as error:  # libraries that torch loads would end the process
            remedy = "Change to another one: cd DIR."
            raise InputError("the current directory does not exist any more", remedy=remedy) from error
        return super().invoke(ctx)


app = typer.Typer(
    cls=_Guarded,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cssl {cssl_cli.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Contrastive self-supervised pretraining, its downstream accuracy, and the theory that should explain it.

    Start with: cssl sweep quickstart
    """


def _path(text: str) -> Path:
    """The value of an argument or an option that is a path."""
    try:
        return user_path(text)
    except InputError as error:
        raise typer.BadParameter(error.what) from error


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that ships, by name, or a path to one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides such as train.epochs=10; ~augment.blur takes a block out."),
]
Targets = Annotated[
    list[str],
    typer.Argument(metavar="RUN... | RECIPE [KEY=VALUE]...", help="Finished runs, or one recipe to measure untrained."),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", parser=_path, help="The directory of a finished run.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", parser=_path, help="Where run directories go.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; the best there is by default.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Of the features: float32, or bfloat16 or tf32, and what error that makes is told."
    ),
]
DataRoot = Annotated[
    str | None,
    typer.Option("--data-root", metavar="DIR", help="Where the images lie now, if not in the recipe's data.root."),
]
Accuracy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What the rank correlations are with: linear, knn, nearest_center or best_knn; --json has them all.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]


def command(*examples: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as a command: its examples end its help."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
        summary = (function.__doc__ or "").partition(".")[0]
        return app.command(name=function.__name__, short_help=summary, epilog=epilog)(function)

    return register


# ---------------------------------------------------------------------- commands
@command(
    "cssl pretrain simclr-shapes",
    "cssl pretrain simclr-cifar10 train.epochs=100 encoder.width=32",
    "cssl pretrain simclr-folder data.root=path/to/images --dry-run",
    "cssl pretrain simclr-cifar10 --profile",
)
def pretrain(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = Path("runs"),
    device: Device = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what the run directory holds.")] = False,
    dry_run: DryRun = False,
    data_root: DataRoot = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of a step goes, and write a trace; trains nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train an encoder as a recipe says.

    The same command again goes on where a stopped run was.
    """
    from cssl_cli.recipe import load_recipe
    from cssl_cli.report import recipes, run
    from cssl_cli.runs.memory import require_all

    if profile and (dry_run or restart):
        raise InputError(
            f"--profile trains nothing and cannot go with {'--dry-run' if dry_run else '--restart'}",
            where="--profile",
            remedy="Give one of them.",
        )
    resolved = load_recipe(recipe, overrides or [])
    images = _data_root(data_root)
    if dry_run:
        require_all(resolved, device)
        return recipes.show_plan(resolved, out, as_json)
    if profile:
        return _profile(resolved, out, device, images, as_json)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.runs.pretrain import pretrain as train

    with TerminalReporter() as reporter:
        trained = train(resolved, out=out, reporter=reporter, device_name=device, restart=restart, data_root=images)
    return run.show_pretrained(trained, as_json)


def _data_root(path: str | None) -> str | None:
    from cssl_cli.recipe.load import read_folder

    return None if path is None else read_folder(path, "--data-root")


def _profile(resolved: Recipe, out: Path, device: str | None, images: str | None, as_json: bool) -> None:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch loads: its profiler tells of its own start and end
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.profile import show_profile
    from cssl_cli.runs.profile import profile

    with TerminalReporter() as reporter:
        profiled, content = profile(resolved, out=out, reporter=reporter, device_name=device, data_root=images)
    show_profile(profiled, content, as_json)


@command(
    "cssl probe runs/simclr-shapes-0123456789",
    "cssl probe runs/simclr-shapes-0123456789 --json",
    "cssl probe runs/simclr-folder-0123456789 --data-root /scratch/images",
)
def probe(
    run: RunPath,
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a run's encoder.

    Linear, k-NN and nearest-class-centre classifiers on frozen features, beside the untrained encoder and raw pixels.
    """
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.run import show_probe
    from cssl_cli.runs.probe import probe as measure

    with TerminalReporter() as reporter:
        images = _data_root(data_root)
        result = measure(run, reporter=reporter, device_name=device, data_root=images, precision=precision)
    print_json(result) if as_json else show_probe(run, result)


@command(
    "cssl analyze runs/simclr-shapes-0123456789",
    "cssl analyze runs/simclr-shapes-0123456789 --section certificates --section classes",
    "cssl analyze runs/simclr-cifar10-0123456789 --classes cat,dog,ship --views 4 --images 3000",
    "cssl analyze runs/simclr-shapes-0123456789 --controls",
    "cssl analyze runs/* --no-figures",
    "cssl analyze simclr-cifar10 augment.jitter.strength=1",
)
def analyze(
    targets: Targets,
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
        Path | None, typer.Option(metavar="FILE.npz", parser=_path, help="Write the features measured on.")
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
    from cssl_cli.cli.analyze import Request, measure

    request = Request.read(
        targets,
        images=images,
        views=views,
        classes=classes,
        controls=controls,
        sections=section or [],
        export=export,
        again=again,
        data_root=_data_root(data_root),
        precision=precision,
    )
    measure(request, figures=figures, device_name=device, as_json=as_json, accuracy=accuracy)


@command(
    "cssl sweep quickstart",
    "cssl sweep quickstart seeds=3 --out results",
    "cssl sweep my-sweep.yaml train.epochs=50 --dry-run",
    "cssl sweep paper-richness-small --concentration-only",
    "cssl sweep paper-richness-small --only 'simclr-*' --budget 1h30m",
    "cssl sweep paper-richness-small --jobs 2 --retry 2",
    "cssl sweep quickstart --report --sort -linear --versus simclr-full",
)
def sweep(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that ships, by name, or a path to one.")],
    overrides: Overrides = None,
    out: Out = Path("runs"),
    data_root: DataRoot = None,
    device: Device = None,
    concentration_only: Annotated[
        bool,
        typer.Option("--concentration-only", help="Train nothing: measure what the augmentations do to the images."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROW", help="Only these rows; * and ? match. May be repeated.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="ROW", help="Not these rows; * and ? match. May be repeated.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th run from the I-th on: machines share a sweep.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start no member after so long: 30m, 1h30m.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="N members at a time, each in a process of its own."),
    ] = None,
    retry: Annotated[
        int, typer.Option("--retry", min=0, metavar="K", help="Try a member that failed up to K times again.")
    ] = 0,
    max_members: Annotated[
        int | None,
        typer.Option("--max-members", min=1, metavar="N", help="Allow a sweep of up to N members, not 10,000."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing: print the table of what is on disk.")] = False,
    accuracy: Accuracy = "linear",
    versus: Annotated[
        str | None, typer.Option("--versus", metavar="ROW", help="Each row less this one, over the seeds of both.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="NAME", help="Rows by a quantity of table.json; -NAME: the greatest first."),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the accuracy against the terms, beside table.csv.")] = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Run every member of a sweep, print one table, and which terms predict the accuracy.

    Each is pretrained, probed and analysed. Finished members are not repeated, half-finished ones go on.
    """
    from cssl_cli.cli.live_table import SweepDisplay
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.compare.catalogue import accuracy_named
    from cssl_cli.report.compare.extract import take_numbers
    from cssl_cli.report.compare.named_quantities import NAMES
    from cssl_cli.report.compare.sorting import require_order
    from cssl_cli.report.compare.sweep import show_sweep, show_sweep_plan, write_sweep
    from cssl_cli.report.compare.versus import require_row
    from cssl_cli.report.sections.concentration import show_sweep_concentration
    from cssl_cli.sweep.run import concentrate_sweep, read_sweep, require_memory, run_sweep
    from cssl_cli.sweep.selection import parse_duration, select
    from cssl_cli.sweep.sweep import MAX_MEMBERS, load_sweep

    runs_members = budget is not None or jobs is not None or retry > 0
    if sum((concentration_only, report, dry_run)) > 1 or (runs_members and (concentration_only or report)):
        raise InputError(
            "--concentration-only, --report and --dry-run exclude one another, and --budget, --jobs and --retry are "
            "for running",
            remedy="Give one of them.",
        )
    if (versus is not None or sort is not None) and (concentration_only or dry_run):
        raise InputError(
            "--versus and --sort are for the table of results, which --concentration-only and --dry-run do not print",
            remedy="Leave them out.",
        )
    resolved = load_sweep(name, overrides or [], quantities=NAMES, max_members=max_members or MAX_MEMBERS)
    members = select(resolved, only=only or [], skip=skip or [], shard=shard)
    images = _data_root(data_root)
    seconds = None if budget is None else parse_duration(budget)
    compared = accuracy_named(accuracy)
    shown: dict[str, Any] = {"accuracy": compared, "versus": versus, "order": sort}
    if versus is not None:
        require_row(versus, [member.row for member in resolved.members])
    if sort is not None:
        require_order(sort)
    if dry_run:
        require_memory(resolved, members, out, device)
        return show_sweep_plan(resolved, members, out, as_json)
    if report:
        results = read_sweep(resolved, out, take_numbers)
        show_sweep(resolved, results, members, as_json, **shown)
        return _end_of_sweep(results, members, told=not as_json)
    if concentration_only:
        with TerminalReporter() as reporter:
            content = concentrate_sweep(
                resolved, members=members, out=out, reporter=reporter, device_name=device, data_root=images
            )
        return show_sweep_concentration(content, as_json)
    workers = jobs or (1 if retry else None)
    with SweepDisplay() if workers else TerminalReporter() as display:
        results = run_sweep(
            resolved,
            out=out,
            reporter=display,
            device_name=device,
            members=members,
            budget=seconds,
            jobs=workers,
            retries=retry,
            data_root=images,
            take=take_numbers,
        )
    written = write_sweep(resolved, results, out, accuracy=compared, figures=figures)
    show_sweep(resolved, results, members, as_json, written.sentence, **shown)
    return _end_of_sweep(results, members, told=not as_json, failed=written.failed)


def _end_of_sweep(
    results: Sequence[MemberResult], members: Sequence[Member], *, told: bool, failed: CsslError | None = None
) -> None:
    """The exit code once all is printed: 1 where one of the `members` does not count, or writing `failed`.

    told: whether a table was printed, which says why; of JSON, stderr does.
    """
    meant = {member.name for member in members}
    lacking = [result for result in results if result.member.name in meant and (result.error or result.damage)]
    sentences = [] if failed is None else [str(failed)]
    if not told:
        sentences += [f"{result.member.name} failed: {result.error}" for result in lacking if result.error]
        sentences += dict.fromkeys(damage for result in lacking for damage in result.damage)
    for sentence in sentences:
        print_error(sentence)
    if sentences or lacking:
        raise typer.Exit(1)


@command(
    "cssl recipes",
    "cssl recipes simclr-cifar10",
    "cssl recipes simclr-cifar10 --copy",
    "cssl recipes simclr-cifar10 --copy my-recipe.yaml",
    "cssl recipes simclr-shapes --views views.png",
)
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="RECIPE", help="A recipe or sweep to look at.")] = None,
    overrides: Overrides = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write it to a file to edit: NAME.yaml, or the FILE given.")
    ] = False,
    views: Annotated[
        Path | None, typer.Option(metavar="FILE.png", parser=_path, help="Draw images and their views.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """List the recipes that ship, or print, copy or draw one."""
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.recipes import show_recipe, show_recipes

    if name is None:
        if copy or views is not None:
            raise InputError("no recipe is named", remedy="Give a NAME; cssl recipes lists them.")
        return show_recipes(as_json)
    if copy:
        from cssl_cli.recipe.book import copy_recipe

        written = copy_recipe(name, overrides or [])
    elif views is not None:
        from cssl_cli.cli.terminal import TerminalReporter
        from cssl_cli.recipe import load_recipe
        from cssl_cli.runs.contact_sheet import draw_views

        with TerminalReporter() as reporter:
            draw_views(load_recipe(name, overrides or []), views, reporter=reporter, device_name=device)
        written = views
    else:
        return show_recipe(name, overrides or [], as_json)
    return print_json({"path": str(written)}) if as_json else print(shown_path(written))
