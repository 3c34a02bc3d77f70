"""The index of a sweep's results: what is taken from the files, taken again when a file or the code has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cssl_cli
from cssl_cli.host.progress import Silent
from cssl_cli.recipe.recipe import Fingerprints, Recipe
from cssl_cli.report.compare.catalogue import values_of
from cssl_cli.report.compare.content import as_content
from cssl_cli.report.compare.extract import extract_of, take_numbers
from cssl_cli.report.compare.sweep import show_sweep
from cssl_cli.runs.run_dir import ANALYSIS, EPOCH_KNN, PROBE, RunDir
from cssl_cli.sweep import results_index
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.results_index import INDEX, StoredResult
from cssl_cli.sweep.run import member_path, read_sweep, run_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import QUICKLY_MEASURED

SWEEP = "name: two\nbase: tiny.yaml\naxes: {probe.knn_k: [5, 10]}\nseeds: [0, 1]\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    (folder / "tiny.yaml").write_text(QUICKLY_MEASURED.replace("epochs: 3", "steps: 2"))
    (folder / "two.yaml").write_text(SWEEP)
    run_sweep(SweepRequest(load_sweep(str(folder / "two.yaml")), folder / "runs"), Silent())
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Sweep:
    subprocess.run(["cp", "-a", finished / "runs", tmp_path / "runs"], check=True)
    return load_sweep(str(finished / "two.yaml"))


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RunDir, name: str, settings: object) -> None:
        raise AssertionError(f"{self.path / name} is read although nothing has changed")

    monkeypatch.setattr(RunDir, "read_result", refuse)


def test_results_are_those_of_the_files(sweep: Sweep, tmp_path: Path) -> None:
    for stored in (False, True):
        for result in read_sweep(sweep, tmp_path / "runs", take_numbers):
            run, recipe = RunDir(result.path), result.member.recipe
            assert isinstance(result.probe, StoredResult) == isinstance(result.analysis, StoredResult) == stored
            assert result.probe == run.read_result(PROBE, recipe.settings("probe"))
            assert result.analysis == run.read_result(ANALYSIS, recipe.settings("analyze"))
            with pytest.raises(KeyError):
                (result.analysis or {})["no such term"]


def test_a_stored_result_is_read_when_it_is_looked_into(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_sweep(sweep, tmp_path / "runs")
    result = read_sweep(sweep, tmp_path / "runs")[0]
    with monkeypatch.context() as forbidden:
        forbid_reading(forbidden)
        assert result.probe
        assert result.analysis
    assert result.analysis["trained"]["alignment"]["unbiased"]["value"] > 0


@pytest.mark.parametrize("apart", [True, False])
def test_what_is_kept_is_what_the_files_say(sweep: Sweep, tmp_path: Path, apart: bool) -> None:
    """Also where classes are no distance apart, which only a quantity that is a mapping tells."""
    if not apart:
        for file in (tmp_path / "runs").glob(f"*/*/{ANALYSIS}"):
            content = json.loads(file.read_text())
            content["concentration"]["pixels"]["between_quantiles"]["value"]["0.5"] = 0.0
            RunDir(file.parent).write_json(ANALYSIS, content)
    for _ in ("the files", "the index"):
        for result in read_sweep(sweep, tmp_path / "runs", take_numbers):
            recipe = result.member.recipe
            probe = RunDir(result.path).read_result(PROBE, recipe.settings("probe"))
            analysis = RunDir(result.path).read_result(ANALYSIS, recipe.settings("analyze"))
            assert result.taken is not None
            assert probe is not None
            assert analysis is not None
            found = extract_of(result)
            assert found == extract_of(replace(result, probe=probe, analysis=analysis, taken=None))
            assert list(found.values.items()) == list(values_of(replace(result, probe=probe)).items())
            assert (found.values["one_minus_sigma_relative_pixels"] is not None) == apart
            assert found.circumstances == (
                analysis["content_key"],
                analysis["num_images"],
                analysis["settings"]["num_views"],
                probe["content_key"],
                probe["trained"]["linear"]["num_images"],
                tuple(analysis["settings"]["epsilons"]),
                tuple(analysis["settings"]["deltas"]),
                tuple(analysis["settings"]["classes"] or ()),
            )


def test_what_has_not_changed_is_not_read_again(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def report() -> tuple[str, str]:
        results = read_sweep(sweep, tmp_path / "runs", take_numbers)
        show_sweep(sweep, results, sweep.members, False)
        return json.dumps(as_content(sweep, results)), capsys.readouterr().out

    first = report()
    index = tmp_path / "runs" / "two" / INDEX
    written = index.stat().st_mtime_ns
    forbid_reading(monkeypatch)
    assert report() == first
    read_sweep(sweep, tmp_path / "runs")  # without numbers to take: whether results are there is all that is asked
    assert index.stat().st_mtime_ns == written


def test_numbers_are_taken_once_for_each_state_of_the_code(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what other code took is taken over, nor that nothing was asked for."""
    counted: list[Path] = []

    def reading(code: str) -> list[object]:
        def take(measured: results_index.Measured) -> str:
            counted.append(measured.path)
            return code

        counted.clear()
        monkeypatch.setattr(results_index, "code_digest", lambda: code)
        return [result.taken for result in read_sweep(sweep, tmp_path / "runs", take)]

    monkeypatch.setattr(results_index, "code_digest", lambda: "old")
    assert [result.taken for result in read_sweep(sweep, tmp_path / "runs")] == [None] * 4
    for code in ("old", "new", "old"):
        assert reading(code) == [code] * 4
        assert len(counted) == 4
    assert [result.taken for result in read_sweep(sweep, tmp_path / "runs")] == [None] * 4
    assert reading("old") == ["old"] * 4
    assert counted == []


def test_the_digest_of_the_code_changes_with_any_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cssl_cli, "__file__", str(tmp_path / "__init__.py"))
    digests = [results_index.code_digest.__wrapped__()]
    for name in ("one.py", "room/two.py", "room/inner/three.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for text in ("a = 1\n", "a = 2\n"):
            (tmp_path / name).write_text(text)
            digests.append(results_index.code_digest.__wrapped__())
    monkeypatch.setattr(cssl_cli, "__version__", "0.0.0")
    digests.append(results_index.code_digest.__wrapped__())
    assert len(set(digests)) == len(digests) == 8
    assert results_index.code_digest.__wrapped__() == digests[-1]


def test_the_epochs_are_looked_at_for_changes(sweep: Sweep, tmp_path: Path) -> None:
    before = read_sweep(sweep, tmp_path / "runs", take_numbers)
    RunDir(before[1].path).write_records(EPOCH_KNN, [{"epoch": 1, "step": 1, "knn": 0.25}])
    after = [extract_of(result).values["best_knn"] for result in read_sweep(sweep, tmp_path / "runs", take_numbers)]
    assert after == [None, 0.25, None, 0.25]


@pytest.mark.parametrize("damage", ["", "{", "head and body\n", "cut", "swapped"])
def test_a_damaged_index_is_made_again(sweep: Sweep, tmp_path: Path, damage: str) -> None:
    index = tmp_path / "runs" / "two" / INDEX
    first = as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers))
    whole = index.read_text()
    index.write_text({"cut": whole[:-100], "swapped": whole.replace("0.", "1.")}.get(damage, damage))
    assert as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers)) == first
    assert index.read_text() == whole


@pytest.mark.parametrize("change", [{}, {"lines": None}, {"lines": []}, {"lines": {"a": 1}}])
def test_an_index_without_a_checksum_is_made_again(sweep: Sweep, tmp_path: Path, change: dict[str, Any]) -> None:
    index = tmp_path / "runs" / "two" / INDEX
    first = as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers))
    whole = index.read_text()
    for content in ({"code": json.loads(whole)["code"], **change}, {**json.loads(whole), **change}):
        content.pop("checksum", None)
        index.write_text(json.dumps(content))
        assert as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers)) == first
        assert index.read_text() == whole


def test_an_index_of_an_earlier_version_is_made_again(sweep: Sweep, tmp_path: Path) -> None:
    """Its lines had an entry more, and it said its format in place of the code."""
    index = tmp_path / "runs" / "two" / INDEX
    first = as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers))
    whole = index.read_text()
    lines = {key: [*line[:3], "0123456789", line[3]] for key, line in json.loads(whole)["lines"].items()}
    RunDir(index.parent).write_json(INDEX, {"format": [4, 3], "lines": lines})
    assert as_content(sweep, read_sweep(sweep, tmp_path / "runs", take_numbers)) == first
    assert index.read_text() == whole


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (PROBE, "{"),
        (ANALYSIS, "[1]"),
        ("status", '{"state": "running"}'),
        ("environment.json", "{"),
        ("encoder.safetensors", None),
    ],
)
def test_a_file_that_changes_is_read_again(sweep: Sweep, tmp_path: Path, name: str, content: str | None) -> None:
    before = read_sweep(sweep, tmp_path / "runs")
    file = before[0].path / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    after = read_sweep(sweep, tmp_path / "runs")
    # The first and the third member share the run; probe.json is the third's, who was the last to measure.
    assert [after[number].probe is None for number in (0, 2)] == {PROBE: [False, True], ANALYSIS: [False, False]}.get(
        name, [True, True]
    )
    assert (after[0].analysis is None) == (after[2].analysis is None) == (name != PROBE)
    assert (after[1].probe, after[1].analysis) == (before[1].probe, before[1].analysis)


def test_members_of_one_run_with_other_settings_have_their_own_results(sweep: Sweep, tmp_path: Path) -> None:
    for _ in range(2):  # read, and from the index
        results = read_sweep(sweep, tmp_path / "runs")
        assert results[0].path == results[2].path
        assert [result.probe["settings"]["knn_k"] for result in results if result.probe] == [5, 5, 10, 10]


def test_an_index_that_cannot_be_written_is_no_error(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "two" / INDEX).unlink()

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    assert all(result.probe and result.analysis for result in read_sweep(sweep, tmp_path / "runs"))
    assert not (tmp_path / "runs" / "two" / INDEX).exists()


def test_runs_that_are_gone_leave_the_index(sweep: Sweep, tmp_path: Path) -> None:
    results = read_sweep(sweep, tmp_path / "runs")
    subprocess.run(["rm", "-r", results[0].path], check=True)
    (results[1].path / PROBE).touch()
    after = read_sweep(sweep, tmp_path / "runs")
    assert [result.analysis is None for result in after] == [True, False, True, False]
    assert results[0].path.name not in (tmp_path / "runs" / "two" / INDEX).read_text()


# ---------------------------------------------------------------------- many members
@pytest.fixture
def many(tmp_path: Path, finished: Path) -> Path:
    """A sweep of two hundred members, all finished: links to the results of one."""
    (tmp_path / "tiny.yaml").write_text((finished / "tiny.yaml").read_text())
    (tmp_path / "many.yaml").write_text(
        "name: many\nbase: tiny.yaml\naxes:\n"
        f"  optim.lr: {[round(0.01 * n, 2) for n in range(1, 11)]}\n  optim.momentum: {[0.0, 0.5]}\n"
        "seeds: 10\n"
    )
    sweep = load_sweep(str(tmp_path / "many.yaml"))
    model = RunDir(member_path(load_sweep(str(finished / "two.yaml")), sweep_member(finished), finished / "runs")).path
    probe = json.loads((model / PROBE).read_text())
    settings = sweep.members[0].recipe.settings("probe")
    RunDir(tmp_path).write_json(PROBE, {**probe, "settings": settings})
    for member in sweep.members:
        path = member_path(sweep, member, tmp_path / "runs")
        path.mkdir(parents=True)
        for name in ("status", "encoder.safetensors", ANALYSIS):
            os.link(model / name, path / name)
        os.link(tmp_path / PROBE, path / PROBE)
    return tmp_path


def sweep_member(finished: Path):
    return load_sweep(str(finished / "two.yaml")).members[-1]


def test_many_members_are_named_read_and_shown_without_a_second_look(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {"fingerprints": 0}
    fingerprint = Fingerprints.of

    def counting(self: Fingerprints, recipe: Recipe) -> str:
        counted["fingerprints"] += 1
        return fingerprint(self, recipe)

    monkeypatch.setattr(Fingerprints, "of", counting)
    sweep = load_sweep(str(many / "many.yaml"))
    first = read_sweep(sweep, many / "runs", take_numbers)
    assert counted["fingerprints"] == len(sweep.members) == 200
    assert all(result.probe and result.analysis for result in first)
    forbid_reading(monkeypatch)
    content = as_content(sweep, read_sweep(sweep, many / "runs", take_numbers))
    assert len(content["rows"]) == 20
    assert content["rows"][0]["cells"]["linear"]["n"] == 10


def test_the_report_of_a_sweep_loads_no_torch(finished: Path) -> None:
    code = (
        "import sys; from cssl_cli.cli.app import app\n"
        "try: app(['sweep', 'two.yaml', '--report', '--out', 'runs'], prog_name='cssl')\n"
        "except SystemExit as ended: print(sorted({'torch', 'matplotlib'} & set(sys.modules)), ended.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=finished, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


def test_the_state_of_a_file_changes_with_its_content(tmp_path: Path) -> None:
    def state() -> object:
        return results_index._states(tmp_path, ["file", "no such file"])

    assert state() == [None, None]
    assert results_index._states(tmp_path / "no such folder", ["file"]) == [None]
    (tmp_path / "file").write_text("one")
    before = state()
    os.utime(tmp_path / "file", ns=(1, 1))
    assert state() != before
