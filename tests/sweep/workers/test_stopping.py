"""Signals to a sweep whose members are at work: they save, and a second signal kills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from cssl_cli.errors import Interrupted
from cssl_cli.host.progress import SweepProgress
from tests.support.pool_bench import Bench, Listener


def test_a_signal_lets_all_members_save_and_ends_the_pool(bench: Bench) -> None:
    listener = Listener()

    def interrupt(progress: SweepProgress) -> None:
        if not progress.stopping and sum(member.task.name == "pretrain" for member in progress.running) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    listener.react = interrupt
    pool = bench.pool(2, listener)
    with pytest.raises(Interrupted) as stopped:
        pool.run([bench.job(name) for name in ("long-0", "long-1", "ok-2")], done_before=0)
    assert stopped.value.exit_code == 130
    assert (bench.folder / "long-0.saved").exists()
    assert (bench.folder / "long-1.saved").exists()
    assert sorted(call[0] for call in bench.calls()) == ["long-0", "long-1"]
    assert pool.outcomes == {}
    assert any("2 members at work save what is done" in message for message in listener.said)


def test_a_member_that_cannot_save_is_named(bench: Bench) -> None:
    def interrupt(progress: SweepProgress) -> None:
        if not progress.stopping and sum(member.task.name == "pretrain" for member in progress.running) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    listener = Listener(interrupt)
    pool = bench.pool(2, listener)
    with pytest.raises(Interrupted) as stopped:
        pool.run([bench.job("long-0"), bench.job("unsaved-1")], done_before=0)
    assert stopped.value.exit_code == 143
    assert stopped.value.remedy == "All but unsaved-1 are saved; the same command goes on."
    log = bench.folder / "logs" / "unsaved-1.log"
    assert f"unsaved-1 failed: the disk is full\n  the end of {log}:\n    unsaved-1 is at work" in listener.said


def test_an_error_of_the_display_lets_the_members_save(bench: Bench) -> None:
    def break_off(progress: SweepProgress) -> None:
        if sum(member.task.name == "pretrain" for member in progress.running) == 2:
            raise BrokenPipeError

    pool = bench.pool(2, Listener(break_off))
    with pytest.raises(BrokenPipeError):
        pool.run([bench.job("long-0"), bench.job("long-1")], done_before=0)
    assert (bench.folder / "long-0.saved").exists()
    assert (bench.folder / "long-1.saved").exists()


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """SIGINT as in a shell's foreground; processes that run in its background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_a_second_signal_kills(bench: Bench) -> None:
    begun = time.monotonic()
    times = {"first": 0.0, "second": 0.0}

    def interrupt(progress: SweepProgress) -> None:
        now = time.monotonic()
        if not times["first"] and any(member.task.name == "pretrain" for member in progress.running):
            times["first"] = now
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # at once: one request, sent twice
        elif times["first"] and not times["second"] and now - times["first"] > 1.5:
            times["second"] = now
            os.kill(os.getpid(), signal.SIGINT)

    pool = bench.pool(1, Listener(interrupt))
    with pytest.raises(KeyboardInterrupt):
        pool.run([bench.job("stubborn-0")], done_before=0)
    assert times["second"] > times["first"] > begun
    pid = int(bench.calls()[0][2])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
