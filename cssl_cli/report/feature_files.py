"""Reports of files of features: that of one like a run's, several as the rows of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cssl_cli.report.analysis import analysis_content, called, print_analysis, print_runs
from cssl_cli.report.control_encoders import fooled_in
from cssl_cli.report.control_table import print_fooled
from cssl_cli.report.layout import console, note, percent, print_json, table
from cssl_cli.report.run import show_probe
from cssl_cli.runs.results import CLASSIFIERS


def show_analyses(
    results: Mapping[Path, dict[str, Any]],
    probes: Mapping[Path, dict[str, Any] | None],
    sections: Sequence[str],
    as_json: bool,
) -> None:
    """The analysis of a file as that of a run; of several, one row each, their accuracies beside the main terms."""
    contents = {str(path): analysis_content(result) for path, result in results.items()} if as_json else {}
    if len(results) == 1:
        ((path, result),) = results.items()
        return print_json(contents[str(path)]) if as_json else print_analysis(path, result, probes[path], sections)
    if as_json:
        return print_json({"files": contents})
    out = console()
    print_runs(out, results, probes)
    print_fooled(out, [fooled_in(result) for result in results.values()])
    if None in probes.values():
        note(out, "Accuracies: cssl probe FILE... --out DIR, then the same --out DIR here.")
    return None


def show_probes(results: Mapping[Path, dict[str, Any]], as_json: bool) -> None:
    """The accuracies of a file as those of a run; of several, one row each."""
    if len(results) == 1:
        ((path, result),) = results.items()
        return print_json(result) if as_json else show_probe(path, result)
    if as_json:
        return print_json({"files": {str(path): result for path, result in results.items()}})
    out = console()
    grid = table("accuracy, %", *(classifier.called for classifier in CLASSIFIERS.values()), "test images")
    for path, result in results.items():
        scores = [result["trained"][name] for name in CLASSIFIERS]
        shown = [percent(score["accuracy"], score["interval"]) for score in scores]
        grid.add_row(called(path, results), *shown, f"{scores[0]['num_images']:,}")
    out.print(grid)
    return note(out, "95 % intervals; frozen features. By class, and the settings of each: cssl probe FILE")
