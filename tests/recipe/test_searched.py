"""Fields to search: which there are, within what range, and the values that places in the range stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.recipe.searched import SearchedField, overrides, read_searched, with_values
from tests.support.commands import TINY_RECIPE


@pytest.fixture
def tiny(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return lambda *overrides: load_recipe(str(path), overrides)


def one(recipe: Recipe, name: str) -> SearchedField:
    (field,) = read_searched(recipe, [name])
    return field


def test_a_range_with_two_ends_is_searched_whole_on_a_linear_scale(tiny) -> None:
    strength = one(tiny(), "augment.jitter.strength")
    assert (strength.start, strength.low, strength.high, strength.logarithmic) == ((0.5,), 0, 2.5, False)
    assert strength.place(0.5) == pytest.approx(0.2)
    assert [strength.values([place]) for place in (0.0, 0.123456, 1.0)] == [(0.0,), (0.309,), (2.5,)]


def test_a_range_with_one_end_is_searched_within_a_factor_of_8_on_a_log_scale(tiny) -> None:
    brightness = one(tiny("augment.jitter.brightness=0.4"), "augment.jitter.brightness")
    assert (brightness.low, brightness.high, brightness.logarithmic) == (0.05, 3.2, True)
    assert brightness.place(0.4) == pytest.approx(0.5)
    assert [brightness.values([place]) for place in (0.0, 0.5, 1.0)] == [(0.05,), (0.4,), (3.2,)]


def test_a_pair_is_two_numbers_in_order_of_which_the_range_of_the_first_may_be_open(tiny) -> None:
    scale = one(tiny(), "augment.crop.scale")  # 0 < low <= high <= 1
    assert (scale.start, scale.low, scale.high, scale.logarithmic) == ((0.3, 1.0), 0.0375, 1.0, True)
    assert scale.values([0.9, 0.2]) == scale.values([0.2, 0.9]) == (0.0723, 0.72)
    contrast = one(tiny("augment.fade={}"), "augment.fade.contrast")
    assert (contrast.low, contrast.high, contrast.logarithmic) == (0, 1, False)
    sigma = one(tiny("augment.blur.sigma=[0.1,2]"), "augment.blur.sigma")
    assert (sigma.low, sigma.high) == (0.0125, 16)


def test_values_next_to_an_end_are_at_it(tiny) -> None:
    scale = one(tiny(), "augment.crop.scale")
    assert scale.ends((0.3, 1.0)) == [1.0]
    assert scale.ends((0.0375, 0.999)) == [0.0375, 1.0]
    assert scale.ends((0.05, 0.9)) == []


@pytest.mark.parametrize("places", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.4321, 0.4322)])
def test_a_recipe_takes_whatever_is_tried_and_so_does_the_command_line(tiny, places) -> None:
    given = ["augment.blur.sigma=[0.1,2]", "augment.jitter.hue=0.1", "augment.jitter.contrast=0.3", "augment.cutout={}"]
    recipe = tiny(*given, "augment.solarize={}", "augment.fade={}")
    names = "crop.scale crop.ratio flip.p jitter.p jitter.strength jitter.hue jitter.contrast gray.p blur.p blur.sigma"
    names += " solarize.threshold cutout.scale fade.contrast"
    fields = read_searched(recipe, [f"augment.{name}" for name in names.split()])
    values = {field: field.values(places[: len(field.start)]) for field in fields}
    said = overrides(recipe, values)
    assert with_values(recipe, values) == tiny(*given, "augment.solarize={}", "augment.fade={}", *said)


def test_a_field_named_twice_is_one(tiny) -> None:
    assert len(read_searched(tiny(), ["augment.gray.p", "augment.gray.p"])) == 1


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        (
            "augment.jiter.strength",
            [],
            "unknown field 'augment.jiter.strength'.*Did you mean 'augment.jitter.strength'",
        ),
        ("optim.lr", [], "optim.lr is not a continuous setting of an augmentation"),
        ("augment.blur.kernel_size", ["augment.blur.kernel_size=3"], "augment.blur.kernel_size is not a continuous"),
        ("augment.crop", [], "augment.crop is not a continuous"),
        ("augment.blur.sigma", ["~augment.blur"], r"augment.blur.sigma has no value in tiny.*=\[LOW,HIGH\]"),
        ("augment.jitter.hue", [], "augment.jitter.hue has no value in tiny.*augment.jitter.hue=VALUE"),
        ("augment.jitter.brightness", ["augment.jitter.brightness=0"], "augment.jitter.brightness starts at 0"),
    ],
)
def test_other_fields_are_refused_by_name(tiny, name: str, given: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=f"(?s){problem}") as refused:
        read_searched(tiny(*given), ["augment.gray.p", name])
    assert refused.value.where == "--optimise"


def test_no_field_is_refused(tiny) -> None:
    with pytest.raises(InputError, match="no field is named"):
        read_searched(tiny(), [])
