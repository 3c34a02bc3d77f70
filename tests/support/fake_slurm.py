"""SLURM's commands as scripts that answer from a folder: what is tested is what we ask, and what we make of answers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

SWEEP = """
name: five
base: tiny.yaml
axes:
  optim.lr: [0.01, 0.02, 0.03]
  probe.knn_k: [5, 10]
launcher: {time: 30m, cpus: 2, sbatch: {account: vision}}
"""  # three runs of two members each
HOME = Path("runs/five")
SLURM = ("sweep", "five.yaml", "--launcher", "slurm")
_SCRIPTS = {
    "srun": "",
    "sbatch": """
        number=$(( $(cat "$here/number" 2>/dev/null || echo 6) + 1 )); echo $number > "$here/number"
        cp "$1" "$here/sbatch-$number.sh"; env > "$here/environment"
        name=$(sed -n 's/^#SBATCH --job-name=//p' "$1"); last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        for place in $([ "$last" ] && seq 0 "$last" || echo N/A); do
            echo "$number|$place|$name|PENDING|Priority" >> "$here/queue"
        done
        echo "Submitted batch job $number" """,
    "squeue": """[ "$SQUEUE_PARTITION" ] || cat "$here/queue" 2>/dev/null; true""",
    "scancel": "",
    "scontrol": """[ "$1" = show ] && echo "MaxArraySize = $(cat "$here/most" 2>/dev/null || echo 1001)"; true""",
    "sacct": """[ -e "$here/accounts" ] && cat "$here/accounts" """,
}


class FakeSlurm:
    """The commands in `folder`; what they are asked is in `calls`. A file NAME.fails makes one fail with its text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, script in _SCRIPTS.items():
            path = folder / name
            lines = [
                "#!/bin/sh",
                f"here={folder}",
                f'echo "{name} $*" >> "$here/asked"',
                f'if [ -e "$here/{name}.fails" ]; then cat "$here/{name}.fails" >&2; exit 1; fi',
                script,
            ]
            path.write_text("\n".join(lines) + "\n")
            path.chmod(0o755)

    @property
    def path(self) -> str:
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def asked(self, name: str) -> list[str]:
        """The arguments with which a command was called."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == name]

    def fail(self, name: str, text: str) -> None:
        (self.folder / f"{name}.fails").write_text(text)

    def script(self, number: int) -> str:
        """The script of a submitted job."""
        return (self.folder / f"sbatch-{number}.sh").read_text()

    def job_name(self, number: int) -> str:
        found = re.search(r"--job-name=(\S+)", self.script(number))
        assert found is not None
        return found[1]

    def answer(self, number: int, states: Mapping[int, str], reason: str = "None") -> None:
        """What squeue says of a submitted array: the state of each of its jobs."""
        name = self.job_name(number)
        lines = [f"{number}|{place}|{name}|{state}|{reason}\n" for place, state in states.items()]
        (self.folder / "queue").write_text("".join(lines))

    def account(self, number: int, states: Mapping[int, str]) -> None:
        """The same of sacct."""
        name = self.job_name(number)
        lines = [f"{number}_{place}|{name}|{state}\n" for place, state in states.items()]
        (self.folder / "accounts").write_text("".join(lines))
