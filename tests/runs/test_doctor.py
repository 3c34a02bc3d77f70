"""`cssl doctor`: each fault is found, named and given a remedy; a check that breaks costs only itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import tomllib
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cssl_cli.runs.doctor import examination, folders, packages, system, torch_part
from cssl_cli.runs.doctor.findings import Finding, examined
from tests.support.commands import Invoke

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(findings: Any) -> dict[str, Finding]:
    """The findings, the worst of each name."""
    order = ["ok", "warning", "failed"]
    return {finding.check: finding for finding in sorted(findings, key=lambda one: order.index(one.state))}


def assert_told(finding: Finding, state: str, *words: str) -> None:
    assert finding.state == state, finding
    assert finding.remedy
    for word in words:
        assert word in f"{finding.says} {finding.remedy}"


def test_a_check_that_breaks_costs_itself() -> None:
    def breaks() -> Iterator[Finding]:
        yield Finding("first", "well")
        raise AttributeError("no such thing\nand more")

    found = list(examined({"first": breaks, "second": lambda: [Finding("second", "well")]}))
    assert [finding.check for finding in found] == ["first", "first", "second"]
    assert_told(found[1], "warning", "AttributeError: no such thing")


# ---------------------------------------------------------------------- versions
def test_the_least_versions_are_those_of_the_project() -> None:
    least = dict(line.split(">=") for line in PROJECT["dependencies"])
    assert least == packages.NEEDED
    assert PROJECT["requires-python"] == f">={packages.PYTHON}"
    for name, version in packages.OPTIONAL.items():
        assert PROJECT["optional-dependencies"][packages.EXTRAS[name]] == [f"{name}>={version}"]


def test_what_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {**dict.fromkeys(packages.NEEDED, "99"), "torch": "2.7.1+cu118", "rich": None, "timm": "0.9"}
    monkeypatch.setattr(packages, "installed", versions.get)
    found = named(packages.versions())
    assert_told(found["torch"], "failed", "2.7.1+cu118", "pip install --upgrade 'torch>=2.8'")
    assert_told(found["rich"], "failed", "not installed", "pip install 'rich>=13.7'")
    assert_told(found["timm"], "failed", "0.9")
    assert (found["datasets"].state, "pip install" in found["datasets"].says) == ("ok", True)
    assert found["versions"].state == "ok"
    assert packages.numbers("2.10.0+cpu") > packages.numbers("2.9")


@pytest.mark.parametrize(("pinned", "state"), [("2.9.1", "ok"), ("2.8.0", "failed")])
def test_torchvision_says_for_which_torch_it_is(pinned: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", {"torch": "2.9.1+cpu", "torchvision": "0.24.1"}.get)
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy", f"torch (=={pinned})"])
    found = list(packages.torchvision_fits())
    assert [finding.state for finding in found] == [state] * (state == "failed")


# ---------------------------------------------------------------------- processor
@pytest.mark.parametrize(
    ("threads", "quota", "state"),
    [(None, None, "ok"), ("1", None, "warning"), ("8", None, "ok"), ("9", None, "warning"), ("many", None, "warning"),
     ("8", 2.0, "warning"), ("2", 2.0, "ok"), ("", None, "ok")],
)  # fmt: skip
def test_threads(threads: str | None, quota: float | None, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "cores", lambda: 8)
    monkeypatch.setattr(system, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 0, 0))
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = named(system.processors())
    assert found["threads"].state == state
    assert found["load"].state == "ok"


def test_the_quota_of_either_version_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    monkeypatch.setattr(system, "_PROC", tmp_path)
    monkeypatch.setattr(system, "_GROUPS", tmp_path / "sys")
    assert system.cpu_quota() is None
    write("self/cgroup", "5:memory:/box\n4:cpu,cpuacct:/box\n0::/own\n")
    assert system.cpu_quota() is None
    write("sys/cpu/box/cpu.cfs_quota_us", "-1\n")
    write("sys/cpu/box/cpu.cfs_period_us", "100000\n")
    assert system.cpu_quota() is None
    write("sys/cpu/cpu.cfs_quota_us", "150000\n")
    write("sys/cpu/cpu.cfs_period_us", "100000\n")
    assert system.cpu_quota() == 1.5
    write("sys/own/cpu.max", "max 100000\n")
    assert system.cpu_quota() == 1.5
    write("sys/cpu.max", "50000 100000\n")
    assert system.cpu_quota() == 0.5


def test_busy_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (999.0, 0, 0))
    assert_told(named(system.processors())["load"], "warning", "999")


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((5e8, "warning"), (5e9, "ok"), (None, "ok")):
        monkeypatch.setattr(system, "free_memory", lambda free=free: free)
        assert named(system.memory())["memory"].state == state


def test_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'x.cpp:2: fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert_told(named(system.compiler())["C++ compiler"], "warning", "Python.h", "python3-dev")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert_told(named(system.compiler())["C++ compiler"], "warning", "there is none", "g++")


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(system.clock())["clock"].state == "ok"
    monkeypatch.setattr(system.time, "time", lambda: 1e6)
    assert_told(named(system.clock())["clock"], "warning", "1970")


# ---------------------------------------------------------------------- folders
def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_sound_folder(tmp_path: Path) -> None:
    found = named(folders.runs_folder(tmp_path / "not" / "there"))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert set(found) == {"runs folder", "disk", "locks"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_or_failing_disk(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    found = named(folders.runs_folder(tmp_path))
    assert_told(found["runs folder"], "failed", os.strerror(number).lower())
    assert list(tmp_path.iterdir()) == []


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = types.SimpleNamespace(f_bavail=100, f_frsize=4096, f_files=10**6, f_favail=10**6)
    monkeypatch.setattr(os, "statvfs", lambda _: status)
    assert_told(named(folders.runs_folder(tmp_path))["runs folder"], "warning", "0.0 GB free")
    status.f_bavail, status.f_favail = 10**9, 3
    assert_told(named(folders.runs_folder(tmp_path))["runs folder"], "warning", "3 files more")


def test_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    assert_told(named(folders.runs_folder(tmp_path))["locks"], "failed", "cannot lock files", "--out")
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert_told(named(folders.runs_folder(tmp_path))["locks"], "failed", "same lock")


def test_clocks_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda path: utime(path, (0, 0)))
    assert_told(named(folders.runs_folder(tmp_path))["file times"], "warning", "behind")


def test_a_folder_that_may_only_be_read(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    read_only(tmp_path)
    assert_told(named(folders.runs_folder(tmp_path))["runs folder"], "failed", "cannot be written", "--out")


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: Callable[[Path], None]) -> None:
    monkeypatch.setenv("CSSL_CACHE", str(tmp_path / "cache"))
    assert named(folders.cache())["cache"].state == "ok"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").write_text("a file")
    assert_told(named(folders.cache())["cache"], "failed", "CSSL_CACHE")
    monkeypatch.setenv("CSSL_CACHE", "$NO_SUCH_VARIABLE/x")
    assert_told(named(folders.cache())["cache"], "failed", "NO_SUCH_VARIABLE")
    monkeypatch.setenv("CSSL_CACHE", str(tmp_path / "below"))
    read_only(tmp_path)
    assert_told(named(folders.cache())["cache"], "failed", "cannot be written", "CSSL_CACHE")


# ---------------------------------------------------------------------- torch
@pytest.mark.parametrize(
    ("code", "limit", "words"),
    [
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", None, "libcudart.so.12"),
        ("", None, "has no attribute"),
        ("import os; os.abort()", None, "SIGABRT"),
        ("print('goodbye'); import os; os._exit(3)", None, "code 3"),
        ("import time; time.sleep(60)", 1.0, "did not answer in 1 s"),
    ],
)  # fmt: skip
def test_a_foreign_torch(
    code: str, limit: float | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"{code}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with examination.with_torch([], compile_too=False, limit=limit) as found:
        (finding,) = found
    assert_told(finding, "failed", words, "torch again")


def test_a_system_without_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS."""
    monkeypatch.delattr(os, "memfd_create")
    test_a_foreign_torch("print('goodbye'); import os; os._exit(3)", None, "goodbye", tmp_path, monkeypatch)


def test_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def nms(*_: Any) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    other: Any = types.ModuleType("torchvision")
    other.ops, other.__version__ = types.SimpleNamespace(nms=nms), "0.1"
    monkeypatch.setitem(sys.modules, "torchvision", other)
    assert_told(named(torch_part._torchvision())["torchvision"], "failed", "torchvision::nms", "together")
    other.ops.nms = lambda *_: torch.tensor([1, 0])
    assert named(torch_part._torchvision())["torchvision"].state == "failed"


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> bool:
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)", stacklevel=1
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    assert_told(named(torch_part._device())["device"], "warning", "driver on your system is too old", "nvidia-smi")


def test_a_card_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old Card")
    monkeypatch.setattr(torch, "ones", ones)
    assert_told(named(torch_part._device())["device"], "failed", "Old Card", "no kernel image")


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_part, "SECONDS", 0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = named([*torch_part._torch(), *torch_part._device(), *torch_part._precision(), *torch_part._rates()])
    assert {finding.state for finding in found.values()} == {"ok"}
    assert found["precision"].facts["flop_per_second_float32"] > 0
    assert min(found["rates"].facts.values()) > 0
    monkeypatch.setattr(torch_part, "_product_rate", lambda _, dtype, side: 1e12 if dtype == "bfloat16" else 2e12)
    monkeypatch.setattr("cssl_cli.runs.device._has_bfloat16", lambda _: True)
    assert_told(named(torch_part._precision())["precision"], "warning", "does not pay", "train.precision=float32")


def test_the_images_of_a_recipe(tmp_path: Path) -> None:
    def looked_at(*words: str) -> Finding:
        return named(torch_part._data("\0".join(words)))["data"]

    assert looked_at("simclr-shapes").says == "7,000 images"
    assert_told(looked_at("simclr-folder", f"data.root={tmp_path}/none"), "failed", "none")
    assert_told(looked_at("simclr-folder"), "failed", "data.root")
    assert_told(looked_at("no-such-recipe"), "failed", "no-such-recipe")
    (tmp_path / "a").mkdir()
    assert_told(looked_at("simclr-folder", f"data.root={tmp_path}"), "failed", str(tmp_path))
    for number in range(20):
        name = "ab"[number % 2]
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name / f"{number}.png")
    told = looked_at("simclr-folder", f"data.root={tmp_path}")
    assert told.says.startswith("20 images, ")
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    assert_told(looked_at("simclr-folder", f"data.root={tmp_path}"), "failed", "0.png")


# ---------------------------------------------------------------------- the command
def test_the_command(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("torch", "well"), Finding("device", "no [red] GPU\x1b", "warning", "Buy one.")]
    monkeypatch.setattr(examination, "with_torch", lambda *_, **__: nullcontext(found))
    monkeypatch.setattr(system, "compiler", lambda: [])
    shown = invoke("doctor")
    assert shown.code == 0, shown.stdout
    assert "no [red] GPU\\x1b" in shown.stdout
    assert "→ Buy one." in shown.stdout
    assert json.loads(invoke("doctor", "--json", "-q").stdout)["ok"]
    found.append(Finding("torch", "cannot be loaded", "failed", "Install it."))
    failed = invoke("doctor", "--json")
    assert failed.code == 1
    assert json.loads(failed.stdout)["findings"][-1] == {
        "check": "torch", "says": "cannot be loaded", "state": "failed", "remedy": "Install it.", "facts": {}
    }  # fmt: skip
    assert invoke("doctor", "data.root=x").code == 2
