"""Figures beside a report: what goes wrong with them does not cost the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import InputError, RunError, shown_path
from cssl_cli.host.progress import warn

if TYPE_CHECKING:
    from cssl_cli.host.progress import Reporter


def draw_into(
    folder: Path, result: Mapping[str, Any], trace: Sequence[Mapping[str, Any]], reporter: Reporter
) -> RunError | None:
    """Draw the figures of an analysis and of its `trace` through training.

    Returns a write error instead of raising it, so that the report is still printed. A folder that cannot be written to
    is no error: a notice says so.
    """
    from cssl_cli.report.figures.figures import draw_figures

    try:
        draw_figures(result, trace, folder)
        reporter.say(f"figures in {shown_path(folder)}")
    except InputError as error:
        warn(reporter, f"no figures were drawn: {error}")
    except RunError as error:
        return error
    return None
