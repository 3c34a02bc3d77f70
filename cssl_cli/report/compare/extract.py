"""What a table of runs takes from each: the quantities of the catalogue, and how they were measured.

The index of a sweep keeps it (results_index.py), so that a report looks into no analysis.json that has not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cssl_cli
from cssl_cli.report.compare.catalogue import BY_NAME, values_of
from cssl_cli.report.control_encoders import Fooled, fooled_in
from cssl_cli.runs.results import number, part
from cssl_cli.sweep.results_index import Extractor, Measured
from cssl_cli.sweep.run import MemberResult

# All that decides what is taken from given files; a change in any of these makes kept values void.
SOURCES = (
    "report/compare/catalogue.py",
    "report/compare/extract.py",
    "report/compare/paired_difference.py",
    "report/control_encoders.py",
    "runs/results.py",
    "runs/run_dir.py",
    "theory/shown.py",
    "theory/term.py",
    "theory/terms.py",
)


class Circumstances(NamedTuple):
    """How a member was measured, None where its results do not say.

    Of the analysis: the key of the images' content, images, views, grids of ε and δ, classes. Of the probe: the key of
    the images' content, test images.
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
    """The numbers of a member by quantity, the circumstances under which they were measured, and what fools its terms.

    fooled: verdicts by control encoder and term, empty where it was measured without them.
    """

    values: Mapping[str, float | None]
    circumstances: Circumstances
    fooled: Fooled


def extract_of(result: MemberResult) -> Extract:
    """What the index kept of a member, or else what its results say now."""
    if result.taken is None:
        return Extract(values_of(result), _circumstances(result), fooled_in(result.analysis or {}))
    values, facts, fooled = result.taken
    measured = Circumstances._make(tuple(fact) if isinstance(fact, list) else fact for fact in facts)
    return Extract(dict(zip(BY_NAME, values, strict=True)), measured, fooled)


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


def _take(measured: Measured) -> Any:
    return [list(values_of(measured).values()), list(_circumstances(measured)), fooled_in(measured.analysis or {})]


def _version() -> str:
    code = hashlib.sha256(cssl_cli.__version__.encode())
    for source in SOURCES:
        with suppress(OSError):  # a package without its sources has its version
            code.update((Path(cssl_cli.__file__).parent / source).read_bytes())
    return code.hexdigest()[:10]


EXTRACTOR = Extractor(_version(), _take)
