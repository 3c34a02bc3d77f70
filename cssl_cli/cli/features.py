"""What `cssl analyze` and `cssl probe` do with files of features in place of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssl_cli.cli.requests import FEATURES
from cssl_cli.errors import InputError

if TYPE_CHECKING:
    from cssl_cli.cli.requests import AnalyzeRequest
    from cssl_cli.runs.feature_results import FeatureResults


def require_as_they_are(
    paths: Sequence[Path], *, data_root: str | None, precision: str, data: str | None = None
) -> None:
    """`InputError` for a format that is not read, and for options that are about images."""
    for path in paths:
        if path.suffix.lower() not in FEATURES:
            raise InputError(
                f"features are read from {' and '.join(FEATURES)} files",
                where=str(path),
                remedy="Write them with np.savez('features.npz', features=..., labels=...).",
            )
        if len(paths) > 1 and not path.exists():  # told before the others are measured
            raise InputError("there is no such file", where=str(path))
    options = {"--data": data is not None, "--data-root": data_root is not None, "--precision": precision != "float32"}
    for option, given in options.items():
        if given:
            raise InputError("features from a file are measured as they are", where=option, remedy="Leave it out.")


def analyze_files(request: AnalyzeRequest, as_json: bool) -> None:
    """Measure the terms of the features in files; print them, and keep them where --out says."""
    from cssl_cli.cli.figures import draw_into, write_page_into
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.report.feature_files import show_analyses
    from cssl_cli.runs.run_dir import ANALYSIS, FIGURES

    folders = _folders(request.out, request.targets.features)
    load_measurement({}, request.targets.overrides, where="overrides")  # a fault is told before a large file is read
    from cssl_cli.runs.features import analyze_features, load_features

    results: dict[Path, dict[str, Any]] = {}
    probes: dict[Path, dict[str, Any] | None] = {}
    failed = None
    with TerminalReporter() as reporter:
        for path, folder in folders.items():
            arrays = load_features(path, reporter, training=False)
            measurement = load_measurement(
                arrays.settings, request.targets.overrides, where=str(path), changes=request.changes
            )
            if folder is not None:
                folder.require_place(arrays.digest)
            result = analyze_features(arrays, measurement, reporter=reporter, device_name=request.device)
            results[path], probes[path] = result, None
            if folder is not None:
                folder.write_json(ANALYSIS, result)
                probes[path] = folder.probe(arrays.digest)
                kept: dict[str, Any] = {}
                if request.figures:
                    failed = draw_into(folder.file(FIGURES), result, [], reporter, kept) or failed
                if request.html:
                    failed = write_page_into(folder.path, reporter, kept if request.figures else None) or failed
    show_analyses(results, probes, request.sections, as_json)
    if failed is not None:
        raise failed


def probe_files(
    paths: Sequence[Path], overrides: Sequence[str], *, out: Path | None, device: str | None, as_json: bool
) -> None:
    """Measure the accuracies of classifiers on the features in files; print them, and keep them where --out says."""
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.report.feature_files import show_probes
    from cssl_cli.runs.run_dir import PROBE

    folders = _folders(out, paths)
    measurement = load_measurement({}, overrides, where="overrides")
    from cssl_cli.runs.features import load_features, probe_features

    results = {}
    with TerminalReporter() as reporter:
        for path, folder in folders.items():
            arrays = load_features(path, reporter, training=True)
            if folder is not None:
                folder.require_place(arrays.digest)
            results[path] = probe_features(arrays, measurement, device_name=device, where=str(path))
            if folder is not None:
                folder.write_json(PROBE, results[path])
    show_probes(results, as_json)


def _folders(out: Path | None, paths: Sequence[Path]) -> dict[Path, FeatureResults | None]:
    """Where the results of each file go: to `out`, of several files each to a folder of its name there."""
    from cssl_cli.runs.feature_results import FeatureResults

    if out is None:
        return dict.fromkeys(paths)
    names = [path.stem for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two of the files are called {twice}", where="--out", remedy="Rename one of them.")
    places = [out] if len(paths) == 1 else [out / name for name in names]
    return {path: FeatureResults(place) for path, place in zip(paths, places, strict=True)}
