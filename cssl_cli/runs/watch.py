"""Whether all ranks of a command still live: each says so every `BEAT` seconds, to rank 0, and rank 0 to all others.

That goes through the store where the processes met, and not through their exchanges, which may take as long as they
like.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cssl_cli.host.signals import arrived, write_at_once
from cssl_cli.host.streams import print_error
from cssl_cli.nn.ranks import ExchangeError, Ranks
from cssl_cli.train.step import first_line

BEAT = 0.5  # seconds
GONE = 10.0  # seconds of silence that are enough once an exchange has failed
FAREWELL = 10.0  # seconds that the others have to end in
REMEDY = "The same command goes on from what was saved, with as many processes or with others."


@contextmanager
def exchange() -> Iterator[None]:
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
        # The last beat of each, and since when it is that. Others may not have come yet; rank 0 has let this one in.
        self.heard = dict.fromkeys(others, (b"", 0.0))
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
            elif (beat or self.ranks.rank != 0) and now - since > (
                min(GONE, self.silence) if self.hurt else self.silence
            ):
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
        elif self.ranks.rank == 1 or not self.ranks.names:  # one of the others is enough, once all have come
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
            joined = [rank for rank in self.heard if self.store.check([f"beat/{rank}"])]  # others do not look for it
            for rank in set(joined) - self.lost:
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
            with exchange():
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
