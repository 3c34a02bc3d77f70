"""What is behind every command: errors that are sentences, whoever raises them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cssl_cli.cli.guard import exit_code_of


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nAnd a page of advice")


USED_UP = {"numpy": lambda: np.empty(10**15), "torch": lambda: torch.empty(10**15), "a GPU": full_gpu}


@pytest.mark.parametrize("where", USED_UP)
def test_memory_that_is_used_up_is_told(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(USED_UP[where]) == 1
    first, remedy = capsys.readouterr().err.splitlines()
    assert first.startswith("error: memory is used up: ")
    assert "train.micro_batch" in remedy


def test_a_bug_is_told_as_one() -> None:
    def bug() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        exit_code_of(bug)
