"""What `cssl doctor` found, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.text import Text

from cssl_cli.errors import escaped
from cssl_cli.report.layout import console, plural, print_json, table
from cssl_cli.runs.doctor.findings import Finding

_STYLES = {"ok": "", "warning": "yellow", "failed": "bold red"}


def show_findings(findings: Sequence[Finding], as_json: bool) -> None:
    """Print every finding, with the remedy of what is not as it should be."""
    failed, warned = ([one for one in findings if one.state == state] for state in ("failed", "warning"))
    if as_json:
        content = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        return print_json(content)
    out = console()
    grid = table("", "", "", text_columns=3)
    grid.show_header = False
    for finding in findings:
        said = escaped(finding.says) + (f"\n→ {escaped(finding.remedy)}" if finding.remedy else "")
        state = "" if finding.state == "ok" else finding.state
        grid.add_row(finding.check, Text(state, style=_STYLES[finding.state]), Text(said))
    out.print(grid)
    out.print()
    counts = [f"{len(failed)} failed"] * bool(failed) + [plural(len(warned), "warning")] * bool(warned)
    out.print(", ".join(counts) or "Nothing is wrong.")
    return None
