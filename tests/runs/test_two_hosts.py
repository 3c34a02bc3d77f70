"""Locks between two hosts that share a folder under different paths: the other one is a process in namespaces of its
own for host names, process numbers and mounts. What a network's file system adds to that is in docs/scaling.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cssl_cli.errors import InUseError
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.run_dir import LOCK, RunDir
from cssl_cli.sweep.cluster import records
from cssl_cli.sweep.cluster.launch import submitting
from tests.support.commands import TINY_RECIPE, Invoke

NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
OTHER = """
import socket, subprocess, sys
from pathlib import Path
sys.path[:] = {path!r}
socket.sethostname("other-host")
subprocess.run(["mount", "--bind", {here!r}, {there!r}], check=True)
from cssl_cli.errors import InUseError
from cssl_cli.runs.lock import holding
for line in sys.stdin:
    try:
        with holding(Path({there!r}, line.rstrip())):
            print("held", flush=True)
            sys.stdin.readline()
    except InUseError as error:
        print(error.what, flush=True)
"""


def lacking() -> str | None:
    """Why there can be no other host here; None if there can."""
    try:
        tried = subprocess.run(
            [*NAMESPACES, "mount", "--bind", *2 * [tempfile.gettempdir()]], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return (tried.stderr.strip() or f"unshare ended with {tried.returncode}") if tried.returncode else None


Ask = Callable[[str], str]


@pytest.fixture
def other_host(tmp_path: Path) -> Iterator[Ask]:
    """Asks the other host to hold a lock, of which it answers what came of it; an empty line releases it."""
    if (reason := lacking()) is not None:
        pytest.skip(f"needs namespaces for a host of its own: {reason}")
    there = tmp_path / "there"
    there.mkdir()
    code = OTHER.format(path=sys.path, here=str(tmp_path), there=str(there))
    with subprocess.Popen(
        [*NAMESPACES, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None

        def ask(lock: str) -> str:
            host.stdin.write(f"{lock}\n")
            return host.stdout.readline().rstrip() if lock else ""

        yield ask
        host.stdin.close()


def test_a_run_is_of_one_host_at_a_time(other_host: Ask, invoke: Invoke) -> None:
    Path("tiny.yaml").write_text(TINY_RECIPE)
    recipe = load_recipe("tiny.yaml")
    run = RunDir.at(Path("runs"), name=recipe.name, fingerprint=recipe.fingerprint)
    run.path.mkdir(parents=True)
    lock = str(run.path / LOCK)
    assert other_host(lock) == "held"
    refused = invoke("pretrain", "tiny.yaml")
    assert refused.code == 2
    assert "the run directory is in use by process" in refused.stderr
    assert "on other-host" in refused.stderr
    assert run.in_use()
    other_host("")
    with run.locked():
        assert "the run directory is in use by process" in other_host(lock)
    assert other_host(lock) == "held"


def test_jobs_are_submitted_by_one_host_at_a_time(other_host: Ask, invoke: Invoke) -> None:
    home = Path("runs", "five")
    with submitting(home):
        assert "in use by process" in other_host(str(home / records.FOLDER / records.LOCK))
    assert other_host(str(home / records.FOLDER / records.LOCK)) == "held"
    with pytest.raises(InUseError, match=r"another command submits .* process .* on other-host"), submitting(home):
        pass
