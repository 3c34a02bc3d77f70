"""What a table of runs takes from each run: the catalogue's quantities, and how they were measured.

The index of a sweep stores it (sweep/results_index.py), so that a report rereads only an analysis.json that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cssl_cli.report.compare.catalogue import BEFORE_TRAINING, BY_NAME, Interval, intervals_of, values_of
from cssl_cli.report.control_encoders import Fooled, fooled_in
from cssl_cli.runs.results import number, part
from cssl_cli.sweep.results_index import Measured
from cssl_cli.sweep.run import MemberResult


class Circumstances(NamedTuple):
    """How a member was measured; None for what its results do not say.

    From the analysis: the content key of the images, images, views, grids of ε and δ, classes. From the probe: the
    content key of the images, test images.
    """

    content: str | None
    images: int | None
    views: int | None
    probed_content: str | None
    probed_images: int | None
    epsilons: tuple[float, ...]
    deltas: tuple[float, ...]
    classes: tuple[str, ...]


class Extract(NamedTuple):
    """A member's numbers by quantity, the circumstances of their measurement, and verdicts of control encoders.

    fooled: verdicts by control encoder and term, empty if measured without control encoders. intervals: those over
    images, by quantity, where known.
    """

    values: Mapping[str, float | None]
    circumstances: Circumstances
    fooled: Fooled
    intervals: Mapping[str, Interval]


def extract_of(result: MemberResult) -> Extract:
    """What the index stored for a member, or else what its results say now, and what its augmentations' ranking says.

    A ranking of other images than the analysis's does not count.
    """
    if result.taken is None:
        fooled = fooled_in(result.analysis or {})
        found = Extract(values_of(result), _circumstances(result), fooled, intervals_of(result))
    else:
        values, facts, fooled, intervals = result.taken
        measured = Circumstances._make(tuple(fact) if isinstance(fact, list) else fact for fact in facts)
        pairs = {name: (low, high) for name, (low, high) in intervals.items()}
        found = Extract(dict(zip(BY_NAME, values, strict=True)), measured, fooled, pairs)
    of_these_images = part(result.ranked).get("content_key") == found.circumstances.content
    ranked = {name: BY_NAME[name].read(result) if of_these_images else None for name in BEFORE_TRAINING}
    return found._replace(values={**found.values, **ranked})


def _circumstances(measured: Measured) -> Circumstances:
    probe, analysis = measured.probe, measured.analysis
    settings = part(analysis, "settings")
    tested = number(part(probe, "trained", "linear").get("num_images"))
    return Circumstances(
        part(analysis).get("content_key"),
        part(analysis).get("num_images"),
        settings.get("num_views"),
        part(probe).get("content_key"),
        None if tested is None else int(tested),
        *(tuple(settings.get(name) or ()) for name in ("epsilons", "deltas", "classes")),
    )


def take_numbers(measured: Measured) -> Any:
    """`Extract` as JSON types, for the index to store (`extract_of` reads it)."""
    return [
        list(values_of(measured).values()),
        list(_circumstances(measured)),
        fooled_in(measured.analysis or {}),
        intervals_of(measured),
    ]
