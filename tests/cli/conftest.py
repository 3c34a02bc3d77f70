"""A run to report on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(quickly_measured: Path, tmp_path: Path) -> Path:
    """One that was measured with its recipe's settings: most tests read it, or measure with others."""
    return Path(shutil.copytree(quickly_measured, tmp_path / "runs" / quickly_measured.name))
