"""The GPU path without a GPU: the checks of `tests/gpu_path`, in two processes: `check_run.py` replaces parts of torch
before the package is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a build of torch without CUDA: nothing to pretend with")
@pytest.mark.parametrize("checks", [("check_run.py",), ("check_step.py", "check_compile.py")], ids=" ".join)
def test_the_gpu_path(checks: tuple[str, ...], record_property: Callable[[str, object], None]) -> None:
    arguments = ["-m", "pytest", "-n0", "-p", "no:cacheprovider", f"--rootdir={TESTS.parent}"]
    ended = subprocess.run(
        [sys.executable, *arguments, *(str(TESTS / "gpu_path" / name) for name in checks)],
        cwd=TESTS.parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert "skipped" not in ended.stdout
    names = ", ".join(name.removesuffix(".py") for name in checks)
    record_property("gpu path", f"{names}: {passed[0]}")
