"""Figures and pages beside a report: what goes wrong with them does not cost the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import InputError, RunError, shown_path
from cssl_cli.host.progress import warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cssl_cli.host.progress import Reporter


def draw_into(
    folder: Path,
    result: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
    reporter: Reporter,
    kept: dict[str, Figure] | None = None,
) -> RunError | None:
    """Draw the figures of an analysis and of its `trace` through training; those drawn go into `kept`, too.

    Returns a write error instead of raising it, so that the report is still printed. A folder that cannot be written to
    is no error: a notice says so.
    """
    from cssl_cli.report.figures.figures import draw_figures

    try:
        draw_figures(result, trace, folder, kept=kept)
        reporter.say(f"figures in {shown_path(folder)}")
    except InputError as error:
        warn(reporter, f"no figures were drawn: {error}")
    except RunError as error:
        return error
    return None


def write_page_into(folder: Path, reporter: Reporter, kept: Mapping[str, Figure] | None) -> RunError | None:
    """Write report.html of what a folder holds of a run, or of a file of features; errors as those of `draw_into`.

    kept: figures that are drawn already; None for a page without any.
    """
    from cssl_cli.report.document.target import document_in
    from cssl_cli.report.document.writing import PAGE, attempt

    error = attempt(lambda: document_in(folder, kept), folder / PAGE)
    if isinstance(error, RunError):
        return error
    reporter.say(f"report in {shown_path(folder / PAGE)}" if error is None else f"no page was written: {error}")
    return None
