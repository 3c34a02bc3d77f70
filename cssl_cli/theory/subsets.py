"""Chooses images where all pairs would be too many."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_subset(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` image indices, ascending, drawn at random and equally many of each class as far as it has them.

    If that would be one of each, as many random classes as possible have two: pairs of the same class are needed, too.
    """
    order = torch.randperm(len(labels), generator=generator, device=generator.device).cpu()
    rank = torch.empty_like(order)  # of each image among those of its class, in random order
    for label in labels.unique():
        rows = order[labels[order] == label]
        rank[rows] = torch.arange(len(rows))
    each = int((rank.bincount().cumsum(dim=0) <= most).sum())
    if each < 2 <= most // 2:
        paired = labels[order[rank[order] == 1]][: most // 2]  # classes of two images or more, in random order
        in_pairs = torch.isin(labels, paired)
        single = order[(rank[order] == 0) & ~in_pairs[order]][: most - 2 * len(paired)]
        return torch.cat([((rank < 2) & in_pairs).nonzero().squeeze(1), single]).sort().values
    rows = order[rank[order] == 0][:most] if each == 0 else (rank < each).nonzero().squeeze(1)
    return rows.sort().values
