"""The GPU path without a GPU: the checks of `tests/gpu_path`, in two processes, which see none where there is one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.forked_process import in_a_process

TESTS = Path(__file__).parents[1]
EVERY = "check_compile.py"  # by itself: with every method


@pytest.mark.long
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a build of torch without CUDA: nothing to pretend with")
@pytest.mark.parametrize(
    "checks",
    [("check_run.py",), ("check_step.py", "check_compile.py"), pytest.param((EVERY,), marks=pytest.mark.soak)],
    ids=" ".join,
)
def test_the_gpu_path(checks: tuple[str, ...], tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    code = in_a_process(follow, checks, tmp_path / "printed")
    printed = (tmp_path / "printed").read_text()
    assert code == 0, printed[-22_000:]
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert "skipped" not in printed
    names = ", ".join(name.removesuffix(".py") for name in checks)
    record_property("gpu path", f"{names}: {passed[0]}")


def follow(checks: tuple[str, ...], output: Path) -> int:
    """Run them in this process, where torch finds no GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if checks == (EVERY,):
        os.environ["CSSL_EVERY_METHOD"] = "1"
    os.chdir(TESTS.parent)
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    arguments = ["-n0", "-p", "no:cacheprovider", f"--rootdir={TESTS.parent}"]
    return pytest.main([*arguments, *(str(TESTS / "gpu_path" / name) for name in checks)])
