"""A folder of what was measured on the features of one file: analysis.json, probe.json and figures."""

from __future__ import annotations

from typing import Any

from cssl_cli.errors import DamagedError, InputError
from cssl_cli.host.files import require_writable
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RECIPE

OTHER = "Give another --out DIR."


class FeatureResults(SealedFolder):
    """The folder by its path."""

    def require_place(self, digest: str) -> None:
        """Make the folder. `InputError` where it is a run's, or has results of features of another digest."""
        require_writable(self.path, OTHER)
        if self.file(RECIPE).exists():
            raise InputError("it is the directory of a run", where=str(self.path), remedy=OTHER)
        for name in (ANALYSIS, PROBE):
            found = self.read_json(name)
            if found is not None and found.get("features_sha256") != digest:
                raise InputError(f"{name} there is of other features", where=str(self.path), remedy=OTHER)

    def probe(self, digest: str) -> dict[str, Any] | None:
        """The accuracies of the features; None where they were not measured or the file is damaged."""
        try:
            found = self.read_json(PROBE)
        except DamagedError:
            return None
        return found if found is not None and found.get("features_sha256") == digest else None
