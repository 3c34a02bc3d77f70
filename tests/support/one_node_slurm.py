"""A real SLURM of one node, in a folder of its own: keys, sockets, ports and state are there and nowhere else.

It takes Debian's packages slurm-wlm and munge, and root: a node starts its jobs as other users. Nothing of a SLURM that
the machine may have is touched; `SLURM_CONF` decides which one the commands speak to.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel", "scontrol")
STARTS_IN = 20.0  # seconds

_CONFIGURATION = """
ClusterName=one
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ReturnToService=2
KillWait=5
MinJobAge=30
NodeName=localhost CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """Why there can be no SLURM here; None if there can."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)}: install slurm-wlm and munge"
    return "a node of SLURM is run by root" if os.geteuid() != 0 else None


@dataclass
class Slurm:
    """A running SLURM; `environment` is what its commands need."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """What a command of SLURM prints."""
        environment = {**os.environ, **self.environment}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{error}: {self.logs()}") from error
        return done.stdout + done.stderr

    def notify(self, job: str) -> None:
        """Send a running job the signal that announces the end of its time, once.

        While others of its array wait, scancel takes the answer for a refusal and repeats it after five seconds.
        """
        environment = {**os.environ, **self.environment}
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--signal=USR1", job], env=environment, timeout=3, check=False)

    def logs(self) -> dict[str, str]:
        """The ends of the daemons' logs."""
        return {path.name: path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log")}

    def start(self, *command: str, ready: Path | None = None) -> None:
        environment = {**os.environ, **self.environment}
        environment["PATH"] += f"{os.pathsep}/usr/sbin{os.pathsep}/sbin"
        with (self.folder / f"{command[0]}.out").open("wb") as log:
            started = subprocess.Popen(
                [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(started)
        if ready is not None:
            self.wait(ready.exists, f"{command[0]} made no {ready.name}")

    def wait(self, until: object, what: str, seconds: float = STARTS_IN) -> None:
        """Wait until a function says so; fails with `what` and the daemons' logs."""
        end = time.monotonic() + seconds
        while not until():  # type: ignore[operator]
            if time.monotonic() > end:
                raise AssertionError(f"{what}: {self.logs()}")
            time.sleep(0.1)

    def stop(self) -> None:
        self.call("scancel", "--user", "root")
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[Slurm]:
    """Start one in `folder`, whose path must be short: it holds a socket."""
    slurm = Slurm(folder)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    controller, node = _free_ports(2)
    text = _CONFIGURATION.format(folder=folder, controller=controller, node=node)
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("")
    try:
        sock = folder / "munge.socket"
        own = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
        slurm.start("munged", "--foreground", "--force", f"--socket={sock}", *own, ready=sock)
        slurm.start("slurmctld", "-D")
        slurm.start("slurmd", "-D", "-N", "localhost")
        slurm.wait(lambda: "idle" in slurm.call("sinfo", "-h", "-o", "%T"), "the node does not come up")
        yield slurm
    finally:
        slurm.stop()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
