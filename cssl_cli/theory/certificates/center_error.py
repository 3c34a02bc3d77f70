"""The error of the paper's classifier G_f on the table itself, which every certificate bounds. (docs/theory.md, 10.)

Centres and images come from the same table (resubstitution), so the error is too low for new images, and nearly
meaningless for them if the feature dimension reaches the number of images per class: `population` has the error of
held-out centres.
"""

from __future__ import annotations

from cssl_cli.theory.class_geometry import ClassGeometry, misclassified
from cssl_cli.theory.estimate import Absent, Estimate, Quantity

QUANTITIES = ("error", "error_per_class", "chance")


def nearest_center_error(geometry: ClassGeometry | Absent) -> dict[str, Quantity]:
    """`error`, the share of clean images not strictly nearest to the centre of their class, and `error_per_class`.

    `chance` is the error of always naming the largest class; a bound at or above it is vacuous.
    """
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    wrong = misclassified(geometry.table.features[:, 0], geometry.positions, geometry.centers)
    estimator = (
        "share of clean images not strictly nearest to the centre of their class, centres being means over the table's "
        "own images and augmented views (resubstitution: too low for new images)"
    )
    return {
        "error": Estimate(
            wrong.double().mean().item(),
            estimator,
            "exact for the table",
            geometry.sample,
            warning=geometry.in_table_warning,
        ),
        "error_per_class": Estimate(
            geometry.by_class(geometry.class_means(wrong)),
            f"{estimator}; for each class",
            "exact for the table",
            geometry.sample,
            absent=geometry.missing,
            warning=geometry.in_table_warning,
        ),
        "chance": Estimate(
            geometry.chance,
            "error of giving every image the name of the largest class, 1 − max p; bounds on the error are vacuous "
            "from here on",
            "exact for the table",
            geometry.sample,
        ),
    }
