"""What the theory says about a run, in sentences: certified, or vacuous and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.report.layout import number, percent, plural
from cssl_cli.report.quantities import Result, quantity
from cssl_cli.theory.term import Rounding

COINCIDE = 1e-10  # smaller squared distances of unit-norm features are rounding of a float32 encoder
MAX_NAMED = 3  # classes named in a sentence


def verdicts(result: Result, encoder: str = "trained") -> list[str]:
    """One sentence each: collapse, error and certificate of new images, the paper's theorem, the Lipschitz constant."""
    lines = [
        _collapsed(result),
        _population(result, encoder),
        _projector(result),
        _paper(result, encoder),
        _lipschitz(result, encoder),
    ]
    return [line for line in lines if line]


def _collapsed(result: Result) -> str | None:
    """A sentence if all unit-norm features coincide: their terms are then zero, and every bound is meaningless."""
    names = {"trained": "the encoder", "projector": "the projector"}
    found = [name for encoder, name in names.items() if _coincide(result, encoder)]
    if not found:
        return None
    return (
        f"All outputs of {' and of '.join(found)} coincide once scaled to unit norm, those of the clean images and "
        "those of the views of each image: collapsed to a point, whose terms distinguish nothing."
    )


def _coincide(result: Result, encoder: str) -> bool:
    """Whether the clean images coincide in one point, and the views of each image with them."""
    between = quantity(result, encoder, "uniformity", "uniformity")["value"]
    views = quantity(result, encoder, "alignment", "unbiased")["value"] or 0.0
    return between is not None and between >= -COINCIDE and views <= COINCIDE


def _population(result: Result, encoder: str) -> str | None:
    """The error of held-out centres, and its certificate."""
    error = quantity(result, encoder, "population", "error")
    bound = quantity(result, encoder, "population", "error_bound")
    if error["value"] is None or bound["value"] is None:
        reason = error.get("reason") or bound.get("reason")
        return f"Nothing is certified: {reason}." if reason else None
    ends = error.get("interval")
    interval = f" [{_percent(ends[0])}, {_percent(ends[1])}]" if ends else ""
    return (
        f"For new images error {_percent(error['value'])}{interval}: centres from one half "
        f"of the images, tested on the other, {plural(error['num_images'], 'image')}. "
        f"{_certified(result, encoder, bound)}{_left_out(list(bound.get('absent', {})))}"
    )


def _certified(result: Result, encoder: str, bound: Mapping[str, Any]) -> str:
    """What the bound on the error of new images says, and for how many views it would be informative."""
    seen = views_seen(bound["num_views"])
    if not bound.get("vacuous"):
        return f"Certified {_at_most(bound['value'])} at 95 % confidence (Theorem B or C, {seen})."
    chance = quantity(result, encoder, "population", "chance")["value"]
    by_views = quantity(result, encoder, "population", "by_views")["value"] or []
    less = [(count, value) for count, value in enumerate(by_views, start=1) if chance is not None and value < chance]
    fewer = f"; with {plural(less[-1][0], 'view')} certified {_at_most(less[-1][1])}" if less else ""
    return (
        f"Nothing is certified with {seen}: {_at_most(bound['value'])} at 95 % confidence is not below chance, "
        f"{_percent(chance)}{fewer}."
    )


def views_seen(num_views: int) -> str:
    """The V stored views of an image, of which the clean one is the first."""
    return f"{plural(num_views, 'view')}, the clean one{' included' if num_views > 1 else ''}"


def _projector(result: Result) -> str | None:
    """What is certified for the projector's outputs, which the loss acts on, if anything."""
    error = quantity(result, "projector", "population", "error")
    bound = quantity(result, "projector", "population", "error_bound")
    if error["value"] is None or bound["value"] is None or bound.get("vacuous"):
        return None
    return (
        f"With the projector's outputs, for new images: error {_percent(error['value'])}, certified "
        f"{_at_most(bound['value'])}."
    )


def _paper(result: Result, encoder: str) -> str | None:
    slack = quantity(result, encoder, "lemma_3_1", "largest_slack")
    right = quantity(result, encoder, "lemma_3_1", "slack_right_side")
    bound = quantity(result, encoder, "theorem_1", "error_bound")
    if slack["value"] is None:
        return None
    if bound["value"] is not None and not bound.get("vacuous"):
        return (
            f"The paper's Theorem 1 certifies error {_at_most(bound['value'])}, of these images with their own centres."
        )
    if not slack.get("vacuous"):  # uses each class's own p_l, not the least
        return (
            f"The paper's Lemmas 3.1 and 3.2 bound the error, of these images with their own centres, by (1 − σ) + R_ε "
            f"{_at_most(right['value'])}."
        )
    return (
        "The paper's Theorem 1 says nothing here: its condition on the class centres holds at no δ and ε at which its "
        f"bound would be below chance. Where it comes nearest it fails by {number(-slack['value'])}, in "
        "units of r², and the bound would be "
        f"(1 − σ) + R_ε = {_percent(right['value'], rounded='up')}.{_overlap(result, encoder)}"
    )


def _overlap(result: Result, encoder: str) -> str:
    """Whether the paper's assumption fails: views of different classes coincide."""
    coinciding = quantity(result, encoder, "class_overlap", "share_coinciding")
    if not coinciding["value"]:
        return ""
    return (
        " Views of different classes coincide, against the paper's assumption, for "
        f"{_percent(coinciding['value'])} of {plural(coinciding['num_images'], 'image')}."
    )


def _left_out(classes: Sequence[str]) -> str:
    """The classes without an image to test, if any."""
    if not classes:
        return ""
    if len(classes) == 1:
        return f" Nothing is said of the class {classes[0]}, which has fewer than two images."
    named = ", ".join(classes[:MAX_NAMED])
    more = f" and {len(classes) - MAX_NAMED} more" if len(classes) > MAX_NAMED else ""
    return f" Nothing is said of {len(classes)} classes that have fewer than two images: {named}{more}."


def _lipschitz(result: Result, encoder: str) -> str | None:
    from_below = [
        quantity(result, encoder, "lipschitz", n)["value"] for n in ("largest_ratio", "local_jacobian_largest")
    ]
    low = max((value for value in from_below if value is not None), default=None)
    high = quantity(result, encoder, "lipschitz", "spectral_product")
    if low is None or high["value"] is None:
        return None
    vacuous = " (vacuous)" if high.get("vacuous") else ""
    return (
        f"Lipschitz constant of the encoder: at least {number(low, rounded='down')}; at most "
        f"{number(high['value'], rounded='up')}{vacuous} among "
        "images whose features before scaling are no shorter than those measured."
    )


def _at_most(bound: float) -> str:
    """An upper bound, rounded up."""
    return f"≤ {_percent(bound, rounded='up')}"


def _percent(value: float, *, rounded: Rounding = "nearest") -> str:
    return f"{percent(value, rounded=rounded)}\N{NO-BREAK SPACE}%"
