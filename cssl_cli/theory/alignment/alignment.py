"""Alignment: how far apart the encoder puts two views of one image. (docs/theory.md, 4.)"""

from __future__ import annotations

import torch
from torch import Tensor

from cssl_cli.features.intervals import MIN_BOOTSTRAP_IMAGES, bootstrap_interval
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, by_class, intervals_by_class
from cssl_cli.theory.table import FeatureTable


def alignment(table: FeatureTable, weights: Tensor | None, class_weights: Tensor | None) -> dict[str, Quantity]:
    """L_align = E‖f(v) − f(v′)‖², v and v′ independent views of one image; between 0 and 4 on the unit sphere.

    `weights` (R, N) resample the images, `class_weights` (R, N) resample them within classes; None for no intervals.
    Gives `unbiased` (the U form, over distinct views), `plug_in` (the V form, views drawn with replacement from the
    stored ones) and `per_class` (U form).
    """
    if table.num_augmented < 2:
        absent = Absent("alignment needs at least two augmented views of an image beside the clean one")
        return {"unbiased": absent, "plug_in": absent, "per_class": absent}
    per_image = 2 * table.view_variances
    shrinkage = 1 - 1 / table.num_augmented
    unbiased = per_image.mean()
    replicates = None if weights is None else weights @ per_image / table.num_images
    enough = table.num_images >= MIN_BOOTSTRAP_IMAGES
    interval = None
    if replicates is not None and enough:
        interval = bootstrap_interval(
            unbiased.item(), replicates, degrees=table.num_images - len(table.strata.unique()), least=0
        )
    return {
        "unbiased": Estimate(
            value=unbiased.item(),
            estimator="mean over images of ‖f(v) − f(v′)‖² over pairs of distinct augmented views (U form)",
            errs="unbiased",
            interval=interval,
            sample=table.augmented_sample,
        ),
        "plug_in": Estimate(
            value=(shrinkage * unbiased).item(),
            estimator="the same over all pairs of augmented views, a view with itself included (V form): the table's "
            "own alignment, too small by the factor 1 − 1/views",
            errs="low",
            interval=None if interval is None else (shrinkage * interval[0], shrinkage * interval[1]),
            sample=table.augmented_sample,
        ),
        "per_class": _per_class(table, per_image, class_weights),
    }


def _per_class(table: FeatureTable, per_image: Tensor, weights: Tensor | None) -> Quantity:
    if table.labels is None:
        return Absent("the images have no labels")
    member = torch.nn.functional.one_hot(table.labels, len(table.class_names)).double()
    replicates = None if weights is None else (weights * per_image) @ member / table.class_sizes
    values = per_image @ member / table.class_sizes
    return Estimate(
        value=by_class(table.class_names, values),
        estimator="alignment, U form, over the images of each class",
        errs="unbiased",
        sample=table.augmented_sample,
        interval=intervals_by_class(table.class_names, values, replicates, table.class_sizes, least=0),
        absent=table.classes_below(1),
    )
