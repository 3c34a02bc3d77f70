"""Recipe and sweep files: what each is, whatever command reads it, and what is said of one that is neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.files import SWEEP_FIELDS, find, follow, shipped_kind, shipped_names, shipped_paths
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.sweep.file import SweepFile
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import Invoke

RECIPE = """\
data: {name: shapes}
augment: {}
encoder: {name: small}
method: {name: simclr}
optim: {name: sgd, lr: 0.1}
train: {epochs: 5}
"""
# What the other files in the folder are.
BASES = {
    "recipe.yaml": "name: recipe\n" + RECIPE,
    "recipe-on-recipe.yaml": "name: chained\nbased_on: recipe.yaml\nseed: 4\n",
    "sweep.yaml": "name: sweep\nbase: recipe.yaml\n",
    "sweep-on-sweep.yaml": "name: chained\nbased_on: sweep.yaml\naxes: {optim.lr: [1, 2]}\n",
    "mixed.yaml": "name: mixed\nbased_on: recipe.yaml\nseeds: 2\n",
    "circle.yaml": "name: circle\nbased_on: mine.yaml\n",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    for name, text in BASES.items():
        (tmp_path / name).write_text(text)

    def write(text: str) -> str:
        (tmp_path / "mine.yaml").write_text("name: mine\n" + text)
        return str(tmp_path / "mine.yaml")

    return write


def refusal(load: Callable[[str], object], path: str) -> InputError:
    with pytest.raises(InputError) as error:
        load(path)
    return error.value


# ------------------------------------------------------------------------------------------------------- what a file is
RECIPES = {
    "a recipe": RECIPE,
    "based on a recipe": "based_on: recipe.yaml\n",
    "based on a path from elsewhere": "based_on: ./recipe.yaml\n",
    "based on a chain of recipes": "based_on: recipe-on-recipe.yaml\ntrain: {steps: 3}\n",
    "based on a shipped recipe": "based_on: simclr-shapes\n",
    "based on nothing": RECIPE + "based_on: null\n",
}
SWEEPS = {
    "a sweep": "base: recipe.yaml\naxes: {optim.lr: [1, 2]}\n",
    "a sweep in flow style": "",  # written by the test: its keys begin no line
    "base alone": "base: recipe.yaml\n",
    "base inline": f"base:\n  {RECIPE.replace(chr(10), chr(10) + '  ').rstrip()}\nseeds: 3\n",
    "base inline, based on a recipe": "base: {based_on: recipe-on-recipe.yaml}\n",
    "based on a sweep": "based_on: sweep.yaml\n",
    "based on a chain of sweeps": "based_on: sweep-on-sweep.yaml\nseeds: 2\n",
    "based on a shipped sweep": "based_on: quickstart\nclaims: null\n",
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_one_to_every_command(write: Callable[[str], str], invoke: Invoke, text: str) -> None:
    path = write(text)
    assert follow(Path(path)).kind == "recipe"
    recipe = load_recipe(path)
    assert invoke("recipes", path).stdout == recipe.to_yaml()  # as resolved
    refused = refusal(load_sweep, path)
    assert (refused.what, refused.remedy) == (f"{path} is a recipe, not a sweep", f"Run it with: cssl pretrain {path}")


@pytest.mark.parametrize("text", SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_is_one_to_every_command(write: Callable[[str], str], invoke: Invoke, text: str) -> None:
    path = write(text)
    if not text:
        Path(path).write_text("{name: mine, 'base': recipe.yaml}\n")
    assert follow(Path(path)).kind == "sweep"
    assert load_sweep(path).members
    assert invoke("recipes", path).stdout == Path(path).read_text()  # as it stands
    refused = refusal(load_recipe, path)
    assert refused.what.startswith(f"{path} is a sweep, not a recipe; it ")
    assert refused.remedy == f"Run it with: cssl sweep {path}"


@pytest.mark.parametrize("field", SWEEP_FIELDS)
def test_each_field_of_a_sweep_makes_a_sweep(write: Callable[[str], str], field: str) -> None:
    path = write(f"{field}: null\n")
    assert follow(Path(path)).kind == "sweep"
    assert f"is a sweep, not a recipe; it has {field} (line 2)" in refusal(load_recipe, path).what
    assert "base is required" in refusal(load_sweep, path).what


def test_those_are_all_the_fields_that_sweeps_alone_have() -> None:
    assert set(SWEEP_FIELDS) == set(SweepFile.model_fields) - set(Recipe.model_fields)


@pytest.mark.parametrize("field", ["seed: 3", "variants: 3", "rows: [a]", "analyze: {}", "base_: x"])
def test_no_other_field_does(write: Callable[[str], str], field: str) -> None:
    assert follow(Path(write(f"{RECIPE}{field}\n"))).kind == "recipe"


def test_where_a_sweep_is_told_by_its_base_that_is_said(write: Callable[[str], str], tmp_path: Path) -> None:
    what = refusal(load_recipe, write("based_on: sweep-on-sweep.yaml\n")).what
    assert what.endswith(f"it is based on {tmp_path / 'sweep-on-sweep.yaml'}, which has axes (line 3)")


@pytest.mark.parametrize("path", shipped_paths(), ids=lambda path: path.stem)
def test_the_list_tells_the_kind_of_a_shipped_file_as_its_reader_does(path: Path) -> None:
    assert shipped_kind(path) == follow(path).kind


def test_a_shipped_name_comes_first_and_a_path_is_one(
    write: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("name: x\n" + RECIPE)  # a recipe, called as a shipped sweep
    assert follow(find("quickstart", None)).kind == "sweep"
    assert follow(find("./quickstart", None)).kind == "recipe"
    assert follow(Path(write("based_on: quickstart\n"))).kind == "sweep"
    assert follow(Path(write("based_on: ./quickstart\n"))).kind == "recipe"


# ------------------------------------------------------------------------------------------- what is neither, and why
FAULTS = {
    "missing": ("based_on: none.yaml\n", "its base none.yaml does not exist"),
    "missing, of a sweep": ("based_on: none.yaml\naxes: {}\n", "its base none.yaml does not exist"),
    "unknown": ("based_on: quickstrat\n", "unknown recipe or sweep 'quickstrat'\nDid you mean 'quickstart'?"),
    "unknown, of a sweep": ("based_on: simclr-shape\nseeds: 2\n", "unknown sweep 'simclr-shape'"),
    "circle": ("based_on: circle.yaml\n", "circle.yaml: based_on goes in a circle: "),
    "circle of a sweep": ("based_on: circle.yaml\nseeds: 2\n", "circle.yaml: based_on goes in a circle: "),
    "itself": ("based_on: mine.yaml\n", "mine.yaml: based_on goes in a circle: "),
    "a list": ("based_on: [recipe.yaml]\n", "based_on must be the name or the path of a recipe or of a sweep"),
    "a list, of a sweep": ("based_on: [sweep.yaml]\nseeds: 2\n", "based_on must be the name or the path of a sweep"),
    "sweep on recipe": ("based_on: recipe.yaml\nseeds: 3\n", "seeds (line 3) makes it a sweep, but it is based on"),
    "sweep on chain": ("based_on: recipe-on-recipe.yaml\nparts: {}\n", "parts (line 3) makes it a sweep, but"),
    "sweep on shipped recipe": ("based_on: simclr-shapes\nclaims: []\n", "based on simclr-shapes, which is a recipe"),
    "on what is neither": ("based_on: mixed.yaml\n", "mixed.yaml: seeds (line 3) makes it a sweep"),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_every_command_says_the_same(write: Callable[[str], str], invoke: Invoke, text: str, message: str) -> None:
    path = write(text)
    sentence = str(refusal(load_recipe, path))
    assert message in sentence
    assert str(refusal(load_sweep, path)) == sentence
    shown = {
        (outcome.code, outcome.stderr)
        for arguments in (["recipes", path], ["pretrain", path], ["analyze", path], ["sweep", path, "--report"])
        for outcome in [invoke(*arguments)]
    }
    assert shown == {(2, "error: " + sentence.replace("\n", "\n  ") + "\n")}


@pytest.mark.parametrize(
    ("text", "advice", "followed"),
    [
        (
            "based_on: recipe.yaml\nseeds: 3\n",
            "For a sweep, write base: recipe.yaml in place of based_on: recipe.yaml. For a recipe, take seeds out.",
            "base: recipe.yaml\nseeds: 3\n",
        ),
        (
            "based_on: recipe.yaml\nbase: {train: {epochs: 2}}\nseeds: 3\n",
            "For a sweep, move based_on: recipe.yaml into base. For a recipe, take base and seeds out.",
            "base: {based_on: recipe.yaml, train: {epochs: 2}}\nseeds: 3\n",
        ),
        (
            "based_on: recipe.yaml\nbase: simclr-shapes\n",
            "For a sweep, take based_on out. For a recipe, take base out.",
            "base: simclr-shapes\n",
        ),
        (
            "base: quickstart\n",
            "To change that sweep, write based_on: quickstart beside name. As base, name a recipe.",
            "based_on: quickstart\n",
        ),
        (
            "base: {based_on: sweep.yaml}\n",
            "To change that sweep, write based_on: sweep.yaml beside name. As base, name a recipe.",
            "based_on: sweep.yaml\n",
        ),
    ],
)
def test_the_advice_can_be_followed(write: Callable[[str], str], text: str, advice: str, followed: str) -> None:
    assert refusal(load_sweep, write(text)).remedy == advice
    assert load_sweep(write(followed)).members
    if "seeds out" in advice:
        assert load_recipe(write("based_on: recipe.yaml\n"))


@pytest.mark.parametrize(
    ("text", "advice", "followed"),
    [
        (
            "based_on: sweep.yaml\ntrain: {epochs: 2}\n",
            "base: {train: ...}",
            "based_on: sweep.yaml\nbase: {train: {epochs: 2}}\n",
        ),
        (
            "base: recipe.yaml\ntrain: {epochs: 2}\n",
            "base: {based_on: recipe.yaml, train: ...}",
            "base: {based_on: recipe.yaml, train: {epochs: 2}}\n",
        ),
        ("seeds: 3\n" + RECIPE.replace("5", "2"), "base: {train: ...}", SWEEPS["base inline"].replace("5", "2")),
    ],
)
def test_a_field_of_a_recipe_is_sent_to_the_base(
    write: Callable[[str], str], text: str, advice: str, followed: str
) -> None:
    path = write(text)
    assert refusal(load_recipe, path).remedy == f"Run it with: cssl sweep {path}"
    what = refusal(load_sweep, path).what
    assert re.search(rf"train \(line \d\) is a field of a recipe; write it within {re.escape(advice)}", what)
    assert {member.recipe.train.epochs for member in load_sweep(write(followed)).members} == {2}


def test_names_are_listed_by_kind() -> None:
    assert set(shipped_names("recipe")) | set(shipped_names("sweep")) == set(shipped_names())
    assert "quickstart" in shipped_names("sweep")
    assert "simclr-shapes" in shipped_names("recipe")
