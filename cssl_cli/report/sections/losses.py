"""The losses' parts, their floors, and what they bound."""

from __future__ import annotations

from rich.console import Console

from cssl_cli.report.layout import note, plural
from cssl_cli.report.quantities import Result, quantities_table, quantity

# Of the temperature: the method's, none of the method's, or nothing known of a method.
_ORIGIN = {True: "", False: " (the method has none)", None: " (by default)"}


def losses(out: Console, result: Result) -> None:
    """Print the losses' alignment and divergence parts, their floors, and their bounds on the class centres."""
    temperature = _temperature(result)
    quantities_table(out, result, f"NT-Xent, frozen features{_batches(result)}{temperature}", "NT-Xent")
    if quantity(result, "trained", "nt_xent", "loss").get("interval"):
        note(out, "Intervals of NT-Xent: over the batches drawn from these images, not over images.")
    enumerated = _enumerated(result, "info_nce")
    quantities_table(out, result, f"InfoNCE with one negative{enumerated}{temperature}", "InfoNCE")
    if result["loss_settings"]["temperature"] == 1:
        note(out, "The paper's InfoNCE has no temperature: it is this one.")
    else:
        enumerated = _enumerated(result, "info_nce_paper")
        measured = quantity(result, "trained", "info_nce_paper", "loss").get("num_images")
        drawn = " drawn anew" if measured and measured < result["num_images"] else ""
        quantities_table(out, result, f"The same at T = 1, as in the paper{enumerated}{drawn}", "InfoNCE, T = 1")
    quantities_table(
        out,
        result,
        "Cross-correlation of standardised features (Barlow Twins), inner products over d",
        "cross-correlation",
    )


def _temperature(result: Result) -> str:
    settings = result["loss_settings"]
    return f", T = {settings['temperature']:g}{_ORIGIN[settings['of_the_method']]}"


def _batches(result: Result) -> str:
    """The size of the batches measured, and the training's if the table has fewer images."""
    used, wanted = quantity(result, "trained", "nt_xent", "batch_size")["value"], result["loss_settings"]["batch_size"]
    if used is None:
        return ""
    of_training = "in training" if "fingerprint" in result else "asked for"
    return f", batches of {used:,}" + (f" (all images; {wanted:,} {of_training})" if used < wanted else "")


def _enumerated(result: Result, term: str) -> str:
    """How many images, and augmented views of each, were enumerated."""
    loss = quantity(result, "trained", term, "loss")
    if loss["value"] is None:
        return ""
    return f", {plural(loss['num_images'], 'image')} × {plural(loss['num_views'], 'view')}"
