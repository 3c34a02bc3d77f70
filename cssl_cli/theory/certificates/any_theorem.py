"""The combined bound of several certificates: an image that any of them certifies is classified correctly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cssl_cli.theory.certificates.error_bounds import bounds_from_certified
from cssl_cli.theory.class_geometry import ClassGeometry
from cssl_cli.theory.estimate import Absent, Quantity

QUANTITIES = ("error_bound", "error_bound_per_class", "certified_share_per_class")


def combined(geometry: ClassGeometry | Absent, certified: Mapping[str, Tensor]) -> dict[str, Quantity]:
    """The bound of all certificates together, `QUANTITIES`, from the images (N,) that each certifies, by name."""
    if isinstance(geometry, Absent):
        return dict.fromkeys(QUANTITIES, geometry)
    if not certified:
        return dict.fromkeys(QUANTITIES, Absent("there is no certificate to combine"))
    by_any = torch.stack(list(certified.values())).any(dim=0)
    names = ", ".join(certified)
    return bounds_from_certified(
        geometry, by_any, f"share of images certified by none of {names}; {geometry.views_note}"
    )
