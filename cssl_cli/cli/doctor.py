"""`cssl doctor`: what this machine has for our commands, and what is wrong with any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import Json, Out, Overrides
from cssl_cli.errors import InputError

EXAMPLES = (
    "cssl doctor",
    "cssl doctor --json",
    "cssl doctor --compile",
    "cssl doctor --data simclr-folder data.root=path/to/images",
)


def doctor(
    overrides: Overrides = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="RECIPE", help="Look at this recipe's images, too.")
    ] = None,
    compile_too: Annotated[
        bool, typer.Option("--compile", help="Try torch.compile, too, which may take a minute.")
    ] = False,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Say what this machine has for our commands, and what is wrong with any of it.

    Versions, processor and threads, memory, disk, locks, cache, compiler, device and precision, and rates measured in a
    few seconds. The exit code is 1 if something fails that commands need; a warning says what could be better.
    """
    if overrides and data is None:
        what = f"{' '.join(overrides)} would change a recipe, and none is named"
        raise InputError(what, remedy="Name it: cssl doctor --data RECIPE KEY=VALUE")
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.doctor import show_findings
    from cssl_cli.runs.doctor.examination import examine

    with TerminalReporter() as reporter:
        number = 0

        def begins(name: str) -> None:
            nonlocal number
            reporter.advance("doctor", number, 7, name)
            number += 1

        given = [] if data is None else [data, *(overrides or [])]
        findings = list(examine(out, data=given, compile_too=compile_too, begins=begins))
    show_findings(findings, as_json)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)
