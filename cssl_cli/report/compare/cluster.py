"""Where the members of a sweep on a cluster are, as `cssl sweep --launcher slurm` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cssl_cli.errors import shown_path
from cssl_cli.report.layout import console, note, plural, print_json, table
from cssl_cli.sweep.cluster.states import MemberState, State
from cssl_cli.sweep.request import SweepRequest


def show_states(
    request: SweepRequest, states: Sequence[MemberState], as_json: bool, submitted: str | None = None
) -> None:
    """Print the state of each member, its job, and why it waits, failed or stopped; then how many there are of each.

    submitted: the job that was submitted just now.
    """
    if as_json:
        return print_json(
            {
                "sweep": request.sweep.name,
                "submitted": submitted,
                "members": [{"name": one.name, "state": one.state, "job": one.job, "why": one.why} for one in states],
            }
        )
    out = console()
    lines = [(one.name, one.state, one.job or "", (one.why or "").replace("\n", ". ")) for one in states]
    grid = table("member", "state", "job", "", text_columns=4)
    for line in lines:
        grid.add_row(*line)
    out.print(grid)
    counts = Counter(one.state for one in states)
    told = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    return note(out, f"{plural(len(lines), 'member')} under {shown_path(Path(request.home))}: {told}")
