"""The command line: registers the commands, one file each, and holds what they have in common.

Turns errors into sentences and exit codes. Commands import slow modules only when they run.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import cssl_cli
from cssl_cli.cli import analyze, cache, doctor, import_, pretrain, probe, rank, recipes, report, sweep, track, watch
from cssl_cli.cli.completion import SCRIPTS
from cssl_cli.cli.guard import exit_code_of
from cssl_cli.cli.options import Quiet
from cssl_cli.cli.quiet import keeping_quiet
from cssl_cli.errors import InputError
from cssl_cli.host.launched import num_processes, require_one_process


class _Guarded(TyperGroup):
    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        sys.exit(exit_code_of(lambda: self._main(*args, **kwargs)))

    def _main(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().main(*args, **kwargs)
        except SystemExit as ended:
            if ended.code == 130:  # what typer makes of a KeyboardInterrupt; the guard knows which signal it was
                raise KeyboardInterrupt from ended
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            Path.cwd()
        except OSError as error:  # otherwise libraries that torch loads would kill the process
            remedy = "Change to another one: cd DIR."
            raise InputError("the current directory does not exist any more", remedy=remedy) from error
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # how pydantic begins what typer asks it
            raise


with suppress(ImportError, AttributeError):  # where typer keeps them elsewhere, its own do, without descriptions
    from typer import _completion_shared

    _completion_shared._completion_scripts.update(SCRIPTS)

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
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (it ends the command when it is read)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Contrastive self-supervised pretraining, its downstream accuracy, and the theory that should explain it.

    Start with: cssl sweep quickstart
    """
    context.with_resource(keeping_quiet(quiet))


def _add(command: Callable[..., None], examples: Sequence[str]) -> None:
    """Register a command; its help ends with the examples."""
    epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
    summary = (command.__doc__ or "").partition(".")[0]
    app.command(name=command.__name__.rstrip("_"), short_help=summary, epilog=epilog)(_with_quiet(command))


def _with_quiet(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the option --quiet, which all of them take. Only some run in several processes."""

    @functools.wraps(command)
    def run(*, quiet: bool, **options: Any) -> None:
        if command not in (pretrain.pretrain, probe.probe, analyze.analyze):
            require_one_process(f"`cssl {command.__name__.rstrip('_')}`")
        elif num_processes() > 1:  # before torch loads: else it says with many lines of C++ that a store is gone
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        with keeping_quiet(quiet):
            command(**options)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return run


_add(pretrain.pretrain, pretrain.EXAMPLES)
_add(probe.probe, probe.EXAMPLES)
_add(analyze.analyze, analyze.EXAMPLES)
_add(import_.import_, import_.EXAMPLES)
_add(sweep.sweep, sweep.EXAMPLES)
_add(report.report, report.EXAMPLES)
_add(rank.rank, rank.EXAMPLES)
_add(watch.watch, watch.EXAMPLES)
_add(track.track, track.EXAMPLES)
_add(recipes.recipes, recipes.EXAMPLES)
_add(cache.cache, cache.EXAMPLES)
_add(doctor.doctor, doctor.EXAMPLES)
