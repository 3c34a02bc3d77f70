"""The sweep that its folder keeps is the one that was run."""

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import CsslError, DamagedError, InputError
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.recipe.files import shipped_names
from cssl_cli.report.compare.named_quantities import NAMES
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import run_sweep
from cssl_cli.sweep.stored import NAME, load_stored_sweep, store_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.run_files import Silent


def bare(sweep: Sweep) -> Sweep:
    """Without the sources, whose lines are not kept."""
    return replace(sweep, given=None, changes=())


@pytest.mark.parametrize("name", shipped_names("sweep"))
def test_a_stored_sweep_is_the_sweep(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(name, ["seeds=[3, 1]", "train.batch_size=32"], quantities=NAMES)
    store_sweep(sweep, tmp_path)
    assert bare(load_stored_sweep(tmp_path, quantities=NAMES)) == bare(sweep)


def test_a_file_based_on_others_needs_none_of_them_any_more(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: r\nbased_on: simclr-shapes\ntrain: {epochs: 3}\n")
    (tmp_path / "first.yaml").write_text(
        "name: first\nbase: recipe.yaml\naxes: {optim.lr: [0.1, 0.2], blur: {none: {augment: {blur: null}}, on: {}}}\n"
    )
    (tmp_path / "second.yaml").write_text("name: second\nbased_on: first.yaml\naxes: {optim.lr: [0.3, 1e-3]}\n")
    sweep = load_sweep(str(tmp_path / "second.yaml"))
    home = tmp_path / "home"
    home.mkdir()
    store_sweep(sweep, home)
    for path in tmp_path.glob("*.yaml"):
        path.unlink()
    assert bare(load_stored_sweep(home)) == bare(sweep)


def test_dates_and_infinities_of_a_protocol_are_kept_as_text(tmp_path: Path) -> None:
    sweep = load_sweep("quickstart")
    assert sweep.given is not None
    source = replace(sweep.given.sources[-1], patch={"a": datetime.date(2020, 1, 2), "b": float("inf"), "c": [1, None]})
    given = replace(sweep.given, sources=(source,))
    store_sweep(replace(sweep, given=given), tmp_path)
    stored = SealedFolder(tmp_path).read_json(NAME)
    assert stored is not None
    assert stored["sources"][0]["patch"] == {"a": "2020-01-02", "b": "inf", "c": [1, None]}


def test_what_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    store_sweep(load_sweep("quickstart"), tmp_path)
    first = (tmp_path / NAME).stat().st_ino
    store_sweep(load_sweep("quickstart"), tmp_path)
    assert (tmp_path / NAME).stat().st_ino == first
    store_sweep(load_sweep("quickstart", ["seeds=2"]), tmp_path)
    assert len(load_stored_sweep(tmp_path).members) == 12


def test_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no sweep\.json"):
        load_stored_sweep(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"file": "s.yaml", "sources": [3], "base": [], "changes": []},
        {"file": "s.yaml", "sources": [{"label": "s.yaml", "patch": None}], "base": [], "changes": []},
        {"file": "s.yaml", "sources": [{"label": "s.yaml", "patch": "name"}], "base": [], "changes": []},
        {"file": "s.yaml", "sources": [], "base": [], "changes": []},
        "axes",
    ],
)
def test_content_of_another_form_is_damage(content: Any, tmp_path: Path) -> None:
    store_sweep(load_sweep("quickstart"), tmp_path)
    if content == "axes":
        stored = SealedFolder(tmp_path).read_json(NAME)
        assert stored is not None
        content = {**stored, "changes": [{"label": "x", "patch": {"train": {"epoch": 3}}}]}
    SealedFolder(tmp_path).write_json(NAME, content)
    with pytest.raises(DamagedError, match=r"cannot be used"):
        load_stored_sweep(tmp_path)
    (tmp_path / NAME).write_text((tmp_path / NAME).read_text().replace("a", "b", 1))
    with pytest.raises(DamagedError):
        load_stored_sweep(tmp_path)


def test_a_sweep_that_cannot_be_kept_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(sweep: Sweep, folder: Path) -> None:
        raise CsslError("no space left")

    monkeypatch.setattr("cssl_cli.sweep.run.store_sweep", full)
    said: list[str] = []

    class Recorder(Silent):
        def say(self, message: str) -> None:
            said.append(message)

    assert len(run_sweep(SweepRequest(load_sweep("quickstart"), tmp_path, ()), Recorder())) == 6
    assert said == ["no space left"]
