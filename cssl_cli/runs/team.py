"""This process as one of several that `torchrun` has started for one command: who they are, and whether all still live.

Rank 0 leads: it alone reads checkpoints, writes and speaks. The others train along and end when it says so. Through the
store where the processes met, each says every `BEAT` seconds that it lives, rank 0 listens to all and all listen to it:

- a rank that has ended, or meets an error, ends the command within `GONE` seconds and the time of a step;
- a rank that is silent for `SILENCE` seconds (it hangs, or its machine does) ends it then;
- with exit code 1, and a message of rank 0 that names the rank.

That does not depend on what the main threads wait for, so exchanges themselves may take as long as they like: the
others wait in one while rank 0 measures.
"""

from __future__ import annotations

import io
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from cssl_cli.errors import CsslError, InputError, RunError, escaped_text
from cssl_cli.host.launched import Environment, num_processes, number_of
from cssl_cli.host.signals import arrived, deferred_signals, last_words, received, write_at_once
from cssl_cli.host.streams import print_error, unmute
from cssl_cli.nn.ranks import ALONE, ExchangeError, Ranks
from cssl_cli.train.step import first_line

BEAT = 0.5  # seconds
SILENCE = 60.0  # seconds
GONE = 10.0  # seconds of silence that are enough once an exchange has failed
SILENCE_VARIABLE = "CSSL_RANK_TIMEOUT"
WELCOME = timedelta(minutes=10)  # for all processes to start
FAREWELL = 10.0  # seconds that the others have to end in


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

        with self.explaining(), _exchange():
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


REMEDY = "The same command goes on from what was saved, with as many processes or with others."


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
    team = _joined(size, device_name, environment)
    assert team.watch is not None
    code = 1
    try:
        # A signal to another rank is passed on to rank 0, which saves and says the end.
        with last_words(team.watch.end) if team.leads else deferred_signals():
            yield team
            if not team.leads:
                team.watch.wait_for_end()
        code = 0
    except CsslError as error:
        code = error.exit_code
        if not team.leads:
            team.watch.report(str(error.of("")), code)
        raise
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        code = 128 + (received() or 2) if stopped else 1
        if not team.leads:
            if stopped:
                team.watch.ask_to_stop(code - 128)
            else:
                traceback.print_exc()
                team.watch.report(f"{type(error).__name__}: {error}", 1)
        raise
    finally:
        if team.leads:
            team.watch.end(code)
        else:
            team.watch.wait_for_end(FAREWELL)


def _joined(size: int, device_name: str | None, environment: Environment) -> Team:
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    rank, local_rank = number_of("RANK", environment), number_of("LOCAL_RANK", environment)
    backend = "gloo"
    silence = _silence(environment)
    unmute()
    if device_name != "cpu" and torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}",
                remedy="Start at most one process for each GPU: torchrun --nproc-per-node.",
            )
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    name = f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"
    try:
        met, *_ = next(rendezvous("env://", timeout=WELCOME))
        store = distributed.TCPStore(
            environment["MASTER_ADDR"],
            number_of("MASTER_PORT", environment),
            is_master=False,
            wait_for_workers=False,
            timeout=WELCOME,
        )
        attempt = f"{environment.get('TORCHELASTIC_RUN_ID', '')}/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        meeting = distributed.PrefixStore(f"cssl/{attempt}", store)
        meeting.set(f"name/{rank}", name)
        names = [meeting.get(f"name/{other}").decode(errors="replace") for other in range(size)]
        watch = Watch(meeting, Ranks(rank, size, names=tuple(map(escaped_text, names))), silence)
        watch.start()
        # Whether the others live is for the watch to say; an exchange may take as long as rank 0 measures.
        distributed.init_process_group(backend, store=met, rank=rank, world_size=size, timeout=timedelta(days=7))
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"{name} could not reach the others ({first_line(error)})", remedy="Start all of them again."
        ) from error
    group = distributed.group.WORLD
    assert group is not None
    return Team(Ranks.over(group, rank, size, watch.ranks.names), local_rank, watch)


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


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ExchangeError(first_line(error)) from error


class Watch(threading.Thread):
    """The thread that ends the process when another rank does not live, or rank 0 says so.

    Another one talks to the store, which says that this rank lives; where the store's machine hangs, that one does.
    Time does not pass while the process is stopped: after Ctrl-Z, or where a whole job is suspended, all are late.
    """

    def __init__(self, store: Any, ranks: Ranks, silence: float) -> None:
        super().__init__(name="ranks", daemon=True)
        self.store, self.ranks, self.silence = store, ranks, silence
        self.on_failure: Callable[[str], object] = lambda _: None
        self.found: str | None = None
        self.code = 1
        self.is_found = threading.Event()
        self.hurt = False  # whether an exchange has failed: somebody is gone
        self.taken = False  # whether the main thread tells what was found
        self.telling = False  # whether this one does, and ends the process
        self.asked_to_stop = False  # whether a signal came here, or one that reached another rank was passed on
        self.ending = False  # whether rank 0 has said the end, or this rank has heard it
        others = range(1, ranks.size) if ranks.rank == 0 else [0]
        self.awake = 0.0  # seconds since the start in which this process was not stopped
        self.answered = 0.0  # when the store did last, on this clock
        self.heard = dict.fromkeys(others, (b"", 0.0))  # the last beat of each, and since when it is that
        self.lost: set[int] = set()  # who will not hear the end
        self.beats = 0
        self.deals = 0

    # ------------------------------------------------------------------ in the threads
    def run(self) -> None:
        threading.Thread(target=self._keep_looking, name="store of ranks", daemon=True).start()
        last = time.monotonic()
        while not self.ending:
            if self.is_found.wait(BEAT):
                self._end_unless_taken()
                return
            now = time.monotonic()
            self.awake += min(now - last, max(4 * BEAT, self.silence / 4))
            last = now
            if self.awake - self.answered > self.silence:
                self._find(f"rank 0, or what had started it, has not answered for {self.silence:.0f} s")

    def _keep_looking(self) -> None:
        while not self.ending and self.found is None:
            try:
                self._look()
            except RuntimeError as error:  # the store is gone, and with it the process that held it
                self._find(f"rank 0, or what had started it, is gone ({first_line(error)})")
            self.answered = self.awake
            time.sleep(BEAT)

    def _look(self) -> None:
        self.beats += 1
        self.store.set(f"beat/{self.ranks.rank}", str(self.beats))
        self.hurt = self.hurt or self.store.check(["hurt"])
        if self.ranks.rank != 0 and self.store.check(["end"]):
            self.ending = True
            code = int(json.loads(self.store.get("end"))["code"])
            with suppress(RuntimeError):
                self.store.set(f"left/{self.ranks.rank}", "1")
                self.store.check([f"left/{self.ranks.rank}"])  # answered once it has arrived
            os._exit(code)
        if not self.asked_to_stop and (number := arrived()) is not None:
            self.asked_to_stop = True
            if self.ranks.rank != 0:
                self.ask_to_stop(number)
        if self.ranks.rank == 0 and not self.asked_to_stop and self.store.check(["stop"]):
            self.asked_to_stop = True
            os.kill(os.getpid(), int(self.store.get("stop")))  # as if it had come here
        if self.ranks.rank == 0 and self.store.check(["trouble"]):
            told = json.loads(self.store.get("trouble"))
            self._find(f"{self.ranks.name(int(told['rank']))}: {told['what']}", int(told["code"]))
            return
        now = self.awake
        for rank, (beat, since) in self.heard.items():
            key = f"beat/{rank}"
            heard = self.store.get(key) if beat or self.store.check([key]) else b""
            if heard != beat:
                self.heard[rank] = heard, now
            elif now - since > (min(GONE, self.silence) if self.hurt else self.silence):
                how = "is gone" if self.hurt else f"has not been heard of for {now - since:.0f} s"
                self.lost.add(rank)
                self._find(f"{self.ranks.name(rank)} {how}")
                return

    def _find(self, what: str, code: int = 1) -> None:
        self.found, self.code = what, code
        self.is_found.set()

    def _end_unless_taken(self) -> None:
        """The main thread may tell it itself, where it comes back in time; it does not from an exchange that hangs."""
        time.sleep(2 * BEAT)
        if self.taken or self.ending:
            return
        self.telling = True
        assert self.found is not None
        if self.ranks.rank == 0:
            with suppress(Exception):
                self.on_failure(self.found)
            print_error(f"{self.found}\n{REMEDY}")
            self._say_end(self.code)
        elif self.ranks.rank == 1:  # one of the others is enough
            print_error(f"{self.found}\n{REMEDY}")
        with suppress(Exception):
            sys.stderr.flush()
        write_at_once(b"")
        os._exit(self.code)

    def _say_end(self, code: int) -> None:
        """Wait for the others to hear it, as the store may end with this process; not for a store that hangs."""
        speaker = threading.Thread(target=self._speak_of_end, args=(code,), daemon=True)
        speaker.start()
        speaker.join(FAREWELL)

    def _speak_of_end(self, code: int) -> None:
        until = time.monotonic() + FAREWELL
        with suppress(RuntimeError):
            self.store.set("end", json.dumps({"code": code}))
            for rank in self.heard.keys() - self.lost:
                while time.monotonic() < until and not self.store.check([f"left/{rank}"]):
                    time.sleep(BEAT / 10)

    # ------------------------------------------------------------------ in the main thread
    def explain(self, reason: str) -> str:
        """What is behind an exchange that has failed for this `reason`."""
        self.hurt = True
        with suppress(RuntimeError):
            self.store.set("hurt", "1")  # those that wait for this rank notice nothing
        if self.ranks.rank != 0:  # rank 0 says it
            self.wait_for_end(self.silence + GONE)
            return f"the connection of {self.ranks.name(self.ranks.rank)} to the others broke ({reason})"
        self.taken = self.is_found.wait(min(GONE, self.silence) + 4 * BEAT)
        if self.telling:
            self.wait_for_end()
        return self.found if self.found is not None else f"the connection to the other ranks broke ({reason})"

    def numbers(self) -> Iterator[int]:
        """0, 1, …: each is given to one rank, the first to ask. All ranks call this equally often."""
        self.deals += 1
        while True:
            with _exchange():
                number = int(self.store.add(f"deal/{self.deals}", 1)) - 1
            yield number

    def report(self, what: str, code: int) -> None:
        """Tell rank 0 what happened here, and the exit code that is right for it."""
        with suppress(RuntimeError):
            self.store.set("trouble", json.dumps({"rank": self.ranks.rank, "what": what, "code": code}))

    def ask_to_stop(self, number: int) -> None:
        """Tell rank 0 of a signal that reached this one: it saves, and says the end."""
        with suppress(RuntimeError):
            self.store.set("stop", str(number))

    def end(self, code: int) -> None:
        """For rank 0: the others end with the same code."""
        self.ending = True
        self._say_end(code)

    def wait_for_end(self, seconds: float | None = None) -> None:
        """For the others: until this process is ended by its thread, or so many seconds at most."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            time.sleep(BEAT)
