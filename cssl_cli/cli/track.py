"""`cssl track`: runs that are on disk, mirrored in a tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import Json, read_path
from cssl_cli.errors import CsslError, InputError, InUseError, shown_path
from cssl_cli.host.streams import print_error

EXAMPLES = (
    "cssl track runs/simclr-shapes-0123456789 --to tensorboard",
    "cssl track runs/quickstart --to mlflow --into http://localhost:5000",
)


def track(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, or folders of a sweep.", parser=read_path)
    ],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="tensorboard, wandb, mlflow or trackio.")],
    into: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Another folder than the default; of mlflow a tracking URI."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Mirror runs in a tracker: the records of their training, their accuracies and terms.

    What the tracker holds of a run is replaced, so that each step is there once.
    """
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.layout import print_json
    from cssl_cli.runs.run_dir import runs_in
    from cssl_cli.tracking.mirror import replay, require_trackers

    require_trackers([to], "--to")
    if into is not None and to != "mlflow":
        into = str(read_path(into))
    found = [run for path in runs for run in runs_in(path)]
    done: list[Path] = []
    errors: list[CsslError] = []
    with TerminalReporter() as reporter:
        for number, run in enumerate(found):
            try:
                if run.in_use():
                    raise InUseError(
                        "a process works on the run, and may mirror it itself",
                        where=str(run.path),
                        remedy="Wait for its end.",
                    )
                replay(run, to, into, reporter.notice)
                done.append(run.path)
            except CsslError as error:
                errors.append(error)
                if not isinstance(error, InputError):  # the tracker's, which the next run would meet again
                    break
            reporter.advance("track", number + 1, len(found))
    if as_json:
        print_json({"tracker": to, "runs": [str(path) for path in done], "errors": [str(failed) for failed in errors]})
    else:
        for path in done:
            print(f"{to}: {shown_path(path)}")
    for failed in errors:
        print_error(str(failed))
    if errors:
        raise typer.Exit(errors[0].exit_code)
