"""Where the processes of one command meet: in the store that rank 0 holds for them, or torchrun's agent does.

A process that waits for another one here says so, and a signal ends it at once.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cssl_cli.data.layout import listed
from cssl_cli.errors import RunError, escaped_text
from cssl_cli.host.launched import Environment, number_of

WELCOME = 600.0  # seconds for all processes to come
PATIENCE = 30.0  # seconds after which one says for whom it waits
LOOK = 0.1  # seconds between two looks


def own_name(rank: int) -> str:
    return f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"


def connect(rank: int, environment: Environment, patience: float = PATIENCE) -> tuple[Any, Any]:
    """The store twice: of two connections, one may wait for an answer while the other is in use.

    Its keys are those of this attempt, as an agent keeps its store when it starts all processes again. `RunError` if
    nothing answers, ValueError and RuntimeError of torch's if what answers is no store.
    """
    from torch import distributed

    host, port = environment["MASTER_ADDR"], number_of("MASTER_PORT", environment)
    holds = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    attempt = f"{environment.get('TORCHELASTIC_RUN_ID', '')}/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if not holds:  # torch would wait for it, too, with pages of messages
        _wait(rank, lambda: _answers(host, port), lambda: f"rank 0 at {host}:{port}", patience)
    first, second = (
        distributed.TCPStore(
            host,
            port,
            is_master=is_master,
            wait_for_workers=False,
            timeout=timedelta(seconds=WELCOME),
            multi_tenant=True,
        )
        for is_master in (holds, False)
    )
    return distributed.PrefixStore(f"cssl/{attempt}", first), distributed.PrefixStore(f"cssl/{attempt}", second)


def names_of_all(
    store: Any, rank: int, size: int, is_heard: Callable[[int], bool], patience: float = PATIENCE
) -> tuple[str, ...]:
    """What messages call the ranks, once all have come; `is_heard`: of another rank, for rank 0.

    `RunError` if one does not come.
    """
    store.set(f"name/{rank}", own_name(rank))
    if rank == 0:

        def missing() -> list[str]:
            return [str(other) for other in range(1, size) if not (is_heard(other) and store.check([f"name/{other}"]))]

        def who() -> str:
            return f"rank{'s' if len(missing()) > 1 else ''} {listed(missing())} of {size}"

        _wait(rank, lambda: not missing(), who, patience)
        names = [store.get(f"name/{other}").decode(errors="replace") for other in range(size)]
        store.set("names", json.dumps(names))
    else:
        # Rank 0 says for whom it waits.
        _wait(rank, lambda: store.check(["names"]), lambda: "all others", math.inf)
    return tuple(map(escaped_text, json.loads(store.get("names"))))


def _wait(rank: int, is_here: Callable[[], bool], who: Callable[[], str], patience: float) -> None:
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
            text = f"{own_name(rank)} waits for {who()}, {WELCOME / 60:.0f} minutes at most"
            print(text, file=sys.stderr, flush=True)
        time.sleep(LOOK)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError:
        return False
    return True
