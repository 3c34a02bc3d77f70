"""A run directory that has begun, and a file that nothing may be written into."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssl_cli.runs.run_dir import RunDir


@pytest.fixture
def small(tmp_path: Path) -> RunDir:
    run = RunDir.at(tmp_path, name="r", fingerprint="0123456789")
    run.create("name: r\n")
    return run


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path
