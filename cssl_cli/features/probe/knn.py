"""Weighted k-nearest-neighbour classification by cosine similarity (Wu et al., CVPR 2018, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cssl_cli.features.geometry import unit_norm

BLOCK_ENTRIES = 2**24  # similarities in memory at once


def effective_k(k: int, num_train: int, num_classes: int) -> int:
    """`k`, but at most the training images of an average class, and at least 1.

    With more neighbours than a class has images, other classes would outvote it however good the features are.
    """
    return max(1, min(k, num_train // num_classes))


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """The class (N,) with the largest sum of exp(cosine / temperature) over the k nearest training images.

    Of classes with equal votes the first wins; arguments as those of `knn_votes`.
    """
    votes = knn_votes(
        train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=num_classes
    )
    return votes.argmax(dim=1)


def knn_votes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """The sums (N, K) of exp((cosine − the largest) / temperature) over the k nearest training images of each class.

    train_features (M, D), train_labels (M,), test_features (N, D), 1 ≤ k ≤ M; in float32, or in their own type if that
    is wider. Images equally near at the k-th place share the remaining places, so that the order of the training images
    does not matter.
    """
    assert 1 <= k <= len(train_features)
    dtype = torch.promote_types(train_features.dtype, torch.float32)
    train = unit_norm(train_features.to(dtype))
    members = one_hot(train_labels, num_classes).to(train.dtype)
    block_images = max(1, BLOCK_ENTRIES // len(train))
    found = []
    for block in unit_norm(test_features.to(dtype)).split(block_images):
        similarity = block @ train.T
        nearest, neighbours = similarity.topk(min(k + 1, len(train)), dim=1)
        kernel = ((nearest[:, :k] - nearest[:, :1]) / temperature).exp()
        votes = torch.einsum("bk,bkc->bc", kernel, members[neighbours[:, :k]])
        if k < len(train):
            tied = nearest[:, k - 1] == nearest[:, k]
            votes[tied] = _shared_votes(similarity[tied], members, k, temperature)
        found.append(votes)
    return torch.cat(found)


def _shared_votes(similarity: Tensor, members: Tensor, k: int, temperature: float) -> Tensor:
    """Votes (T, K) if the images equally near at the k-th place share the remaining places."""
    last = similarity.topk(k, dim=1).values
    nearer, level = similarity > last[:, -1:], similarity == last[:, -1:]
    share = (k - nearer.sum(dim=1, keepdim=True)) / level.sum(dim=1, keepdim=True)
    kernel = ((similarity - last[:, :1]) / temperature).exp()
    return (kernel * (nearer + share * level)) @ members
