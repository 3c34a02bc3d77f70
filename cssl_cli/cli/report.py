"""`cssl report`: all that is known of runs or of a sweep as one file to send."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cssl_cli.cli.options import Accuracy, Json, read_path
from cssl_cli.errors import InputError
from cssl_cli.host.paths import is_override

if TYPE_CHECKING:
    from cssl_cli.report.document.target import Asked

EXAMPLES = (
    "cssl report runs/simclr-shapes-0123456789",
    "cssl report quickstart",
    "cssl report my-sweep.yaml seeds=3 --runs results --format latex",
    "cssl report runs/simclr-* --out compared.html",
    "cssl report runs/quickstart --format csv --out quickstart.csv",
)


class Format(StrEnum):
    """What a report is written as."""

    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"


def report(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... | SWEEP [KEY=VALUE]...",
            help="Run directories, or a sweep: its name, its file, or the folder of its runs.",
        ),
    ],
    form: Annotated[
        Format, typer.Option("--format", help="A page of HTML, or the main table for a paper or a spreadsheet.")
    ] = Format.html,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=read_path,
            help="Where to write; by default a page beside the results, a table on standard output.",
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", metavar="DIR", parser=read_path, help="Where the runs of a named sweep are.")
    ] = Path("runs"),
    accuracy: Accuracy = "linear",
    as_json: Json = False,
) -> None:
    """Write all that is known of a run or a sweep as one file to send.

    A page of HTML without scripts that needs nothing else: tables to sort, figures, verdicts, recipes, environments and
    the commands that repeat it. Or its main table as Markdown, CSV or LaTeX. Measures nothing, and every number is that
    of --json.
    """
    from cssl_cli.report.compare.catalogue import accuracy_named
    from cssl_cli.report.document.target import documented

    predicted = accuracy_named(accuracy)
    overrides = [text for text in targets if is_override(text) and not Path(text).exists()]
    named = [text for text in targets if text not in overrides]
    asked = documented(named, overrides=overrides, runs=runs, accuracy=predicted)
    file, text = _written(asked, form, out)
    if as_json:
        from cssl_cli.report.layout import print_json

        content = {"of": asked.kind, "format": form.value, "file": None if file is None else str(file)}
        return print_json(content if text is None else {**content, "text": text})
    if text is not None:
        return print(text, end="")
    from cssl_cli.errors import shown_path

    assert file is not None
    return print(shown_path(file))


def _written(asked: Asked, form: Format, out: Path | None) -> tuple[Path | None, str | None]:
    """The file that was written, or else the text to print."""
    from cssl_cli.report.document.writing import PAGE, in_format, write_page, write_text

    if form is Format.html and out is None:
        if asked.folder is None:
            raise InputError("several runs have no folder of their own", where="--out", remedy="Give --out FILE.html.")
        write_page(asked.document, asked.folder / PAGE, "Give another place with --out FILE.")
        return asked.folder / PAGE, None
    text = in_format(asked.document, form.value)
    if out is None:
        return None, text
    write_text(text, out)
    return out, None
