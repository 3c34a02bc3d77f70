"""How useful a context is, judged without labels by the decay of its spectrum. (docs/theory.md, 16.)

A context that leaves views unrelated to their image teaches nothing; one that leaves too much of it needs too many
functions to be learnt. Zhai et al., *Contextures: Representations from Contexts*, ICML 2025, arXiv 2505.01557, equation
4, weigh one against the other with the singular values s_i of the context, s_i² = λ_i:

    τ_d = 1 / (1 − s²_{d+1}) + β Σ_{i ≤ d} s_i² / Σ_{i ≤ d₀} s_i²,   τ = min_d τ_d,

τ_d a proxy of the error of d functions. β = 1 as in their experiments; they take d₀ = 512, the largest d considered.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MOST_FUNCTIONS = 512  # d₀


class Contexture(NamedTuple):
    """τ, no unit, at least 1, the lower the better; and the number d of functions at which it is attained."""

    tau: float
    dimension: int


def contexture(of_pairs: Tensor) -> Contexture | None:
    """From λ (D,), the largest first, without that of the constant; d runs over 1 … min(D − 1, 512).

    None for a single function or where none is positive; the negative ones count as 0.
    """
    values = of_pairs.clamp(min=0)
    most = min(len(values) - 1, MOST_FUNCTIONS)
    if most < 1 or values[:most].sum() == 0:
        return None
    sums = values[:most].cumsum(dim=0)
    taus = 1 / (1 - values[1 : most + 1]).clamp(min=torch.finfo(values.dtype).eps) + sums / sums[-1]
    at = int(taus.argmin())
    return Contexture(taus[at].item(), at + 1)
