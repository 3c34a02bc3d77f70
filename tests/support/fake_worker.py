"""A worker without torch for tests of the pool: does what the name of a member says, at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from cssl_cli.host.progress import TaskProgress
from cssl_cli.sweep.workers.messages import Ended, Lines, Message, Notice, Task, decode, encode


def main() -> None:
    lines = Lines()
    while data := os.read(0, 1 << 16):
        for line in lines.feed(data):
            task = decode(line)
            assert isinstance(task, Task)
            act(task)


def tell(message: Message) -> None:
    os.write(1, encode(message))


def act(task: Task) -> None:
    name, home = task.recipe["name"], Path(task.home)
    with (home / "calls").open("a") as calls:  # who did what with which threads, in order
        calls.write(
            f"{name} {task.slot} {os.getpid()} {os.environ['OMP_NUM_THREADS']} {time.monotonic()} "
            f"{os.environ['TORCHINDUCTOR_COMPILE_THREADS']} {task.until}\n"
        )
    with Path(task.log).open("a") as log:
        log.write(f"{name} is at work\n")
    tell(TaskProgress("pretrain", 1, 2, "epoch 1/2"))
    first_time = not (home / f"{name}.met").exists()
    (home / f"{name}.met").touch()
    kind = name.split("-")[0]
    if kind == "shared":
        tell(Notice("the images are there"))
    if kind == "killed" or (kind == "once" and first_time):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "leave":
        os._exit(3)
    if kind == "wrong":
        return tell(Ended(error="the input is wrong", hopeless=True))
    if kind == "told":
        error = "/x/encoder: the file is damaged\nDelete it."
        with Path(task.log).open("a") as log:
            log.write(f"2026-01-01 00:00:00 failed: {error}\n")
        return tell(Ended(error=error))
    if kind == "bug":
        tell(Ended(error="KeyError: 'x'", retire=True))
        os._exit(0)
    if kind == "used" or (kind == "later" and first_time):
        return tell(Ended(error="in use by process 1", in_use=True))
    if kind == "long":
        os.read(0, 1)  # the end of stdin: the sweep stops
        (home / f"{name}.saved").touch()
        tell(Ended(error="interrupted", stopped=signal.SIGTERM, retire=True))
        os._exit(0)
    if kind == "slow":
        os.read(0, 1)
        time.sleep(1.0)  # a large checkpoint
        (home / f"{name}.saved").touch()
        tell(Ended(error="interrupted", stopped=signal.SIGTERM, retire=True))
        os._exit(0)
    if kind == "unsaved":
        os.read(0, 1)
        return tell(Ended(error="the disk is full"))
    if kind == "stubborn":
        while True:
            time.sleep(60)
    if kind == "last":  # complete, and then killed
        tell(Ended())
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    (home / f"{name}.done").touch()
    return tell(Ended())
