"""What a member of a sweep lacks."""

from __future__ import annotations

from dataclasses import dataclass

from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.results_index import Measured


@dataclass(frozen=True)
class Missing:
    """Which results of a member are missing; with `until`, only its training up to this epoch."""

    probe: bool
    analysis: bool
    until: int | None = None


def missing_in(result: Measured) -> Missing | None:
    """The missing results of a member, as they were read; None if it is complete."""
    missing = Missing(probe=result.probe is None, analysis=result.analysis is None)
    if missing.probe and not missing.analysis and not RunDir(result.path).labelled():
        return None  # images without labels give no accuracies
    return missing if missing.probe or missing.analysis else None
