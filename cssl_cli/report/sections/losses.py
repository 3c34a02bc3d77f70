"""The losses' parts, their floors, and what they bound."""

from __future__ import annotations

from rich.console import Console

from cssl_cli.report.layout import note, plural
from cssl_cli.report.quantities import Result, Rows, quantities_table, quantity


def losses(out: Console, result: Result) -> None:
    """The losses' alignment and divergence parts, their floors, and the bounds they put on the class centres."""
    quantities_table(
        out,
        result,
        f"NT-Xent, frozen features{_batches(result)}{_temperature(result)}",
        (
            ("alignment part", "nt_xent", "alignment_part"),
            ("divergence part", "nt_xent", "divergence_part"),
            ("loss", "nt_xent", "loss"),
            ("floor of the divergence part", "nt_xent", "collapse_floor"),
            ("gap to the floor", "nt_xent", "collapse_gap"),
            ("mean μk·μl", "nt_xent", "mean_inner_product"),
            ("   bounded by the loss: ≤", "nt_xent", "mean_bound"),
        ),
    )
    quantities_table(
        out,
        result,
        f"InfoNCE with one negative{_enumerated(result, 'info_nce')}{_temperature(result)}",
        _of_info_nce("info_nce"),
    )
    if result["loss_settings"]["temperature"] == 1:
        note(out, "The paper's InfoNCE has no temperature: it is this one.")
    else:
        quantities_table(
            out,
            result,
            f"The same at T = 1, as in the paper{_enumerated(result, 'info_nce_paper')}",
            _of_info_nce("info_nce_paper"),
        )
    quantities_table(
        out,
        result,
        "Cross-correlation of standardised features (Barlow Twins), inner products over d",
        (
            ("Σ (1 − M_ii)²", "cross_correlation", "invariance"),
            ("‖M − I‖²", "cross_correlation", "redundancy_loss"),
            ("‖Σ_W‖", "cross_correlation", "within_covariance_norm"),
            ("   ≤ tr Σ_W", "explicit_tau", "within_covariance_trace"),
            ("   ≤ by main parts and diameters", "explicit_tau", "trace_bound"),
            ("root mean square of μk·μl", "cross_correlation", "rms_inner_product"),
            ("   bounded: ≤", "cross_correlation", "rms_bound"),
            ("largest |μk·μl|", "cross_correlation", "largest_inner_product"),
            ("   bounded: ≤", "cross_correlation", "pair_bound"),
            ("   bounded (Theorem 4): ≤", "cross_correlation", "theorem_4_bound"),
            ("   with an explicit τ′: ≤", "explicit_tau", "theorem_4_bound"),
            ("|μk·μl + 1| of that pair", "cross_correlation", "centred_inner_product"),
            ("   bounded: ≤", "cross_correlation", "centred_pair_bound"),
            ("alignment", "cross_correlation", "alignment"),
            ("   bounded (Lemma 4.1): ≤", "cross_correlation", "alignment_bound"),
        ),
    )


def _temperature(result: Result) -> str:
    settings = result["loss_settings"]
    return f", T = {settings['temperature']:g}{'' if settings['of_the_method'] else ' (the method has none)'}"


def _batches(result: Result) -> str:
    """The size of the batches measured, and the training's where the table has fewer images."""
    used, wanted = quantity(result, "trained", "nt_xent", "batch_size")["value"], result["loss_settings"]["batch_size"]
    if used is None:
        return ""
    return f", batches of {used:,}" + (f" (all images; {wanted:,} in training)" if used < wanted else "")


def _of_info_nce(term: str) -> Rows:
    return (
        ("alignment part", term, "alignment_part"),
        ("divergence part", term, "divergence_part"),
        ("loss", term, "loss"),
        ("floor of the divergence part", term, "collapse_floor"),
        ("gap to the floor", term, "collapse_gap"),
        ("mean μk·μl", term, "mean_inner_product"),
        ("   bounded by loss and centres: ≤", term, "mean_bound"),
        ("   bounded by the loss alone: ≤", term, "mean_bound_from_loss_alone"),
        ("μk·μl of a pair ≤ (no τ)", term, "pair_bound"),
        ("μk·μl of a pair ≤ (Thm 3, our τ)", term, "theorem_3"),
    )


def _enumerated(result: Result, term: str) -> str:
    """How many images, and augmented views of each, were enumerated."""
    loss = quantity(result, "trained", term, "loss")
    if loss["value"] is None:
        return ""
    return f", {plural(loss['num_images'], 'image')} × {plural(loss['num_views'], 'view')}"
