"""The report of several runs: one table, and what predicts their accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError, escaped, shown_command
from cssl_cli.report.analysis import MIN_RUNS, called, print_runs
from cssl_cli.report.compare.catalogue import Column
from cssl_cli.report.compare.prediction import prediction_content
from cssl_cli.report.compare.run_rows import how_chosen_among, ranked_of_runs, rows_of_runs
from cssl_cli.report.control_encoders import fooled_in
from cssl_cli.report.control_table import print_fooled
from cssl_cli.report.document.blocks import Document, Section
from cssl_cli.report.document.main_table import first_grid, table_of_runs, with_first_grid
from cssl_cli.report.document.of_run import read_run
from cssl_cli.report.document.page import Page
from cssl_cli.report.document.predicting import prediction_blocks
from cssl_cli.report.document.recipes import recipes_of_rows
from cssl_cli.report.layout import plural


def document_of_runs(paths: list[Path], accuracy: Column) -> Document:
    """Accuracies and terms side by side; `InputError` for a run without an analysis."""
    runs = {path: read_run(path) for path in paths}
    results: dict[Path, dict[str, Any]] = {}
    for path, files in runs.items():
        if files.analysis is None:
            raise InputError(
                "it has no analysis to compare", where=str(path), remedy=shown_command("cssl", "analyze", path)
            )
        results[path] = files.analysis
    probes: Mapping[Path, dict[str, Any] | None] = {path: files.probe for path, files in runs.items()}
    page = Page()
    ranked = ranked_of_runs(results)
    print_runs(page, results, probes, ranked)
    table = table_of_runs(first_grid(page.blocks), results, probes, ranked)
    page.blocks = with_first_grid(page.blocks, table)
    print_fooled(page, [fooled_in(result) for result in results.values()])
    sections = [Section("Summary", page.blocks)]
    if len(runs) >= MIN_RUNS:
        rows = rows_of_runs(results, probes, ranked)
        predicted = prediction_content(rows, [accuracy.name], chosen=how_chosen_among(results))
        sections.append(Section("What predicts the accuracy", prediction_blocks(rows, predicted, accuracy)))
    recipes = {escaped(called(path, runs)): files.recipe for path, files in runs.items() if files.recipe is not None}
    sections.append(Section("Recipes", recipes_of_rows(recipes)))
    return Document(plural(len(runs), "run"), "Accuracies beside the terms of the theory.", sections, table)
