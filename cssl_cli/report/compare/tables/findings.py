"""What the table of a sweep means, below it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from cssl_cli.report.compare.catalogue import Column
from cssl_cli.report.compare.findings import findings
from cssl_cli.report.compare.rows import Row


def print_findings(out: Console, rows: Sequence[Row], accuracy: Column) -> None:
    """Print the sentences of `findings`; nothing where there are none."""
    if said := findings(rows, accuracy):
        out.print()
        out.print(Text(" ".join(said)))
