"""Links, pipes, folders and full disks where the files of a run belong; kills at each moment a file is written."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.cli.analyze import tell_of_damaged_probe
from cssl_cli.errors import DamagedError, InputError, InUseError, RunError
from cssl_cli.host.files import open_in_place, remove_leftovers, replacing
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.report.analysis import read_probe
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import ENCODER, ENVIRONMENT, LOCK, PROBE, RECIPE, STATUS, RunDir
from cssl_cli.sweep.workers.process import open_log, tail
from cssl_cli.sweep.workers.stages import Missing, Workshop
from tests.runs.test_damage import READERS, Told, refusal
from tests.support.commands import TINY_RECIPE, Invoke

LONG = "x" * 300


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


@pytest.fixture
def small(tmp_path: Path) -> RunDir:
    run = RunDir.at(tmp_path, name="r", fingerprint="0123456789")
    run.create("name: r\n")
    return run


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
@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


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


# ---------------------------------------------------------------------- kills
class Killed(BaseException):
    """As SIGKILL would end it: nothing of ours catches it."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    small = ["data.num_train=64", "data.num_test=30", "train.batch_size=32", "train.epochs=2"]
    return folder, load_recipe(str(folder / "tiny.yaml"), [*small, "probe.every=1", "train.checkpoint_minutes=0"])


def written(run: RunDir) -> dict[str, bytes]:
    return {name: run.file(name).read_bytes() for name in (ENCODER, "projector.safetensors", "knn.jsonl", STATUS)}


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_run_killed_at_each_write_ends_as_if_undisturbed(
    short: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    folder, recipe = short
    undisturbed = pretrain(recipe, out=folder / "undisturbed", reporter=Silent())
    real, calls, kill_at = getattr(os, function), 0, 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, function, counted)
    told, run = Told(), None
    while run is None:  # one write further each time, until nothing is left to kill
        calls, kill_at = 0, kill_at + 1
        with suppress(Killed):
            run = pretrain(recipe, out=tmp_path, reporter=told)
    assert kill_at >= 8
    assert written(run) == written(undisturbed)
    assert sorted(path.name for path in run.path.iterdir()) == sorted(path.name for path in undisturbed.path.iterdir())
    assert not [line for line in told.said if "damaged" in line]
