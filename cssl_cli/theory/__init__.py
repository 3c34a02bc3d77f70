"""The theory's terms, measured on a table of features: arrays in, named numbers out. One file a term.

Everything is computed in float64 from features (N, V, D) that the caller has scaled to the norm the theory is to speak
of (`cssl_cli.geometry.unit_norm`). The mathematics, and the sections that the docstrings name, are in docs/theory.md;
the source is Huang et al., "Towards the Generalization of Contrastive Self-Supervised Learning", arXiv 2111.00743.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cssl_cli.intervals import bootstrap_weights
from cssl_cli.theory.alignment import alignment
from cssl_cli.theory.class_centers import class_centers
from cssl_cli.theory.estimate import Absent, Estimate, Quantity
from cssl_cli.theory.r_epsilon import r_epsilon
from cssl_cli.theory.spread import spread
from cssl_cli.theory.table import FeatureTable

__all__ = ["Absent", "Estimate", "FeatureTable", "Quantity", "analyze_table"]


def analyze_table(
    features: Tensor,
    labels: Tensor | None,
    *,
    class_names: Sequence[str],
    epsilons: Sequence[float],
    bootstrap: int,
    generator: torch.Generator,
) -> dict[str, dict[str, Quantity]]:
    """Every term of the table: `alignment`, `R_epsilon`, `class_centers`, `spread`, each a dict of quantities.

    features: (N, V, D), view 0 the clean image, the others draws from the augmentation; any device and float type.
    labels: (N,) in 0 … K − 1, or None: then the terms that need classes are absent, with a reason.
    epsilons: the grid of R_ε. bootstrap: resamples behind each bootstrap interval, 0 for none; drawn from `generator`.
    Raises RunError for infinite or NaN features and InputError for shapes or labels that do not fit.
    """
    table = FeatureTable.build(features, labels, class_names)
    weights = class_weights = None
    if bootstrap > 0:
        one_stratum = torch.zeros(table.num_images, dtype=torch.int64)
        weights = bootstrap_weights(one_stratum, replicates=bootstrap, generator=generator).to(features.device)
        strata = one_stratum if table.labels is None else table.labels
        class_weights = bootstrap_weights(strata, replicates=bootstrap, generator=generator).to(features.device)
    return {
        "alignment": alignment(table, weights, class_weights),
        "R_epsilon": r_epsilon(table, epsilons),
        "class_centers": class_centers(table, class_weights),
        "spread": spread(table, class_weights),
    }
