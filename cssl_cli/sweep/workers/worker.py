"""A worker: the process that runs members of a sweep, one after another.

It reads tasks from stdin and writes progress and results to its original stdout. Anything that it or a library prints
goes to the member's log. The end of stdin means that the sweep has stopped or died: the current member saves its state
and the worker ends.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cssl_cli.errors import CsslError, InputError, Interrupted, InUseError, escaped_text
from cssl_cli.host.progress import TaskProgress
from cssl_cli.host.signals import ENDING, Stopped, end_on_signals
from cssl_cli.host.streams import use_standard_streams
from cssl_cli.recipe import Recipe
from cssl_cli.sweep.ranking import HowToRank, SetToRank, rank_sets
from cssl_cli.sweep.workers.messages import THREADS, Ended, Lines, Message, Notice, RankTask, Task, decode, encode
from cssl_cli.sweep.workers.missing import Missing
from cssl_cli.sweep.workers.process import open_log
from cssl_cli.sweep.workers.stages import Failure, UnexpectedError, Workshop

SAVING_TIME = 300.0  # seconds that a worker may take to save and end
LINE_INTERVAL = 5.0  # seconds between lines of one task in the log
EVENT_INTERVAL = 0.2  # seconds between progress messages of one task
# These go to the whole process group but are meant for the sweep, which stops its workers itself.
NOT_FOR_WORKERS = tuple(number for number in ENDING if number != signal.SIGTERM)
OOM_PREFERENCE = 300  # when memory runs out, the kernel should kill a member rather than the sweep


def main() -> None:
    with suppress(Stopped):
        end_on_signals(ignored=NOT_FOR_WORKERS, patient=True)  # the sweep passes on what it gets, and kills
        use_standard_streams(expendable=True)
        _offer_to_die_first()
        faulthandler.enable(2)
        events = os.dup(1)
        os.dup2(2, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _Worker(events).work(_listen())
    sys.stdout.flush()
    os._exit(0)  # everything is sent and on disk; a clean exit of Python and torch takes a while


def _offer_to_die_first() -> None:
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_PREFERENCE), encoding="ascii")


def _listen() -> queue.SimpleQueue[Task | RankTask | None]:
    """A queue of the incoming tasks; None at the end, which also stops the current member."""
    tasks: queue.SimpleQueue[Task | RankTask | None] = queue.SimpleQueue()

    def listen() -> None:
        lines = Lines()
        try:
            while data := os.read(0, 1 << 16):
                for line in lines.feed(data):
                    message = decode(line)
                    assert isinstance(message, Task | RankTask)
                    tasks.put(message)
        finally:
            tasks.put(None)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SAVING_TIME)
            os._exit(1)  # files appear whole or not at all, so nothing is damaged

    threading.Thread(target=listen, daemon=True).start()
    return tasks


class _Worker:
    def __init__(self, events: int) -> None:
        self.events = events
        self.workshop: Workshop | None = None

    def work(self, tasks: queue.SimpleQueue[Task | RankTask | None]) -> None:
        while (task := tasks.get()) is not None:
            _redirect_output(task.log)
            ended = self.complete(task)
            self.send(ended)
            if ended.retire:
                return

    def complete(self, task: Task | RankTask) -> Ended:
        reporter = _LogReporter(self.send)
        threads = f"{THREADS}={os.environ.get(THREADS)}"
        reporter.say(f"{task.heading} (process {os.getpid()} on {socket.gethostname()}, {threads})")
        try:
            workshop = self.workshop = self.workshop or _open_workshop(task)
            workshop.reporter = reporter
            failure = None
            if isinstance(task, RankTask):
                _rank(task, workshop)
            else:
                recipe = Recipe.model_validate(task.recipe)
                failure = workshop.complete(recipe, Missing(task.probe, task.analysis, task.until))
        except Interrupted as interrupted:
            reporter.say(str(interrupted))
            return Ended(error="interrupted", stopped=interrupted.exit_code - 128, retire=True)
        except Stopped as stopped:
            reporter.say("interrupted")
            return Ended(error="interrupted", stopped=stopped.number, retire=True)
        except CsslError as error:  # before its stages: the device is unusable
            failure = Failure(error, str(error))
        return _ended(failure)

    def send(self, message: Message) -> None:
        with suppress(OSError):  # a dead sweep does not read; the end of stdin reports it
            os.write(self.events, encode(message))


def _rank(task: RankTask, workshop: Workshop) -> None:
    sets = [SetToRank(Recipe.model_validate(recipe), tuple(rows)) for recipe, rows in task.sets]
    rank_sets(workshop.home, sets, HowToRank(task.num_images, task.seed), workshop)


def _ended(failure: Failure | None) -> Ended:
    if failure is None:
        return Ended()
    return Ended(
        error=failure.sentence,
        in_use=isinstance(failure.error, InUseError),
        hopeless=isinstance(failure.error, InputError),
        retire=isinstance(failure.error, UnexpectedError),
    )


def _open_workshop(task: Task | RankTask) -> Workshop:
    device = task.device
    if device in (None, "cuda"):
        import torch

        if torch.cuda.is_available():
            index = task.slot % torch.cuda.device_count()
            torch.cuda.set_device(index)
            device = f"cuda:{index}"
    track = task.track if isinstance(task, Task) else ()
    return Workshop(Path(task.home), _LogReporter(lambda _: None), device, task.data_root, track)


def _redirect_output(log: str) -> None:
    """Append stdout and stderr, also of libraries, to the file `log`, or discard them if it cannot be opened."""
    handle = open_log(log)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


class _LogReporter:
    """Logs sentences and, every few seconds, the state of a task.

    Notices and task states also go to the sweep.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send
        self.sent: dict[str, float] = {}
        self.logged: dict[str, float] = {}

    def say(self, message: str) -> None:
        with suppress(OSError):  # a full disk must not cost the member its state
            os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {escaped_text(message)}\n".encode())

    def notice(self, message: str) -> None:
        self.say(message)
        self.send(Notice(message))

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        now, ended = time.monotonic(), done >= total
        if ended or detail or now - self.sent.get(task, 0.0) >= EVENT_INTERVAL:
            self.send(TaskProgress(task, done, total, detail))
            self.sent[task] = now
        if (ended or detail) and now - self.logged.setdefault(task, now) >= (
            0.0 if ended and detail else LINE_INTERVAL
        ):
            self.say(f"{task}: {done / max(total, 1):4.0%}  {detail}".rstrip())
            self.logged[task] = now
        if ended:
            del self.logged[task]
