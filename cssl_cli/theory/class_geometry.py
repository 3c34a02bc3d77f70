"""The geometry of a labelled table that certificates need: classes, centres, and the spread of each image's views.

Certificates treat the table as an exact instance of the theory: the stored views are all the views there are, with
weight 0 for the clean one and 1/m for each of the m others, and each of the n images has weight 1/n. Then with the mean
f̄_x of an image's augmented views and the centre μ_k, the mean of f̄_x over class k,

    ecc(x) = max_v ‖f(x₀) − f(v)‖,  rad(x) = max_v ‖f(v) − f̄_x‖,  diam(x) = max ‖f(v) − f(v′)‖,

suprema over all stored views, x₀ the clean one. (docs/theory.md, 10.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cssl_cli.features.geometry import distances
from cssl_cli.theory.augmented_distance import augmented_distances
from cssl_cli.theory.estimate import Absent, Sample, by_class
from cssl_cli.theory.table import FeatureTable

SPHERE_TOLERANCE = 1e-6  # relative; features scaled to one length in float32 agree to about 1e-7


@dataclass(frozen=True)
class ClassGeometry:
    """A labelled table of at least two classes; K′ of its K classes have images, and only those are numbered here.

    classes:        the K′ labels that occur, ascending; position in this list is "class" below.
    members:        for each class the images (n_k,) of it.
    centers:        (K′, D) means over images and augmented views.
    means:          (N, D) f̄_x.
    eccentricity, radius, diameter: (N,) suprema over stored views, see the module.
    offset:         (N,) ‖f(x₀) − f̄_x‖.
    scatter:        (N,) mean of ‖f(v) − f̄_x‖² over augmented views.
    clean_norms:    (N,) ‖f(x₀)‖.
    largest_norm, least_norm: over all stored views; the first is the theory's r.
    """

    table: FeatureTable
    classes: list[int]
    members: list[Tensor]
    centers: Tensor
    means: Tensor
    eccentricity: Tensor
    radius: Tensor
    diameter: Tensor
    offset: Tensor
    scatter: Tensor
    clean_norms: Tensor
    largest_norm: float
    least_norm: float

    @property
    def on_sphere(self) -> bool:
        """Whether ‖f‖ ≡ r, as the paper's theorem asks."""
        return 0 < self.largest_norm <= self.least_norm * (1 + SPHERE_TOLERANCE)

    @property
    def sample(self) -> Sample:
        """All stored images and views."""
        return self.table.stored_sample

    @cached_property
    def sizes(self) -> Tensor:
        """Images (K′,) of each class."""
        return self.centers.new_tensor([len(members) for members in self.members])

    @property
    def priors(self) -> Tensor:
        """p_k (K′,), shares of the table."""
        return self.sizes / self.table.num_images

    @property
    def chance(self) -> float:
        """1 − max_k p_k, the error of giving every image the name of the largest class."""
        return 1 - self.priors.max().item()

    @property
    def in_table_warning(self) -> str | None:
        """Why errors with centres over the images themselves are too low for new ones, where D ≥ the least n_k.

        In f(x)ᵀμ_l the image's own part is ‖f̄_x‖²/n_l, the accidental part of the others about 1/√(n_l D).
        """
        width, least = self.centers.shape[1], int(self.sizes.min())
        if width < least:
            return None
        return (
            f"the features have {width:,} dimensions, the smallest class {least:,} image{'' if least == 1 else 's'}; "
            "in so many, the centre of a class leans towards each of its own images, and errors and bounds of images "
            "with their own centres are too low for new ones, even where the encoder knows nothing of classes"
        )

    @cached_property
    def positions(self) -> Tensor:
        """The class (N,) of each image, as numbered here."""
        positions = torch.empty(self.table.num_images, dtype=torch.int64, device=self.centers.device)
        for position, images in enumerate(self.members):
            positions[images] = position
        return positions

    @cached_property
    def missing(self) -> dict[str, str]:
        """Class name → why it has no entry."""
        return self.table.classes_below(1)

    def features(self, position: int) -> Tensor:
        """The features (n_k, V, D) of one class."""
        return self.table.features[self.members[position]]

    def by_class(self, values: Tensor) -> dict[str, float | None]:
        """Values (K′,) under the names of all K classes, None for a class without images."""
        everywhere = torch.full((len(self.table.class_names),), torch.nan, dtype=torch.float64)
        everywhere[self.classes] = values.double().cpu()
        return by_class(self.table.class_names, everywhere)

    def class_means(self, values: Tensor) -> Tensor:
        """Means (K′,) over the images of each class of values (N,)."""
        return torch.stack([values[members].double().mean() for members in self.members])

    @property
    def views_note(self) -> str:
        """For the estimators' texts: the number of views in the suprema, and what replaces missing augmented views."""
        if self.table.num_augmented:
            return f"suprema over the {self.table.num_views} stored views, the clean one included"
        return "the clean image is the only stored view and stands for the augmented ones"


def class_geometry(table: FeatureTable) -> ClassGeometry | Absent:
    """The geometry of a table, or the reason why there is nothing to classify."""
    if table.labels is None:
        return Absent("the images have no labels")
    classes = table.class_sizes.nonzero().squeeze(1).tolist()
    if len(classes) < 2:
        return Absent("the images are all of one class")
    members = [table.members[label] for label in classes]
    means = table.view_means if table.num_augmented else table.features[:, 0]
    per_image = _spread_of_views(table, means, members)
    norms = torch.linalg.vector_norm(table.features, dim=2)
    return ClassGeometry(
        table=table,
        classes=classes,
        members=members,
        centers=torch.stack([means[images].mean(dim=0) for images in members]),
        means=means,
        **per_image,
        clean_norms=norms[:, 0],
        largest_norm=norms.max().item(),
        least_norm=norms.min().item(),
    )


def misclassified(features: Tensor, positions: Tensor, centers: Tensor) -> Tensor:
    """Which clean images (n, D) are not strictly nearest to the centre (K′, D) of their class (n,): bool (n,).

    The paper's G_f; an image equally near to two centres is an error.
    """
    to_centers = distances(features, centers)
    own = to_centers.gather(1, positions.unsqueeze(1)).squeeze(1)
    rivals = to_centers.scatter(1, positions.unsqueeze(1), torch.inf).amin(dim=1)
    return ~(own < rivals)


def halves(geometry: ClassGeometry, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Indices into each class's list of members: a random larger half as reference, the rest as queries."""
    references, queries = [], []
    for images in geometry.members:
        order = torch.randperm(len(images), generator=generator).to(images.device)
        reference, query = order.tensor_split([(len(images) + 1) // 2])
        references.append(reference)
        queries.append(query)
    return references, queries


def within_class_distances(table: FeatureTable) -> list[Tensor]:
    """The augmented distances d_A^f (n_k, n_k) within each of the table's K classes; (0, 0) for one without images."""
    assert table.labels is not None
    within = []
    for members in table.members:
        features = table.features[members]
        within.append(augmented_distances(features) if len(features) else features.new_zeros(0, 0))
    return within


def _spread_of_views(table: FeatureTable, means: Tensor, members: list[Tensor]) -> dict[str, Tensor]:
    """The five numbers (N,) of each image, class by class to bound the memory."""
    names = ("eccentricity", "radius", "diameter", "offset", "scatter")
    spread = {name: means.new_empty(len(means)) for name in names}
    for images in members:
        views, mean = table.features[images], means[images]
        to_mean = distances(views, mean.unsqueeze(1)).squeeze(2)
        between = distances(views, views)
        spread["eccentricity"][images] = between[:, 0].amax(dim=1)
        spread["radius"][images] = to_mean.amax(dim=1)
        spread["diameter"][images] = between.amax(dim=(1, 2))
        spread["offset"][images] = to_mean[:, 0]
        augmented = to_mean[:, 1:] if table.num_augmented else to_mean
        spread["scatter"][images] = augmented.square().mean(dim=1)
    return spread
