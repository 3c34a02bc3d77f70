"""What a report is asked of: runs, a sweep by name, file or folder, or the folder of a measured file of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cssl_cli.errors import InputError
from cssl_cli.host.files import is_folder
from cssl_cli.host.paths import user_path
from cssl_cli.report.compare.catalogue import LINEAR, Column
from cssl_cli.report.document.blocks import Document, without_figures
from cssl_cli.runs.run_dir import ANALYSIS, PROBE, RECIPE
from cssl_cli.sweep.stored import NAME as SWEEP_FILE
from cssl_cli.sweep.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Kind = Literal["run", "runs", "features", "sweep"]


@dataclass(frozen=True)
class Asked:
    """What there is to report on. folder: where its page belongs, None for several runs."""

    kind: Kind
    document: Document
    folder: Path | None


def documented(
    targets: Sequence[str], *, overrides: Sequence[str] = (), runs: Path = Path("runs"), accuracy: Column = LINEAR
) -> Asked:
    """The document of what is named, from what is on disk. runs: where the folder of a sweep that is named lies.

    Raises InputError for what is neither runs nor a sweep, and for overrides of what is no named sweep.
    """
    folders = [path for target in targets if is_folder(path := user_path(target))]
    if len(folders) == len(targets) == 1:
        _require_none(overrides)
        return _of_folder(folders[0], accuracy)
    if len(targets) > 1:
        _require_none(overrides)
        return _of_runs([user_path(target) for target in targets], accuracy)
    if not targets:
        raise InputError("nothing is named to report on", remedy="Give a run directory or a sweep.")
    from cssl_cli.report.compare.named_quantities import NAMES
    from cssl_cli.sweep.sweep import load_sweep

    return _of_sweep(load_sweep(targets[0], overrides, quantities=NAMES), runs, accuracy)


def _require_none(overrides: Sequence[str]) -> None:
    if overrides:
        raise InputError(
            f"{' '.join(overrides)} cannot change what is on disk", remedy="Give overrides with the name of a sweep."
        )


def _of_folder(folder: Path, accuracy: Column) -> Asked:
    if (folder / RECIPE).exists():
        return Asked("run", document_in(folder, {}), folder)
    if (folder / ANALYSIS).exists() or (folder / PROBE).exists():
        return Asked("features", document_in(folder, {}), folder)
    if not (folder / SWEEP_FILE).exists():
        raise InputError(
            f"it holds neither {RECIPE} nor {SWEEP_FILE}: neither a run nor a sweep",
            where=str(folder),
            remedy="Give a run directory, or name the sweep or its file, with --runs DIR for where its runs are.",
        )
    from cssl_cli.report.compare.named_quantities import NAMES
    from cssl_cli.sweep.stored import load_stored_sweep

    sweep = load_stored_sweep(folder, quantities=NAMES)
    home = folder if folder.name == sweep.name else folder.resolve()  # such as `.`, or a link
    if home.name != sweep.name:  # else it would be that of another folder beside it
        raise InputError(
            f"it holds the sweep {sweep.name}, whose runs are sought in a folder of that name",
            where=str(folder),
            remedy=f"Call the folder {sweep.name}.",
        )
    return _of_sweep(sweep, home.parent, accuracy)


def document_in(folder: Path, kept: Mapping[str, Drawing] | None) -> Document:
    """The document of a run directory, or of a folder of what was measured of a file of features.

    kept: its figures that are drawn already, by name; None for a document without figures.
    """
    from cssl_cli.report.document.of_run import document_of_run, read_features, read_run

    files = read_run(folder) if (folder / RECIPE).exists() else read_features(folder)
    files.kept = kept or {}
    document = document_of_run(files)
    return without_figures(document) if kept is None else document


def _of_runs(paths: list[Path], accuracy: Column) -> Asked:
    from cssl_cli.report.document.of_runs import document_of_runs

    return Asked("runs", document_of_runs(list(dict.fromkeys(paths)), accuracy), None)


def _of_sweep(sweep: Sweep, runs: Path, accuracy: Column) -> Asked:
    from cssl_cli.report.compare.content import as_content
    from cssl_cli.report.compare.extract import take_numbers
    from cssl_cli.report.document.of_sweep import document_of_sweep
    from cssl_cli.sweep.run import read_sweep

    home = runs / sweep.name
    if not is_folder(home):
        raise InputError(
            "there is no such folder: nothing of the sweep has run",
            where=str(home),
            remedy="Say with --runs DIR where its runs are, or run it with: cssl sweep",
        )
    results = read_sweep(sweep, runs, take_numbers)
    document = document_of_sweep(sweep, results, as_content(sweep, results), runs, accuracy=accuracy)
    return Asked("sweep", document, home)
