"""Every term of the theory, measured on one table of features.

Everything is computed in float64. Most terms use features (N, V, D) that the caller has scaled to a common norm
(`features.geometry.unit_norm`); terms defined on unscaled features use the `raw` ones: the cross-correlation, which
standardises them itself, and the companion measures. docs/theory.md has the mathematics and the sections that the
docstrings cite; the source is Huang et al., "Towards the Generalization of Contrastive Self-Supervised Learning", arXiv
2111.00743.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.theory import terms as table_of_terms
from cssl_cli.theory.alignment.theorem_2 import Constants, ViewParameters, theorem_2_constants
from cssl_cli.theory.certificates.theorem_1 import pixel_rho
from cssl_cli.theory.certificates.theorem_a import ThresholdCertificate, certify_a
from cssl_cli.theory.certificates.theorem_b import ChainCertificate, certify_b
from cssl_cli.theory.certificates.theorem_c import DirectionalCertificate, certify_c
from cssl_cli.theory.certificates.threshold_grid import ThresholdGrid, threshold_grid
from cssl_cli.theory.class_geometry import ClassGeometry, class_geometry, within_class_distances
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.losses.cross_correlation import standardized_table
from cssl_cli.theory.table import FeatureTable
from cssl_cli.theory.term import Term

__all__ = [
    "Absent",
    "Estimate",
    "FeatureTable",
    "LossSettings",
    "Pieces",
    "Quantity",
    "ViewParameters",
    "analyze_table",
    "pixel_theorem_1",
]

Quantities = dict[str, Quantity]
Advance = Callable[[int, int], None]  # called with the number of terms done and their total


@dataclass(frozen=True)
class LossSettings:
    """Settings for measuring the losses: the temperature and the batch size of the pretraining."""

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

    features: (N, V, D), view 0 the clean image, the others random augmentations; any device and float type.
    labels: (N,) in 0 … K − 1, or None: terms that need classes are then absent, with a reason.
    epsilons: the grid of R_ε. bootstrap: resamples behind each bootstrap interval, 0 for none; drawn from `generator`.
    raw: the same features unscaled; None: `features` are unscaled already.
    theta: the augmentation's parameters behind the augmented views, for the paper's Theorem 2; a plain tensor
    (N, V − 1, P) counts as continuous.
    baseline: the same images and views under the encoder that ARC compares with.
    only: the names of the terms to measure, None for all; without: names to skip.
    Raises RunError for infinite or NaN features and InputError for shapes or labels that do not fit.
    """
    pieces = Pieces(
        table=FeatureTable.build(features, labels, class_names),
        unscaled=features if raw is None else raw,
        epsilons=epsilons,
        bootstrap=bootstrap,
        temperature=loss.temperature,
        batch_size=loss.batch_size,
        generator=generator,
        parameters=ViewParameters.all_continuous(theta) if isinstance(theta, Tensor) else theta,
        baseline=None if baseline is None else FeatureTable.build(baseline, labels, class_names),
    )
    terms = [
        term
        for term in table_of_terms.TERMS
        if term.of == "features" and (only is None or term.name in only) and term.name not in without
    ]
    found: dict[str, Quantities] = {}
    for number, term in enumerate(terms, start=1):
        found[term.name] = measure(term, pieces)
        if advance:
            advance(number, len(terms))
    return found


def measure(term: Term, pieces: Pieces) -> Quantities:
    """The quantities of a term: calls its function with the pieces that its parameters name.

    Raises TypeError for a parameter without a piece, also for an optional one: a misspelt `weights` would cost the term
    its interval without a word.
    """
    function = term.load()
    arguments: dict[str, Any] = dict(term.settings)
    for name in inspect.signature(function).parameters:
        if name in arguments:
            continue
        piece = term.pieces.get(name, name)
        if not hasattr(type(pieces), piece) and piece not in vars(pieces):
            raise TypeError(f"{term.function} asks for {name}, and there is no piece {piece} of an analysis")
        arguments[name] = getattr(pieces, piece)
    quantities: Quantities = function(**arguments)
    return quantities


@dataclass(frozen=True)
class Pieces:
    """The inputs of the terms, one attribute each, which a term's function requests by naming a parameter.

    table: the scaled features. unscaled: the features as the encoder gives them, (N, V, D). What several terms share is
    computed once, on first use.
    """

    table: FeatureTable
    unscaled: Tensor
    epsilons: Sequence[float]
    bootstrap: int
    temperature: float
    batch_size: int
    generator: torch.Generator
    parameters: ViewParameters | None
    baseline: FeatureTable | None

    # ---------------------------------------------------------------------- random numbers
    @cached_property
    def seed_of_halves(self) -> int:
        return int(torch.randint(2**62, (1,), generator=self.generator))

    @property
    def generator_of_halves(self) -> torch.Generator:
        """Draws the same halves of each class, one for centres and one to test, for every term that uses them."""
        return torch.Generator().manual_seed(self.seed_of_halves)

    @cached_property
    def both_weights(self) -> tuple[Tensor | None, Tensor | None]:
        if self.bootstrap == 0:
            return None, None
        strata = self.table.strata
        within = strata if self.table.labels is None else self.table.labels
        overall, in_classes = (
            bootstrap_weights(of, replicates=self.bootstrap, generator=self.generator).to(self.table.features.device)
            for of in (strata, within)
        )
        return overall, in_classes

    @property
    def weights(self) -> Tensor | None:
        """Image weights (R, N) of the bootstrap over all images, in their strata."""
        return self.both_weights[0]

    @property
    def class_weights(self) -> Tensor | None:
        """Image weights (R, N) of the bootstrap within classes."""
        return self.both_weights[1]

    # ---------------------------------------------------------------------- other scales
    @property
    def raw(self) -> FeatureTable:
        """The unscaled features."""
        return FeatureTable.build(self.unscaled, self.table.labels, self.table.class_names)

    @cached_property
    def raw_clean(self) -> FeatureTable:
        """The clean images alone, unscaled."""
        return FeatureTable.build(self.unscaled[:, :1], self.table.labels, self.table.class_names)

    @property
    def standardized(self) -> FeatureTable:
        """The unscaled features with each coordinate of mean 0 and variance 1; not cached, being just as large."""
        return FeatureTable(standardized_table(self.unscaled), self.table.labels, self.table.class_names)

    # ---------------------------------------------------------------------- classes
    @cached_property
    def geometry(self) -> ClassGeometry | Absent:
        return class_geometry(self.table)

    @cached_property
    def within(self) -> list[Tensor]:
        """The augmented distances (n_k, n_k) of the images of each class; none without labels."""
        return [] if self.table.labels is None else within_class_distances(self.table)

    @cached_property
    def certified_a(self) -> ThresholdCertificate | Absent:
        return certify_a(self.geometry, self.within)

    @cached_property
    def certified_b(self) -> ChainCertificate | Absent:
        return certify_b(self.geometry, self.within)

    @cached_property
    def certified_c(self) -> DirectionalCertificate | Absent:
        return certify_c(self.geometry)

    @property
    def certified(self) -> dict[str, Tensor]:
        """Which images (N,) each theorem certifies."""
        by_name = {"A": self.certified_a, "B": self.certified_b, "C": self.certified_c}
        return {
            f"Theorem {name}": certificate.certified
            for name, certificate in by_name.items()
            if not isinstance(certificate, Absent)
        }

    # ---------------------------------------------------------------------- δ and ε
    @cached_property
    def grid(self) -> ThresholdGrid | Absent:
        return threshold_grid(self.geometry, self.within)

    @property
    def grid_deltas(self) -> list[float]:
        """The δ of the grid."""
        return [] if isinstance(self.grid, Absent) else self.grid.deltas.tolist()

    @property
    def delta_of_least_rho(self) -> float | None:
        """The δ at which ρ is least."""
        return None if isinstance(self.grid, Absent) else float(self.grid.deltas[self.grid.least_rho[0]])

    # ---------------------------------------------------------------------- Theorem 2
    @cached_property
    def constants(self) -> Constants | Absent:
        """The constants of Theorem 2, as far as the views show them."""
        return theorem_2_constants(self.parameters, self.table.features[:, 1:])

    @property
    def num_parameters(self) -> int | None:
        """n of Theorem 2."""
        return None if self.parameters is None else self.parameters.continuous.shape[2]

    @property
    def num_discrete(self) -> int:
        """m of Theorem 2."""
        return 0 if isinstance(self.constants, Absent) else self.constants.num_discrete

    @property
    def lipschitz(self) -> float | None:
        """A lower bound of LM of Theorem 2."""
        return None if isinstance(self.constants, Absent) else self.constants.lipschitz


def pixel_theorem_1(terms: Mapping[str, Any], concentration: Mapping[str, Any] | None) -> dict[str, Any]:
    """The paper's ρ with its own Lδ in pixels, from an encoder's measured `terms` and the pixel `concentration`.

    Both are JSON types, `terms` including those of `lipschitz`; returns quantities as JSON types.
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
