"""Every figure of an analysis, as PNG and SVG files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.errors import DamagedError
from cssl_cli.host.files import explained, require_writable
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.report.figures.certificate import certificate
from cssl_cli.report.figures.class_centers import class_centers
from cssl_cli.report.figures.concentration import concentration
from cssl_cli.report.figures.projection import projection
from cssl_cli.report.figures.r_epsilon import r_epsilon
from cssl_cli.report.figures.spectrum import spectrum
from cssl_cli.report.figures.style import KINDS, REMEDY, drawing, save
from cssl_cli.report.figures.theorem_1 import theorem_1
from cssl_cli.report.figures.training import training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANALYSIS_FIGURES: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
    "concentration": concentration,
    "r_epsilon": r_epsilon,
    "class_centers": class_centers,
    "projection": projection,
    "certificate": certificate,
    "theorem_1": theorem_1,
    "spectrum": spectrum,
}
DRAWN_FROM = "figures.json"
FACTS = ("fingerprint", "content_key", "part", "num_images", "settings")  # they identify an analysis


def draw_figures(
    content: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    kept: dict[str, Figure] | None = None,
) -> list[Path]:
    """Draw what `content` (an analysis) and `trace` (its records through training) have the numbers for.

    Returns the files written to `folder`: NAME.png and NAME.svg of `training` and of each of `ANALYSIS_FIGURES` that
    could be drawn. Figures of an earlier analysis for which this one has no numbers are removed. `DRAWN_FROM` records
    the analysis behind the figures; if it is this one, they are left unchanged. The same numbers give the same bytes.
    What was drawn goes into `kept`, by name, for those who draw it elsewhere, too.
    Each file appears whole or not at all; raises InputError or RunError if one cannot be written.
    """
    drawn_from = _digest(content, trace)
    if (there := _drawn_already(folder, drawn_from)) is not None:
        return there
    require_writable(folder, REMEDY)
    _remove(folder / DRAWN_FROM)  # until all are drawn, the figures are of two analyses
    written: list[Path] = []
    with drawing():
        draws = {name: partial(draw, content) for name, draw in ANALYSIS_FIGURES.items()}
        for name, draw in {**draws, "training": partial(training, trace)}.items():
            figure = draw()
            written += _replace(figure, folder, name)
            if kept is not None and figure is not None:
                kept[name] = figure
    if written:
        facts = {key: content[key] for key in FACTS if key in content}
        names = list(dict.fromkeys(path.stem for path in written))
        SealedFolder(folder).write_json(DRAWN_FROM, {"figures": names, **facts, "drawn_from": drawn_from})
    return written


def _digest(content: Mapping[str, Any], trace: Sequence[Mapping[str, Any]]) -> str:
    """A digest of everything the figures depend on: the numbers, and the code that draws them."""
    digest = hashlib.sha256(json.dumps([content, trace, version("matplotlib")], sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _drawn_already(folder: Path, drawn_from: str) -> list[Path] | None:
    """The figures in `folder`, if they are complete and of these numbers."""
    try:
        facts = SealedFolder(folder).read_json(DRAWN_FROM)
    except DamagedError:
        return None
    if facts is None or facts.get("drawn_from") != drawn_from:
        return None
    paths = [folder / f"{name}.{kind}" for name in facts["figures"] for kind in KINDS]
    return paths if all(path.is_file() for path in paths) else None


def _replace(figure: Figure | None, folder: Path, name: str) -> list[Path]:
    """Write the figure; without one, remove an earlier analysis's figure of this name."""
    if figure is not None:
        return save(figure, folder, name)
    for kind in KINDS:
        _remove(folder / f"{name}.{kind}")
    return []


def _remove(path: Path) -> None:
    with explained(path, REMEDY):
        path.unlink(missing_ok=True)
