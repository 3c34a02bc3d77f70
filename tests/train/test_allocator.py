"""Freed memory is kept where there is plenty of it, and only there."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from cssl_cli.train import allocator
from cssl_cli.train.allocator import HEADROOM, keep_freed_memory
from tests.support.forked_process import in_a_process

GIB = 2**20  # in the system's kB


class Library:
    """Stands for the C library; takes note of what is set."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        self.settings[parameter] = value
        return 1


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: found)
    monkeypatch.setattr(allocator, "PROC", tmp_path)
    monkeypatch.setattr(allocator, "CGROUP", tmp_path)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\tpython\nVmPeak:\t 99 kB\nVmHWM:\t  {2 * GIB} kB\n")
    return found


def free(folder: Path, kilobytes: float) -> None:
    (folder / "meminfo").write_text(f"MemTotal:   1 kB\nMemAvailable:   {int(kilobytes)} kB\n")


def test_memory_is_kept_where_it_is_plenty(library: Library, tmp_path: Path) -> None:
    free(tmp_path, HEADROOM * 2 * GIB)
    assert keep_freed_memory()
    assert library.settings[allocator.M_MMAP_MAX] == 0


def test_memory_that_is_short_is_given_back(library: Library, tmp_path: Path) -> None:
    free(tmp_path, HEADROOM * 2 * GIB - 1)
    assert not keep_freed_memory()
    assert library.settings == {}


@pytest.mark.parametrize(("limit", "kept"), [("max", True), (9, True), (6, False)])
@pytest.mark.parametrize("group", ["", "batch", "batch/job"])
def test_a_container_or_a_job_may_have_less_than_the_machine(
    library: Library, tmp_path: Path, limit: str | int, kept: bool, group: str
) -> None:
    free(tmp_path, 100 * GIB)
    (tmp_path / "self" / "cgroup").write_text("1:cpu:/elsewhere\n0::/batch/job\n")
    folder = tmp_path / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit if isinstance(limit, str) else str(1024 * limit * GIB))
    (folder / "memory.current").write_text(str(1024 * 2 * GIB))
    assert keep_freed_memory() == kept
    assert bool(library.settings) == kept


def test_systems_without_these_files_change_nothing(library: Library) -> None:
    assert not keep_freed_memory()
    assert library.settings == {}


def pages_of_a_tensor() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1)  # 64 MiB, 16,384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def settled() -> int:
    for _ in range(6):  # until the pieces have found their places
        pages_of_a_tensor()
    return pages_of_a_tensor()


def before_and_after() -> tuple[int, bool, int]:
    return settled(), keep_freed_memory(), settled()


def test_large_tensors_come_without_new_pages() -> None:
    """With glibc, that is; elsewhere nothing is said to be kept."""
    given_back, kept, again = in_a_process(before_and_after)
    with_glibc = platform.libc_ver()[0] == "glibc"
    assert kept == with_glibc, "less than three times the memory of a Python process is free"
    if with_glibc:
        assert again < given_back / 4
