"""Means over pairs of images of the population, from a sample with a fixed number of images of each class.

Two images drawn from the population are both of class k with probability p_k²; two distinct ones of a sample with n_k
of n images of each class with probability n_k(n_k − 1)/(n(n − 1)), which is less. A mean over the pairs of the sample,
or of a resample in which the n_k stay fixed, is therefore a biased estimate of the mean over pairs of the population
E g(x, x′). The latter is, with ḡ_kl the mean over pairs of distinct images of the classes k and l,

    Σ_kl p_k p_l ḡ_kl,   ḡ_kl = Σ_{i≠j} w_i w_j g_ij / Σ_{i≠j} w_i w_j   (i of class k, j of class l)

under image weights w. Without labels all images form one class, a plain sample of the population. (docs/theory.md,
3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairWeights:
    """How much pairs of images count, under R image weightings.

    members: for each of K′ classes the places (n_k,) of its images. weights: (R, N). same: Σ p_k², the probability that
    two images are of one class.
    """

    members: tuple[Tensor, ...]
    weights: Tensor
    same: float

    @classmethod
    def build(cls, labels: Tensor | None, weights: Tensor, same: float | None = None) -> PairWeights:
        """For labels (N,) or None, and weights (R, N). `same` is Σ p_k² of these images unless it is given.

        If no two images share a class, they are treated like images without labels.
        """
        sizes = [] if labels is None else labels.bincount().tolist()
        if labels is None or max(sizes) < 2:
            return cls((torch.arange(weights.shape[1], device=weights.device),), weights, 1.0)
        members = tuple(images for images in labels.argsort(stable=True).split(sizes) if len(images))
        if same is None:
            same = sum(len(images) ** 2 for images in members) / len(labels) ** 2
        return cls(members, weights, same)

    def mean(self, total: Tensor, of_class: Tensor) -> Tensor:
        """Σ p_k p_l ḡ_kl (R,) from Σ_{i≠j} w_i w_j g_ij over all pairs (R,) and over those of each class (R, K′).

        Classes of one image have no ḡ_kk; the others', in proportion, replace it.
        """
        mass = torch.stack([self.weights[:, images].sum(dim=1) for images in self.members], dim=1)
        squares = torch.stack([self.weights[:, images].square().sum(dim=1) for images in self.members], dim=1)
        sizes = mass.new_tensor([len(images) for images in self.members])
        shares = torch.where(sizes > 1, sizes.square(), 0)
        within = torch.where(sizes > 1, of_class / torch.where(sizes > 1, mass.square() - squares, 1), 0)
        alike = (within @ shares) / shares.sum()
        if len(self.members) == 1:
            return alike
        between = (total - of_class.sum(dim=1)) / (mass.sum(dim=1).square() - mass.square().sum(dim=1))
        return self.same * alike + (1 - self.same) * between

    def mean_of_matrix(self, pairs: Tensor) -> Tensor:
        """The same of g_ij (N, N), whose diagonal does not count."""
        pairs = pairs - torch.diag(pairs.diagonal())
        total = ((self.weights @ pairs) * self.weights).sum(dim=1)
        of_class = [
            ((self.weights[:, images] @ pairs[images][:, images]) * self.weights[:, images]).sum(dim=1)
            for images in self.members
        ]
        return self.mean(total, torch.stack(of_class, dim=1))
