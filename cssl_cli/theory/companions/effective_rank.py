"""Effective dimension of the clean features, from their spectrum: RankMe, α-ReQ, NESum. (docs/theory.md, 13.)

With s_k the singular values of the features Z (N, D), not centred, and λ_1 ≥ λ_2 ≥ … the eigenvalues of their centred
covariance:

* RankMe: exp(−Σ π_k ln π_k), π_k = s_k / Σ s + 1e-7 (Garrido et al., ICML 2023, arXiv 2210.02885);
* α-ReQ: α of λ_j ∝ j^−α (Agrawal et al., NeurIPS 2022), least squares in log–log as in the authors' code and in
  Stringer et al., Nature 2019: weights 1/j, so that decades count alike, and indices that leave out the first ten
  eigenvalues and the tail;
* NESum: Σ λ_j / λ_1 (He and Ozay, ICML 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.table import FeatureTable

ENTROPY_OFFSET = 1e-7  # ε of RankMe
POSITIVE = 1e-12  # eigenvalues below this share of the largest are rounding
FIT_FIRST, FIT_LAST = 11, 100  # indices, counted from 1, of the power law's fit
FIT_LEAST = 3  # eigenvalues a fit needs
EQUAL = 1e-24  # features whose variance is below this share of their mean square are equal

SMALL_SAMPLE = "with few images for the width, the measured spectrum is steeper than the population's"


def effective_rank(table: FeatureTable) -> dict[str, Quantity]:
    """`rankme` and `nesum`, between 1 and `num_dimensions` D; `alpha_req`, ≥ 0: 0 for equal eigenvalues.

    All on the clean images' features as they are in the table. RankMe exceeds the bound by at most its offset 1e-7.
    """
    clean = table.features[:, 0]
    sample = Sample(table.num_images, 1)
    width = clean.shape[1]
    return {
        "num_dimensions": Estimate(
            value=width,
            estimator="width of the features, the most the ranks can be",
            errs="exact for the table",
            sample=sample,
        ),
        "rankme": _rankme(clean, sample),
        **_of_covariance(clean, sample),
    }


def _rankme(clean: Tensor, sample: Sample) -> Quantity:
    singular = torch.linalg.svdvals(clean)
    if singular[0] == 0:
        return Absent("all features of the clean images are zero")
    shares = singular / singular.sum() + ENTROPY_OFFSET
    return Estimate(
        value=(-(shares * shares.log()).sum()).exp().item(),
        estimator="exponential of the entropy of the clean features' singular values, as shares of their sum plus "
        f"1e-7, features neither centred nor scaled; {SMALL_SAMPLE}",
        errs="consistent",
        sample=sample,
    )


def _of_covariance(clean: Tensor, sample: Sample) -> dict[str, Quantity]:
    if sample.num_images < 2:
        return dict.fromkeys(("alpha_req", "nesum"), Absent("a covariance needs two images"))
    centred = clean - clean.mean(dim=0)
    if centred.square().sum() <= EQUAL * clean.square().sum():
        return dict.fromkeys(("alpha_req", "nesum"), Absent("all clean images have the same features"))
    eigenvalues = torch.linalg.svdvals(centred).square() / (sample.num_images - 1)
    return {
        "alpha_req": _alpha_req(eigenvalues, sample),
        "nesum": Estimate(
            value=(eigenvalues.sum() / eigenvalues[0]).item(),
            estimator="trace over largest eigenvalue of the centred covariance of the clean features, unscaled; "
            + SMALL_SAMPLE,
            errs="consistent",
            sample=sample,
        ),
    }


def _alpha_req(eigenvalues: Tensor, sample: Sample) -> Quantity:
    positive = int((eigenvalues > POSITIVE * eigenvalues[0]).sum())
    if positive < FIT_LEAST:
        return Absent(f"a power law needs {FIT_LEAST} positive eigenvalues, and there are {positive}")
    # A narrow spectrum has no tail to cut: then all of it is fitted.
    first, last = (FIT_FIRST, min(FIT_LAST, positive)) if positive >= FIT_FIRST + FIT_LEAST - 1 else (1, positive)
    index = torch.arange(first, last + 1, dtype=torch.float64, device=eigenvalues.device)
    weights = 1 / index
    weights /= weights.sum()
    x, y = index.log(), eigenvalues[first - 1 : last].log()
    x = x - weights @ x
    slope = (weights * x) @ y / (weights @ x.square())
    return Estimate(
        value=-slope.item(),
        estimator="minus the slope of log eigenvalue on log index, centred covariance of the clean features, unscaled, "
        f"least squares with weights 1/index over the eigenvalues {first} to {last}; {SMALL_SAMPLE}",
        errs="consistent",
        sample=sample,
    )
