"""Links, pipes, sockets and folders where the files of a run belong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cssl_cli.cli.analyze import tell_of_damaged_probe
from cssl_cli.errors import DamagedError, InputError
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.report.analysis import read_probe
from cssl_cli.runs.run_dir import ENCODER, ENVIRONMENT, LOCK, PROBE, RECIPE, STATUS, RunDir
from cssl_cli.sweep.workers.process import open_log, tail
from cssl_cli.sweep.workers.stages import Missing, Workshop
from tests.support.commands import Invoke
from tests.support.run_files import READERS, Told, refusal


@pytest.fixture(autouse=True)
def at_most_a_minute() -> Iterator[None]:
    """What waits for a pipe would wait for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)  # its own name may be too long for a socket
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "a named pipe": fifo,
    "a socket": bound_socket,
    "a device": device,
    "a folder": Path.mkdir,
}


# ---------------------------------------------------------------------- reading
@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_named_and_never_waited_for(small: RunDir, name: str, kind: str) -> None:
    small.file(name).unlink(missing_ok=True)
    IN_THE_WAY[kind](small.file(name))
    error = refusal(READERS[name], small)
    assert isinstance(error, DamagedError)
    assert kind in str(error)
    assert error.where == str(small.file(name))


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("name", [RECIPE, ENVIRONMENT, STATUS, ENCODER, LOCK])
def test_commands_say_what_is_in_the_way(trained: Path, invoke: Invoke, tmp_path: Path, name: str, kind: str) -> None:
    run = Path(shutil.copytree(trained, tmp_path / trained.name))
    (run / name).unlink(missing_ok=True)
    IN_THE_WAY[kind](run / name)
    refused = invoke("probe", run)
    assert "Traceback" not in refused.stderr
    assert refused.code == 2, refused.stderr
    assert name in refused.stderr


def test_accuracies_that_cannot_be_relied_on_stand_in_no_report(trained: Path, tmp_path: Path) -> None:
    run = RunDir(Path(shutil.copytree(trained, tmp_path / trained.name)))
    assert read_probe(run.path) is not None
    run.file(PROBE).write_bytes(run.file(PROBE).read_bytes().replace(b"0.", b"1."))
    assert read_probe(run.path) is None
    told = Told()
    tell_of_damaged_probe(run.path, told)
    assert str(run.file(PROBE)) in "".join(told.said)


def test_a_file_behind_a_link_is_read(small: RunDir, tmp_path: Path) -> None:
    """As stores of large files make them."""
    small.write_status("finished", step=1)
    small.file(STATUS).rename(tmp_path / "stored")
    small.file(STATUS).symlink_to(tmp_path / "stored")
    assert small.status()["step"] == 1
    small.write_status("failed", step=2)
    assert not small.file(STATUS).is_symlink()
    assert RunDir(small.path).status()["state"] == "failed"


def test_a_file_larger_than_any_of_ours_is_not_read(small: RunDir) -> None:
    with small.file(STATUS).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedError, match="larger than"):
        small.status()


# ---------------------------------------------------------------------- written in place
def test_a_lock_that_is_a_link_leaves_what_it_points_to(small: RunDir, victim: Path) -> None:
    small.file(LOCK).unlink()
    for link in (small.file(LOCK).symlink_to, small.file(LOCK).hardlink_to):
        link(victim)
        with pytest.raises(InputError, match="lock"), small.locked():
            pass
        assert victim.read_text() == "precious"
        small.file(LOCK).unlink()
    small.file(LOCK).symlink_to(victim.parent / "not there")
    with pytest.raises(InputError, match="symbolic link"), small.locked():
        pass
    assert not (victim.parent / "not there").exists()


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a folder"])
def test_a_lock_that_is_no_file_is_refused(small: RunDir, kind: str) -> None:
    small.file(LOCK).unlink()
    IN_THE_WAY[kind](small.file(LOCK))
    assert not small.in_use()
    with pytest.raises(InputError, match=kind) as error, small.locked():
        pass
    assert error.value.where == str(small.file(LOCK))


def test_a_log_that_is_a_link_or_a_pipe_goes_nowhere(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "pipe"):
        handle = open_log(str(tmp_path / name))
        os.write(handle, b"spoilt")
        assert stat.S_ISCHR(os.fstat(handle).st_mode)
        os.close(handle)
    assert victim.read_text() == "precious"
    assert tail(str(tmp_path / "fifo"), 0, 5) == []
    handle = open_log(str(tmp_path / "new" / "log"))
    os.write(handle, b"line\n")
    os.close(handle)
    assert tail(str(tmp_path / "new" / "log"), 0, 5) == ["line"]


def test_an_error_log_that_is_a_link_leaves_what_it_points_to(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("simclr-shapes")
    run = RunDir.at(tmp_path, name=recipe.name, fingerprint=recipe.fingerprint)
    run.path.mkdir()
    log = run.file("error.log")

    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Workshop, "_stages", fail)
    workshop = Workshop(tmp_path, Silent(), None)
    log.symlink_to(victim)
    assert workshop.complete(recipe, Missing(probe=True, analysis=True)) is not None
    assert victim.read_text() == "precious"
    assert "a bug" in log.read_text()
    log.unlink()
    log.mkdir()
    assert workshop.complete(recipe, Missing(probe=True, analysis=True)) is not None
