"""`augment.view_2`: what is otherwise in the second view of a pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.searched import overrides, read_searched, with_values


def recipe(*overrides: str) -> Recipe:
    return load_recipe("simclr-cifar10", list(overrides))


PUBLISHED = "augment.view_2={blur: {p: 0.1}, solarize: {p: 0.2}}"


def test_what_it_does_not_say_is_as_in_the_first_view() -> None:
    found = recipe(PUBLISHED, "augment.view_2.gray=null", "augment.blur.sigma=[0.5, 1]").settings("augment")
    second = found.pop("view_2")
    assert second == {
        **found,
        "gray": None,
        "blur": {**found["blur"], "p": 0.1},
        "solarize": {"p": 0.2, "threshold": 0.5},
    }
    assert second["blur"]["sigma"] == (0.5, 1.0)


@pytest.mark.parametrize(
    "same", ["augment.view_2={}", "augment.view_2={blur: {p: 0.5}, cutout: null}", "augment.view_2=null"]
)
def test_views_made_alike_are_the_recipe_without_it(same: str) -> None:
    assert recipe(same) == recipe()
    assert recipe(same).fingerprint == recipe().fingerprint


def test_it_decides_the_run() -> None:
    fingerprints = [
        recipe(*changes).fingerprint
        for changes in [(), (PUBLISHED,), (PUBLISHED, "augment.view_2.gray=null"), ("augment.solarize={p: 0.2}",)]
    ]
    assert len(set(fingerprints)) == 4
    assert recipe("augment.view_2={blur: {p: 0.1}, solarize: {}}").fingerprint == fingerprints[1]  # its default, 0.2


def test_a_resolved_recipe_is_the_same_again(tmp_path: Path) -> None:
    before = recipe(PUBLISHED, "augment.view_2.gray=null")
    (tmp_path / "r.yaml").write_text(before.to_yaml())
    after = load_recipe(str(tmp_path / "r.yaml"))
    assert after == before
    assert after.fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("augment.view_2={blur: {p: 2}}", r"augment.view_2.blur.p is 2; must be a number in \[0, 1\]"),
        ("augment.view_2={blurr: {}}", "augment.view_2.blurr is not a field; did you mean augment.view_2.blur"),
        ("augment.view_2.view_2={}", "augment.view_2.view_2 is not a field"),
        ("augment.view_2=0.5", "augment.view_2 is 0.5; must be a block of crop, flip"),
    ],
)
def test_faults_are_sentences(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe(override)


def test_a_search_moves_what_both_views_share(tmp_path: Path) -> None:
    before = recipe(PUBLISHED)
    (strength, p) = read_searched(before, ["augment.jitter.strength", "augment.blur.p"])
    values = {strength: (0.25,), p: (0.75,)}
    after = with_values(before, values).settings("augment")
    assert (after["jitter"]["strength"], after["view_2"]["jitter"]["strength"]) == (0.25, 0.25)
    assert (after["blur"]["p"], after["view_2"]["blur"]["p"]) == (0.75, 0.1)
    (tmp_path / "r.yaml").write_text(before.to_yaml())  # where the second view is written out
    proposal = overrides(before, values)
    assert recipe(PUBLISHED, *proposal).settings("augment") == after
    assert load_recipe(str(tmp_path / "r.yaml"), proposal).settings("augment") == after


def test_a_search_of_either_view_for_itself_keeps_them_apart() -> None:
    before = recipe("augment.view_2={gray: null}")  # blur.p is 0.5 in both
    second, first = read_searched(before, ["augment.view_2.blur.p", "augment.blur.p"])
    after = with_values(before, {second: (0.5,), first: (0.75,)}).settings("augment")
    assert (after["blur"]["p"], after["view_2"]["blur"]["p"]) == (0.75, 0.5)
