"""Sweep files that are based on others: what is merged, what is taken away, and which file and line a fault names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.sweep.sweep import Sweep, load_sweep
from tests.support.commands import Invoke

FULL = """\
name: full
base: simclr-cifar10
axes:
  method:
    simclr: {}
    twins:
      method: {name: barlow_twins, projector: [8, 8]}
      optim: {lr: 0.2}
  augment:
    crop: {augment: {flip: null, jitter: null, gray: null, blur: null}}
    full:
seeds: 3
reference:
  source: a paper
  accuracy: knn
  selection: best_epoch
  protocol: {data.name: cifar10, train.epochs: 800}
  values: {simclr-crop: 60, simclr-full: 90, twins-crop: 61, twins-full: 89}
claims:
  - {says: more is better, order: [crop, full], by: linear, within: method}
"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    write(FULL, "full.yaml")
    return write


def refusal(name_or_path: str, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        load_sweep(name_or_path, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


def rows(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(member.row for member in sweep.members))


def settings(sweep: Sweep, row: str, block: str) -> dict[str, object]:
    return next(member.recipe.settings(block) for member in sweep.members if member.row == row)


def test_all_but_the_name_is_inherited(write: Write) -> None:
    full, mine = load_sweep(write(FULL, "full.yaml")), load_sweep(write("name: mine\nbased_on: full.yaml\n"))
    assert mine.name == "mine"
    assert (mine.axes, mine.reference, mine.claims) == (full.axes, full.reference, full.claims)
    assert mine.members == full.members
    assert "name is required" in refusal(write("based_on: full.yaml\n"))


def test_base_seeds_and_axes_are_changed_field_by_field(write: Write) -> None:
    text = """\
name: mine
based_on: full.yaml
base: {data: {name: cifar100}, train: {epochs: 100}}
seeds: [7]
axes:
  method: {twins: {optim: {momentum: 0.5}}}
  augment: {flip: {augment: {flip: {p: 0.25}}}}
"""
    mine = load_sweep(write(text))
    assert rows(mine) == ["simclr-crop", "simclr-full", "simclr-flip", "twins-crop", "twins-full", "twins-flip"]
    assert {member.seed for member in mine.members} == {7}
    assert {(member.recipe.data.name, member.recipe.train.epochs) for member in mine.members} == {("cifar100", 100)}
    twins = settings(mine, "twins-full", "optim")
    assert (twins["lr"], twins["momentum"]) == (0.2, 0.5)
    assert settings(mine, "simclr-full", "optim")["momentum"] == 0.9
    assert settings(mine, "twins-flip", "augment")["flip"] == {"p": 0.25}


def test_a_variant_follows_the_rules_of_merging(write: Write) -> None:
    text = """\
name: mine
based_on: full.yaml
axes:
  method: {twins: {method: {name: vicreg, projector: [4]}}}
  augment: {crop: {}}
"""
    with pytest.raises(InputError, match=r"simclr-crop-seed0 and simclr-full-seed0 are the same run"):
        load_sweep(write(text))  # {} empties crop, which is then full
    mine = load_sweep(write(text.replace("crop: {}", "crop: {augment: {gray: {p: 1}}}")))
    crop = settings(mine, "twins-crop", "augment")
    assert (crop["gray"], crop["flip"]) == ({"p": 1.0}, None)
    assert mine.members[-1].recipe.method == load_recipe("vicreg-cifar10", ["method.projector=[4]"]).method


def test_null_takes_an_inherited_variant_or_axis_away(write: Write) -> None:
    text = (
        "name: mine\nbased_on: full.yaml\naxes: {method: {twins: null, byol: {method: {name: byol}}}, augment: null}\n"
    )
    mine = load_sweep(write(text + "reference: null\nclaims: null\n"))
    assert mine.axes == {"method": ("simclr", "byol")}
    assert rows(mine) == ["simclr", "byol"]
    # Where there is nothing to take away, a variant without a change is a variant.
    text = "name: mine\nbased_on: full.yaml\naxes: {augment: {full: null, same: null}}\n"
    again = load_sweep(write(text + "reference: null\nclaims: null\n"))
    assert rows(again) == ["simclr-crop", "simclr-same", "twins-crop", "twins-same"]
    assert settings(again, "simclr-same", "augment") == load_recipe("simclr-cifar10").settings("augment")


def test_claims_and_values_of_rows_that_are_gone(write: Write) -> None:
    mine = load_sweep(write("name: mine\nbased_on: full.yaml\naxes: {method: {twins: null}}\n"))
    assert mine.reference is not None
    assert mine.reference.values == {"simclr-crop": 60, "simclr-full": 90}
    message = refusal(write("name: mine\nbased_on: full.yaml\naxes: {method: null}\n"))
    assert "2 faults" in message
    assert "reference.values (" in message
    assert "full.yaml, line 18) names no row of this sweep; give its own values, or reference: null" in message
    assert "claims[0].within (" in message
    assert "full.yaml, line 20) is 'method', which is no axis" in message
    alone = load_sweep(write("name: mine\nbased_on: full.yaml\naxes: {method: null}\nreference: null\nclaims: null\n"))
    assert rows(alone) == ["crop", "full"]
    assert (alone.reference, alone.claims) == (None, ())


def test_a_list_of_values_is_one_value(write: Write) -> None:
    write("name: lrs\nbase: simclr-cifar10\naxes: {optim.lr: [1, 2, 3], optim.momentum: [0.5, 0.9]}\n", "lrs.yaml")
    mine = load_sweep(write("name: mine\nbased_on: lrs.yaml\naxes: {optim.lr: [4], optim.momentum: {m: {}}}\n"))
    assert mine.axes == {"optim.lr": ("4",), "optim.momentum": ("m",)}


def test_a_base_that_is_named_takes_the_place_of_all_inherited(write: Write) -> None:
    write("name: small\nbased_on: full.yaml\nbase: {train: {epochs: 3}}\n", "small.yaml")
    changed = load_sweep(write("name: mine\nbased_on: small.yaml\nbase: {based_on: simclr-shapes}\n"))
    assert {(m.recipe.data.name, m.recipe.train.epochs) for m in changed.members} == {("shapes", 3)}
    replaced = load_sweep(write("name: mine\nbased_on: small.yaml\nbase: simclr-shapes\n"))
    shipped = load_recipe("simclr-shapes").train.epochs
    assert {(m.recipe.data.name, m.recipe.train.epochs) for m in replaced.members} == {("shapes", shipped)}
    assert shipped != 3
    assert "base is required" in refusal(write("name: mine\nbased_on: small.yaml\nbase: null\n"))


def test_paths_start_from_the_file_that_names_them(write: Write) -> None:
    write("name: r\nbased_on: simclr-cifar10\ntrain: {epochs: 5}\n", "far/recipe.yaml")
    write("name: far\nbase: recipe.yaml\nseeds: 2\n", "far/sweep.yaml")
    write("name: inline\nbase: {based_on: recipe.yaml, optim: {lr: 1}}\n", "far/inline.yaml")
    (first, _) = load_sweep(write("name: near\nbased_on: far/sweep.yaml\nbase: {optim: {lr: 2}}\n")).members
    assert (first.recipe.train.epochs, first.recipe.optim.lr) == (5, 2)
    (only,) = load_sweep(write("name: near\nbased_on: far/inline.yaml\n")).members
    assert (only.recipe.train.epochs, only.recipe.optim.lr) == (5, 1)


def test_overrides_reach_the_inherited(write: Write) -> None:
    path = write("name: mine\nbased_on: full.yaml\n")
    mine = load_sweep(path, ["train.epochs=2", "seeds=1", "~reference", "claims=[]"])
    assert len(mine.members) == 4
    assert {member.recipe.train.epochs for member in mine.members} == {2}
    assert (mine.reference, mine.claims) == (None, ())


# -------------------------------------------------------------------------------------------------------------- faults
def test_a_fault_names_the_file_and_the_line_it_came_from(write: Write) -> None:
    write(FULL.replace("optim: {lr: 0.2}", "optim: {lr: 0.2, momentun: 1}"), "full.yaml")
    message = refusal(write("name: mine\nbased_on: full.yaml\naxes:\n  augment:\n    crop: {augment: {grey: null}}\n"))
    assert message.startswith(write("name: mine\nbased_on: full.yaml\n"))
    assert "augment.grey (axis augment, variant crop, line 5) is not a field" in message
    assert "full.yaml, axis method, variant twins, line 8) is not a field of sgd" in message


def test_a_fault_of_the_fields_names_the_base_it_came_from(write: Write) -> None:
    write(FULL.replace("seeds: 3", "seeds: 0"), "full.yaml")
    message = refusal(write("name: mine\nbased_on: full.yaml\naxis: {}\n"))
    assert "axis (line 3) is not a field; did you mean axes?" in message
    assert "full.yaml, line 12) is 0; must be a list of different seeds" in message
    write(FULL.replace("    crop: {", "    Crop: {"), "full.yaml")
    message = refusal(write("name: mine\nbased_on: full.yaml\n"))
    assert "axes.augment (" in message
    assert "full.yaml, line 9) has a variant 'Crop'; a name takes a-z" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: s\nbased_on: [full.yaml]\naxes: {}", "based_on must be the name or the path of a sweep"),
        ("name: s\nbased_on: simclr-cifar10\naxes: {}", "but it is based on simclr-cifar10, which is a recipe"),
        ("name: s\nbased_on: simclr-cifar10", "is a recipe, not a sweep"),
        ("name: s\nbased_on: ful.yaml\naxes: {}", "its base ful.yaml does not exist"),
        ("name: s\nbased_on: quickstrat\naxes: {}", "Did you mean 'quickstart'?"),
        ("name: s\nbased_on: full.yaml\naxes: {augment: {crop: null, full: null}}", "axes.augment (line 3) has no"),
        ("name: s\nbased_on: full.yaml\naxes: {augment: {}}", "axes.augment (line 3) is {}; must be a mapping"),
        ("name: s\nbased_on: full.yaml\naxes: {augment: {crop: 3}}", "has a variant 'crop' that is 3"),
        ("name: s\nbased_on: full.yaml\naxes: {other: null}", "axes.other (line 3) is null; must be a mapping"),
    ],
)
def test_bad_based_on(write: Write, text: str, message: str) -> None:
    assert message in refusal(write(text))


def test_circles_are_refused_and_shown(write: Write) -> None:
    write("name: a\nbased_on: b.yaml\naxes: {}\n", "a.yaml")
    path = write("name: b\nbased_on: a.yaml\n", "b.yaml")
    message = refusal(path)
    assert "based_on goes in a circle: " in message
    assert message.count("b.yaml") >= 2


def test_such_a_file_is_shown_as_it_stands(write: Write, invoke: Invoke) -> None:
    path = write("name: mine\nbased_on: full.yaml\n")
    assert invoke("recipes", path).stdout == "name: mine\nbased_on: full.yaml\n"
    refused = invoke("recipes", path, "seeds=1")
    assert (refused.code, "overrides do not show in a sweep's file" in refused.stderr) == (2, True)
    planned = invoke("sweep", path, "seeds=1", "--dry-run")
    assert (planned.code, "4 members (4 rows)" in planned.stdout) == (0, True)
    assert "full.yaml, which has base (line 2)" in invoke("pretrain", path).stderr
