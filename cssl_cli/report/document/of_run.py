"""The report of one run, or of what was measured of a file of features: everything that its folder holds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cssl_cli.errors import DamagedError, escaped, shown_path
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.report.analysis import SECTIONS, print_section, print_summary
from cssl_cli.report.control_table import print_controls
from cssl_cli.report.document.blocks import (
    Block,
    Code,
    Document,
    Facts,
    Figure,
    Folded,
    Paragraph,
    Section,
    folded_where_long,
)
from cssl_cli.report.document.commands import commands_of_run
from cssl_cli.report.document.environments import environment_blocks, environments_of
from cssl_cli.report.document.main_table import table_of_run, with_first_grid
from cssl_cli.report.document.page import Page
from cssl_cli.report.document.recipes import recipe_blocks
from cssl_cli.report.document.training_curves import training_blocks
from cssl_cli.report.run import NO_RECORDS, print_probe
from cssl_cli.report.verdicts import verdicts
from cssl_cli.runs.run_dir import ANALYSIS, METRICS, PROBE, RECIPE, TRACE, RunDir
from cssl_cli.runs.stored import Probe, Transfer, require
from cssl_cli.runs.stored_analysis import require_analysis
from cssl_cli.theory.terms import SECTIONS as SECTION_TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

T = TypeVar("T")
_CLASSES = "Class by class"
_NOT_MEASURED = "not measured"


@dataclass
class RunFiles:
    """What a folder holds of a run; `damage` has a sentence for each file that cannot be used.

    kept: figures of this analysis and trace that are drawn already, by name.
    """

    path: Path
    recipe: Recipe | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    trace: Sequence[Mapping[str, Any]] = ()
    probe: dict[str, Any] | None = None
    analysis: dict[str, Any] | None = None
    transfers: Sequence[dict[str, Any]] = ()
    damage: list[str] = field(default_factory=list)
    kept: Mapping[str, Drawing] = field(default_factory=dict)

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """Where the encoder is from; None if the run trained it."""
        found = self.status.get("imported")
        return found if isinstance(found, Mapping) else None


def read_run(path: Path) -> RunFiles:
    """The files of the run at `path`; `InputError` if there is none."""
    run = RunDir.open(path)
    files = _read(run, recipe=load_recipe(str(run.file(RECIPE))))
    files.status = _or(files, run.status, {})
    files.metrics = _or(files, lambda: run.read_records(METRICS), [])
    files.trace = _or(files, lambda: run.read_records(TRACE), [])
    files.transfers = [found for name in run.transfers() if (found := _or(files, _transfer(run, name), None))]
    return files


def read_features(path: Path) -> RunFiles:
    """What was measured of a file of features and kept in the folder `path`."""
    return _read(RunDir(path))


def _read(run: RunDir, recipe: Recipe | None = None) -> RunFiles:
    files = RunFiles(run.path, recipe)
    if recipe is not None:
        files.probe = _or(files, lambda: run.latest_result(PROBE), None)
        files.analysis = _or(files, lambda: run.latest_result(ANALYSIS), None)
    else:
        files.probe = _or(files, _of_features(run, PROBE, partial(require, Probe)), None)
        files.analysis = _or(files, _of_features(run, ANALYSIS, require_analysis), None)
    return files


def _of_features(run: RunDir, name: str, check: Callable[[dict[str, Any]], object]) -> Callable[[], Any]:
    """Reads a result of a file of features: as one of a run, but for what is known of a run and its images only."""

    def read() -> dict[str, Any] | None:
        found = run.read_json(name)
        try:
            if found is not None:
                of_trained = {encoder: found.get("trained") for encoder in ("untrained", "pixels") if name == PROBE}
                check({"fingerprint": "", "content_key": "", **of_trained, **found, "part": found.get("part") or ""})
        except ValueError as error:
            raise run.damaged(name, str(error)) from error
        return found

    return read


def _or(files: RunFiles, read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except DamagedError as error:
        if str(error) not in files.damage:  # two results may suffer from the same
            files.damage.append(str(error))
        return otherwise


def _transfer(run: RunDir, name: str) -> Callable[[], dict[str, Any] | None]:
    def read() -> dict[str, Any] | None:
        found = run.read_json(name)
        try:
            require(Transfer, found)
        except ValueError as error:
            raise run.damaged(name, str(error)) from error
        return found

    return read


# ---------------------------------------------------------------------- the document
def document_of_run(files: RunFiles) -> Document:
    """Everything that is known of a run, the summary first."""
    table = None if files.analysis is None else table_of_run(files.analysis, files.probe)
    sections = [section for section in _sections(files) if section.blocks]
    behind = [files.analysis, list(files.trace), list(files.metrics)]
    return Document(escaped(_called(files)), _lead(files), sections, table, behind=behind)


def _called(files: RunFiles) -> str:
    return files.path.absolute().name if files.recipe is None else files.recipe.name


def _lead(files: RunFiles) -> str:
    recipe = files.recipe
    if recipe is None:
        return "What was measured of a file of features."
    if files.imported is not None:
        return f"The encoder {recipe.encoder.name}, {_imported(files.imported)}, measured on {recipe.data.name}."
    epochs = f"{recipe.train.epochs:,} epoch{'s' * (recipe.train.epochs != 1)}"
    return f"{recipe.method.name}, encoder {recipe.encoder.name}, pretrained on {recipe.data.name} for {epochs}."


def _imported(origin: Mapping[str, Any]) -> str:
    return f"imported from {escaped(str(origin.get('file')))}"


def _sections(files: RunFiles) -> Iterator[Section]:
    yield Section("Summary", _summary(files))
    if files.analysis is not None:
        yield Section("Terms, section by section", _terms(files.analysis))
    yield Section("Accuracies", _accuracies(files))
    yield Section("Figures", _figures(files))
    yield Section("Pretraining", training_blocks(files.metrics))
    if files.recipe is not None:
        yield Section("Recipe", recipe_blocks(files.recipe))
        run = RunDir(files.path)
        yield Section("Environment", environment_blocks(Counter(environments_of(run)), "process"))
        yield Section("Commands that repeat it", _commands(files, files.recipe))
    yield Section("What is missing", _missing(files))


def _summary(files: RunFiles) -> list[Block]:
    page = Page()
    if files.recipe is not None:
        page.blocks.append(Facts(tuple(_facts(files, files.recipe))))
    if files.analysis is None:
        if files.probe is None:
            page.blocks.append(Paragraph("Nothing was measured yet."))
        return page.blocks
    summary = Page()
    print_summary(summary, files.analysis, files.probe, files.path)
    page.blocks += with_first_grid(summary.blocks, table_of_run(files.analysis, files.probe))
    page.blocks += [Paragraph(escaped(sentence), "verdict") for sentence in verdicts(files.analysis)]
    print_controls(page, files.analysis)
    return page.blocks


def _facts(files: RunFiles, recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield "state", _state(files.status)
    yield "run directory", escaped(files.path.absolute().name)
    yield "fingerprint", recipe.fingerprint
    yield "seed", str(recipe.seed)
    given = recipe.augment.model_dump(exclude_none=True)
    yield "augmentation", ", ".join(given) or "none"


def _state(status: Mapping[str, Any]) -> str:
    state = str(status.get("state", "unknown"))
    if state == "interrupted" and (stopped := status.get("stopped")):
        return f"stopped by --halve at epoch {stopped['epoch']:,} of {stopped['epochs']:,}"
    step, steps = status.get("step"), status.get("num_steps")
    return state if state == "finished" or steps is None else f"{state}, step {step} of {steps}"


def _terms(result: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for name in SECTIONS:
        page = Page()
        print_section(page, result, name)
        if page.blocks:
            inner = page.blocks if name == "classes" else folded_where_long(page.blocks)
            blocks.append(Folded(SECTION_TITLES.get(name, _CLASSES), inner, is_open=not blocks))
    return blocks


def _accuracies(files: RunFiles) -> list[Block]:
    blocks: list[Block] = []
    if files.probe is not None:
        page = Page()
        print_probe(page, files.probe)
        blocks += folded_where_long(page.blocks)
    for result in files.transfers:
        page = Page()
        print_probe(page, result)
        blocks.append(Folded(f"On other images: {escaped(str(result['transfer']['name']))}", page.blocks))
    return blocks


def _figures(files: RunFiles) -> list[Block]:
    from cssl_cli.report.figures.figures import ANALYSIS_FIGURES
    from cssl_cli.report.figures.training import training

    draws: dict[str, Callable[[], Drawing | None]] = {"training": partial(training, files.trace)}
    if files.analysis is not None:
        draws |= {name: partial(draw, files.analysis) for name, draw in ANALYSIS_FIGURES.items()}
    draws |= {name: partial(files.kept.get, name) for name in files.kept}
    return [Figure(name.replace("_", "-"), draw) for name, draw in draws.items()]


def _commands(files: RunFiles, recipe: Recipe) -> list[Block]:
    results = {PROBE: files.probe, ANALYSIS: files.analysis}
    imported = files.imported
    commands = commands_of_run(files.path, recipe, results, imported=imported is not None)
    told: list[Block] = [] if imported is None else [Paragraph(f"The encoder was {_imported(imported)}: {NO_RECORDS}.")]
    return [*told, *([Code("\n".join(commands))] if commands else [])]


# ---------------------------------------------------------------------- what is missing
def _missing(files: RunFiles) -> list[Block]:
    """What could be measured and was not, and the command for it."""
    found: list[Block] = [Paragraph(sentence, "bad") for sentence in files.damage]
    lacking = list(_lacking(files))
    return [*found, *([Facts(tuple(lacking))] if lacking else [])]


def _lacking(files: RunFiles) -> Iterator[tuple[str, str]]:
    run = shlex.quote(shown_path(files.path))
    if files.recipe is None:
        for result, name in ((files.analysis, "analyze"), (files.probe, "probe")):
            if result is None:
                yield _NOT_MEASURED, f"cssl {name} FEATURES.npz --out {run}"
        return
    if files.status.get("state") != "finished":
        parent = shlex.quote(shown_path(files.path.parent))
        yield "pretraining has not finished", f"cssl pretrain {run}/{RECIPE} --out {parent}"
    if files.probe is None and RunDir(files.path).labelled():
        yield "accuracies", f"cssl probe {run}"
    if files.analysis is None:
        yield "terms of the theory", f"cssl analyze {run}"
    elif not files.analysis.get("controls"):
        yield "control encoders", f"cssl analyze {run} --controls"
    if not files.transfers and files.probe is not None:
        yield "accuracies on other images", f"cssl probe {run} --data NAME"
    if not files.trace and files.imported is None:
        yield "terms through training", "a run of a recipe with analyze.every=1"
