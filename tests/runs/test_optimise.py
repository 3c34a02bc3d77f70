"""Climbing the share over settings of the augmentation: the climb, what new images say of it, and the command."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
import torch

from cssl_cli.errors import InputError
from cssl_cli.features import patches
from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.recipe.searched import SearchedField, read_searched
from cssl_cli.runs import optimise as optimising
from cssl_cli.runs.optimise import Climb, climb, optimise
from cssl_cli.theory.spectrum.class_share import ClassShare
from tests.support.commands import TINY_RECIPE, Invoke

STRENGTH = SearchedField("augment.jitter.strength", (0.5,), 0, 2.5, logarithmic=False)
SIGMA = SearchedField("augment.blur.sigma", (0.4, 0.8), 0.05, 6.4, logarithmic=True)
SCALE = SearchedField("augment.crop.scale", (0.4, 1.0), 0.05, 1, logarithmic=True)


@pytest.fixture(autouse=True)
def few_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """D = 48 in place of 768, for which few images will do."""
    monkeypatch.setattr(patches, "NUM_FILTERS", 6)
    monkeypatch.setattr(patches, "SAMPLE_PATCHES", 500)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return load_recipe(str(path))


def climbed(score, *fields: SearchedField, evaluations: int = 60) -> Climb:
    return climb(score, fields, evaluations=evaluations, progress=lambda *_: None)


# ---------------------------------------------------------------------- the climb
def test_the_climb_finds_a_maximum_inside_of_numbers_and_pairs() -> None:
    best = {STRENGTH: (1.4,), SIGMA: (0.2, 3.0)}

    def score(settings) -> float:
        return 0.03 - 1e-2 * sum(
            (field.place(value) - field.place(other)) ** 2
            for field, values in settings.items()
            for value, other in zip(values, best[field], strict=True)
        )

    found = climbed(score, STRENGTH, SIGMA)
    assert found.converged
    assert found.num_evaluations < 60
    for field, values in found.settings.items():
        for value, other in zip(values, best[field], strict=True):
            assert field.place(value) == pytest.approx(field.place(other), abs=0.02)
    assert found.score == score(found.settings) > found.start_score == score({STRENGTH: (0.5,), SIGMA: (0.4, 0.8)})


def test_a_score_that_grows_outwards_leads_to_the_ends() -> None:
    found = climbed(lambda settings: settings[STRENGTH][0] - math.log(settings[SCALE][0]), STRENGTH, SCALE)
    assert found.settings[STRENGTH] == (2.5,)
    assert found.settings[SCALE][0] == 0.05
    assert STRENGTH.ends(found.settings[STRENGTH]) == [2.5]
    assert found.settings[SCALE][1] <= 1


def test_what_is_tried_is_tried_once_and_no_more_than_allowed() -> None:
    tried = []

    def score(settings) -> float:
        tried.append(tuple(settings.values()))
        return settings[STRENGTH][0]

    found = climbed(score, STRENGTH, SIGMA, evaluations=7)
    assert not found.converged
    assert found.num_evaluations == len(tried) == len(set(tried)) <= 7
    assert tried[0] == ((0.5,), (0.4, 0.8))


def test_settings_without_a_score_are_passed_over() -> None:
    found = climbed(lambda settings: None if (value := settings[STRENGTH][0]) > 1 else value, STRENGTH)
    assert 0.9 < found.settings[STRENGTH][0] <= 1
    with pytest.raises(InputError, match="the augmentation to start from has no share"):
        climbed(lambda _: None, STRENGTH)


def test_where_nothing_is_better_the_start_is_what_is_found() -> None:
    found = climbed(lambda _: 0.02, STRENGTH, SIGMA)
    assert found.settings == {STRENGTH: (0.5,), SIGMA: (0.4, 0.8)}


# ---------------------------------------------------------------------- of a recipe
def optimised(recipe: Recipe, *names: str, **options) -> dict:
    fields = read_searched(recipe, names)
    return optimise(recipe, fields, reporter=Silent(), **{"num_images": 120, "evaluations": 5, **options})


def shares(monkeypatch: pytest.MonkeyPatch, share, noise: float) -> list[str]:
    """`share(strength)` in place of what is measured, with this noise in the groups of images; the streams of views."""
    streams = []

    def measure(sample, recipe, *, groups=1) -> ClassShare:
        streams.append(sample.views)
        value = share(recipe.augment.jitter.strength, sample.views)
        offsets = [noise * (-1) ** group * (1 + recipe.augment.jitter.strength) for group in range(groups)]
        return ClassShare(1.0, value, (1.0,) * groups, tuple(value + offset for offset in offsets))

    monkeypatch.setattr(optimising._Sample, "measure", measure)
    return streams


def test_the_same_seed_gives_the_same_proposal_measured_on_halves_that_share_no_image(recipe: Recipe) -> None:
    result = optimised(recipe, "augment.jitter.strength", "augment.crop.scale")
    assert result == optimised(recipe, "augment.jitter.strength", "augment.crop.scale")
    assert json.loads(json.dumps(result)) == result
    assert result["num_images"] == {"asked": 120, "climbed_on": 120, "judged_on": 120, "together": 240}
    assert result["climbed_on"]["found"] >= result["climbed_on"]["start"]
    dataset = optimising.prepare_data(recipe, Silent())
    *halves, together = optimising._samples(dataset, 120, recipe.seed, torch.device("cpu"))
    for half in halves:
        assert half.images.labels is not None
        assert half.images.labels.bincount(minlength=10).tolist() == [12] * 10
    dealt = torch.cat([half.images.images for half in halves]).flatten(1)
    distinct = torch.unique(dealt, dim=0)
    assert len(distinct) == 240
    assert torch.equal(distinct, torch.unique(together.images.images.flatten(1), dim=0))


def test_too_few_images_are_halved(recipe: Recipe) -> None:
    result = optimised(recipe, "augment.gray.p", num_images=200, evaluations=2)
    assert result["num_images"] == {"asked": 200, "climbed_on": 128, "judged_on": 128, "together": 256}
    with pytest.raises(InputError, match="takes 80 images, and there are 60") as refused:
        optimised(recipe, "augment.gray.p", num_images=30)
    assert (refused.value.where, refused.value.remedy) == ("--images", "Give 40 or more; 4,000 are the rule.")
    few = recipe.model_copy(update={"data": recipe.data.model_copy(update={"num_train": 60})})
    with pytest.raises(InputError, match="takes 80 images, and there are 60") as refused:
        optimised(few, "augment.gray.p", num_images=200)
    assert (refused.value.where, refused.value.remedy) == ("data", "Give 80 or more; 4,000 are the rule.")


def test_a_gain_that_new_images_confirm_is_proposed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = shares(monkeypatch, lambda strength, _: 0.03 - 0.01 * (strength - 1.3) ** 2, noise=1e-6)
    result = optimised(recipe, "augment.jitter.strength", evaluations=20)
    (field,) = result["fields"]
    assert field["found"] == pytest.approx(1.3, abs=0.05)
    assert result["proposal"]["overrides"] == [f"augment.jitter.strength={field['found']}"]
    assert result["proposal"]["augment"]["jitter"]["strength"] == field["found"]
    assert result["difference"]["p"] < 1e-6
    low, high = result["difference"]["interval"]
    assert low < result["difference"]["value"] < high
    judged = result["judged_on"]
    gain = judged["found"]["share"]["value"] - judged["start"]["share"]["value"]
    assert result["difference"]["value"] == pytest.approx(gain)
    assert streams[-4:] == ["rank/unseen"] * 2 + ["rank/together"] * 2
    assert set(streams[:-4]) == {"rank"}


def test_a_gain_that_is_none_on_twice_as_many_images_is_not_proposed(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where few images make weak augmentations look good, in either half."""

    def share(strength: float, views: str) -> float:
        return 0.03 + 0.01 * strength * (1 if views == "rank/together" else -1)

    shares(monkeypatch, share, noise=1e-6)
    result = optimised(recipe, "augment.jitter.strength", evaluations=20)
    assert result["difference"]["p"] < 1e-6
    assert result["together"] == {"start": pytest.approx(0.035), "found": pytest.approx(0.03)}
    assert result["proposal"] is None


@pytest.mark.parametrize(
    ("on_new", "noise"),
    [
        (lambda strength: 0.03 - 0.01 * (strength - 1.3) ** 2, 0.1),  # more, but within noise
        (lambda strength: 0.03 + 0.01 * (strength - 1.3) ** 2, 1e-6),  # less
    ],
)
def test_a_gain_on_the_images_climbed_on_alone_is_not(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, on_new, noise: float
) -> None:
    def share(strength: float, views: str) -> float:
        return 0.03 - 0.01 * (strength - 1.3) ** 2 if views == "rank" else on_new(strength)

    shares(monkeypatch, share, noise)
    result = optimised(recipe, "augment.jitter.strength", evaluations=20)
    assert result["climbed_on"]["found"] > result["climbed_on"]["start"]
    assert (result["together"], result["proposal"]) == (None, None)


def test_without_a_gain_the_start_is_not_compared_with_itself(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    shares(monkeypatch, lambda *_: 0.02, noise=1e-3)
    result = optimised(recipe, "augment.jitter.strength")
    assert (result["difference"], result["proposal"]) == (None, None)
    assert result["judged_on"]["found"] == result["judged_on"]["start"]


def test_crops_that_fit_in_no_image_are_passed_over(recipe: Recipe) -> None:
    result = optimised(recipe, "augment.crop.ratio", num_images=40, evaluations=12)  # from 3/32 to 32/3
    low, high = result["fields"][0]["found"]
    assert 3 / 32 <= low <= high <= 32 / 3


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    recipe = load_recipe(str(path), [f"data={{name: folder, root: {tmp_path / 'images'}, size: 16}}"])
    with pytest.raises(InputError, match="the images have no labels") as refused:
        optimised(recipe, "augment.gray.p")
    assert refused.value.where == "--optimise"


# ---------------------------------------------------------------------- the command
def test_the_command_prints_how_to_train_the_proposal(
    tiny_recipe: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares(monkeypatch, lambda strength, _: 0.02 + 0.01 * strength, noise=1e-6)
    arguments = ["rank", tiny_recipe, "augment.flip=null", "--optimise", "augment.jitter.strength, augment.crop.scale"]
    arguments += ["--images", "100", "--evaluations", "30"]
    done = invoke(*arguments)
    assert done.code == 0, done.stderr
    told = json.loads(invoke(*arguments, "--json").stdout)
    assert told["command"] in done.stdout.splitlines()
    assert "augment.jitter.strength lies at an end of its range, 2.5" in " ".join(done.stdout.split())
    assert "found with 100 images and not the 4,000" in " ".join(done.stdout.split())
    _, command, target, *overrides = shlex.split(told["command"])
    assert (command, target) == ("pretrain", str(tiny_recipe))
    trained = load_recipe(target, overrides)
    assert trained.augment.model_dump(mode="json", exclude_none=True) == told["proposal"]["augment"]
    assert "flip" not in told["proposal"]["augment"]


def test_the_command_proposes_nothing_where_nothing_is_gained(
    tiny_recipe: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares(monkeypatch, lambda strength, _: 0.02 + 1e-4 * strength, noise=0.1)
    done = invoke("rank", tiny_recipe, "--optimise", "augment.jitter.strength", "--images", "100")
    assert done.code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "Nothing was gained: +0.02 points on new images [" in told
    assert "which is within noise. Nothing is proposed." in told
    assert "cssl pretrain" not in done.stdout


def test_ctrl_c_in_a_climb_ends_with_130_and_leaves_nothing(
    tiny_recipe: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(strength: float, _: str) -> float:
        if strength != 0.5:
            raise KeyboardInterrupt
        return 0.02

    shares(monkeypatch, interrupted, noise=0.0)
    before = sorted(tiny_recipe.parent.rglob("*"))
    done = invoke("rank", tiny_recipe, "--optimise", "augment.jitter.strength", "--images", "100")
    assert (done.code, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert sorted(tiny_recipe.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["TINY", "TINY", "--optimise", "augment.gray.p"], "are several"),
        (["quickstart", "--optimise", "augment.gray.p"], "takes one recipe, and quickstart is a sweep"),
        (["augment.flip=null", "--optimise", "augment.gray.p"], "takes one recipe, and none is named"),
        (["TINY", "--optimise", "augment.gray.q"], "Did you mean 'augment.gray.p'?"),
        (["TINY", "--optimise", ","], "no field is named"),
        (["TINY", "--optimise", "augment.gray.p", "--labels", "10"], "--labels"),
        (["TINY", "--evaluations", "10"], "--evaluations: nothing is searched"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    tiny_recipe: Path, invoke: Invoke, arguments: list[str], problem: str
) -> None:
    done = invoke("rank", *(str(tiny_recipe) if argument == "TINY" else argument for argument in arguments))
    assert (done.code, done.stdout) == (2, "")
    assert problem in " ".join(done.stderr.split())
