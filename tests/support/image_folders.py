"""Folders of images, loaded as data sets through a cache."""

import numpy as np
import pytest
from PIL import Image

from cssl_cli.data import load_dataset
from cssl_cli.errors import InputError

SIZE = 6


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def write(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number)).save(path)
    return path


def write_classes(root, counts, start=0):
    for name, count in counts.items():
        for number in range(count):
            write(root / name / f"{number:02}.png", start := start + 1)


def load(root, cache_dir, *, progress=None, notice=None, **changes):
    settings = {"name": "folder", "root": str(root), "size": SIZE, "test_fraction": 0.25, "limit": None}
    settings |= {"limit_test": None, "labels": None, "store_size": None, "channels": 3} | changes
    return load_dataset(settings, cache_dir=cache_dir, progress=progress, notice=notice)


def refused(root, cache_dir, **changes):
    with pytest.raises(InputError) as caught:
        load(root, cache_dir, **changes)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return caught.value


def contents(cache_dir):
    return sorted(path.suffix for path in cache_dir.iterdir() if path.name != ".lock") if cache_dir.exists() else []
