"""`cssl sweep --launcher slurm`: submits, shows, follows or cancels the jobs; prints the table when all is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from cssl_cli.cli.requests import ClusterAction
from cssl_cli.host.progress import MemberProgress, SweepProgress, SweepReporter, TaskProgress, clock
from cssl_cli.report.watch.progress import Follower, RunProgress

if TYPE_CHECKING:
    from cssl_cli.sweep.cluster.settings import Launcher
    from cssl_cli.sweep.cluster.states import MemberState
    from cssl_cli.sweep.request import SweepRequest
    from cssl_cli.sweep.run import MemberResult


def run_on_cluster(
    request: SweepRequest,
    launcher: Launcher,
    action: ClusterAction | Literal["look"],
    as_json: bool,
    finish: Callable[[Sequence[MemberResult]], None],
) -> None:
    """Do that with the sweep's jobs; `finish` writes and prints the table of its results, as after a local sweep."""
    from cssl_cli.cli.live_table import SweepDisplay
    from cssl_cli.report.compare.cluster import show_states
    from cssl_cli.report.compare.extract import take_numbers
    from cssl_cli.sweep.cluster import launch, scheduler
    from cssl_cli.sweep.cluster.following import follow
    from cssl_cli.sweep.run import open_home, rank_augmentations, read_sweep
    from cssl_cli.tracking.mirror import prepare

    if action == "look":
        return show_states(request, launch.observe(request), as_json)
    with SweepDisplay() as reporter:
        states = launch.observe(request)
        sent, complete = None, all(state.state == "done" for state in states)
        if action == "cancel":
            states = _cancel(request, reporter.say)
        elif not complete:
            submits = [state.name for state in states if state.to_submit]
            if submits:  # else it only looks, which is also for those who may not write here
                scheduler.require_slurm()
                open_home(request, reporter, must_write=True)
                request = replace(request, track=prepare(request.track, request.home, reporter.notice))
            if action == "wait":
                states = follow(request, launcher, reporter, MembersAtWork(request, reporter).show, submits)
            elif submits:
                with launch.submitting(request.home):
                    sent = launch.submit_missing(request, launcher, launch.observe(request))
                if sent is not None:
                    reporter.say(launch.told(sent))
                states = launch.observe(request)
                complete = all(state.state == "done" for state in states)
        ends = action == "wait" or (action == "submit" and complete)
        if ends:
            open_home(request, reporter, must_write=False)
            rank_augmentations(replace(request, jobs=1), reporter)
    if not ends:
        return show_states(request, states, as_json, sent.job if sent else None)
    why = {state.name: state.why or state.state for state in states if state.state in ("failed", "stopped")}
    results = read_sweep(request.sweep, request.out, take_numbers)
    return finish([replace(result, error=why.get(result.member.name, result.error)) for result in results])


def _cancel(request: SweepRequest, say: Callable[[str], None]) -> list[MemberState]:
    """Cancel, and return where the members are then."""
    from cssl_cli.sweep.cluster import launch

    cancelled = launch.cancel(request)
    count, names = len(cancelled), {member.name for member in request.members}
    others = sum(state.name not in names for state in cancelled)
    also = f", {others} of them because they share a job with a selected one" if others else ""
    said = f"cancelled {count} member{'s' * (count != 1)}{also}; those that run save first"
    say(said if count else "nothing is at work")
    return launch.observe(request)


class MembersAtWork:
    """Shows how far members are that run elsewhere, by the files of their runs."""

    def __init__(self, request: SweepRequest, display: SweepReporter) -> None:
        from cssl_cli.sweep.run import member_path

        self.display = display
        paths = ((one.name, member_path(request.sweep, one, request.out)) for one in request.members)
        self.runs = {name: Follower(path) for name, path in paths}

    def show(self, states: Sequence[MemberState]) -> None:
        counts = Counter(state.state for state in states)
        self.display.show(
            SweepProgress(
                running=tuple(
                    in_progress(state.name, self.runs[state.name].look())
                    for state in states
                    if state.state == "running"
                ),
                finished=counts["done"],
                failed=counts["failed"] + counts["stopped"],
                waiting=counts["queued"] + counts["new"],
                seconds_left=None,
                stopping=False,
            )
        )


def in_progress(name: str, run: RunProgress) -> MemberProgress:
    """A member as a line of the live table: its epochs so far, and the time that they took."""
    seconds = sum(record["seconds"] for record in run.metrics)
    if run.state != "running":
        return MemberProgress(name, TaskProgress("measure" if run.state == "finished" else "start", 0, 0, ""), seconds)
    left = run.seconds_left
    detail = "" if left is None else f"trained in about {clock(left)}"
    return MemberProgress(name, TaskProgress("pretrain", run.step, run.num_steps or 0, detail), seconds + run.age)
