"""Of the information that two views of an image share, the share that is about its class. (docs/theory.md, 16.)

For features that are normal with the covariances of `view_covariances`, two views of an image share

    I(v; v′) = −½ log det(I − (R⁻¹M)²)

nats, with R = Σ + ρI. What tells the classes apart is measured by half of Pillai's trace, ½ tr R⁻¹B: to first order the
information I(v; y) = −½ log det(I − R⁻¹B) of a view about its class. The share is their ratio. A good augmentation
leaves the views of an image little in common but the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.spectrum.information import information
from cssl_cli.theory.spectrum.jackknife import jackknife_interval
from cssl_cli.theory.spectrum.view_covariances import ViewMoments, total, view_covariances


@dataclass(frozen=True)
class ClassShare:
    """In nats: `shared`, what two views share; `about_class`, what of a view is about the class, None without classes.

    The lists hold the same with each group of images left out in turn, to first order; empty without groups.
    """

    shared: float
    about_class: float | None
    shared_without: tuple[float, ...] = ()
    about_class_without: tuple[float, ...] = ()

    @property
    def share(self) -> float | None:
        """The latter over the former, no unit; None without classes, and where nothing is shared."""
        return None if self.about_class is None or self.shared <= 0 else self.about_class / self.shared

    @property
    def share_without(self) -> tuple[float, ...]:
        """The share with each group left out."""
        if self.share is None:
            return ()
        pairs = zip(self.about_class_without, self.shared_without, strict=True)
        return tuple(about / shared for about, shared in pairs)


def class_share(
    parts: Sequence[ViewMoments], *, ridge: float, labelled: Sequence[ViewMoments] | None = None
) -> ClassShare:
    """The share over all images, which `parts` hold in groups; ρ is `ridge` > 0 times the mean eigenvalue of Σ.

    labelled: the moments of the images whose class is known, where those are not all, in as many groups; a group of
    these is left out together with one of all. Raises ValueError for features without variance.
    """
    whole = total(parts)
    covariances = view_covariances(whole)
    with_classes = whole if labelled is None else total(labelled)
    of_classes = view_covariances(with_classes).of_classes
    given = [covariances.of_view, covariances.of_pair, *([] if of_classes is None else [of_classes])]
    if not covariances.of_view.trace() > 0:
        raise ValueError("all views have the same features")
    with torch.enable_grad():
        leaves = [matrix.clone().requires_grad_() for matrix in given]
        found_in = information(
            replace(covariances, of_view=leaves[0], of_pair=leaves[1], of_classes=(*leaves[2:], None)[0]), ridge=ridge
        )
        values = [value for value in (found_in.shared, found_in.about_class) if value is not None]
        slopes = [torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True) for value in values]
    without: list[list[float]] = [[] for _ in values]
    for part, of_known in zip(parts, labelled or parts, strict=True) if len(parts) > 1 else ():
        rest = view_covariances(whole.without(part))
        moved = [rest.of_view, rest.of_pair]
        if of_classes is not None:
            left = rest if labelled is None else view_covariances(with_classes.without(of_known))
            moved.append(of_classes if left.of_classes is None else left.of_classes)
        changes = [after - before for after, before in zip(moved, given, strict=True)]
        for value, slope, found in zip(values, slopes, without, strict=True):
            change = sum((s * c).sum().item() for s, c in zip(slope, changes, strict=True) if s is not None)
            found.append(value.item() + change)
    numbers = [value.item() for value in values]
    return ClassShare(
        numbers[0],
        numbers[1] if of_classes is not None else None,
        tuple(without[0]),
        tuple(without[1]) if of_classes is not None else (),
    )


def share_quantities(share: ClassShare | None, sample: Sample, *, has_labels: bool) -> dict[str, Quantity]:
    """What `cssl rank` tells of a set of augmentations: `shared`, the nats that two views of an image share;
    `about_class`, those of a view about its class; `share`, the latter over the former.

    share: None where all views have the same features.
    """
    if share is None:
        return dict.fromkeys(("share", "shared", "about_class"), Absent("all views have the same features"))
    shared: Quantity = Estimate(
        value=share.shared,
        estimator="information that two views share, in nats, for normal fixed features with the sample's covariances; "
        "the noise of so many images is in it, so compare at equal numbers of images",
        errs="high",
        sample=sample,
        interval=jackknife_interval(share.shared, share.shared_without),
    )
    if share.about_class is None or share.share is None:
        absent = Absent("the images have no labels" if not has_labels else "no two classes have two labelled images")
        return {"share": absent, "shared": shared, "about_class": absent}
    return {
        "share": Estimate(
            value=share.share,
            estimator="about_class over shared; too low by the noise in the latter",
            errs="low",
            sample=sample,
            interval=jackknife_interval(share.share, share.share_without),
        ),
        "shared": shared,
        "about_class": Estimate(
            value=share.about_class,
            estimator="half of Pillai's trace of the classes in the fixed features of a view, the noise in the class "
            "means taken away: the information of a view about its class to first order, in nats",
            errs="either",
            sample=sample,
            interval=jackknife_interval(share.about_class, share.about_class_without),
        ),
    }
