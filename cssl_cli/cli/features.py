"""What `cssl analyze` and `cssl probe` do with a file of features in place of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cssl_cli.cli.requests import FEATURES
from cssl_cli.errors import InputError

if TYPE_CHECKING:
    from cssl_cli.cli.requests import AnalyzeRequest


def require_as_it_is(path: Path, *, data_root: str | None, precision: str, data: str | None = None) -> None:
    """`InputError` for a format that is not read, and for options that are about images."""
    if path.suffix.lower() not in FEATURES:
        raise InputError(
            f"features are read from {' and '.join(FEATURES)} files",
            where=str(path),
            remedy="Write them with np.savez('features.npz', features=..., labels=...).",
        )
    options = {"--data": data is not None, "--data-root": data_root is not None, "--precision": precision != "float32"}
    for option, given in options.items():
        if given:
            raise InputError("features from a file are measured as they are", where=option, remedy="Leave it out.")


def analyze_file(request: AnalyzeRequest, as_json: bool) -> None:
    """Measure the terms of the features in a file; print them, and keep them where --out says."""
    path = request.targets.features
    assert path is not None
    from cssl_cli.cli.figures import draw_into
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.report.analysis import analysis_content, print_analysis
    from cssl_cli.report.layout import print_json
    from cssl_cli.runs.feature_results import FeatureResults
    from cssl_cli.runs.run_dir import ANALYSIS, FIGURES

    load_measurement({}, request.targets.overrides, where="overrides")  # a fault is told before a large file is read
    from cssl_cli.runs.features import analyze_features, load_features

    failed, probe = None, None
    with TerminalReporter() as reporter:
        arrays = load_features(path, reporter, training=False)
        measurement = load_measurement(
            arrays.settings, request.targets.overrides, where=str(path), changes=request.changes
        )
        folder = None if request.out is None else FeatureResults(request.out)
        if folder is not None:
            folder.require_place(arrays.digest)
        result = analyze_features(arrays, measurement, reporter=reporter, device_name=request.device)
        if folder is not None:
            folder.write_json(ANALYSIS, result)
            probe = folder.probe(arrays.digest)
            if request.figures:
                failed = draw_into(folder.file(FIGURES), result, [], reporter)
    if as_json:
        print_json(analysis_content(result))
    else:
        print_analysis(path, result, probe, request.sections)
    if failed is not None:
        raise failed


def probe_file(path: Path, overrides: Sequence[str], *, out: Path | None, device: str | None, as_json: bool) -> None:
    """Measure the accuracies of classifiers on the features in a file; print them, and keep them where --out says."""
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.recipe.measurement import load_measurement
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.run import show_probe
    from cssl_cli.runs.feature_results import FeatureResults
    from cssl_cli.runs.run_dir import PROBE

    measurement = load_measurement({}, overrides, where="overrides")
    from cssl_cli.runs.features import load_features, probe_features

    with TerminalReporter() as reporter:
        arrays = load_features(path, reporter, training=True)
        folder = None if out is None else FeatureResults(out)
        if folder is not None:
            folder.require_place(arrays.digest)
        result = probe_features(arrays, measurement, device_name=device)
        if folder is not None:
            folder.write_json(PROBE, result)
    print_json(result) if as_json else show_probe(path, result)
