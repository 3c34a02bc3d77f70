"""Companion measures."""

from __future__ import annotations

from rich.console import Console

from cssl_cli.report.quantities import Result, quantities_table


def companions(out: Console, result: Result) -> None:
    """What others measure of features, beside the theory's terms."""
    quantities_table(
        out,
        result,
        "Companion measures",
        (
            ("uniformity", "uniformity", "uniformity"),
            ("RankMe", "effective_rank", "rankme"),
            ("α-ReQ", "effective_rank", "alpha_req"),
            ("NESum", "effective_rank", "nesum"),
            ("LiDAR", "lidar", "lidar"),
            ("ACR", "chaos", "acr"),
            ("ARC", "chaos", "arc"),
            ("GACR, mean", "chaos", "gacr_mean"),
            ("NC1", "neural_collapse", "nc1"),
            ("tr Σ_W / tr Σ_B, plain", "neural_collapse", "ratio"),
            ("CDNV, mean over pairs", "neural_collapse", "cdnv"),
            ("CDNV, worst pair", "neural_collapse", "cdnv_closest"),
            ("directional CDNV, mean", "neural_collapse", "directional_cdnv"),
            ("directional CDNV, worst pair", "neural_collapse", "directional_cdnv_worst"),
        ),
    )
