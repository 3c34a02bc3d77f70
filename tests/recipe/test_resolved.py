"""The resolved recipe: merging files and overrides, writing it out, and what its fingerprint depends on."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe, list_recipes, load_recipe
from cssl_cli.recipe.yaml_text import parse
from tests.support.recipe_files import MINIMAL

BASE = """\
name: base
seed: 7
data: {name: shapes, size: 16}
augment:
  crop: {scale: [0.2, 1]}
  blur: {p: 0.3, sigma: [0.5, 1]}
encoder: {name: small, width: 8}
method: {name: simclr, temperature: 0.2}
optim: {name: sgd, lr: 5e-2, schedule: constant}
train: {epochs: 5, batch_size: 64}
"""


# ------------------------------------------------------------------------------------------------------------- loading
def test_values_and_defaults(write_as: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write_as("base.yaml", BASE))
    assert recipe.seed == 7
    assert recipe.optim.lr == 0.05
    assert recipe.settings("augment")["crop"] == {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}
    assert recipe.settings("augment")["gray"] is None
    assert recipe.settings("method") == {"name": "simclr", "temperature": 0.2, "projector": (512, 128)}
    assert recipe.settings("train")["steps"] is None
    assert recipe.probe.knn_k == 200
    assert len(recipe.analyze.epsilons) == 15


def test_settings_use_the_names_of_the_file(write_as: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write_as("base.yaml", BASE), ["method.name=barlow_twins", "method.lambda=1"])
    assert recipe.settings("method") == {"name": "barlow_twins", "lambda": 1.0, "projector": (2048, 2048, 2048)}


def test_a_recipe_cannot_be_changed(write_as: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write_as("base.yaml", BASE))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.batch_size = 3  # type: ignore[misc]


def test_based_on_chains_and_names(write_as: Callable[[str, str], str]) -> None:
    write_as("base.yaml", BASE)
    write_as("sub/middle.yaml", "name: middle\nbased_on: ../base.yaml\noptim: {lr: 1}\naugment: {blur: {p: 0.9}}\n")
    recipe = load_recipe(write_as("top.yaml", "name: top\nbased_on: sub/middle.yaml\ntrain: {steps: 9}\n"))
    assert (recipe.name, recipe.seed) == ("top", 7)
    assert (recipe.optim.lr, recipe.optim.schedule) == (1.0, "constant")
    assert recipe.settings("augment")["blur"]["p"] == 0.9
    assert recipe.settings("augment")["blur"]["sigma"] == (0.5, 1.0)
    assert (recipe.train.epochs, recipe.train.steps, recipe.train.batch_size) == (None, 9, 64)


def test_a_base_does_not_give_its_name(write_as: Callable[[str, str], str]) -> None:
    write_as("base.yaml", BASE)
    child = write_as("child.yaml", "based_on: base.yaml\n")
    with pytest.raises(Exception, match="name is required; give it as name=NAME"):
        load_recipe(child)
    assert load_recipe(child, ["name=given"]).name == "given"


def test_based_on_a_shipped_name(write_as: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write_as("mine.yaml", "name: mine\nbased_on: simclr-cifar10\naugment: {blur: null}\n"))
    shipped = load_recipe("simclr-cifar10")
    assert recipe.settings("augment") == {**shipped.settings("augment"), "blur": None}
    assert recipe.settings("optim") == shipped.settings("optim")


def test_a_changed_name_replaces_the_block(write_as: Callable[[str, str], str]) -> None:
    path = write_as("base.yaml", BASE)
    changed = load_recipe(path, ["optim.lr=3e-3", "optim.name=adamw"])
    assert changed.settings("optim") == {
        "name": "adamw",
        "lr": 3e-3,
        "schedule": "cosine",
        "warmup_epochs": 0,
        "decay_norm_and_bias": True,
        "betas": (0.9, 0.999),
        "weight_decay": 0.01,
    }
    assert load_recipe(path, ["optim.name=sgd"]) == load_recipe(path)


@pytest.mark.parametrize("deletion", ["~augment.blur", "augment.blur=null", "augment={blur: null}"])
def test_deletion_of_a_block(write_as: Callable[[str, str], str], deletion: str) -> None:
    augment = load_recipe(write_as("base.yaml", BASE), [deletion]).settings("augment")
    assert augment["blur"] is None
    assert augment["crop"] is not None


def test_deletion_of_a_field_brings_its_default_back(write_as: Callable[[str, str], str]) -> None:
    path = write_as("base.yaml", BASE)
    assert load_recipe(path, ["~optim.schedule"]).optim.schedule == "cosine"
    assert load_recipe(path, ["~seed"]).seed == 0
    assert load_recipe(path, ["~probe"]) == load_recipe(path)


def test_a_deleted_block_starts_anew(write_as: Callable[[str, str], str]) -> None:
    augment = load_recipe(write_as("base.yaml", BASE), ["~augment", "augment.crop={}"]).settings("augment")
    assert augment["crop"]["scale"] == (0.08, 1.0)
    assert {key for key, value in augment.items() if value is not None} == {"crop"}


def test_the_last_of_two_overrides_counts(write_as: Callable[[str, str], str]) -> None:
    assert load_recipe(write_as("base.yaml", BASE), ["seed=1", "seed=2"]).seed == 2


def test_a_name_without_ending_may_be_a_file(
    write_as: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_as("plain", BASE)
    write_as("simclr-cifar10", BASE)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("plain").name == "base"
    assert load_recipe("simclr-cifar10").name == "simclr-cifar10"  # shipped names come first
    assert load_recipe("./simclr-cifar10").name == "base"


# ----------------------------------------------------------------------------------------------------- writing it out
def every_recipe(root: str = "images") -> Iterator[Recipe]:
    for listing in list_recipes():
        if listing.kind == "recipe":
            yield load_recipe(listing.name, [f"data.root={root}"] if listing.name == "simclr-folder" else [])


def test_what_is_written_loads_to_an_equal_recipe(tmp_path: Path) -> None:
    for recipe in every_recipe():
        path = tmp_path / f"{recipe.name}.yaml"
        path.write_text(recipe.to_yaml())
        again = load_recipe(str(path))
        assert again == recipe
        assert again.fingerprint == recipe.fingerprint
        assert again.to_yaml() == recipe.to_yaml()


def test_every_default_is_written(write_as: Callable[[str, str], str]) -> None:
    text = load_recipe(write_as("minimal.yaml", MINIMAL), ["augment={crop: {}, blur: {}}"]).to_yaml()
    for name in (
        "ratio:",
        "kernel_size: null",
        "solarize: null",
        "decay_norm_and_bias: true",
        "knn_k: 200",
        "epsilons:",
    ):
        assert name in text


@given(
    lr=st.floats(min_value=1e-30, max_value=1e30),
    root=st.text("ab /#:'\"~é\n\x85-", min_size=1, max_size=12),
    widths=st.lists(st.integers(1, 2**16), min_size=1, max_size=3),
)
def test_round_trip_of_awkward_values(lr: float, root: str, widths: list[int]) -> None:
    document = parse(MINIMAL, where="x").value
    document["data"] = {"name": "folder", "root": f"/{root}"}
    document["method"]["projector"] = widths
    document["optim"]["lr"] = lr
    recipe = Recipe.model_validate(document)
    assert recipe.settings("data")["root"] == str(Path(f"/{root}").resolve())
    assert Recipe.model_validate(parse(recipe.to_yaml(), where="x").value) == recipe


def test_variables_in_the_root_stay_and_are_replaced_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", "/scratch/1")
    recipe = load_recipe("simclr-folder", ["data.root=$SCRATCH/pets"])
    assert recipe.settings("data")["root"] == "/scratch/1/pets"
    assert "root: $SCRATCH/pets" in recipe.to_yaml()
    monkeypatch.setenv("SCRATCH", "/scratch/2")
    again = load_recipe("simclr-folder", ["data.root=$SCRATCH/pets"])
    assert again.settings("data")["root"] == "/scratch/2/pets"
    assert again.fingerprint == recipe.fingerprint
    inner = load_recipe("simclr-folder", ["data.root=sets/${SCRATCH}-x"])
    assert inner.settings("data")["root"] == f"{tmp_path}/sets//scratch/2-x"
    monkeypatch.delenv("SCRATCH")
    assert load_recipe("simclr-folder", ["data.root=$SCRATCH/pets"]).fingerprint == recipe.fingerprint
    with pytest.raises(InputError) as error:
        again.settings("data")
    assert error.value.what == "'$SCRATCH/pets' names the environment variable SCRATCH, which is not set"
    assert error.value.where == "data.root"


def test_a_folder_with_a_dollar_sign_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("x", "elsewhere")
    (tmp_path / "a$x").mkdir()
    recipe = load_recipe("simclr-folder", [f"data.root={tmp_path}/a$x"])
    assert recipe.settings("data")["root"] == f"{tmp_path}/a$x"


def test_home_and_variables_in_based_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    (tmp_path / "base.yaml").write_text("based_on: simclr-shapes\nseed: 7\n")
    for base in ("~/base.yaml", "$WHERE/base.yaml", "${WHERE}/base.yaml"):
        (tmp_path / "mine.yaml").write_text(f"name: mine\nbased_on: {base}\n")
        assert load_recipe("~/mine.yaml").seed == 7
    (tmp_path / "mine.yaml").write_text("name: mine\nbased_on: $NOWHERE/base.yaml\n")
    with pytest.raises(InputError, match="names the environment variable NOWHERE, which is not set"):
        load_recipe("~/mine.yaml")


def test_root_is_absolute_and_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    relative = load_recipe("simclr-folder", ["data.root=images/../pets"])
    assert relative.settings("data")["root"] == str(tmp_path.resolve() / "pets")
    assert f"root: {tmp_path.resolve() / 'pets'}" in relative.to_yaml()
    absolute = load_recipe("simclr-folder", [f"data.root={tmp_path / 'pets'}"])
    assert absolute.fingerprint == relative.fingerprint
    assert load_recipe("simclr-folder", ["data.root=~/pets"]).settings("data")["root"] == str(
        tmp_path.resolve() / "home/pets"
    )


def test_equal_values_written_differently_are_one_recipe(write_as: Callable[[str, str], str]) -> None:
    plain = load_recipe(write_as("base.yaml", BASE))
    reordered = "\n".join(reversed(BASE.replace("5e-2", "0.05").replace("[0.2, 1]", "[0.2, 1.0]").splitlines()[:3]))
    other = load_recipe(
        write_as("other.yaml", reordered + "\n" + "\n".join(BASE.splitlines()[3:]) + "\nprobe: {knn_k: 200}\n")
    )
    assert other == plain
    assert other.fingerprint == plain.fingerprint


# -------------------------------------------------------------------------------------------------------------- import
def modules_after(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_recipes_need_no_torch() -> None:
    lines = ["from cssl_cli.recipe import load_recipe", "from cssl_cli.sweep.sweep import load_sweep"]
    lines += ["load_recipe('simclr-cifar10')", "load_sweep('quickstart')"]
    modules = modules_after("\n".join(lines))
    assert "pydantic" in modules
    assert modules.isdisjoint({"torch", "numpy", "typer", "rich"})


def test_the_list_needs_no_pydantic() -> None:
    modules = modules_after("from cssl_cli.recipe import list_recipes, read_recipe_text\nlist_recipes()")
    assert modules.isdisjoint({"pydantic", "yaml", "torch"})


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import cssl_cli.recipe

    with pytest.raises(AttributeError, match="nothing"):
        cssl_cli.recipe.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert all(getattr(cssl_cli.recipe, name) for name in cssl_cli.recipe.__all__)
