"""Ranking augmentations before training: what a row holds, how noise is judged, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from cssl_cli.augment import build_augmentation
from cssl_cli.cli.requests import read_candidates
from cssl_cli.errors import InputError
from cssl_cli.features import patches
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.report.rank import show_ranking
from cssl_cli.runs import rank as ranking
from cssl_cli.runs.rank import Candidate, rank, view_features
from cssl_cli.theory.spectrum.jackknife import jackknife_error
from tests.support.commands import TINY_RECIPE, Invoke

SETS = """
name: sets
base: tiny.yaml
axes:
  augment:
    crop: {augment: {jitter: null, blur: null}}
    full: {}
seeds: 2
"""
NONE = "augment={crop: null, flip: null, jitter: null, gray: null, blur: null}"


@pytest.fixture(autouse=True)
def few_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """D = 48 in place of 768, for which few images will do."""
    monkeypatch.setattr(patches, "NUM_FILTERS", 6)


@pytest.fixture
def tiny(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)

    def candidate(name: str, *overrides: str) -> Candidate:
        return Candidate(name, load_recipe(str(path), overrides))

    return candidate


def ranked(*candidates: Candidate, **options) -> dict:
    return rank(candidates, reporter=Silent(), **{"num_images": 240, **options})


def test_pairs_of_two_kinds_have_a_view_of_each() -> None:
    inverted = {"solarize": {"p": 1.0, "threshold": 0.0}}
    augmentation = build_augmentation({"view_2": inverted}, image_size=4)
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    found = view_features(images, augmentation, lambda views: views.flatten(1), torch.Generator(), torch.device("cpu"))
    whole = images.flatten(1) / 255
    assert torch.equal(found, torch.stack([whole, 1 - whole], dim=1))


def unlabelled(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((16, 16)).save(folder / f"{number}.png")


def test_the_richer_set_is_ahead_of_none_and_equal_sets_are_one_row(tiny) -> None:
    result = ranked(tiny("none", NONE), tiny("full"), tiny("again", "method.temperature=0.2"))
    assert [(row["row"], row["same"]) for row in result["rows"]] == [("full", ["again"]), ("none", [])]
    full, none = result["rows"]
    assert none["augment"] == {}
    for row in result["rows"]:
        share, shared, about = (row[name]["value"] for name in ("share", "shared", "about_class"))
        assert share == pytest.approx(about / shared)
        low, high = row["share"]["interval"]
        assert low < share < high
        assert (row["share"]["errs"], row["share"]["num_images"], row["share"]["num_views"]) == ("low", 240, 2)
    (difference,) = result["differences"]
    assert (difference["better"], difference["worse"]) == ("full", "none")
    assert difference["difference"] == pytest.approx(full["share"]["value"] - none["share"]["value"])
    assert 0 < difference["p_adjusted"] == difference["p"] < 1
    assert json.loads(json.dumps(result)) == result


def test_views_that_are_the_image_share_all_but_the_ridge(tiny) -> None:
    """λ is 1/(1 + ρ/s) along a direction of variance s: what two equal views share is known without pairs."""
    candidate = tiny("none", NONE)
    dataset = ranking.prepare_data(candidate.recipe, Silent())
    images = ranking.images_to_rank(dataset, 240)
    features = ranking.PatchFeatures.fit(images.images, ranking.stream(3, "patches"), image_size=16)
    clean = features(images.images.float() / 255).double()
    variances = torch.linalg.eigvalsh(torch.cov(clean.T, correction=0)).clamp(min=0)
    ridge = ranking.RIDGE * variances.mean()
    expected = -0.5 * torch.log1p(-((variances / (variances + ridge)) ** 2)).sum().item()
    assert ranked(candidate)["rows"][0]["shared"]["value"] == pytest.approx(expected, rel=1e-4)


def test_large_images_are_augmented_a_few_at_a_time_to_the_same_ranking(tiny, monkeypatch) -> None:
    candidate = tiny("full", "data.size=64")
    whole = ranked(candidate, num_images=60)
    sizes, features = [], patches.PatchFeatures.__call__

    def counted(self, images):
        sizes.append(len(images))
        return features(self, images)

    monkeypatch.setattr(patches.PatchFeatures, "__call__", counted)
    monkeypatch.setattr(patches, "BLOCK", 64)
    (row,) = ranked(candidate, num_images=60)["rows"]
    assert max(sizes) == 16
    assert row["share"]["value"] == pytest.approx(whole["rows"][0]["share"]["value"])


def test_the_labels_of_a_few_images_change_what_is_about_the_class_alone(tiny) -> None:
    (all_known,) = ranked(tiny("full"))["rows"]
    (as_many,) = ranked(tiny("full"), labels_per_class=24)["rows"]
    (few,) = ranked(tiny("full"), labels_per_class=10)["rows"]
    assert few["shared"] == as_many["shared"] == all_known["shared"]
    assert as_many["about_class"]["value"] == pytest.approx(all_known["about_class"]["value"], rel=1e-9)
    assert few["about_class"]["value"] != pytest.approx(all_known["about_class"]["value"], rel=0.01)


def test_more_labels_than_a_class_has_are_all_of_them(tiny) -> None:
    result = ranked(tiny("full"), labels_per_class=1000)
    assert result["labels_per_class"] == 24
    all_known, known = ranked(tiny("full"))["rows"][0]["about_class"], result["rows"][0]["about_class"]
    assert known["value"] == pytest.approx(all_known["value"])


def test_with_few_labels_the_interval_holds_the_choice_of_the_images_that_have_them(tiny, monkeypatch) -> None:
    candidate = tiny("full")
    found = []
    for seed in range(12):
        monkeypatch.setattr(ranking, "stream", lambda _, name, seed=seed: torch.Generator().manual_seed(seed))
        (row,) = ranked(candidate, labels_per_class=4)["rows"]
        found.append(row["about_class"])
    spread = np.std([one["value"] for one in found], ddof=1)
    widths = [one["interval"][1] - one["interval"][0] for one in found]
    assert np.mean(widths) > 2 * 1.96 * spread


def test_labels_asked_for_where_there_are_none_are_refused(tiny, tmp_path: Path) -> None:
    unlabelled(tmp_path / "images", 50)
    with pytest.raises(InputError, match="the images have no labels") as refused:
        ranked(tiny("full", f"data={{name: folder, root: {tmp_path / 'images'}, size: 16}}"), labels_per_class=10)
    assert refused.value.where == "--labels"


def test_the_folder_given_takes_the_place_of_those_in_the_recipes(tiny, tmp_path: Path) -> None:
    unlabelled(tmp_path / "images", 50)
    candidates = [
        tiny(name, f"data={{name: folder, root: {root}, size: 16}}")
        for name, root in (("a", "gone"), ("b", "$NOT_SET"))
    ]
    (row,) = ranked(*candidates, data_root=str(tmp_path / "images"))["rows"]
    assert row["same"] == ["b"]


def test_without_labels_the_least_shared_is_first(tiny, tmp_path: Path) -> None:
    unlabelled(tmp_path / "images", 250)
    data = f"data={{name: folder, root: {tmp_path / 'images'}, size: 16}}"
    result = ranked(tiny("none", data, NONE), tiny("full", data))
    assert result["class_names"] is None
    assert [row["row"] for row in result["rows"]] == ["full", "none"]
    assert result["rows"][0]["share"] == {"value": None, "reason": "the images have no labels"}
    assert result["rows"][0]["shared"]["value"] < result["rows"][1]["shared"]["value"]
    assert result["differences"][0]["better"] == "full"


def test_a_set_that_leaves_nothing_is_last_without_a_number(tiny) -> None:
    gone = tiny("gone", NONE, "augment.fade={contrast: [0, 0]}")
    result = ranked(gone, tiny("full"))
    assert [row["row"] for row in result["rows"]] == ["full", "gone"]
    assert result["rows"][1]["share"]["reason"] == "all views have the same features"
    assert result["rows"][1]["negative_control"]
    assert result["differences"] == []


def test_features_that_are_all_alike_have_no_number() -> None:
    one = torch.rand(48, generator=torch.Generator().manual_seed(0))
    assert ranking.share_of(one.expand(240, 2, 48), torch.arange(240) % 10, 10, None) is None


def test_data_that_differ_in_the_test_images_alone_are_ranked_together(tiny) -> None:
    more = "data.num_test=200"
    result = ranked(tiny("none", NONE), tiny("full", more), tiny("none", NONE, more), tiny("without", NONE, more))
    assert [(row["row"], row["same"]) for row in result["rows"]] == [("full", []), ("none", ["without"])]
    assert len(result["differences"]) == 1
    apart = ranked(tiny("full", more))
    assert result["rows"][0]["share"] == apart["rows"][0]["share"]


def test_candidates_of_different_images_and_too_few_images_are_refused(tiny) -> None:
    for other in (["data.num_train=300"], ["data.size=24"]):
        with pytest.raises(InputError, match="full and other are of different training images"):
            ranked(tiny("full"), tiny("more tests", "data.num_test=200"), tiny("other", *other))
    with pytest.raises(InputError, match="two candidates called full are of different training images"):
        ranked(tiny("full"), tiny("full", "data.num_train=300"))
    with pytest.raises(InputError, match="takes 40 images, and there are 30") as refused:
        ranked(tiny("full"), num_images=30)
    assert refused.value.where == "--images"


# ---------------------------------------------------------------------- noise
def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(20, 50))  # groups of 50
    without = [np.delete(values, group, axis=0).mean() for group in range(20)]
    assert jackknife_error(without) == pytest.approx(values.mean(axis=1).std(ddof=1) / np.sqrt(20))


def test_p_of_all_pairs_are_adjusted_by_holm() -> None:
    random = np.random.default_rng(1)
    shares = {}
    for name, level in (("a", 0.06), ("b", 0.05), ("c", 0.0495)):
        without = level + 0.0005 * random.normal(size=20)
        shares[name] = ranking.ClassShare(1.0, level, (1.0,) * 20, tuple(without))
    found = ranking._differences(["a", "b", "c"], lambda *two: ranking._difference(*map(shares.get, two), True))
    for entry in found:
        one, two = (np.array(shares[entry[name]].share_without) for name in ("better", "worse"))
        error = np.sqrt(19 / 20 * ((one - two - (one - two).mean()) ** 2).sum())
        assert entry["p"] == pytest.approx(2 * stats.t.sf(entry["difference"] / error, 19))
    ordered = sorted(found, key=lambda entry: entry["p"])
    expected = np.maximum.accumulate([min(1, (3 - k) * entry["p"]) for k, entry in enumerate(ordered)])
    assert [entry["p_adjusted"] for entry in ordered] == pytest.approx(expected.tolist())


def test_sets_that_change_nothing_are_not_told_apart(tiny) -> None:
    result = ranked(tiny("none", NONE), tiny("never", NONE, "augment.gray={p: 0}"))
    (difference,) = result["differences"]
    assert (difference["difference"], difference["p_adjusted"]) == (0, 1)


# ---------------------------------------------------------------------- the command
def test_the_command_ranks_sweeps_and_recipes_together(tiny_recipe: Path, invoke: Invoke) -> None:
    sweep = tiny_recipe.with_name("sets.yaml")
    sweep.write_text(SETS)
    done = invoke("rank", sweep, tiny_recipe, "--images", "100")
    assert done.code == 0, done.stderr
    assert "full, tiny" in done.stdout
    assert "100 training images, 2 views each" in done.stdout
    told = json.loads(invoke("rank", sweep, "augment.flip=null", "--images", "100", "--json").stdout)
    assert all("flip" not in row["augment"] for row in told["rows"])


def test_names_that_mean_two_sets_are_refused(tiny_recipe: Path, invoke: Invoke) -> None:
    other = tiny_recipe.with_name("other.yaml")
    other.write_text(TINY_RECIPE.replace("gray: {p: 0.2}", "gray: {p: 0.3}"))
    refused = invoke("rank", tiny_recipe, other)
    assert refused.code == 2
    assert "two of the candidates are called tiny and have different augmentations" in refused.stderr
    assert invoke("rank", "augment.flip=null").code == 2


def test_of_one_name_those_with_other_data_are_candidates_too(tiny_recipe: Path) -> None:
    """Whether their training images are others, a ranking knows once it has them."""
    other = tiny_recipe.with_name("other.yaml")
    other.write_text(TINY_RECIPE.replace("num_test: 100", "num_test: 140"))
    found = read_candidates([str(path) for path in (tiny_recipe, other, tiny_recipe, other)])
    assert [(name, recipe.settings("data")["num_test"]) for name, recipe in found] == [("tiny", 100), ("tiny", 140)]


def test_a_control_is_marked(tiny_recipe: Path, invoke: Invoke) -> None:
    plain = invoke("rank", tiny_recipe, "--images", "40").stdout
    control = invoke("rank", tiny_recipe, "augment.fade={}", "--images", "40").stdout
    assert "control" not in plain
    assert "tiny (control)" in control
    assert "(control): a negative control" in control


def test_of_many_rows_with_one_augmentation_a_few_are_named(tiny_recipe: Path, invoke: Invoke) -> None:
    sweep = tiny_recipe.with_name("rates.yaml")
    rates = "".join(f"    r{k}: {{optim: {{lr: 0.{k}}}}}\n" for k in range(1, 10))
    sweep.write_text(f"name: rates\nbase: {tiny_recipe.name}\naxes:\n  rate:\n{rates}")
    done = invoke("rank", sweep, "--images", "40")
    assert "r1, r2, r3 and 6 others" in done.stdout, done.stderr


@pytest.mark.parametrize(("scale", "shown"), [(1, "1.2 [1.1, 1.3]"), (0.1, "0.12 [0.11, 0.13]")])
def test_shares_that_are_all_small_have_more_decimals(
    tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scale: float, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = ranked(tiny("full"), num_images=40)
    for row in result["rows"]:
        row["share"] |= {"value": 0.012 * scale, "interval": [0.011 * scale, 0.013 * scale]}
    show_ranking(result, as_json=False)
    assert shown in " ".join(capsys.readouterr().out.split())
