"""A sweep of five members and a cluster that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import QUICKLY_MEASURED
from tests.support.fake_slurm import SWEEP, FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    pytest.importorskip("submitit", reason="submission is submitit's: pip install 'cssl-cli[slurm]'")
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "steps: 2"))
    (tmp_path / "five.yaml").write_text(SWEEP)
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SLURM_CONF", "/the/users/own")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "of the job that we are in")
    return fake
