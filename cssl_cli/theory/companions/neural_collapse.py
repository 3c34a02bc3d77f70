"""Collapse of the classes on clean images: NC1, the plain ratio of traces, CDNV. (docs/theory.md, 13.)

With class means μ_k, their mean μ = Σ p_k μ_k, V_k the mean squared distance of class k to μ_k, Σ_W the mean of
(z − μ_y)(z − μ_y)ᵀ over images and Σ_B = Σ p_k (μ_k − μ)(μ_k − μ)ᵀ:

* NC1: tr(Σ_W Σ_B⁺) / K (Papyan, Han and Donoho, PNAS 2020, arXiv 2008.08186);
* ratio: tr Σ_W / tr Σ_B;
* CDNV of two classes: (V_k + V_l) / (2 ‖μ_k − μ_l‖²) (Galanti et al., ICLR 2022, arXiv 2112.15121);
* directional CDNV of class k against l: eᵀΣ_k e / ‖e‖⁴, e = μ_l − μ_k and Σ_k the covariance of class k: the variance
  along the line between the means, the only one that moves an image across the bisector (Luthra, Salunkhe and Galanti,
  arXiv 2603.03530, as in their code).

All plug-in: Σ_W comes out too small and Σ_B too large, by the noise of the class means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.theory.estimate import Absent, Direction, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable

QUANTITIES = ("nc1", "ratio", "cdnv", "cdnv_closest", "directional_cdnv", "directional_cdnv_worst")
EQUAL = 1e-24  # squared distances between means below this share of the features' mean square are zero
PSEUDO_INVERSE = 1e-7  # singular values of the centred class means below this share of the largest count as zero


def neural_collapse(table: FeatureTable) -> dict[str, Quantity]:
    """`nc1`, `ratio`, `cdnv` (mean over pairs of classes) and `cdnv_closest` (the pair hardest to tell apart), all ≥ 0;
    `directional_cdnv` (mean over ordered pairs) and `directional_cdnv_worst`.

    0 when every class is a point. On clean views, with the divisors n_k of the literature; the table's `spread` has the
    unbiased ratio for augmented views.
    """
    reason = _why_absent(table)
    if reason is not None:
        return dict.fromkeys(QUANTITIES, Absent(reason))
    return _Collapse(table).quantities()


def _why_absent(table: FeatureTable) -> str | None:
    if table.labels is None:
        return "the images have no labels"
    sizes = table.class_sizes
    if int((sizes > 0).sum()) < 2:
        return "the images are all of one class"
    if bool((sizes == 1).any()):
        single = table.class_names[int((sizes == 1).int().argmax())]
        return f"a spread within classes needs two images of every class, and there is one of {single}"
    return None


class _Collapse:
    """Means and spreads of the K′ classes that occur."""

    def __init__(self, table: FeatureTable) -> None:
        assert table.labels is not None
        self.clean = table.features[:, 0]
        self.sample = Sample(table.num_images, 1)
        present = (table.class_sizes > 0).nonzero().squeeze(1)
        self.names = [table.class_names[label] for label in present.tolist()]
        self.priors = table.priors[present]
        self.means = torch.stack([self.clean[images].mean(dim=0) for images in table.members if len(images)])
        self.place = torch.searchsorted(present, table.labels)
        self.deviations = self.clean - self.means[self.place]
        sums = self.means.new_zeros(len(present)).index_add_(0, self.place, self.deviations.square().sum(dim=1))
        self.spreads = sums / table.class_sizes[present]
        self.negligible = EQUAL * self.clean.square().sum(dim=1).mean()

    def quantities(self) -> dict[str, Quantity]:
        return {**self.of_traces(), **self.of_pairs()}

    def of_traces(self) -> dict[str, Quantity]:
        centred = self.priors.sqrt().unsqueeze(1) * (self.means - self.priors @ self.means)
        between = centred.square().sum()
        if between <= self.negligible:
            return dict.fromkeys(("nc1", "ratio"), Absent("all class means coincide"))
        # Σ_B = AᵀA with A = centred: tr(Σ_W Σ_B⁺) is the mean over images of ‖S⁻¹ V (z − μ_y)‖², A = U S V.
        _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = singular > PSEUDO_INVERSE * singular[0]
        scaled = self.deviations @ axes[kept].T / singular[kept]
        nc1 = scaled.square().sum(dim=1).mean() / len(self.names)
        ratio = self.priors @ self.spreads / between
        return {
            "nc1": self.estimate(nc1, "tr(Σ_W Σ_B⁺)/K of the clean features, plug-in", "consistent"),
            "ratio": self.estimate(ratio, "tr Σ_W / tr Σ_B of the clean features, plug-in", "consistent"),
        }

    def of_pairs(self) -> dict[str, Quantity]:
        first, second = torch.triu_indices(len(self.names), len(self.names), offset=1, device=self.means.device)
        squares = (self.means[first] - self.means[second]).square().sum(dim=1)
        if squares.min() <= self.negligible:
            pair = self.pair(first, second, squares.argmin())
            return dict.fromkeys(QUANTITIES[2:], Absent(f"the means of {pair[0]} and {pair[1]} coincide"))
        cdnv = (self.spreads[first] + self.spreads[second]) / (2 * squares)
        words = "(V_k + V_l)/(2‖μ_k − μ_l‖²) of the clean features, plug-in, "
        largest = self.estimate(
            cdnv.max(),
            words + "largest over pairs of classes: each pair's is too small on average, the largest of noisy ones "
            "too large",
            "consistent",
            classes=self.pair(first, second, cdnv.argmax()),
        )
        mean = self.estimate(cdnv.mean(), words + "mean over pairs of classes", "consistent")
        return {"cdnv": mean, "cdnv_closest": largest, **self.directional()}

    def directional(self) -> dict[str, Quantity]:
        count = len(self.names)
        values = self.means.new_zeros(count, count)
        for own in range(count):
            edges = self.means - self.means[own]
            along = (self.deviations[self.place == own] @ edges.T).square().mean(dim=0)
            values[own] = along / edges.square().sum(dim=1).square()
        ordered = values[~torch.eye(count, dtype=torch.bool, device=values.device)]
        largest = divmod(int(values.fill_diagonal_(-torch.inf).argmax()), count)
        words = "eᵀΣ_k e/‖e‖⁴ of the clean features, e = μ_l − μ_k, plug-in, "
        return {
            "directional_cdnv": self.estimate(
                ordered.mean(), words + "mean over ordered pairs of classes", "consistent"
            ),
            "directional_cdnv_worst": self.estimate(
                ordered.max(),
                words + "largest over ordered pairs, of the first class named against the second: each pair's is too "
                "small on average, the largest of noisy ones too large",
                "consistent",
                classes=tuple(self.names[position] for position in largest),
            ),
        }

    def pair(self, first: Tensor, second: Tensor, index: Tensor) -> tuple[str, str]:
        one, other = torch.stack([first[index], second[index]]).tolist()
        return self.names[one], self.names[other]

    def estimate(
        self, value: Tensor, estimator: str, errs: Direction, classes: tuple[str, ...] | None = None
    ) -> Estimate:
        return Estimate(value.item(), estimator, errs, self.sample, classes=classes)
