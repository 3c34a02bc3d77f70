"""What the watch over ranks finds, in threads of one process: no process is ended, and no rank is real."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import distributed

from cssl_cli.nn.ranks import Ranks
from cssl_cli.runs import watch as watching
from cssl_cli.runs.watch import Watch

LONG, SHORT = 60.0, 1.0  # seconds of silence


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes that a process would have ended with."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(watching, "BEAT", 0.02)
    return codes


@pytest.fixture
def watch_of(ended: list[int]) -> Iterator[Callable[..., Watch]]:
    begun: list[Watch] = []

    def begin(store: Any, rank: int = 0, *, size: int = 2, silence: float = LONG) -> Watch:
        begun.append(Watch(store, Ranks(rank, size), silence))
        return begun[-1]

    yield begin
    for watch in begun:
        watch.ending = True


def found_by(watch: Watch) -> str:
    watch.start()
    assert watch.is_found.wait(10)
    assert watch.found is not None
    return watch.found


def test_an_exchange_that_failed_elsewhere_shortens_the_wait(
    watch_of: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "GONE", 0.2)
    store = distributed.HashStore()
    store.set("beat/1", "1")
    leader, hurt = watch_of(store), watch_of(store, rank=1, silence=0.1)
    hurt.explain("connection reset")
    assert found_by(leader) == "rank 1 is gone"


def test_a_store_that_does_not_answer_is_found(watch_of: Callable[..., Watch], ended: list[int]) -> None:
    class Hanging:
        def set(self, *_: object) -> None:
            threading.Event().wait()

    watch = watch_of(Hanging(), rank=1, silence=SHORT)
    assert "has not answered for 1 s" in found_by(watch)
    watch.join(10)
    assert ended == [1]


def test_time_does_not_pass_while_a_job_is_suspended(
    watch_of: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = distributed.HashStore()
    store.set("beat/1", "1")
    watch = watch_of(store)
    watch.start()
    while not watch.heard[1][0]:
        time.sleep(0.01)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 1000)
    assert not watch.is_found.wait(0.5)


def test_a_signal_that_came_to_all_is_passed_on_to_none(
    watch_of: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    store = distributed.HashStore()
    store.set("stop", str(int(signal.SIGTERM)))
    monkeypatch.setattr(watching, "arrived", lambda: signal.SIGTERM)
    watch_of(store)._look()
    assert sent == []
    monkeypatch.setattr(watching, "arrived", lambda: None)
    watch_of(store)._look()
    assert sent == [signal.SIGTERM]


def test_a_signal_to_another_rank_is_passed_on_wherever_that_stands(
    watch_of: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = distributed.HashStore()
    monkeypatch.setattr(watching, "arrived", lambda: signal.SIGUSR1)
    watch_of(store, rank=1)._look()
    assert int(store.get("stop")) == signal.SIGUSR1


def test_a_rank_is_given_up_only_once_it_has_come(watch_of: Callable[..., Watch]) -> None:
    store = distributed.HashStore()
    leader = watch_of(store, silence=0.5)
    leader.start()
    assert not leader.is_found.wait(1.5)
    store.set("beat/1", "1")
    assert leader.is_found.wait(10)
    assert leader.found == "rank 1 has not been heard of for 1 s"


def test_rank_0_is_waited_for_no_longer_once_it_has_let_another_in(watch_of: Callable[..., Watch]) -> None:
    assert found_by(watch_of(distributed.HashStore(), rank=1, silence=0.5)) == "rank 0 has not been heard of for 1 s"


def test_while_names_are_unknown_each_says_what_it_found(
    watch_of: Callable[..., Watch], ended: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    watch = watch_of(distributed.HashStore(), rank=2, size=3, silence=0.5)  # rank 1 may not have come
    found_by(watch)
    watch.join(10)
    assert ended == [1]
    assert capsys.readouterr().err.startswith("error: rank 0 has not been heard of")


def test_the_end_waits_for_a_rank_that_has_just_come(
    watch_of: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lose the store, and with it the exit code."""
    monkeypatch.setattr(watching, "FAREWELL", 0.5)
    store = distributed.HashStore()
    store.set("beat/1", "1")  # which the leader's watch has not seen yet
    began = time.monotonic()
    watch_of(store).end(143)
    assert time.monotonic() - began > 0.4
