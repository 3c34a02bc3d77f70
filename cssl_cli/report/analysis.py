"""Reports of an analysis: accuracy beside the main terms, verdicts, and sections on request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cssl_cli.errors import DamagedError, shown_command, shown_path
from cssl_cli.report.compare.catalogue import BEFORE_TRAINING, BY_NAME, LINEAR, Column
from cssl_cli.report.compare.prediction import prediction_content
from cssl_cli.report.compare.run_rows import how_chosen_among, ranked_of_runs, rows_of_runs
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.report.control_encoders import compare_controls, fooled_in
from cssl_cli.report.control_table import print_controls, print_fooled
from cssl_cli.report.layout import (
    compacted,
    console,
    fits,
    note,
    percent,
    print_json,
    print_widest,
    table,
    without_interval,
)
from cssl_cli.report.quantities import Result, by_encoder, columns_of, quantities_table, reasons
from cssl_cli.report.run import precision_note
from cssl_cli.report.sections.alignment import r_epsilon
from cssl_cli.report.sections.certificates import certificates, classes
from cssl_cli.report.sections.concentration import print_concentration
from cssl_cli.report.sections.divergence import divergence
from cssl_cli.report.sections.losses import losses
from cssl_cli.report.sections.spectrum import spectrum
from cssl_cli.report.summary import Reading, accuracy_rows, caption, in_summary, term_rows
from cssl_cli.report.verdicts import verdicts
from cssl_cli.runs.results import CLASSIFIERS
from cssl_cli.runs.run_dir import PROBE, RunDir
from cssl_cli.theory.terms import SECTIONS as SECTION_TITLES

# What a section shows beside the table of its quantities, or instead of it.
SECTION_PARTS: Mapping[str, Callable[[Console, Result], None]] = {
    "alignment": r_epsilon,
    "divergence": divergence,
    "concentration": print_concentration,
    "certificates": certificates,
    "losses": losses,
    "spectrum": spectrum,
}
SECTIONS = (*SECTION_TITLES, "classes")
SHARE = BY_NAME["share"]  # before training
SHARE_LABEL = f"{SHARE.called}, %"
MIN_RUNS = 3  # least number for which rank correlations are meaningful
ALIKE = ("num_views", "classes", "epsilons", "deltas", "precision")  # settings that comparable runs must share


# ---------------------------------------------------------------------- one run
def show_analysis(path: Path, result: Result, sections: Sequence[str], as_json: bool) -> None:
    """Print the summary, the verdicts, then the requested sections."""
    if as_json:
        return print_json(analysis_content(result))
    return print_analysis(path, result, read_probe(path), sections)


def print_analysis(path: Path, result: Result, probe: Mapping[str, Any] | None, sections: Sequence[str]) -> None:
    """Print an analysis of the run, or of the file of features, at `path`, with the accuracies of its `probe`."""
    out = console()
    print_summary(out, result, probe, path)
    lines = verdicts(result)
    if lines:
        out.print()
        for line in lines:
            out.print(Text(line))
    print_controls(out, result)
    for name in sections:
        out.print()
        print_section(out, result, name)
    left = [name for name in SECTIONS if name not in sections]
    if left:
        note(out, f"\nMore: --section NAME, of {', '.join(left)}; all of them: --section all")
    return


def print_section(out: Console, result: Result, name: str) -> None:
    """Print what is special to the section, then the table of its quantities."""
    if name == "classes":
        return classes(out, result)
    if name in SECTION_PARTS:
        SECTION_PARTS[name](out, result)
    return quantities_table(out, result, SECTION_TITLES[name], name)


def analysis_content(result: Result) -> dict[str, Any]:
    """An analysis with the report's own results, as JSON types."""
    compared = compare_controls(result)
    return {**result, "verdicts": verdicts(result), **({} if compared is None else {"fooled": compared})}


def read_probe(path: Path) -> dict[str, Any] | None:
    """The latest probe.json of the run; None if missing or damaged."""
    try:
        return RunDir(path).latest_result(PROBE)
    except DamagedError:  # reported by cli/analyze.py
        return None


def print_summary(out: Console, result: Result, probe: Mapping[str, Any] | None, path: Path) -> None:
    """Print accuracies beside the main terms, what they were measured on, and why some are missing."""
    accuracies, rows = accuracy_rows(probe), term_rows(result)
    print_widest(out, [by_encoder(columns_of(result), accuracies, rows, intervals=count) for count in (3, 1, 0)])
    note(out, caption(result, probe))
    _note_precision(out, result, probe)
    reasons(out, result, [(shown.term.group, shown.declared.name) for shown in in_summary()])
    if "fingerprint" in result and (reason := result.get("projector", {}).get("reason")) is not None:  # of a run
        note(out, f"No terms of the projector: {reason}.")
    if probe is None and result["class_names"] is not None:
        note(out, f"Accuracies: {shown_command('cssl', 'probe', path)}")


def _note_precision(out: Console, result: Result, probe: Mapping[str, Any] | None) -> None:
    for said in (precision_note(result, "Terms of features"), precision_note(probe, "Accuracies of features")):
        if said:
            note(out, said)


# ---------------------------------------------------------------------- several runs
def show_runs(
    results: Mapping[Path, dict[str, Any]], as_json: bool, *, accuracy: Column = LINEAR, every: bool = True
) -> None:
    """A table with one row per run, accuracies beside the main terms; from three runs on, which terms predict them."""
    probes = {path: read_probe(path) for path in results}
    ranked = ranked_of_runs(results)
    if as_json:
        runs = {
            str(path): {**analysis_content(result), **_of_accuracies(probes[path]), **_of_ranking(ranked.get(path))}
            for path, result in results.items()
        }
        rows = rows_of_runs(results, probes, ranked)
        return print_json({"runs": runs, **prediction_content(rows, chosen=how_chosen_among(results))})
    out = console()
    print_runs(out, results, probes, ranked)
    print_fooled(out, [fooled_in(result) for result in results.values()])
    if len(results) >= MIN_RUNS:
        unprobed = [shown_command("cssl", "probe", path) for path, probe in probes.items() if probe is None]
        if unprobed:
            note(out, f"Without accuracies, hence in no rank correlation: {len(unprobed)}. First {unprobed[0]}")
        rows = rows_of_runs(results, probes, ranked)
        predicted = prediction_content(rows, [accuracy.name], chosen=how_chosen_among(results))
        print_prediction(out, rows, predicted, accuracy, every=every)
    return None


def _of_accuracies(probe: Mapping[str, Any] | None) -> dict[str, Any]:
    """The precision of the accuracies beside an analysis, and its error, unless float32."""
    if probe is None or "precision" not in probe["settings"]:
        return {}
    return {"accuracy_precision": probe["settings"]["precision"], "accuracy_feature_error": probe["feature_error"]}


def _of_ranking(ranked: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was told of the augmentations before training."""
    return {} if ranked is None else {"ranking": {name: ranked[name] for name in BEFORE_TRAINING}}


def print_runs(
    out: Console,
    results: Mapping[Path, Result],
    probes: Mapping[Path, dict[str, Any] | None],
    ranked: Mapping[Path, Mapping[str, Any]] | None = None,
) -> None:
    """A table with one row per run or file of features, and what keeps their terms from being compared.

    ranked: what a sweep's ranking says of augmentations, where there is one; the share gets a column.
    """
    accuracy = table("", *(f"{classifier.called}, %" for classifier in CLASSIFIERS.values()))
    first = next(iter(results.values()))
    measured = {
        path: {label: without_interval(cells[0]) for label, _, cells in term_rows(r)} for path, r in results.items()
    }
    shares = share_readings(ranked or {})
    for path, share in shares.items():
        measured[path][SHARE_LABEL] = share.text
    labels = list(dict.fromkeys(label for cells in measured.values() for label in cells))
    whole = table("", *(f"{classifier.called}, %" for classifier in CLASSIFIERS.values()), *labels)
    for path in results:
        probe = probes[path]
        scores = [percent(probe["trained"][name]["accuracy"]) if probe else "–" for name in CLASSIFIERS]
        cells = [measured[path].get(label, "–") for label in labels]
        accuracy.add_row(called(path, results), *scores)
        whole.add_row(called(path, results), *scores, *cells)
    if fits(out, whole):
        out.print(whole)
    else:
        out.print(compacted(out, accuracy))
        out.print()
        _transposed(out, measured, labels)
    note(out, f"Encoder features; what follows is for {next(iter(results))}. {caption(first, None, with_errs=False)}")
    if shares:
        note(out, f"{SHARE.called.capitalize()}: {SHARE.meaning}.")
    for path, result in results.items():
        of_terms, of_accuracies = (
            precision_note(result, "Terms of features"),
            precision_note(probes[path], "Accuracies of features"),
        )
        if of_terms or of_accuracies:
            note(out, f"{called(path, results)}: {' '.join(filter(None, (of_terms, of_accuracies)))}")
    circumstances = {
        repr([_images_of(result), result["num_images"], *(result["settings"].get(name) for name in ALIKE)])
        for result in results.values()
    }
    if len(circumstances) > 1:
        said = "Measured on different images, classes, views or grids of ε and δ, or in different precision: the terms "
        out.print(Text(said + "cannot be compared.", style="red"))
    if len({probe["settings"].get("precision") for probe in probes.values() if probe is not None}) > 1:
        out.print(Text("The accuracies are of features in different precision.", style="red"))


def share_readings(ranked: Mapping[Path, Mapping[str, Any]]) -> dict[Path, Reading]:
    """The share before training of the runs whose augmentations were ranked and have one."""
    shares = {path: found["share"] for path, found in ranked.items() if found["share"]["value"] is not None}
    return {
        path: Reading(SHARE.shown(share["value"]), share["value"], share.get("interval"), share.get("num_images"))
        for path, share in shares.items()
    }


def called(path: Path, others: Collection[Path]) -> str:
    """The last part of a path, or all of it where others end alike."""
    return path.name if [other.name for other in others].count(path.name) == 1 else shown_path(path)


def _images_of(result: Result) -> tuple[Any, ...]:
    """What tells images from others; of features from elsewhere no more than the classes is known."""
    return result.get("exported_from", result).get("content_key"), result["class_names"]


def _transposed(out: Console, measured: Mapping[Path, Mapping[str, str]], labels: Sequence[str]) -> None:
    """Terms as rows and runs as numbered columns, for terminals too narrow for the usual table."""
    grid = table("", *(str(position) for position in range(1, len(measured) + 1)))
    for label in labels:
        grid.add_row(label, *(cells.get(label, "–") for cells in measured.values()))
    out.print(compacted(out, grid))
    for position, path in enumerate(measured, start=1):
        note(out, f"{position}: {shown_path(path)}")
