"""Processes that meet, and what those are told that wait for one that does not come."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from cssl_cli.errors import InputError, RunError
from cssl_cli.runs import joining, team
from cssl_cli.runs.joining import Meeting
from tests.support.started_ranks import Start

pytestmark = pytest.mark.long


def meet(store: Any, rank: int, size: int, patience: float = joining.PATIENCE) -> tuple[str, tuple[str, ...]]:
    """The key of the start, and the names of all."""
    meeting = Meeting(rank, size, (store, store), patience)
    meeting.of_watch.set(f"beat/{rank}", "1")
    return meeting.key, meeting.names()


def all_meet(store: Any, size: int) -> list[tuple[str, tuple[str, ...]]]:
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(lambda rank: meet(store, rank, size), range(size)))


def test_all_get_the_names_of_all() -> None:
    found = all_meet(distributed.HashStore(), 3)
    assert found[0] == found[1] == found[2]
    assert [name.split(" (")[0] for name in found[0][1]] == ["rank 0", "rank 1", "rank 2"]


def test_a_start_finds_nothing_of_one_before_in_the_store_of_an_agent() -> None:
    store = distributed.HashStore()
    before = Meeting(0, 2, (store, store))
    for key in ("stop", "end", "trouble", "name/1", "beat/1", "names"):
        before.of_watch.set(key, "15")
    store.add("cssl/asks", 1)  # by a process that is gone
    (first, _), (second, names) = all_meet(store, 2)
    assert first == second != before.key
    assert [name.split(" (")[0] for name in names] == ["rank 0", "rank 1"]
    again = Meeting(0, 2, (store, store))
    assert not any(again.of_watch.check([key]) for key in ("stop", "end", "trouble", "name/1", "beat/1", "names"))


def test_who_has_not_come_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(joining, "WELCOME", 0.3)
    store = distributed.HashStore()
    leader = Meeting(0, 4, (store, store), patience=0.1)
    leader.of_watch.set("beat/1", "1")
    leader.of_watch.set("name/2", "rank 2")  # which has never said that it lives
    with pytest.raises(RunError, match=r"^rank 0 .*has waited 0 minutes for ranks 2, 3 of 4\n"):
        leader.names()
    assert re.fullmatch(r"rank 0 \(.*\) is waiting up to 0 minutes for ranks 2, 3 of 4\n", capsys.readouterr().err)


@pytest.mark.parametrize("there", ["nothing", "silence", "a store"])
def test_who_waits_for_rank_0_names_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    """Even if what is there never says a word: a rank 0 that is stopped, or no store, or one of other processes."""
    monkeypatch.setattr(joining, "WELCOME", 0.3)
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if there == "silence":
            other.listen()
        port = store.port if there == "a store" else other.getsockname()[1]
        with pytest.raises(RunError, match=rf"^rank 1 .*has waited 0 minutes for rank 0 at 127\.0\.0\.1:{port}\n"):
            joining.meet(1, 2, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}, patience=0.1)
        assert re.fullmatch(
            rf"rank 1 \(.*\) is waiting up to 0 minutes for rank 0 at .*:{port}\n", capsys.readouterr().err
        )


def test_rank_0_need_not_reach_its_own_store_from_outside() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = joining.connect(0, {"MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": str(port)})
    first.set("here", "1")
    assert second.get("here") == b"1"


def test_numbers_that_contradict_each_other() -> None:
    store = distributed.HashStore()
    leader = Meeting(0, 3, (store, store))
    letting_in = threading.Thread(target=leader.names, daemon=True)
    letting_in.start()
    with pytest.raises(InputError, match=r"^WORLD_SIZE: rank 2 .* is one of 4 processes, and rank 0 one of 3"):
        Meeting(2, 4, (store, store))
    leader.of_watch.set("name/1", "rank 1 (process 5 on x)")
    with pytest.raises(InputError, match=r"^RANK: rank 1 .* the number of another process: rank 1 \(process 5 on x\)"):
        Meeting(1, 3, (store, store))
    for rank in (1, 2):
        leader.of_watch.set(f"beat/{rank}", "1")
    leader.of_watch.set("name/2", "rank 2")
    letting_in.join(10)
    assert not letting_in.is_alive()


def come_late() -> None:
    meet = team.meet

    def late(*arguments: Any) -> Any:
        Path("late").touch()
        time.sleep(60)
        return meet(*arguments)

    team.meet = late


@pytest.mark.parametrize("late", [0, 1])
def test_whoever_waits_says_so_and_a_signal_ends_it(start: Start, late: int) -> None:
    ranks = start("run", 2, 1, before=(late, come_late))
    ranks.wait_for_file("late")
    waiting = ranks.ranks[1 - late]
    said = waiting.outputs / "2"
    while "is waiting" not in said.read_text():
        assert waiting.poll() is None
        time.sleep(0.05)
    waiting.send_signal(signal.SIGTERM)
    ((code, _, text),) = ranks.end(of=[1 - late])
    assert code == 128 + signal.SIGTERM
    others = "rank 1 of 2" if late else r"rank 0 at 127\.0\.0\.1:\d+"
    assert re.fullmatch(rf"rank {1 - late} \(.*\) is waiting up to 10 minutes for {others}\ninterrupted\n", text)


def be_slow_to_join() -> None:
    names = Meeting.names

    def slowly(self: Meeting) -> tuple[str, ...]:
        found = names(self)
        Path("slow").touch()
        time.sleep(30)
        return found

    Meeting.names = slowly  # type: ignore[method-assign]


def test_a_signal_to_another_rank_is_said_once_while_rank_0_waits_in_torch(start: Start) -> None:
    ranks = start("run", 2, 1, before=(1, be_slow_to_join))
    ranks.wait_for_file("slow")
    ranks.ranks[1].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert ranks.end() == [(128 + signal.SIGTERM, "", "interrupted\n"), (128 + signal.SIGTERM, "", "")]
    assert time.monotonic() - sent < 12
