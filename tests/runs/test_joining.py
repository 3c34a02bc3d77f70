"""Processes that meet, and what those are told that wait for one that does not come."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from cssl_cli.errors import RunError
from cssl_cli.runs import joining, team
from tests.support.started_ranks import Start

pytestmark = pytest.mark.long


def test_all_get_the_names_of_all() -> None:
    store, found = distributed.HashStore(), {}

    def join(rank: int) -> None:
        found[rank] = joining.names_of_all(store, rank, 3, lambda _: True)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found[0] == found[1] == found[2]
    assert [name.split(" (")[0] for name in found[0]] == ["rank 0", "rank 1", "rank 2"]


def test_who_has_not_come_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(joining, "WELCOME", 0.3)
    store = distributed.HashStore()
    store.set("name/1", "rank 1")
    store.set("name/2", "rank 2")
    with pytest.raises(RunError, match=r"^rank 0 .*has waited 0 minutes for ranks 2, 3 of 4\n"):
        joining.names_of_all(store, 0, 4, lambda rank: rank == 1, patience=0.1)  # 2 has never said that it lives
    assert re.fullmatch(r"rank 0 \(.*\) waits for ranks 2, 3 of 4, 0 minutes at most\n", capsys.readouterr().err)
    with pytest.raises(RunError, match=r"^rank 1 .*for all others"):
        joining.names_of_all(store, 1, 4, lambda _: True)
    assert capsys.readouterr().err == ""
    nowhere = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    with pytest.raises(RunError, match=r"^rank 1 .*has waited 0 minutes for rank 0 at 127\.0\.0\.1:1\n"):
        joining.connect(1, nowhere)


def test_each_attempt_of_an_agent_has_keys_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agents.port), "TORCHELASTIC_RUN_ID": "job"}
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    first, again = (joining.connect(0, {**environment, "TORCHELASTIC_RESTART_COUNT": number})[0] for number in "01")
    first.set("name/0", "before")
    assert first.check(["name/0"])
    assert not again.check(["name/0"])


def come_late() -> None:
    connect = team.connect

    def late(*arguments: Any) -> Any:
        Path("late").touch()
        time.sleep(60)
        return connect(*arguments)

    team.connect = late


@pytest.mark.parametrize("late", [0, 1])
def test_whoever_waits_says_so_and_a_signal_ends_it(start: Start, late: int) -> None:
    ranks = start("run", 2, 1, before=(late, come_late))
    ranks.wait_for_file("late")
    waiting = ranks.ranks[1 - late]
    said = waiting.outputs / "2"
    while "minutes at most" not in said.read_text():
        assert waiting.poll() is None
        time.sleep(0.05)
    waiting.send_signal(signal.SIGTERM)
    ((code, _, text),) = ranks.end(of=[1 - late])
    assert code == 128 + signal.SIGTERM
    others = "rank 1 of 2" if late else r"rank 0 at 127\.0\.0\.1:\d+"
    assert re.fullmatch(rf"rank {1 - late} \(.*\) waits for {others}, 10 minutes at most\ninterrupted\n", text)
