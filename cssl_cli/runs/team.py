"""This process as one of several that `torchrun` has started for one command: who they are, and how all of them end.

Rank 0 leads: it alone reads checkpoints, writes and speaks. The others train along and end when it says so. Each says
that it lives from the moment it joins (watch.py):

- a rank that has ended, or meets an error, ends the command within `GONE` seconds and the time of a step;
- a rank that is silent for `SILENCE` seconds (it hangs, or its machine does) ends it then;
- with exit code 1, and a message of rank 0 that names the rank.

That does not depend on what the main threads wait for, so exchanges themselves may take as long as they like: the
others wait in one while rank 0 measures.
"""

from __future__ import annotations

import io
import math
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from cssl_cli.errors import CsslError, InputError, RunError
from cssl_cli.host.launched import Environment, num_processes, number_of
from cssl_cli.host.signals import deferred_signals, last_words, received
from cssl_cli.host.streams import unmute
from cssl_cli.nn.ranks import ALONE, ExchangeError, Ranks
from cssl_cli.runs.joining import PATIENCE, Meeting, meet, own_name
from cssl_cli.runs.watch import BEAT, FAREWELL, REMEDY, Watch, exchange
from cssl_cli.train.step import first_line

SILENCE = 60.0  # seconds
SILENCE_VARIABLE = "CSSL_RANK_TIMEOUT"


@dataclass
class Team:
    """The processes of this command."""

    ranks: Ranks
    local_rank: int = 0
    watch: Watch | None = None

    @property
    def leads(self) -> bool:
        return self.ranks.rank == 0

    def device_name(self, name: str | None) -> str | None:
        """The device of this process, if the command names one or none: each has a GPU of its own."""
        if self.ranks.alone or name == "cpu" or (name is None and not torch.cuda.is_available()):
            return name
        if name not in (None, "cuda"):
            raise InputError(
                f"one device, {name}, for {self.ranks.size} processes",
                where="--device",
                remedy="Leave it out: each process takes the GPU of its own number.",
            )
        return f"cuda:{self.local_rank}"

    def share(self, content: dict[str, Any] | None) -> dict[str, Any]:
        """What rank 0 gives, received by all: numbers, text and tensors."""
        if self.ranks.alone:
            assert content is not None
            return content
        from torch import distributed

        with self.explaining(), exchange():
            packed = io.BytesIO()
            if self.leads:
                torch.save(content, packed)
            length = torch.tensor(packed.getbuffer().nbytes)
            distributed.broadcast(length, src=0)
            data = torch.frombuffer(bytearray(packed.getvalue() or bytes(int(length))), dtype=torch.uint8)
            distributed.broadcast(data, src=0)
        if self.leads:
            assert content is not None
            return content
        # Not to the device of rank 0, which on this machine is another rank's.
        received: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
        return received

    @contextmanager
    def rank_0_first(self) -> Iterator[None]:
        """Within it, rank 0 is through before the others begin: it alone prepares images, or meets what is wrong."""
        if not self.leads:
            self.share(None)
        yield
        if self.leads:
            self.share({})

    @contextmanager
    def explaining(self, on_failure: Callable[[str], object] = lambda _: None) -> Iterator[None]:
        """Turn the failure of an exchange into a `RunError` that names the rank it is about.

        If the main thread of rank 0 does not come back, `on_failure` is told the message in another one.
        """
        if self.watch is None:
            yield
            return
        self.watch.on_failure = on_failure
        try:
            yield
        except ExchangeError as error:
            explained = RunError(self.watch.explain(str(error)), remedy=REMEDY)
            explained.exit_code = self.watch.code
            raise explained from error
        finally:
            self.watch.on_failure = lambda _: None


@contextmanager
def team_of(device_name: str | None = None, environment: Environment = os.environ) -> Iterator[Team]:
    """The team of this command, on devices of this name: of one process, unless torchrun started several.

    On leaving, rank 0 tells the others to end with its exit code, for which they wait; an error of another rank becomes
    one of rank 0.
    """
    size = num_processes(environment)
    if size == 1:
        yield Team(ALONE)
        return
    rank, local_rank = number_of("RANK", environment), number_of("LOCAL_RANK", environment)
    silence = _silence(environment)
    unmute()
    backend = _backend(device_name, local_rank)
    with _reaching_others(rank):
        meeting = meet(rank, size, environment, min(PATIENCE, silence))
    watch = Watch(meeting.of_watch, Ranks(rank, size), silence)
    code = 1
    try:
        watch.start()
        # A signal to another rank is passed on to rank 0, which saves and says the end.
        with last_words(watch.end) if rank == 0 else deferred_signals():
            yield _joined(meeting, backend, watch, local_rank)
            if rank != 0:
                watch.wait_for_end()
        code = 0
    except CsslError as error:
        code = error.exit_code
        if rank != 0:
            watch.report(str(error.of("")), code)
        raise
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        code = 128 + (received() or 2) if stopped else 1
        if rank != 0:
            if stopped:
                watch.ask_to_stop(code - 128)
            else:
                traceback.print_exc()
                watch.report(f"{type(error).__name__}: {error}", 1)
        raise
    finally:
        if rank == 0:
            watch.end(code)
        else:
            watch.wait_for_end(FAREWELL)


def _backend(device_name: str | None, local_rank: int) -> str:
    if device_name == "cpu" or not torch.cuda.is_available():
        return "gloo"
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}",
            remedy="Start at most one process for each GPU: torchrun --nproc-per-node.",
        )
    torch.cuda.set_device(local_rank)
    return "cpu:gloo,cuda:nccl"


def _joined(meeting: Meeting, backend: str, watch: Watch, local_rank: int) -> Team:
    """This process as one of the team, once all have come."""
    from torch import distributed

    rank, size = watch.ranks.rank, watch.ranks.size
    with _reaching_others(rank):
        names = meeting.names()
    watch.ranks = Ranks(rank, size, names=names)
    team = Team(watch.ranks, local_rank, watch)
    with team.explaining(), exchange():
        # Whether the others live is for the watch to say; an exchange may take as long as rank 0 measures. So may the
        # first one of GPUs, for which NCCL looks into the store.
        store, timeout = meeting.of_group, timedelta(days=7)
        store.set_timeout(timeout)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    group = distributed.group.WORLD
    assert group is not None
    team.ranks = Ranks.over(group, rank, size, names)
    return team


@contextmanager
def _reaching_others(rank: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"{own_name(rank)} could not reach the others ({first_line(error)})",
            remedy="Start all of them again, with another MASTER_PORT if this one is in use.",
        ) from error


def _silence(environment: Environment) -> float:
    text = environment.get(SILENCE_VARIABLE, str(SILENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 2 * BEAT:
        raise InputError(
            f"{text!r} is not a number of seconds of at least {2 * BEAT:.0f}",
            where=SILENCE_VARIABLE,
            remedy=f"Unset it for {SILENCE:.0f} seconds.",
        )
    return seconds
