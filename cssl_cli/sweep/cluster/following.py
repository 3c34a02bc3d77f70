"""`--wait`: what is missing is submitted once, and all members are followed until none is queued or running."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from time import monotonic, sleep

from cssl_cli.errors import Interrupted, InUseError
from cssl_cli.host.progress import Reporter
from cssl_cli.host.signals import Stopped
from cssl_cli.sweep.cluster.launch import observe, submit_missing, submitting, told
from cssl_cli.sweep.cluster.records import read_submissions
from cssl_cli.sweep.cluster.scheduler import NoAnswer
from cssl_cli.sweep.cluster.settings import Launcher
from cssl_cli.sweep.cluster.states import MemberState
from cssl_cli.sweep.request import SweepRequest

SHORTEST, LONGEST = 2.0, 30.0  # seconds between two looks at the queue; longer ones while nothing changes
TICK = 1.0  # seconds between two looks at the files of what runs
PATIENCE = 3600.0  # seconds for which SLURM may give no answer, as while its controller starts anew


def follow(
    request: SweepRequest,
    launcher: Launcher,
    reporter: Reporter,
    show: Callable[[Sequence[MemberState]], None],
    to_submit: Collection[str],
) -> list[MemberState]:
    """Submit these members and wait until none is queued or running; tells of each change.

    show: is given the latest states about once a second. A member that fails or is cancelled meanwhile is not submitted
    again. `NoAnswer` if SLURM gives none at first, or for an hour. `Interrupted` after a signal, which ends no job.
    """
    following = _Following(request, launcher, reporter, to_submit)
    pause, answered, silent = SHORTEST, monotonic(), False
    try:
        while True:
            began, changed = monotonic(), False
            try:
                changed = following.look()
            except NoAnswer as error:
                if not following.states or monotonic() - answered > PATIENCE:
                    raise
                if not silent:
                    reporter.say(f"{error.what}; tried again for an hour")
                silent = True
            else:
                answered, silent = monotonic(), False
                if following.ended:
                    return list(following.states.values())
            pause = SHORTEST if changed else min(1.5 * pause, LONGEST)
            took = monotonic() - began  # seconds with ten thousand members
            _wait(max(pause, 3 * took), lambda: show(list(following.states.values())))
    except Stopped as stopped:
        raise Interrupted(
            stopped.number,
            where=str(request.home),
            remedy="The jobs go on. The same command follows them; with --cancel in place of --wait it ends them.",
        ) from None


class _Following:
    """The members as they were at the last look, by name, and the names of those that are still to be submitted."""

    def __init__(
        self, request: SweepRequest, launcher: Launcher, reporter: Reporter, to_submit: Collection[str]
    ) -> None:
        self.request, self.launcher, self.reporter = request, launcher, reporter
        self.states: dict[str, MemberState] = {}
        self.to_submit, self.submitted = set(to_submit), False
        self.known = {submission.name for submission in read_submissions(request.home)}

    @property
    def ended(self) -> bool:
        return not self.to_submit and not any(state.at_work for state in self.states.values())

    def look(self) -> bool:
        """Look, and submit what is to be submitted; returns whether something changed."""
        now = observe(self.request)
        self.to_submit.difference_update(state.name for state in now if state.at_work)
        # What an array cannot hold comes after it.
        if self.to_submit and not (self.submitted and any(state.at_work for state in now)):
            self._submit()
            now = observe(self.request)
        changed = [state for state in now if not _same(self.states.get(state.name), state)]
        done = sum(state.state == "done" for state in now)
        for state in changed if self.states else ():
            self.reporter.say(f"[{done}/{len(now)}] {state.name}: {in_words(state)}")
        self.states = {state.name: state for state in now}
        return bool(changed)

    def _submit(self) -> None:
        try:
            with submitting(self.request.home):
                # What another command submitted since the beginning counts as submitted, also if it has failed by now.
                for submission in read_submissions(self.request.home):
                    if submission.name not in self.known:
                        self.to_submit.difference_update(*submission.jobs)
                still = [state for state in observe(self.request) if state.name in self.to_submit]
                sent = submit_missing(self.request, self.launcher, still)
        except InUseError as error:
            self.reporter.notice(f"{error.what}; waiting for it")
            return
        self.submitted = True
        if sent is None or not sent.left:
            self.to_submit.clear()
        if sent is not None:
            self.to_submit.difference_update(sent.members)
            self.reporter.say(told(sent))


def _wait(seconds: float, meanwhile: Callable[[], None]) -> None:
    ends = monotonic() + seconds
    while (left := ends - monotonic()) > 0:
        meanwhile()
        sleep(min(left, TICK))


def _same(before: MemberState | None, now: MemberState) -> bool:
    return before is not None and (before.state, before.job) == (now.state, now.job)


def in_words(state: MemberState) -> str:
    """The state of a member in one line."""
    parts = [state.state if state.job is None else f"{state.state} ({state.job})", (state.why or "").partition("\n")[0]]
    return ": ".join(filter(None, parts))
