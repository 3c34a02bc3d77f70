"""Running several members of a sweep at a time, each in its own process.

Members that share a run go to one worker, one after the other. If a worker is killed or hits an unexpected error, only
the member it was running is lost: another worker takes its place. Members in use by another process, and retries, come
last.
"""

from __future__ import annotations

import selectors
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cssl_cli.errors import Interrupted, escaped_text
from cssl_cli.host.progress import MemberProgress, SweepProgress, SweepReporter, TaskProgress, clock, warn
from cssl_cli.host.signals import ENDING, deferred_signals, is_patient
from cssl_cli.recipe import Recipe
from cssl_cli.sweep.workers.messages import Ended, Notice, Task
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.sweep.workers.process import ENDING_TIME, WorkerProcess, end_in_words, killed_in_words, tail, threads_each

TICK = 0.25  # seconds between checks of signals and the clock
TAIL_LINES = 10  # of a failed member's log
# Exit statuses of workers that were asked to end.
STOPPED = {0: 0} | {-number: number for number in ENDING} | {128 + number: number for number in ENDING}
STARTING = TaskProgress("starting", 0, 0, "")


@dataclass(frozen=True)
class Job:
    """A member to complete: `recipe` is named as its run, `path` is the run directory."""

    name: str
    recipe: Recipe
    path: Path


@dataclass(frozen=True)
class Outcome:
    """How a member ended: complete (no `error`), failed, or `in_use` by another process.

    The `error` says what went wrong, where (if not in the run), and what to do.
    """

    error: str | None = None
    in_use: bool = False


@dataclass(frozen=True)
class PoolSettings:
    """How to run the members: how many `workers`, where logs go, how often to retry a failed member."""

    workers: int
    home: Path
    logs: Path
    device: str | None
    retries: int
    deadline: float
    data_root: str | None = None
    track: Sequence[str] = ()


@dataclass
class _Work:
    """A member being run in a slot."""

    job: Job
    group: deque[Job]
    log: str
    log_start: int
    begun: float
    progress: TaskProgress = STARTING


class Pool:
    """Completes jobs. `outcomes` records how each started job ended; `not_started` counts those left by `deadline`.

    `missing` returns what a member lacks now: another process may have finished it.
    """

    def __init__(
        self, settings: PoolSettings, missing: Callable[[Job], Missing | None], reporter: SweepReporter
    ) -> None:
        self.settings, self.missing, self.reporter = settings, missing, reporter
        self.threads = threads_each(settings.workers)
        self.selector = selectors.DefaultSelector()
        self.processes: dict[int, WorkerProcess] = {}
        self.at_work: dict[int, _Work] = {}
        self.waiting: deque[deque[Job]] = deque()
        self.later: deque[deque[Job]] = deque()
        self.outcomes: dict[str, Outcome] = {}
        self.attempts: dict[str, int] = {}
        self.to_try_again: dict[str, Outcome] = {}
        self.lost: list[str] = []  # failed while all workers were to save
        self.slots = settings.workers
        self.met_in_use: set[str] = set()
        self.durations: list[float] = []
        self.not_started = 0
        self.done_before = self.total = 0
        self.stopping = False

    def run(self, jobs: Sequence[Job], *, done_before: int) -> None:
        """Complete the jobs; `done_before` were already complete.

        On a signal to end, all workers save and end, then `Interrupted` is raised; a second signal kills them. They
        also save after an error in the reporter.
        """
        groups: dict[Path, deque[Job]] = {}
        for job in jobs:
            groups.setdefault(job.path, deque()).append(job)
        self.waiting.extend(groups.values())
        self.slots = min(self.settings.workers, len(groups))
        self.done_before, self.total = done_before, done_before + len(jobs)
        with deferred_signals() as pending:
            try:
                while self._fill() or self.at_work:
                    ready = self.selector.select(TICK)
                    if pending and not self.stopping:  # before a worker that also got the signal reports it
                        self._stop_all()
                    self._listen([key.data for key, _ in ready])
                    self.reporter.show(self._progress())
            except (KeyboardInterrupt, Interrupted):  # a second signal
                for process in self.processes.values():
                    process.process.kill()
                raise
            finally:
                self._end_all()
            if pending:
                saved = f"All but {', '.join(self.lost)} are" if self.lost else "All members are"
                raise Interrupted(
                    pending[0], where=str(self.settings.home), remedy=f"{saved} saved; the same command goes on."
                )

    # ------------------------------------------------------------------ handing out
    def _fill(self) -> bool:
        """Give work to idle workers; returns whether any is left."""
        if self.stopping:
            return False
        for slot in range(self.slots):
            while slot not in self.at_work and (group := self._next_group()) is not None:
                self._begin(slot, group)
        return bool(self.waiting or self.later)

    def _next_group(self) -> deque[Job] | None:
        """Members of one run that nobody here works on; deferred ones come once all others have ended."""
        if not self.waiting and not self.at_work:
            self.waiting, self.later = self.later, deque()
        busy = {work.job.path for work in self.at_work.values()}
        for group in self.waiting:
            if group[0].path not in busy:
                self.waiting.remove(group)
                return group
        return None

    def _begin(self, slot: int, group: deque[Job]) -> None:
        """Start the first member of the group that needs work; the others follow it."""
        while group:
            job = group.popleft()
            if time.monotonic() >= self.settings.deadline:
                if job.name in self.to_try_again:
                    self.outcomes[job.name] = self.to_try_again[job.name]
                else:
                    self.not_started += 1
                continue
            missing = self.missing(job)
            if missing is None:
                self.outcomes[job.name] = Outcome()
                continue
            attempt = self.attempts[job.name] = self.attempts.get(job.name, 0) + 1
            log = str(self.settings.logs / f"{job.name}.log")
            work = _Work(job, group, log, _size(log), time.monotonic())
            self.at_work[slot] = work
            task = Task(
                recipe=job.recipe.model_dump(mode="json", by_alias=True),
                home=str(self.settings.home),
                log=str(log),
                device=self.settings.device,
                slot=slot,
                probe=missing.probe,
                analysis=missing.analysis,
                heading=f"{job.name}: attempt {attempt}",
                data_root=self.settings.data_root,
                until=missing.until,
                track=list(self.settings.track),
            )
            try:
                self._hand_out(slot, task)
            except OSError as error:
                self._settle(slot, Ended(error=f"no process can be started for it: {error.strerror or error}"))
            return

    def _hand_out(self, slot: int, task: Task) -> None:
        if slot in self.processes and not self.processes[slot].is_alive():  # it died while idle
            self._remove(slot)
        if slot in self.processes:
            self.processes[slot].send(task)
            return
        process = self.processes[slot] = WorkerProcess(task, threads=self.threads)
        self.selector.register(process.events, selectors.EVENT_READ, slot)

    # ------------------------------------------------------------------ listening
    def _listen(self, slots: Sequence[int]) -> None:
        """Handle the messages of the workers in these slots."""
        for slot in slots:
            messages = self.processes[slot].messages()
            if messages is None:
                status = self._remove(slot)
                if slot in self.at_work:
                    stopped = STOPPED.get(status) if self.stopping else None
                    self._settle(slot, Ended(error=end_in_words(status), stopped=stopped))
                continue
            for message in messages:
                if isinstance(message, TaskProgress):
                    self._note_progress(slot, message)
                elif isinstance(message, Notice):
                    self.reporter.notice(message.text)
                elif isinstance(message, Ended):
                    if message.retire:
                        self._remove(slot)
                    self._settle(slot, message)

    def _note_progress(self, slot: int, progress: TaskProgress) -> None:
        work = self.at_work[slot]
        same = progress.name == work.progress.name
        work.progress = replace(progress, detail=progress.detail or (work.progress.detail if same else ""))

    def _remove(self, slot: int) -> int:
        """Wait for an ending worker; returns its exit status."""
        process = self.processes.pop(slot)
        self.selector.unregister(process.events)
        return process.end(ENDING_TIME)

    def _settle(self, slot: int, ended: Ended) -> None:
        """Record how the slot's member ended, and leave the others of its run to the next free worker."""
        work = self.at_work.pop(slot)
        if work.group:
            self.waiting.appendleft(work.group)
        job, attempt = work.job, self.attempts[work.job.name]
        seconds = time.monotonic() - work.begun
        if self.stopping:  # however far it got, the same command resumes there
            if ended.error is not None and ended.stopped is None and not ended.in_use:
                self.lost.append(job.name)
                self._say_failed(work, f"{job.name} failed: {ended.error}")
            return
        if ended.error is None:
            self.durations.append(seconds)
            self.outcomes[job.name] = Outcome()
            self.reporter.say(f"[{self._settled()}/{self.total}] {job.name}: done in {clock(seconds)}")
        elif ended.in_use and job.name not in self.met_in_use:
            self.met_in_use.add(job.name)
            self.attempts[job.name] -= 1
            self.later.append(deque([job]))
        elif ended.in_use:
            self.outcomes[job.name] = Outcome(in_use=True)
        else:
            self._fail(work, ended, attempt)

    def _fail(self, work: _Work, ended: Ended, attempt: int) -> None:
        what = (ended.error or "it failed") if ended.stopped is None else killed_in_words(ended.stopped)
        again = attempt <= self.settings.retries and not ended.hopeless
        if again:
            self.later.append(deque([work.job]))
            self.to_try_again[work.job.name] = Outcome(error=what)
            later = f"; attempt {attempt} of {self.settings.retries + 1}, tried again later"
            head = f"{work.job.name}: {_with_note(what, later)}"
        else:
            what = _with_note(what, f" (tried {attempt} times)") if attempt > 1 else what
            self.outcomes[work.job.name] = Outcome(error=what)
            head = f"[{self._settled()}/{self.total}] {work.job.name} failed: {what}"
        self._say_failed(work, head)

    def _say_failed(self, work: _Work, head: str) -> None:
        """Report the failure, with the end of the member's log unless it repeats the message."""
        told = escaped_text(head).splitlines()
        lines = tail(work.log, work.log_start, TAIL_LINES + len(told))
        lines = [line for line in lines if not any(_repeats(line, said) for said in told)]
        end_of_log = [f"    {line}" for line in lines[-TAIL_LINES:]]
        warn(self.reporter, "\n".join([head, *([f"  the end of {work.log}:", *end_of_log] if end_of_log else [])]))

    def _settled(self) -> int:
        return self.done_before + len(self.outcomes)

    # ------------------------------------------------------------------ ending
    def _stop_all(self) -> None:
        self.stopping = True
        count = len(self.at_work)
        hurry = "" if is_patient() else "; a second signal ends at once"
        self.reporter.say(
            f"stopping: {count} member{'s' * (count != 1)} at work save{'s' * (count == 1)} what is done{hurry}"
        )
        for process in self.processes.values():
            process.stop()

    def _end_all(self) -> None:
        """End the workers; after an error here, busy ones get a moment to save."""
        for process in self.processes.values():
            process.stop()
        for process in self.processes.values():
            process.end(ENDING_TIME)
        self.selector.close()

    # ------------------------------------------------------------------ telling
    def _progress(self) -> SweepProgress:
        now = time.monotonic()
        running = tuple(
            MemberProgress(work.job.name, work.progress, now - work.begun) for _, work in sorted(self.at_work.items())
        )
        failed = sum(outcome.error is not None for outcome in self.outcomes.values())
        in_use = sum(outcome.in_use for outcome in self.outcomes.values())
        waiting = sum(len(group) for group in (*self.waiting, *self.later, *(w.group for w in self.at_work.values())))
        return SweepProgress(
            running=running,
            finished=self._settled() - failed - in_use,
            failed=failed,
            waiting=waiting,
            seconds_left=self._seconds_left(running, waiting),
            stopping=self.stopping,
        )

    def _seconds_left(self, running: Sequence[MemberProgress], waiting: int) -> float | None:
        """Estimated from the mean time of the completed members."""
        if not self.durations:
            return None
        mean = statistics.fmean(self.durations)
        work = mean * waiting + sum(max(mean - member.seconds, 0.0) for member in running)
        if work == 0 and running:  # all of them take longer than the completed ones
            return None
        return work / max(min(self.settings.workers, waiting + len(running)), 1)


def _with_note(what: str, note: str) -> str:
    """The text with the note after its first line, which says what went wrong."""
    first, line_break, rest = what.partition("\n")
    return f"{first}{note}{line_break}{rest}"


def _repeats(line: str, said: str) -> bool:
    """Whether a line of a log only repeats `said`."""
    of_failure = line.partition(" failed: ")[2]
    return line == said or (of_failure != "" and of_failure in said)


def _size(log: str) -> int:
    try:
        return Path(log).stat().st_size
    except OSError:
        return 0
