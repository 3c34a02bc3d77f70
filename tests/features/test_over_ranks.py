"""Ranks that take turns with batches of images have the features of one process, bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cssl_cli.augment import build_augmentation
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.nn.ranks import Ranks
from tests.support.thread_ranks import on_ranks

IMAGES = torch.randint(0, 256, (11, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
AUGMENTATION = build_augmentation({"crop": {"scale": [0.3, 1.0]}, "gray": {"p": 0.5}}, image_size=8)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [4, 32])  # ragged blocks; fewer blocks than ranks
def test_features_of_ranks(size: int, batch_size: int) -> None:
    made = FeatureExtractor(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval(),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        image_size=8,
        batch_size=batch_size,
        device=torch.device("cpu"),
    )
    theta = AUGMENTATION.draw(11 * 2, torch.Generator().manual_seed(1)).reshape(11, 2, -1)

    def work(ranks: Ranks) -> tuple[list[Tensor], list[slice], list[int]]:
        counted: list[int] = []
        extractor = copy.copy(made)
        extractor.ranks = ranks
        generator = torch.Generator().manual_seed(2)
        views = list(extractor.views(IMAGES, AUGMENTATION, num_views=2, generator=generator, advance=counted.append))
        clean = extractor.clean(IMAGES, advance=counted.append)
        table = extractor.view_table(IMAGES, AUGMENTATION, theta, advance=counted.append)
        return [clean, table, *(features for _, features in views)], [rows for rows, _ in views], counted

    ((expected, rows, counted),) = on_ranks(1, work)
    assert sum(counted) == 11 + 11 + 33
    assert [len(one) for one in expected[:2]] == [11, 11]
    for found, found_rows, found_counts in on_ranks(size, work):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert (found_rows, found_counts) == (rows, counted)
