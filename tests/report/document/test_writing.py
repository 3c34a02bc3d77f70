"""Where reports are kept: written whole, only where they differ, and never at the cost of the numbers."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cssl_cli import api
from cssl_cli.errors import InputError, RunError
from cssl_cli.report.compare.sweep import show_sweep, write_sweep
from cssl_cli.report.document import drawn as drawing
from cssl_cli.report.document.blocks import Document, Figure, Section
from cssl_cli.report.document.writing import PAGE, attempt, write_page
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep
from tests.support.commands import Invoke
from tests.support.html_pages import Page

real = Path.write_bytes


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds and have tests of their own."""
    monkeypatch.setattr(drawing, "drawn", lambda asked: None)


@pytest.fixture
def run(analyzed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(analyzed, tmp_path / "runs" / analyzed.name))


def full_disk(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---------------------------------------------------------------------- when it is written
def test_a_page_is_not_written_again_where_it_would_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / PAGE
    document = Document("a run", "of something", [Section("One", [Figure("x", lambda: None)])], behind=[1.5])
    write_page(document, path)
    before = path.stat()
    write_page(document, path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for changed in (Document("another", ""), Document("a run", "of something", document.sections, behind=[1.25])):
        old = path.stat().st_ino
        write_page(changed, path)
        assert path.stat().st_ino != old


def test_a_page_that_is_cut_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / PAGE
    write_page(Document("a run", ""), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    write_page(Document("a run", ""), path)
    assert path.read_bytes() == whole


def test_a_fault_of_ours_is_told_and_costs_nothing(tmp_path: Path) -> None:
    def broken() -> Document:
        raise KeyError("a bug")

    error = attempt(broken, tmp_path / PAGE)
    assert isinstance(error, RunError)
    assert "KeyError" in str(error)
    assert not (tmp_path / PAGE).exists()


# ---------------------------------------------------------------------- beside a sweep
def test_a_sweep_writes_its_page_and_says_where(sweep: Sweep, results: list[MemberResult], tmp_path: Path) -> None:
    written = write_sweep(sweep, results, tmp_path / "runs", html=True)
    page = tmp_path / "runs" / "compared" / PAGE
    assert written.failed is None
    assert page in written.paths
    assert Page(page.read_text("utf-8")).tables[0].by_name()["simclr-0.001"]["linear"].value is not None


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("order", [None, "-linear"])
def test_what_was_written_is_shown_without_being_computed_again(
    sweep: Sweep,
    results: list[MemberResult],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    as_json: bool,
    order: str | None,
) -> None:
    show_sweep(sweep, results, sweep.members, as_json, order=order)
    alone = capsys.readouterr().out
    written = write_sweep(sweep, results, tmp_path / "runs")
    if order is None:
        monkeypatch.setattr("cssl_cli.report.compare.prediction.screen", lambda *_: pytest.fail("computed again"))
    show_sweep(sweep, results, sweep.members, as_json, written, order=order)
    shown = "".join(capsys.readouterr().out.removeprefix(alone).split())  # lines break anywhere in long paths
    assert shown == ("" if as_json else "".join(written.sentence.split()))


def test_a_full_disk_costs_a_sentence_and_not_the_table(
    sweep: Sweep, results: list[MemberResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: full_disk() if PAGE in self.name else real(self, data))
    written = write_sweep(sweep, results, tmp_path / "runs", html=True)
    assert isinstance(written.failed, RunError)
    assert "No space left on device" in str(written.failed)
    assert {path.name for path in written.paths} == {"table.csv", "table.json"}
    assert not list((tmp_path / "runs" / "compared").glob(f"*{PAGE}*"))


def test_a_read_only_sweep_needs_no_page(
    sweep: Sweep, results: list[MemberResult], tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    home = tmp_path / "runs" / "compared"
    write_sweep(sweep, results, tmp_path / "runs")
    read_only(home)
    written = write_sweep(sweep, results, tmp_path / "runs", html=True)
    assert written.failed is None
    assert home / PAGE not in written.paths


def test_an_unchanged_read_only_sweep_is_no_failure(
    sweep: Sweep, results: list[MemberResult], tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    write_sweep(sweep, results, tmp_path / "runs", html=True)
    read_only(tmp_path / "runs" / "compared")
    written = write_sweep(sweep, results, tmp_path / "runs", html=True)
    assert written.failed is None
    assert written.paths == (tmp_path / "runs" / "compared" / PAGE,)  # which is as it would be written


# ---------------------------------------------------------------------- beside a run
def test_analyze_writes_the_page_of_a_run(run: Path, invoke: Invoke) -> None:
    done = invoke("analyze", run, "--no-figures")
    assert done.code == 0, done.stderr
    assert f"report in {run / PAGE}" in done.stderr
    page = Page((run / PAGE).read_text("utf-8"))
    alignment = json.loads((run / "analysis.json").read_text())["trained"]["alignment"]["unbiased"]["value"]
    assert page.tables[0].by_name()["alignment"]["encoder"].value == alignment


def test_a_page_without_figures_draws_nothing(run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "drawn", lambda asked: pytest.fail(f"{asked.name} was drawn"))
    assert invoke("analyze", run, "--no-figures").code == 0
    assert "Figures" not in Page((run / PAGE).read_text("utf-8")).text


def test_figures_are_drawn_once_for_their_files_and_the_page(
    run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cssl_cli.report.figures import figures

    drawn = []
    monkeypatch.setattr(drawing, "drawn", lambda asked: asked.name != "pretraining" and drawn.append(asked.draw()))
    one = {"spectrum": figures.ANALYSIS_FIGURES["spectrum"]}
    calls = []
    counted = {name: lambda content, draw=draw: calls.append(1) or draw(content) for name, draw in one.items()}
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", counted)
    assert invoke("analyze", run).code == 0
    assert len(calls) == 1
    assert [figure is not None for figure in drawn if figure is not None] == [True]


def test_analyze_without_a_page(run: Path, invoke: Invoke) -> None:
    assert invoke("analyze", run, "--no-figures", "--no-html").code == 0
    assert not (run / PAGE).exists()


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_what_goes_wrong_with_the_page_does_not_cost_the_numbers(
    kind: str,
    run: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    read_only: Callable[[Path], None],
) -> None:
    if kind == "full":
        monkeypatch.setattr(
            Path, "write_bytes", lambda self, data: full_disk() if PAGE in self.name else real(self, data)
        )
    else:
        read_only(run)
    done = invoke("analyze", run, "--no-figures")
    assert "alignment" in done.stdout
    assert done.code == (1 if kind == "full" else 0)
    assert ("No space left" if kind == "full" else "no page was written") in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------- on request
def test_a_report_of_a_run(run: Path, invoke: Invoke) -> None:
    done = invoke("report", run)
    assert (done.code, done.stdout.strip()) == (0, str(run / PAGE))
    told = json.loads(invoke("report", run, "--json").stdout)
    assert told == {"of": "run", "format": "html", "file": str(run / PAGE)}
    assert (run / PAGE).read_text("utf-8").endswith("</html>\n")


def test_tables_go_to_standard_output_or_to_a_file(run: Path, invoke: Invoke, tmp_path: Path) -> None:
    printed = invoke("report", run, "--format", "md")
    assert printed.stdout.startswith("|  | errs | encoder |")
    file = tmp_path / "table.tex"
    assert invoke("report", run, "--format", "latex", "--out", file).stdout.strip() == str(file)
    assert file.read_text("utf-8").startswith(r"% \usepackage{booktabs}")
    assert json.loads(invoke("report", run, "--format", "csv", "--json").stdout)["text"].startswith(",errs,encoder")
    assert not (run / PAGE).exists()


def test_several_runs_make_one_table(run: Path, invoke: Invoke, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    refused = invoke("report", run, other)
    assert refused.code == 2
    assert "--out" in refused.stderr
    file = tmp_path / "both.html"
    assert invoke("report", run, other, "--out", file).code == 0
    table = Page(file.read_text("utf-8")).tables[0].by_name()
    expected = json.loads((run / "analysis.json").read_text())["trained"]["alignment"]["unbiased"]["value"]
    assert table["other"]["alignment"].value == table[run.name]["alignment"].value == expected


def test_a_sweep_by_its_folder_by_its_file_and_from_python(
    sweep: Sweep, results: list[MemberResult], tmp_path: Path, invoke: Invoke
) -> None:
    from cssl_cli.sweep.stored import store_sweep

    home, runs = tmp_path / "runs" / "compared", tmp_path / "runs"
    store_sweep(sweep, home)
    by_folder = invoke("report", home, "--format", "md").stdout
    assert "| simclr-0.001 |" in by_folder
    assert invoke("report", sweep.path, "--runs", runs, "--format", "md").stdout == by_folder
    assert api.report(home, format="md") == by_folder
    fewer = invoke("report", sweep.path, "seeds=1", "--runs", runs, "--format", "csv")
    assert fewer.code == 0, fewer.stderr
    assert invoke("report", home).stdout.strip() == str(home / PAGE)
    assert f"cssl sweep {sweep.path} --out {runs}" in Page((home / PAGE).read_text("utf-8")).text


def test_a_copy_of_a_sweeps_folder_is_not_taken_for_the_sweep_beside_it(
    sweep: Sweep, results: list[MemberResult], tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cssl_cli.sweep.stored import store_sweep

    home, copy, link = (tmp_path / "runs" / name for name in ("compared", "copy", "link"))
    store_sweep(sweep, home)
    shutil.copytree(home, copy)
    refused = invoke("report", copy)
    assert refused.code == 2
    assert "Call the folder compared." in refused.stderr
    assert not list((tmp_path / "runs").glob(f"*/{PAGE}"))
    link.symlink_to(home)
    assert invoke("report", link).stdout.strip() == str(home / PAGE)
    (home / PAGE).unlink()
    monkeypatch.chdir(home)
    assert invoke("report", ".").code == 0
    assert (home / PAGE).exists()


def test_of_a_file_of_features(invoke: Invoke, tmp_path: Path) -> None:
    """Its folder has results of another form, and no recipe."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    features = rng.normal(size=(3, 8))[labels][:, None] + 0.3 * rng.normal(size=(24, 3, 8))
    names = ["<b>cat</b>", "=dog", "[red]"]
    of_training = {"train_features": features[:, 0] + 0.1, "train_labels": labels}
    np.savez(tmp_path / "f.npz", features=features, labels=labels, class_names=names, **of_training)
    folder, quick = tmp_path / "kept", ("analyze.bootstrap=0", "analyze.epsilons=[0.5]", "probe.penalties=[0.1]")
    assert invoke("probe", "f.npz", *quick, "--out", folder).code == 0
    done = invoke("analyze", "f.npz", *quick, "--out", folder, "--no-figures")
    assert done.code == 0, done.stderr
    page = Page((folder / PAGE).read_text("utf-8"))
    table = page.tables[0].by_name()
    for file, row, path in (
        ("analysis.json", "alignment", ("trained", "alignment", "unbiased", "value")),
        ("probe.json", "linear, %", ("trained", "linear", "accuracy")),
    ):
        value = json.loads((folder / file).read_text())
        for key in path:
            value = value[key]
        assert table[row]["encoder"].value == value
    assert set(names) <= {row[0].text for table in page.tables for row in table.rows}
    assert "damaged" not in page.text
    (folder / "probe.json").unlink()
    assert invoke("report", folder).code == 0
    assert f"cssl probe FEATURES.npz --out {folder}" in Page((folder / PAGE).read_text("utf-8")).text
    (folder / "analysis.json").write_text('{"settings": {}}')
    assert invoke("report", folder).code == 0
    assert "analysis.json: the file is damaged" in Page((folder / PAGE).read_text("utf-8")).text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-like-this"], "nothing-like-this"),
        (["quickstart", "--runs", "nowhere"], "nothing of the sweep has run"),
        (["{empty}"], "neither a run nor a sweep"),
        (["{run}", "train.epochs=3"], "cannot change what is on disk"),
        (["{run}", "--format", "pdf"], "pdf"),
    ],
)
def test_what_cannot_be_reported_on(arguments: list[str], said: str, run: Path, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = invoke("report", *(text.format(empty=tmp_path / "empty", run=run) for text in arguments))
    assert done.code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unfinished_run_says_what_is_missing(run: Path, invoke: Invoke) -> None:
    for name in ("analysis.json", "probe.json", "status"):
        (run / name).unlink()
    assert invoke("report", run).code == 0
    text = Page((run / PAGE).read_text("utf-8")).text
    for said in ("Nothing was measured yet", f"cssl probe {run}", f"cssl analyze {run}", "cssl pretrain"):
        assert said in text


def test_a_damaged_file_is_told_on_the_page(run: Path, invoke: Invoke) -> None:
    (run / "probe.json").write_text((run / "probe.json").read_text().replace("linear", "linexr", 1))
    assert invoke("report", run).code == 0
    assert "probe.json: the file is damaged" in Page((run / PAGE).read_text("utf-8")).text


def test_an_unknown_format_from_python(run: Path) -> None:
    with pytest.raises(InputError, match="unknown format"):
        api.report(run, format="pdf")
