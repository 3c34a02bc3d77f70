"""A folder of images, its cache, and how many files are decoded."""

import pytest

from cssl_cli.data import folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache" / "below"


@pytest.fixture
def decoded(monkeypatch):
    """Counts the files decoded."""
    count = []
    real = folder.decode_into

    def counting(images, paths, *, progress):
        count.extend(paths)
        real(images, paths, progress=progress)

    monkeypatch.setattr(folder, "decode_into", counting)
    return count
