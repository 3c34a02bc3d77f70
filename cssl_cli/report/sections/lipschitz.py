"""Bounds on the encoder's Lipschitz constant."""

from __future__ import annotations

from rich.console import Console

from cssl_cli.report.quantities import Result, quantities_table


def lipschitz(out: Console, result: Result) -> None:
    """What bounds the encoder's Lipschitz constant from below and from above."""
    quantities_table(
        out,
        result,
        "Lipschitz constant of the encoder with unit-norm output, per unit of pixel distance",
        (
            ("≥ largest ratio over views", "lipschitz", "largest_ratio"),
            ("≥ the same, views of one image", "lipschitz", "largest_ratio_same_image"),
            ("≥ largest local Jacobian norm", "lipschitz", "local_jacobian_largest"),
            ("   median local Jacobian norm", "lipschitz", "local_jacobian_median"),
            ("≤ product of spectral norms", "lipschitz", "spectral_product"),
            ("   the same before unit norm", "lipschitz", "spectral_product_unscaled"),
        ),
    )
