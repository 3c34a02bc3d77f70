"""Every term of the theory, measured on one table of features.

Everything is computed in float64 from features (N, V, D) that the caller has scaled to the norm the theory is to speak
of (`features.geometry.unit_norm`), and from the `raw` ones what others define on features as the encoder gives them:
the cross-correlation, which standardises them itself, and the companion measures. The mathematics, and the sections
that the docstrings name, are in docs/theory.md; the source is Huang et al., "Towards the Generalization of Contrastive
Self-Supervised Learning", arXiv 2111.00743.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.theory.alignment.alignment import alignment
from cssl_cli.theory.alignment.r_epsilon import r_epsilon
from cssl_cli.theory.alignment.r_epsilon_bounds import r_epsilon_bounds
from cssl_cli.theory.alignment.theorem_2 import Constants, ViewParameters, theorem_2_constants
from cssl_cli.theory.certificates.any_theorem import combined
from cssl_cli.theory.certificates.augmented_error import augmented_error
from cssl_cli.theory.certificates.center_error import nearest_center_error
from cssl_cli.theory.certificates.connected_parts import connected_parts
from cssl_cli.theory.certificates.few_labels import few_labels
from cssl_cli.theory.certificates.few_shot_bound import few_shot_bound
from cssl_cli.theory.certificates.lemma_3_1 import corollaries, lemma_3_1
from cssl_cli.theory.certificates.population import population
from cssl_cli.theory.certificates.theorem_1 import pixel_rho, theorem_1
from cssl_cli.theory.certificates.theorem_a import certificate_a, certify_a
from cssl_cli.theory.certificates.theorem_b import certificate_b, certify_b
from cssl_cli.theory.certificates.theorem_c import certificate_c, certify_c
from cssl_cli.theory.certificates.threshold_grid import ThresholdGrid, threshold_grid
from cssl_cli.theory.certificates.variance_bound import variance_bound
from cssl_cli.theory.class_geometry import ClassGeometry, class_geometry, within_class_distances
from cssl_cli.theory.companions.augmentation_confusion import chaos
from cssl_cli.theory.companions.effective_rank import effective_rank
from cssl_cli.theory.companions.lidar import lidar
from cssl_cli.theory.companions.neural_collapse import neural_collapse
from cssl_cli.theory.companions.uniformity import uniformity
from cssl_cli.theory.concentration.class_overlap import class_overlap
from cssl_cli.theory.divergence.class_centers import class_centers
from cssl_cli.theory.divergence.mean_feature import mean_feature
from cssl_cli.theory.divergence.spread import spread
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.losses.cross_correlation import cross_correlation, standardized_table
from cssl_cli.theory.losses.info_nce import LOSSES, OF_CLASSES, OF_PAIRS, info_nce
from cssl_cli.theory.losses.nt_xent import nt_xent
from cssl_cli.theory.losses.theorem_4 import explicit_tau
from cssl_cli.theory.table import FeatureTable

__all__ = [
    "Absent",
    "Estimate",
    "FeatureTable",
    "LossSettings",
    "Quantity",
    "ViewParameters",
    "analyze_table",
    "pixel_theorem_1",
]

# Costs that grow with the square of the images, or faster, are met by a random part of them; the samples say so.
CHAOS_IMAGES = 1000
INFO_NCE_IMAGES = 300
NT_XENT_BATCHES = 20
EDGE_IMAGES = 500
OVERLAP_IMAGES = 1000

SHOTS = (1, 5, 10, 50)  # labelled images of each class

Quantities = dict[str, Quantity]
Advance = Callable[[int, int], None]  # called with the number of terms done and their total


@dataclass(frozen=True)
class LossSettings:
    """What the losses are measured with: the temperature and the batch size of the pretraining."""

    temperature: float
    batch_size: int


def analyze_table(
    features: Tensor,
    labels: Tensor | None,
    *,
    class_names: Sequence[str],
    epsilons: Sequence[float],
    bootstrap: int,
    loss: LossSettings,
    generator: torch.Generator,
    raw: Tensor | None = None,
    theta: ViewParameters | Tensor | None = None,
    baseline: Tensor | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    advance: Advance | None = None,
) -> dict[str, Quantities]:
    """Every term of the table by its name (that of its file), each a dict of quantities.

    features: (N, V, D), view 0 the clean image, the others draws from the augmentation; any device and float type.
    labels: (N,) in 0 … K − 1, or None: then the terms that need classes are absent, with a reason.
    epsilons: the grid of R_ε. bootstrap: resamples behind each bootstrap interval, 0 for none; drawn from `generator`.
    raw: the same features unscaled; None: they are the features themselves.
    theta: the augmentation's parameters behind the augmented views, for the paper's Theorem 2; a tensor (N, V − 1, P)
    counts as continuous altogether.
    baseline: the same images and views under the encoder that ARC compares with.
    only: the names of the terms wanted, None for all; without: of those that are not.
    Raises RunError for infinite or NaN features and InputError for shapes or labels that do not fit.
    """
    analysis = _Analysis(
        table=FeatureTable.build(features, labels, class_names),
        unscaled=features if raw is None else raw,
        epsilons=epsilons,
        bootstrap=bootstrap,
        loss=loss,
        generator=generator,
        parameters=ViewParameters.all_continuous(theta) if isinstance(theta, Tensor) else theta,
        baseline=None if baseline is None else FeatureTable.build(baseline, labels, class_names),
    )
    terms = {
        name: term for name, term in analysis.terms().items() if (only is None or name in only) and name not in without
    }
    found: dict[str, Quantities] = {}
    for number, (name, term) in enumerate(terms.items(), start=1):
        found[name] = term()
        if advance:
            advance(number, len(terms))
    return found


@dataclass(frozen=True)
class _Analysis:
    """The terms of one table, with what several of them share."""

    table: FeatureTable
    unscaled: Tensor
    epsilons: Sequence[float]
    bootstrap: int
    loss: LossSettings
    generator: torch.Generator
    parameters: ViewParameters | None
    baseline: FeatureTable | None

    def terms(self) -> dict[str, Callable[[], Quantities]]:
        table, loss, generator = self.table, self.loss, self.generator
        return {
            "alignment": lambda: alignment(table, *self.weights),
            "R_epsilon": lambda: r_epsilon(table, self.epsilons),
            "R_epsilon_bounds": self.bounds_of_r_epsilon,
            "class_centers": lambda: class_centers(table, self.weights[1]),
            "spread": lambda: spread(table, self.weights[1]),
            "mean_feature": lambda: mean_feature(table, self.weights[1]),
            "center_error": lambda: nearest_center_error(self.geometry),
            "theorem_1": lambda: theorem_1(self.grid),
            "lemma_3_1": self.lemma_3_1,
            "certificate_a": lambda: certificate_a(self.geometry, self.within, self.certified_a),
            "certificate_b": lambda: certificate_b(self.geometry, self.within, self.certified_b),
            "certificate_c": lambda: certificate_c(self.geometry, self.certified_c),
            "combined": self.combined,
            "variance_bound": lambda: variance_bound(self.geometry),
            "population": lambda: population(self.geometry, self.within, generator=self.of_halves()),
            "info_nce": lambda: info_nce(
                table,
                temperature=loss.temperature,
                max_images=INFO_NCE_IMAGES,
                generator=generator,
                bootstrap=self.bootstrap,
            ),
            "nt_xent": lambda: nt_xent(
                table,
                temperature=loss.temperature,
                batch_size=loss.batch_size,
                num_batches=NT_XENT_BATCHES,
                generator=generator,
            ),
            "cross_correlation": lambda: cross_correlation(self.standardized, *self.weights),
            "explicit_tau": lambda: explicit_tau(self.standardized),
            "uniformity": lambda: uniformity(table, self.weights[1]),
            "effective_rank": lambda: effective_rank(self.raw_clean),
            "lidar": lambda: lidar(FeatureTable.build(self.unscaled, table.labels, table.class_names)),
            "chaos": lambda: chaos(table, self.baseline, max_images=CHAOS_IMAGES, generator=generator),
            "neural_collapse": lambda: neural_collapse(self.raw_clean),
            "class_overlap": self.class_overlap,
            "connected_parts": lambda: connected_parts(
                self.geometry, self.within, max_images=EDGE_IMAGES, generator=generator
            ),
            # Last, what draws at random beside the others: theirs is not moved by it.
            "info_nce_paper": self.info_nce_paper,
            "augmented_error": lambda: augmented_error(self.geometry, generator=self.of_halves()),
            "few_labels": lambda: few_labels(self.geometry, shots=SHOTS, generator=generator),
            "few_shot_bound": lambda: few_shot_bound(self.geometry, SHOTS),
        }

    @cached_property
    def seed_of_halves(self) -> int:
        return int(torch.randint(2**62, (1,), generator=self.generator))

    def of_halves(self) -> torch.Generator:
        """Draws the same halves of each class, one for centres and one to test, for every term that takes them."""
        return torch.Generator().manual_seed(self.seed_of_halves)

    def info_nce_paper(self) -> Quantities:
        """InfoNCE as in the paper, which has no temperature."""
        if self.loss.temperature == 1:
            return dict.fromkeys(LOSSES + OF_CLASSES + OF_PAIRS, Absent("the temperature is 1: as info_nce"))
        return info_nce(
            self.table,
            temperature=1.0,
            max_images=INFO_NCE_IMAGES,
            generator=self.generator,
            bootstrap=self.bootstrap,
        )

    @property
    def standardized(self) -> FeatureTable:
        """The unscaled features with each coordinate of mean 0 and variance 1; not kept, being as large as they."""
        return FeatureTable(standardized_table(self.unscaled), self.table.labels, self.table.class_names)

    @cached_property
    def raw_clean(self) -> FeatureTable:
        """The clean images alone, unscaled."""
        return FeatureTable.build(self.unscaled[:, :1], self.table.labels, self.table.class_names)

    @cached_property
    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Image weights (R, N) of the bootstrap over all images, in their strata, and of the one within classes."""
        if self.bootstrap == 0:
            return None, None
        strata = self.table.strata
        within = strata if self.table.labels is None else self.table.labels
        overall, in_classes = (
            bootstrap_weights(of, replicates=self.bootstrap, generator=self.generator).to(self.table.features.device)
            for of in (strata, within)
        )
        return overall, in_classes

    @cached_property
    def geometry(self) -> ClassGeometry | Absent:
        return class_geometry(self.table)

    @cached_property
    def within(self) -> list[Tensor]:
        """The augmented distances (n_k, n_k) of the images of each class."""
        return [] if isinstance(self.geometry, Absent) else within_class_distances(self.table)

    @cached_property
    def certified_a(self) -> Any:
        return certify_a(self.geometry, self.within)

    @cached_property
    def certified_b(self) -> Any:
        return certify_b(self.geometry, self.within)

    @cached_property
    def certified_c(self) -> Any:
        return certify_c(self.geometry)

    def combined(self) -> Quantities:
        by_name = {"A": self.certified_a, "B": self.certified_b, "C": self.certified_c}
        return combined(
            self.geometry,
            {
                f"Theorem {name}": certificate.certified
                for name, certificate in by_name.items()
                if not isinstance(certificate, Absent)
            },
        )

    @cached_property
    def grid(self) -> ThresholdGrid | Absent:
        return threshold_grid(self.geometry, self.within)

    @cached_property
    def constants(self) -> Constants | Absent:
        """Those of Theorem 2, as far as the views show them."""
        return theorem_2_constants(self.parameters, self.table.features[:, 1:])

    def bounds_of_r_epsilon(self) -> Quantities:
        known = None if isinstance(self.constants, Absent) else self.constants
        return r_epsilon_bounds(
            self.table,
            self.epsilons,
            num_parameters=known.num_parameters if known else None,
            num_discrete=known.num_discrete if known else 0,
            lipschitz=known.lipschitz if known else None,
        )

    def lemma_3_1(self) -> Quantities:
        standardized = self.standardized
        of_standardized = theorem_2_constants(self.parameters, standardized.features[:, 1:])
        return lemma_3_1(self.grid) | corollaries(self.grid, self.constants, standardized, of_standardized)

    def class_overlap(self) -> Quantities:
        grid = None if isinstance(self.grid, Absent) else self.grid
        return class_overlap(
            self.geometry,
            [] if grid is None else grid.deltas.tolist(),
            None if grid is None else float(grid.deltas[grid.least_rho[0]]),
            max_images=OVERLAP_IMAGES,
            generator=self.generator,
        )


def pixel_theorem_1(terms: Mapping[str, Any], concentration: Mapping[str, Any] | None) -> dict[str, Any]:
    """The paper's ρ with its own Lδ in pixels, from an encoder's measured `terms` and the pixel `concentration`.

    Both as JSON types, `terms` with those of `lipschitz`; quantities as JSON types come back.
    """
    if concentration is None:
        return {"pixel_rho": Absent("concentration in pixels was not measured").to_dict()}
    needed = {
        "sigma": concentration["sigma_low"],
        "L": terms["lipschitz"]["largest_ratio"],
        "R": terms["R_epsilon"]["curve"],
        "priors": terms["class_centers"]["priors"],
    }
    for entry in needed.values():
        if entry["value"] is None:
            return {"pixel_rho": Absent(entry["reason"]).to_dict()}
    found = pixel_rho(
        concentration["deltas"]["value"],
        needed["sigma"]["value"],
        terms["R_epsilon"]["epsilons"]["value"],
        needed["R"]["value"],
        lipschitz=max(needed["L"]["value"], terms["lipschitz"]["local_jacobian_largest"]["value"] or 0.0),
        priors=[prior for prior in needed["priors"]["value"].values() if prior > 0],
        sample=Sample(needed["R"]["num_images"], needed["R"]["num_views"]),
    )
    return {name: quantity.to_dict() for name, quantity in found.items()}
