"""The ranking of a sweep's augmentations: measured once, before training, and a column beside the accuracies."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.features import patches
from cssl_cli.host.progress import Silent
from cssl_cli.report.compare.extract import extract_of, take_numbers
from cssl_cli.report.compare.prediction import screen
from cssl_cli.report.compare.rows import rows_of
from cssl_cli.report.compare.tables.rows import print_table
from cssl_cli.report.layout import console
from cssl_cli.runs import rank as ranking_of_images
from cssl_cli.runs.lock import holding
from cssl_cli.runs.rank import Candidate, rank
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.ranking import LOCK, RANK, HowToRank, ranked_beside, read_ranking
from cssl_cli.sweep.request import SweepRequest
from cssl_cli.sweep.run import MemberResult, member_path, rank_augmentations, read_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import QUICKLY_MEASURED
from tests.support.synthetic_members import estimate, member

SWEEP = """
name: sets
base: tiny.yaml
axes:
  method:
    simclr: {}
    hotter: {method: {temperature: 1.0}}
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    full: {}
seeds: [4, 5]
rank: 60
"""


class Told(Silent):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, message: str) -> None:
        self.sentences.append(message)

    notice = say


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(patches, "NUM_FILTERS", 6)  # D = 48 in place of 768
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    (tmp_path / "sets.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(*overrides: str) -> Sweep:
    return load_sweep("sets.yaml", overrides)


def ranked(sweep: Sweep, *only: str) -> tuple[bool, list[str]]:
    """Whether the ranking was not left to another process, and what was told of it."""
    (Path("runs") / sweep.name).mkdir(parents=True, exist_ok=True)
    told, selected = Told(), tuple(one for one in sweep.members if one.row in only)
    return rank_augmentations(SweepRequest(sweep, Path("runs"), selected=selected or None), told), told.sentences


def stored() -> dict[str, Any]:
    return json.loads((Path("runs") / "sets" / RANK).read_text())


def write(content: dict[str, Any]) -> None:
    RunDir(Path("runs") / "sets").write_json(RANK, content)


def begun_with(sweep: Sweep, content_key: str) -> None:
    """Every member has begun on images of this key."""
    for one in sweep.members:
        run = RunDir(member_path(sweep, one, Path("runs")))
        run.path.mkdir(exist_ok=True)
        process = {"torch": "2", "device": "cpu", "threads": 1, "precision": "float32"}
        facts = {"fingerprint": one.fingerprint, "content_key": content_key, "processes": [process]}
        run.write_json("environment.json", facts)


# ---------------------------------------------------------------------- measured
def test_each_set_is_measured_once_and_as_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load()
    assert ranked(sweep) == (True, ["ranking 2 sets of augmentations before training"])
    candidates = [Candidate(one.row, one.recipe) for one in sweep.members if one.seed == 4]
    told = {row["row"]: row for row in rank(candidates, reporter=Silent(), num_images=60)["rows"]}
    assert [entry["rows"] for entry in stored()["sets"]] == [
        ["simclr-crop", "hotter-crop"],
        ["simclr-full", "hotter-full"],
    ]
    for entry in stored()["sets"]:
        row = told[entry["rows"][0]]
        assert {name: entry[name] for name in ("share", "shared", "about_class")} == {
            name: row[name] for name in ("share", "shared", "about_class")
        }
        assert entry["share"]["interval"][0] < entry["share"]["value"] < entry["share"]["interval"][1]
    monkeypatch.setattr(ranking_of_images.SharesOn, "share", None)
    assert ranked(sweep) == (True, [])
    monkeypatch.undo()


def test_only_the_selected_sets_are_measured_and_the_rest_added_later() -> None:
    sweep = load()
    ranked(sweep, "simclr-full")
    (first,) = stored()["sets"]
    assert first["rows"] == ["simclr-full"]
    ranked(sweep)
    assert [entry["rows"][0] for entry in stored()["sets"]] == ["simclr-full", "simclr-crop"]
    assert stored()["sets"][0] == first


def test_other_settings_are_measured_beside_the_first(folder: Path) -> None:
    ranked(load())
    ranked(load("rank=80"))
    ranked(load("seeds=[9]"))
    by_settings = [(one["settings"]["num_images"], one["settings"]["seed"]) for one in stored()["sets"]]
    assert by_settings == [(60, 4), (60, 4), (80, 4), (80, 4), (60, 9), (60, 9)]
    assert len({one["share"]["value"] for one in stored()["sets"]}) == 6


def test_sets_on_different_images_are_measured_apart() -> None:
    path = Path("sets.yaml")
    path.write_text(SWEEP.replace("hotter: {method: {temperature: 1.0}}", "more: {data: {num_train: 300}}"))
    ranked(load())
    sets = stored()["sets"]
    assert [(one["settings"]["data"]["num_train"], len(one["rows"])) for one in sets] == [(256, 1)] * 2 + [(300, 1)] * 2
    assert len({one["content_key"] for one in sets}) == 2


def test_the_folder_of_a_named_image_set_decides_nothing() -> None:
    """As for the runs, which are the same wherever CIFAR-10 lies."""
    one, moved = (load(f"data={{name: cifar10{root}}}") for root in ("", ", root: elsewhere"))
    assert one.members[0].fingerprint == moved.members[0].fingerprint
    how = HowToRank.of(one)
    assert how.key(one.members[0].recipe) == how.key(moved.members[0].recipe)


def test_a_sweep_without_the_field_is_not_ranked() -> None:
    ranked(load())
    sweep = load("~rank")
    assert ranked(sweep) == (True, [])
    assert all(result.ranked is None for result in read_sweep(sweep, Path("runs")))


def test_images_that_changed_since_are_measured_again() -> None:
    sweep = load()
    ranked(sweep)
    begun_with(sweep, stored()["sets"][0]["content_key"])
    assert ranked(sweep) == (True, [])
    before = stored()
    stale = [{**one, "content_key": "other", "share": {"value": 9.0}} for one in before["sets"]]
    write({**before, "sets": stale})
    assert len(ranked(sweep)[1]) == 1
    assert stored()["sets"] == before["sets"]


def test_a_ranking_of_other_images_than_those_of_the_runs_is_told() -> None:
    """Else the share of a finished sweep would be missing without a word."""
    sweep = load()
    ranked(sweep)
    begun_with(sweep, "other")
    for _ in range(2):
        assert ranked(sweep)[1][1:] == [
            "the images changed since the members began: their augmentations' ranking does not count"
        ]


def test_without_labels_the_share_is_absent_with_a_reason(folder: Path) -> None:
    (folder / "images").mkdir()
    for number in range(70):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    ranked(load("data={name: folder, root: images, size: 8}"))
    (one, _) = stored()["sets"]
    assert one["share"] == one["about_class"] == {"value": None, "reason": "the images have no labels"}
    assert one["shared"]["value"] > 0
    assert len(read_ranking(Path("runs") / "sets").sets) == 2


def test_images_that_cannot_be_ranked_are_told_and_stop_nothing() -> None:
    went_on, told = ranked(load("data.num_train=30", "train.batch_size=10"))
    assert went_on
    assert told[1].startswith("the augmentations are not ranked: data: a ranking takes 40 images, and there are 30")
    assert not (Path("runs") / "sets" / RANK).exists()


def test_a_bug_in_ranking_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_of_images.SharesOn, "quantities", lambda *_: 1 / 0)
    assert ranked(load()) == (
        True,
        [
            "ranking 2 sets of augmentations before training",
            "the augmentations are not ranked: ZeroDivisionError: division by zero",
        ],
    )


def test_what_another_process_ranks_is_left_to_it() -> None:
    sweep = load()
    ranked(sweep, "simclr-full")
    before = stored()
    with holding(Path("runs") / "sets" / LOCK):
        assert ranked(sweep) == (False, ["ranking 1 set of augmentations before training"])
    assert stored() == before


# ---------------------------------------------------------------------- read
def damaged(change: str) -> None:
    content = stored()
    share = content["sets"][0]["share"]
    if change == "checksum":
        path = Path("runs") / "sets" / RANK
        path.write_text(path.read_text().replace(f'"value": {share["value"]}', '"value": 0.9'))
        return
    share["value"] = "0.9"
    if change == "missing":
        del content["sets"][0]["share"]
    write(content)


@pytest.mark.parametrize("change", ["checksum", "type", "missing"])
def test_a_damaged_ranking_is_told_and_made_again(change: str) -> None:
    sweep = load()
    ranked(sweep)
    good = stored()
    damaged(change)
    results = read_sweep(sweep, Path("runs"))
    assert all(result.ranked is None for result in results)
    assert "rank.json: the file is damaged" in results[0].damage[-1]
    assert "it is made again" in results[0].damage[-1]
    ranked(sweep)
    assert stored() == good
    assert read_sweep(sweep, Path("runs"))[0].damage == ()


def test_members_have_the_numbers_of_their_set() -> None:
    sweep = load()
    ranked(sweep)
    crop, full = stored()["sets"]
    results = read_sweep(sweep, Path("runs"))
    assert [result.ranked["share"] for result in results] == [crop["share"]] * 2 + [full["share"]] * 2 + [
        crop["share"]
    ] * 2 + [full["share"]] * 2


def test_runs_of_a_sweep_have_the_numbers_of_their_set_outside_of_it_too() -> None:
    sweep, home = load(), Path("runs") / "sets"
    ranked(sweep)
    ranked(load("rank=80"), "simclr-full")
    crop, full, more = stored()["sets"]
    recipes, key = {home / one.name: one.recipe for one in sweep.members}, crop["content_key"]
    of_set = {path: crop if "crop" in path.name else full for path in recipes}
    assert (
        ranked_beside(dict.fromkeys(recipes, key), recipes.__getitem__) == of_set
    )  # some runs lack those on 80 images
    of_full = [path for path in recipes if "full" in path.name]
    assert ranked_beside(dict.fromkeys(of_full, key), recipes.__getitem__) == dict.fromkeys(of_full, more)
    elsewhere = {home / "other images": "other", Path("runs") / "another folder": key}
    assert ranked_beside(elsewhere, lambda _: sweep.members[0].recipe) == {}


# ---------------------------------------------------------------------- shown
def row(name: str, linear: float, share: float | None, content_key: str = "k", seed: int = 0) -> MemberResult:
    absent = {"value": None, "reason": "the images have no labels"}
    told = {"share": absent if share is None else estimate(share), "shared": estimate(40.0), "about_class": absent}
    one = member(name, seed, accuracies={"linear": linear}, alignment=linear)
    return replace(one, ranked={"content_key": content_key, **told})


def test_the_share_takes_part_in_correlations_and_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of([row(name, 0.1 * k, 0.01 * k**2) for k, name in enumerate("abcde", start=1)])
    found = {entry["term"]: entry for entry in screen(rows, "linear")["terms"]}
    assert found["share"]["pooled"]["tau"]["value"] == 1
    assert "about_class" not in found
    print_table(console(), rows)
    out = capsys.readouterr().out
    assert "share ↑" in out
    assert "25.00*" in out
    print_table(console(), rows_of([row("a", 0.5, None)]))
    assert "share ↑" not in capsys.readouterr().out


def test_one_number_for_all_seeds_has_no_deviation(capsys: pytest.CaptureFixture[str]) -> None:
    """± 0 would look like a number without noise."""
    print_table(console(), rows_of([row("a", 0.5, 0.03), row("a", 0.4, 0.03, seed=1)]))
    out = capsys.readouterr().out
    assert "45.0 ±7.1" in out
    assert re.search(r" 3\.00\b", out)
    assert "3.00 ±" not in out


def test_numbers_of_other_images_do_not_count() -> None:
    assert extract_of(row("a", 0.5, 0.03)).values["share"] == 0.03
    other = extract_of(row("a", 0.5, 0.03, content_key="other")).values
    assert (other["share"], other["shared"], other["alignment"]) == (None, None, 0.5)


def test_what_the_index_kept_is_completed_by_the_ranking() -> None:
    one = row("a", 0.5, 0.03)
    kept = replace(one, taken=json.loads(json.dumps(take_numbers(replace(one, ranked=None)))))
    assert extract_of(kept).values["share"] == 0.03
