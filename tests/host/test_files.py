"""Files that appear whole or not at all: leftovers of killed processes, full disks, names too long."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import DamagedError, InputError, InUseError, RunError
from cssl_cli.host.files import open_in_place, remove_leftovers, replacing
from cssl_cli.runs.run_dir import LOCK, STATUS, RunDir
from tests.support.commands import Invoke
from tests.support.run_files import READERS

LONG = "x" * 300


# ---------------------------------------------------------------------- leftovers
def test_only_what_nobody_writes_is_removed(small: RunDir, victim: Path) -> None:
    figures = small.file("figures")
    figures.mkdir()
    left = [small.file(".status.1.partial"), figures / ".training.svg.2.partial", small.file(".trace.3.partial.gz")]
    for path in left:
        path.touch()
    (small.path / ".folder.partial").mkdir()
    (small.path / ".link.partial").symlink_to(victim)
    with replacing(figures / "training.png", "") as partial:
        with small.locked():
            assert partial.exists()
        partial.write_text("drawn")
    assert (figures / "training.png").read_text() == "drawn"
    assert not any(path.exists() for path in left)
    assert victim.exists()


def test_a_killed_process_is_tidied_up_after_by_the_next_that_writes_there(tmp_path: Path) -> None:
    """Where other programs write, too, their files are left alone."""
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "features.npz", ""):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    theirs = tmp_path / ".download.partial"
    theirs.touch()
    (left,) = [path for path in tmp_path.iterdir() if path != theirs]
    assert left.name.startswith(".features.npz.")
    with replacing(tmp_path / "views.png", "") as partial:
        partial.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".download.partial", "views.png"]


def test_a_partial_on_a_file_system_without_locks_is_left_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".new.partial").touch()
    (tmp_path / ".old.partial").touch()
    os.utime(tmp_path / ".old.partial", (0, 0))
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new.partial"]
    with replacing(tmp_path / "file", "") as partial:
        partial.touch()


def test_what_is_taken_for_a_leftover_before_it_is_locked_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = fcntl.flock, list[Path]()

    def flock(handle: int, operation: int) -> None:
        """Another process is quicker the first time, and has not removed the file yet."""
        if not removed:
            removed.extend(tmp_path.iterdir())
            other = os.open(removed[0], os.O_RDWR)
            real(other, fcntl.LOCK_EX)
            threading.Timer(0.05, lambda: (removed[0].unlink(), os.close(other))).start()
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with replacing(tmp_path / "file", "") as partial:
        assert partial != removed[0]
        partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------------- writing
def no_space(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_lock_does_not_keep_a_run_from_being_read(
    small: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", no_space)
        with small.locked(), pytest.raises(InUseError), small.locked():
            pass
        full.setattr(os, "ftruncate", no_space)
        with small.locked():
            pass
    small.file(LOCK).unlink()
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: no_space() if str(path).endswith(LOCK) else real(path, *rest))
    with pytest.raises(RunError, match="No space left"), small.locked():
        pass


@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_a_disk_that_fills_up_is_a_sentence(small: RunDir, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    small.write_status("running", step=1)
    before = sorted(small.path.iterdir())
    with monkeypatch.context() as full:
        full.setattr(os, function, no_space)
        with pytest.raises(RunError, match=r"status: cannot be written: No space left"):
            small.write_status("finished", step=2)
    assert sorted(small.path.iterdir()) == before
    assert small.status() == {"state": "running", "step": 1}


@pytest.mark.parametrize("name", sorted({*READERS} - {"recipe.yaml"}))
def test_a_folder_where_a_file_is_to_be_written_is_a_sentence(small: RunDir, name: str) -> None:
    small.file(name).mkdir()
    (small.file(name) / "inside").touch()
    for change in (lambda: small.write_json(name, {}), lambda: small.remove(name)):
        with pytest.raises(InputError, match="cannot be written") as error:
            change()
        assert error.value.where == str(small.file(name))
    assert (small.file(name) / "inside").exists()


def test_names_too_long_are_sentences(tmp_path: Path, invoke: Invoke) -> None:
    with pytest.raises(InputError, match="no such run"):
        RunDir.open(tmp_path / LONG)
    for place in (tmp_path / LONG, tmp_path / LONG / "file"):
        with pytest.raises(InputError, match=r"name too long|No such file"), replacing(place, ""):
            pass
    with pytest.raises(InputError, match="name too long"):
        RunDir(tmp_path / LONG).create("name: r\n")
    longest = tmp_path / ("é" * 120)  # 240 bytes: what is written aside has a name of its own
    with replacing(longest, "") as partial:
        partial.write_text("whole")
    assert longest.read_text() == "whole"
    (tmp_path / "recipe.yaml").write_text(f"based_on: ./{LONG}\n")
    (tmp_path / "sweep.yaml").write_text(f"based_on: ./{LONG}\naxes: {{train.epochs: [1, 2]}}\n")
    for arguments, told in (
        (("analyze", LONG), "unknown recipe"),
        (("analyze", "simclr-shapes", f"data.name={LONG}"), "data.name"),
        (("recipes", "simclr-shapes", "--copy", LONG), "name too long"),
        (("recipes", "recipe.yaml"), "does not exist"),
        (("sweep", "sweep.yaml"), "does not exist"),
    ):
        outcome = invoke(*arguments)
        assert outcome.code == 2, arguments
        assert told in outcome.stderr


def test_an_unreadable_file_is_a_sentence(small: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *rest: Any, **kwargs: Any) -> int:
        if Path(path) == small.file(STATUS):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *rest, **kwargs)

    small.write_status("running", step=1)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DamagedError, match="Permission denied"):
        small.status()
    with pytest.raises(PermissionError):
        open_in_place(small.file(STATUS), os.O_RDWR)
