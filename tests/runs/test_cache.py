"""`cssl cache`: lists what lies there, and removes what is ours, old enough and not in use."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cssl_cli.cli.cache import read_age, read_size
from cssl_cli.data.cache import cached_images
from cssl_cli.errors import InputError, InUseError
from cssl_cli.host.cache_folder import COMPILED, TAG, tag
from cssl_cli.host.paths import cache_dir
from cssl_cli.runs.cache import Pruned, entries, prune
from cssl_cli.runs.compiling import COMPILER_CACHE, keep_compiler_cache
from tests.support.commands import Invoke

DAY = 86400.0
KEYS = [f"folder-{number:032x}" for number in range(3)]


def images(folder: Path, key: str) -> torch.Tensor:
    def fill(array: np.ndarray) -> None:
        array[:] = 7

    source = f"/pictures/{key[-1]}"
    return cached_images(folder, key, size=8, channels=3, lengths=[100], fill=fill, source=source)[0][0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with entries used 1, 10 and 100 days ago, and with what is not ours."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CSSL_CACHE", str(folder))
    for key, days in zip(KEYS, (1, 10, 100), strict=True):
        del (loaded := {"images": images(folder, key)})["images"]  # the mapping goes, and its lock
        assert not loaded
        for suffix in (".npy", ".json"):
            then = time.time() - days * DAY
            os.utime(folder / f"{key}{suffix}", (then, then))
    (folder / "cifar-10-python.tar.gz").write_bytes(b"a download")
    (folder / "notes.npy").write_bytes(b"not ours")
    (folder / "folder-x.npy").write_bytes(b"not ours")
    (folder / f"{KEYS[0]}.npy.building").write_bytes(b"not ours")
    (folder / ("folder-" + "f" * 32 + ".npy")).symlink_to(tmp_path / "elsewhere.npy")
    yield folder
    assert {path.name for path in folder.iterdir()} >= {
        "cifar-10-python.tar.gz",
        "notes.npy",
        "folder-x.npy",
        "folder-" + "f" * 32 + ".npy",
    }


def pruned(folder: Path, **options: object) -> list[str]:
    how = {"older_than": None, "max_bytes": None, "everything": False, "dry_run": False}
    return [entry.name for entry in prune(folder, **{**how, **options}).removed]  # type: ignore[arg-type]


def there(folder: Path) -> list[str]:
    return [entry.name for entry in entries(folder) if entry.kind == "images"]


def test_what_is_there(folder: Path) -> None:
    found = {entry.name: entry for entry in entries(folder)}
    assert [entry.name for entry in entries(folder) if entry.kind == "images"] == KEYS  # the latest used first
    entry = found[KEYS[1]]
    assert (entry.source, entry.shape, entry.in_use) == ("/pictures/1", (100, 3, 8, 8), False)
    assert time.time() - entry.used == pytest.approx(10 * DAY, abs=60)
    assert entry.num_bytes >= 100 * 3 * 64
    assert found["cifar-10-python.tar.gz"].kind == "other"
    assert entries(folder / "nothing") == []


def test_reading_an_entry_is_using_it(folder: Path) -> None:
    kept = images(folder, KEYS[2])
    newest = next(entry for entry in entries(folder) if entry.kind == "images")
    assert (newest.name, newest.in_use) == (KEYS[2], True)
    assert time.time() - newest.used < 60
    assert pruned(folder, everything=True) == [KEYS[1], KEYS[0]]
    assert int(kept.sum()) == 7 * 100 * 3 * 64
    del kept
    assert pruned(folder, everything=True) == [KEYS[2]]


def test_by_age_and_by_size(folder: Path) -> None:
    assert pruned(folder, older_than=30 * DAY, dry_run=True) == [KEYS[2]]
    assert there(folder) == KEYS
    assert pruned(folder, older_than=30 * DAY) == [KEYS[2]]
    each = next(entry for entry in entries(folder) if entry.kind == "images").num_bytes
    assert pruned(folder, max_bytes=2 * each) == []
    assert pruned(folder, max_bytes=2 * each - 1) == [KEYS[1]]
    assert there(folder) == KEYS[:1]
    assert int(images(folder, KEYS[1]).sum()) == 7 * 100 * 3 * 64  # made again


def test_what_killed_processes_left_goes_in_any_case(folder: Path) -> None:
    (folder / f"{KEYS[0]}.json").unlink()
    left = folder / f"{KEYS[1]}.npy.{'a' * 32}.building"
    left.write_bytes(b"half an array")
    assert sorted(pruned(folder, older_than=1000 * DAY)) == [KEYS[0], left.name]
    assert there(folder) == KEYS[1:]


def test_entries_that_are_being_made_or_begun_to_be_read_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InUseError, match="being prepared"):
            pruned(folder, everything=True)
    with (folder / f"{KEYS[0]}.npy").open() as reader:
        found = entries(folder)
        fcntl.flock(reader, fcntl.LOCK_SH)  # after the list was made
        monkeypatch.setattr("cssl_cli.runs.cache.entries", lambda _: found)
        result = prune(folder, older_than=None, max_bytes=None, everything=True, dry_run=False)
    assert isinstance(result, Pruned)
    assert [entry.name for entry in result.in_use] == [KEYS[0]]
    assert there(folder) == [KEYS[0]]


def test_compiled_code_goes_where_we_marked_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSSL_CACHE", str(tmp_path))
    monkeypatch.setenv(COMPILER_CACHE, "")
    compiled = tmp_path / COMPILED
    compiled.mkdir()
    (compiled / "precious").write_text("not ours")
    assert pruned(tmp_path, everything=True) == []
    (compiled / TAG).write_text("Signature: 8a477f597d28d172789f06886806bc55")  # of another program
    keep_compiler_cache()
    assert pruned(tmp_path, everything=True) == []
    (compiled / TAG).unlink()
    keep_compiler_cache()
    assert not (compiled / TAG).exists()  # $CSSL_CACHE may be any folder, and `compiler` somebody's project
    (compiled / "precious").unlink()
    keep_compiler_cache()
    (compiled / "ab").mkdir()
    (compiled / "ab" / "code.py").write_text("pass")
    assert pruned(tmp_path, everything=True) == []  # used a moment ago
    for path in (compiled / TAG, compiled / "ab" / "code.py"):
        os.utime(path, (1, 1))
    assert pruned(tmp_path, everything=True) == [COMPILED]
    assert not compiled.exists()


@pytest.mark.parametrize(
    ("names", "ours"),
    [((), True), (("fxgraph", "2a", "locks"), True), (("fxgraph", "2a", "src"), False), (("2a", "33"), False)],
)
def test_what_earlier_versions_compiled_is_marked_and_nothing_else(
    tmp_path: Path, names: Sequence[str], ours: bool
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    tag(tmp_path)
    assert (tmp_path / TAG).exists() == ours


def test_half_removed_code_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it removes the folder leaves the tag, by which the next one goes on."""
    compiled = tmp_path / COMPILED
    for name in ("aa", "zz"):
        (compiled / name).mkdir(parents=True)
    (compiled / "aotautograd").mkdir()
    tag(compiled)
    os.utime(compiled / TAG, (1, 1))

    def killed(_: Path) -> None:
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        assert pruned(tmp_path, everything=True) == []
    (left,) = [path for path in tmp_path.iterdir() if path.name != ".lock"]
    assert pruned(tmp_path, max_bytes=10**9) == [left.name]
    assert not left.exists()


def test_an_entry_that_vanished_or_may_not_be_read_ends_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def closed(path: Any, *rest: Any, **more: Any) -> int:
        for key, error in ((KEYS[0], FileNotFoundError(2, "gone")), (KEYS[1], PermissionError(13, "not allowed"))):
            if str(path).endswith(f"{key}.npy"):
                raise error
        return opened(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        assert {entry.name: entry.in_use for entry in entries(folder) if entry.kind == "images"} == {
            KEYS[0]: False,
            KEYS[1]: True,
            KEYS[2]: False,
        }


def test_what_cannot_be_removed_keeps_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """In a folder that several users share, some entries are another's."""
    unlink = Path.unlink

    def of_another(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(KEYS[2]):  # the one used longest ago, the first to go
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", of_another)
    done = invoke("cache", "prune", "--older-than", "5d", "--json")
    assert [entry["name"] for entry in json.loads(done.stdout)["removed"]] == [KEYS[1]]
    assert done.code == 1
    assert "cannot be removed: operation not permitted" in done.stderr
    assert there(folder) == [KEYS[0], KEYS[2]]


def test_the_command(folder: Path, invoke: Invoke) -> None:
    listed = invoke("cache", "--json")
    assert json.loads(listed.stdout)["folder"] == str(cache_dir()) == str(folder)
    assert [entry["name"] for entry in json.loads(listed.stdout)["entries"] if entry["kind"] == "images"] == KEYS
    shown = invoke("cache")
    assert "/pictures/2" in shown.stdout
    assert "100 days ago" in shown.stdout
    tried = invoke("cache", "prune", "--older-than", "30d", "--dry-run")
    assert "1 item would be removed" in tried.stdout
    removed = invoke("cache", "prune", "--older-than", "30d", "--json")
    assert [entry["name"] for entry in json.loads(removed.stdout)["removed"]] == [KEYS[2]]
    for wrong in (["prune"], ["list", "--all"], ["--older-than", "3d"], ["empty"], ["prune", "--max-size", "x"]):
        failed = invoke("cache", *wrong)
        assert (failed.code, failed.stdout) == (2, "")
        assert failed.stderr.startswith("error: ")


def test_ages_and_sizes() -> None:
    assert [read_age(text) for text in ("90m", "12h", "1.5d", "2w")] == [5400, 43200, 129600, 1209600]
    assert [read_size(text) for text in ("5GB", "500 mb", "2.5GiB", "100")] == [5 * 10**9, 5 * 10**8, 5 * 2**29, 100]
    for text in ("", "d", "3", "-3d", "3y"):
        with pytest.raises(InputError):
            read_age(text)
    for text in ("", "GB", "3PB", "-1", "3i"):
        with pytest.raises(InputError):
            read_size(text)
