"""Where the processes of one command meet: in a store that rank 0 holds for them, or torchrun's agent.

A process that waits for another one here says so, and a signal ends it at once.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from cssl_cli.data.layout import listed
from cssl_cli.errors import InputError, RunError, escaped_text
from cssl_cli.host.launched import Environment, number_of

WELCOME = 600.0  # seconds for all processes to come
PATIENCE = 30.0  # seconds after which one says for whom it waits
LOOK = 0.1  # seconds between two looks


def own_name(rank: int) -> str:
    return f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"


def meet(rank: int, size: int, environment: Environment, patience: float = PATIENCE) -> Meeting:
    """This process at the store of its start, once rank 0 has answered it.

    `RunError` if rank 0 does not, or what answers is no store; `InputError` if ranks contradict each other's numbers;
    RuntimeError of torch's if rank 0 cannot hold a store, or it ends meanwhile.
    """
    made: Future[Meeting] = Future()
    given_up = threading.Event()

    def make() -> None:
        try:
            made.set_result(Meeting(rank, size, connect(rank, environment), patience, given_up.wait))
        except Exception as error:
            made.set_exception(error)

    # A thread of its own: a store that is silent, as one of a process that is stopped, is waited for without end.
    threading.Thread(target=make, daemon=True).start()
    place = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    try:
        _wait(rank, made.done, lambda: f"rank 0 at {place}", patience)
    finally:
        given_up.set()
    return made.result()


def connect(rank: int, environment: Environment) -> tuple[Any, Any]:
    """The store twice: of two connections, one may wait for an answer while the other is in use."""
    from torch import distributed

    host, port = environment["MASTER_ADDR"], number_of("MASTER_PORT", environment)
    holds = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not holds:  # torch would wait for it, too, with pages of messages
        _wait(rank, lambda: _answers(host, port), lambda: f"rank 0 at {host}:{port}")
    first, second = (
        distributed.TCPStore(
            "localhost" if holds else host,  # who holds it need not know what others call its machine
            port,
            is_master=is_master,
            wait_for_workers=False,
            timeout=timedelta(seconds=WELCOME),
            multi_tenant=True,
            use_libuv=environment.get("USE_LIBUV", "1") == "1",  # as torch has it
        )
        for is_master in (holds, False)
    )
    return first, second


class Meeting:
    """The store of one start of the command, of which each rank has its two connections.

    Rank 0 gives the start a key of its own, and tells it to all that ask. An agent keeps its store when it starts
    processes again, with all that was said there, and its number of attempts is not that of other machines' agents.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        connections: tuple[Any, Any],
        patience: float = PATIENCE,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Ranks other than 0 wait until rank 0 answers. `InputError` if another process contradicts the numbers.

        pause: is called with the seconds between two looks, and returns whether nobody waits any more.
        """
        from torch.distributed import PrefixStore

        self.rank, self.size, self.patience = rank, size, patience
        self.door, self.answered = PrefixStore("cssl", connections[0]), 0
        self.key = secrets.token_hex(8) if rank == 0 else self._asked_for_key(pause)
        self.of_group, self.of_watch = (PrefixStore(f"cssl/{self.key}", one) for one in connections)
        name = own_name(rank)
        first = self.of_group.compare_set(f"name/{rank}", "", name).decode(errors="replace")
        if first != name:
            raise InputError(
                f"{name} has the number of another process: {escaped_text(first)}",
                where="RANK",
                remedy="Start all of them again, each with a number of its own.",
            )

    def names(self) -> tuple[str, ...]:
        """What messages call the ranks, once the watch (watch.py) of each has begun; for rank 0 `RunError` if not."""
        if self.rank == 0:
            missing: list[str] = []

            def all_live() -> bool:
                missing[:] = self._missing()
                return not missing

            def who() -> str:
                return f"rank{'s' if len(missing) > 1 else ''} {listed(missing)} of {self.size}"

            _wait(0, all_live, who, self.patience)
            names = [self.of_group.get(f"name/{rank}").decode(errors="replace") for rank in range(self.size)]
            self.of_group.set("names", json.dumps(names))
        else:
            while not self.of_group.check(["names"]):  # rank 0 says for whom it waits, the watch whether it lives
                time.sleep(LOOK)
        return tuple(map(escaped_text, json.loads(self.of_group.get("names"))))

    def _missing(self) -> list[str]:
        """The ranks that have not said that they live; whoever has asked is let in."""
        for number in range(self.answered + 1, int(self.door.add("asks", 0)) + 1):
            self.door.set(f"answer/{number}", json.dumps({"key": self.key, "size": self.size}))
            self.answered = number
        return [str(rank) for rank in range(1, self.size) if not self.of_group.check([f"beat/{rank}"])]

    def _asked_for_key(self, pause: Callable[[float], object]) -> str:
        number = int(self.door.add("asks", 1))
        while not self.door.check([f"answer/{number}"]):
            if pause(LOOK):
                raise RunError("rank 0 has not answered")
        answer = json.loads(self.door.get(f"answer/{number}"))
        if answer["size"] != self.size:
            raise InputError(
                f"{own_name(self.rank)} is one of {self.size} processes, and rank 0 one of {answer['size']}",
                where="WORLD_SIZE",
                remedy="Start all of them again, with the same number.",
            )
        return str(answer["key"])


def _wait(rank: int, is_here: Callable[[], bool], who: Callable[[], str], patience: float = math.inf) -> None:
    began, said = time.monotonic(), False
    while not is_here():
        waited = time.monotonic() - began
        if waited > WELCOME:
            raise RunError(
                f"{own_name(rank)} has waited {WELCOME / 60:.0f} minutes for {who()}",
                remedy="Start all of them again, where each can reach MASTER_ADDR at MASTER_PORT.",
            )
        if waited > patience and not said:
            said = True
            text = f"{own_name(rank)} is waiting up to {WELCOME / 60:.0f} minutes for {who()}"
            print(text, file=sys.stderr, flush=True)
        time.sleep(LOOK)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError:
        return False
    return True
