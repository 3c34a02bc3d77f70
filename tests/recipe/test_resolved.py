"""The resolved recipe: merging files and overrides, writing it out, and what its fingerprint depends on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe, list_recipes, load_recipe, schema
from cssl_cli.recipe.blocks import Block, Probe
from cssl_cli.recipe.recipe import Augment
from cssl_cli.recipe.yaml_text import parse

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

# Nothing but what is required.
MINIMAL = """\
name: minimal
data: {name: shapes}
augment: {}
encoder: {name: small}
method: {name: simclr}
optim: {name: sgd, lr: 0.5}
train: {epochs: 5}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


# ------------------------------------------------------------------------------------------------------------- loading
def test_values_and_defaults(write: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write("base.yaml", BASE))
    assert recipe.seed == 7
    assert recipe.optim.lr == 0.05
    assert recipe.settings("augment")["crop"] == {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}
    assert recipe.settings("augment")["gray"] is None
    assert recipe.settings("method") == {"name": "simclr", "temperature": 0.2, "projector": (512, 128)}
    assert recipe.settings("train")["steps"] is None
    assert recipe.probe.knn_k == 200
    assert len(recipe.analyze.epsilons) == 15


def test_settings_use_the_names_of_the_file(write: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write("base.yaml", BASE), ["method.name=barlow_twins", "method.lambda=1"])
    assert recipe.settings("method") == {"name": "barlow_twins", "lambda": 1.0, "projector": (2048, 2048, 2048)}


def test_a_recipe_cannot_be_changed(write: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write("base.yaml", BASE))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.batch_size = 3  # type: ignore[misc]


def test_based_on_chains_and_names(write: Callable[[str, str], str]) -> None:
    write("base.yaml", BASE)
    write("sub/middle.yaml", "name: middle\nbased_on: ../base.yaml\noptim: {lr: 1}\naugment: {blur: {p: 0.9}}\n")
    recipe = load_recipe(write("top.yaml", "name: top\nbased_on: sub/middle.yaml\ntrain: {steps: 9}\n"))
    assert (recipe.name, recipe.seed) == ("top", 7)
    assert (recipe.optim.lr, recipe.optim.schedule) == (1.0, "constant")
    assert recipe.settings("augment")["blur"]["p"] == 0.9
    assert recipe.settings("augment")["blur"]["sigma"] == (0.5, 1.0)
    assert (recipe.train.epochs, recipe.train.steps, recipe.train.batch_size) == (None, 9, 64)


def test_a_base_does_not_give_its_name(write: Callable[[str, str], str]) -> None:
    write("base.yaml", BASE)
    child = write("child.yaml", "based_on: base.yaml\n")
    with pytest.raises(Exception, match="name is required; give it as name=NAME"):
        load_recipe(child)
    assert load_recipe(child, ["name=given"]).name == "given"


def test_based_on_a_shipped_name(write: Callable[[str, str], str]) -> None:
    recipe = load_recipe(write("mine.yaml", "name: mine\nbased_on: simclr-cifar10\naugment: {blur: null}\n"))
    shipped = load_recipe("simclr-cifar10")
    assert recipe.settings("augment") == {**shipped.settings("augment"), "blur": None}
    assert recipe.settings("optim") == shipped.settings("optim")


def test_a_changed_name_replaces_the_block(write: Callable[[str, str], str]) -> None:
    path = write("base.yaml", BASE)
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
def test_deletion_of_a_block(write: Callable[[str, str], str], deletion: str) -> None:
    augment = load_recipe(write("base.yaml", BASE), [deletion]).settings("augment")
    assert augment["blur"] is None
    assert augment["crop"] is not None


def test_deletion_of_a_field_brings_its_default_back(write: Callable[[str, str], str]) -> None:
    path = write("base.yaml", BASE)
    assert load_recipe(path, ["~optim.schedule"]).optim.schedule == "cosine"
    assert load_recipe(path, ["~seed"]).seed == 0
    assert load_recipe(path, ["~probe"]) == load_recipe(path)


def test_a_deleted_block_starts_anew(write: Callable[[str, str], str]) -> None:
    augment = load_recipe(write("base.yaml", BASE), ["~augment", "augment.crop={}"]).settings("augment")
    assert augment["crop"]["scale"] == (0.08, 1.0)
    assert {key for key, value in augment.items() if value is not None} == {"crop"}


def test_the_last_of_two_overrides_counts(write: Callable[[str, str], str]) -> None:
    assert load_recipe(write("base.yaml", BASE), ["seed=1", "seed=2"]).seed == 2


def test_a_name_without_ending_may_be_a_file(
    write: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("plain", BASE)
    write("simclr-cifar10", BASE)
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


def test_every_default_is_written(write: Callable[[str, str], str]) -> None:
    text = load_recipe(write("minimal.yaml", MINIMAL), ["augment={crop: {}, blur: {}}"]).to_yaml()
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


# --------------------------------------------------------------------------------------------------------- fingerprint
# Another valid value for every field that decides a result.
OTHER: dict[str, dict[str, str]] = {
    "": {"seed": "1"},
    "data: shapes": {"limit": "20", "limit_test": "20", "num_train": "50", "num_test": "50", "size": "16"},
    "data: cifar10": {"limit": "20", "limit_test": "20"},
    "data: folder": {"limit": "20", "limit_test": "20", "root": "elsewhere", "size": "16", "test_fraction": "0.3"},
    "augment.crop": {"scale": "[0.5, 1]", "ratio": "[1, 1]"},
    "augment.flip": {"p": "0.1"},
    "augment.jitter": {
        "p": "0.1",
        "strength": "0.1",
        "brightness": "0.1",
        "contrast": "0.1",
        "saturation": "0.1",
        "hue": "0.1",
    },
    "augment.gray": {"p": "0.1"},
    "augment.blur": {"p": "0.1", "sigma": "[1, 1]", "kernel_size": "5"},
    "augment.solarize": {"p": "0.1", "threshold": "0.1"},
    "augment.cutout": {"p": "0.1", "scale": "[0.1, 0.1]"},
    "augment.fade": {"p": "0.1", "contrast": "[0.1, 0.1]"},
    "encoder: resnet18": {"width": "8"},
    "encoder: small": {"width": "8"},
    "method: simclr": {"temperature": "0.1", "projector": "[8]"},
    "method: barlow_twins": {"lambda": "0.1", "projector": "[8]"},
    "method: moco": {
        "temperature": "0.2",
        "queue": "2048",
        "ema_momentum": "0.5",
        "batch_norm_splits": "4",
        "projector": "[8]",
    },
    "method: simsiam": {"projector": "[8]", "predictor": "8"},
    "method: byol": {"ema_momentum": "0.5", "projector": "[8]", "predictor": "8"},
    "method: vicreg": {"invariance": "1", "variance": "1", "covariance": "2", "projector": "[8]"},
    "method: t_infonce": {"t_df": "1", "tau": "1", "projector": "[8]"},
    "method: simple_contrastive": {"lambda": "0.1", "projector": "[8]"},
    "optim: sgd": {"momentum": "0.1", "weight_decay": "0.1", "nesterov": "true"},
    "optim: adamw": {"betas": "[0.1, 0.1]", "weight_decay": "0.1"},
    "optim: lars": {"momentum": "0.1", "weight_decay": "0.1", "trust_coefficient": "0.1"},
    "train": {
        "epochs": "3",
        "steps": "3",
        "batch_size": "8",
        "precision": "float32",
        "compile": "true",
        "micro_batch": "4",
    },
    "probe": {
        "knn_k": "3",
        "knn_temperature": "1",
        "center_views": "3",
        "penalties": "[1]",
        "validation_fraction": "0.5",
    },
    "analyze": {
        "num_images": "9",
        "num_views": "9",
        "classes": "[a, b]",
        "epsilons": "[1]",
        "deltas": "[1]",
        "distances": "[pixels]",
        "refine_pairs": "9",
        "bootstrap": "9",
        "controls": "true",
    },
}
for _optimizer in ("sgd", "adamw", "lars"):
    OTHER[f"optim: {_optimizer}"] |= {
        "lr": "0.7",
        "schedule": "constant",
        "warmup_epochs": "1",
        "decay_norm_and_bias": "false",
    }
UNDECIDING = {
    "name",
    "train.checkpoint_minutes",
    "train.checkpoint_activations",
    "data: cifar10.root",
    "analyze.every",
    "probe.every",
}


def blocks(block: type[Block], path: str = "") -> Iterator[tuple[str, type[Block]]]:
    """Every block of the schema, as "path" or, where a name chooses it, "path: first name"."""
    yield path, block
    for key, info in schema.keys_of(block).items():
        for inner in schema.block_types(info.annotation):
            names = schema.names_of(inner)
            yield from blocks(inner, (f"{path}.{key}" if path else key) + (f": {names[0]}" if names else ""))


def test_the_table_of_other_values_covers_the_schema() -> None:
    fields = {
        f"{title}.{key}" if title else key
        for title, block in blocks(Recipe)
        for key, info in schema.keys_of(block).items()
        if not schema.block_types(info.annotation) and not (key == "name" and schema.names_of(block))
    }
    covered = {f"{title}.{key}" if title else key for title, others in OTHER.items() for key in others}
    assert fields == covered | UNDECIDING


def chosen(title: str) -> tuple[str, list[str]]:
    """The path of a block and the overrides that choose or add it."""
    path, _, name = title.partition(": ")
    if path == "data":
        return path, [f"data={{name: {name}{', root: here' if name == 'folder' else ''}}}"]
    if path == "optim":
        return path, [f"optim={{name: {name}, lr: 0.5}}"]
    if name:
        return path, [f"{path}.name={name}"]
    return path, [f"{path}={{}}"] if path.startswith("augment.") else []


@pytest.mark.parametrize("title", OTHER)
def test_every_field_that_decides_the_encoder_changes_the_fingerprint(
    write: Callable[[str, str], str], title: str
) -> None:
    path, setup = chosen(title)
    base = write("minimal.yaml", MINIMAL)
    plain = load_recipe(base, setup)
    fingerprints = {plain.fingerprint}
    for key, value in OTHER[title].items():
        changed = load_recipe(base, [*setup, f"{f'{path}.' if path else ''}{key}={value}"])
        assert changed != plain
        fingerprints.add(changed.fingerprint)
    decides_the_encoder = path not in ("probe", "analyze")
    assert len(fingerprints) == 1 + (len(OTHER[title]) if decides_the_encoder else 0)


def test_every_choice_of_a_block_changes_the_fingerprint(write: Callable[[str, str], str]) -> None:
    base = write("minimal.yaml", MINIMAL)
    recipes = [load_recipe(base, chosen(title)[1]) for title in OTHER]
    different = [recipe for number, recipe in enumerate(recipes) if recipe not in recipes[:number]]
    assert len({recipe.fingerprint for recipe in different}) == len(different)
    # The choices that MINIMAL has already made, and the blocks that are always there, change nothing.
    unchanged = [title for title, recipe in zip(OTHER, recipes, strict=True) if recipe == recipes[0]]
    assert unchanged == [
        "",
        "data: shapes",
        "encoder: small",
        "method: simclr",
        "optim: sgd",
        "train",
        "probe",
        "analyze",
    ]


def test_what_does_not_decide_does_not_change_it() -> None:
    plain = load_recipe("simclr-cifar10")
    for override in ("name=other", "train.checkpoint_minutes=9", "data.root=elsewhere"):
        changed = load_recipe("simclr-cifar10", [override])
        assert changed != plain
        assert changed.fingerprint == plain.fingerprint


def test_what_is_recorded_during_training_belongs_to_the_run(write: Callable[[str, str], str]) -> None:
    base = write("minimal.yaml", MINIMAL)
    plain = load_recipe(base).fingerprint
    settings = [f"{block}.every={every}" for block in ("analyze", "probe") for every in (1, 2)]
    recorded = [load_recipe(base, [setting]).fingerprint for setting in settings]
    recorded.append(load_recipe(base, ["probe.every=1", "probe.knn_k=3"]).fingerprint)
    assert len({plain, *recorded}) == 6
    assert {load_recipe(base, [f"{block}.every=null"]).fingerprint for block in ("analyze", "probe")} == {plain}


def test_what_is_not_given_is_left_out_of_the_fingerprint(write: Callable[[str, str], str]) -> None:
    # So that an operation which a later version adds, absent by default, leaves the names of finished runs as they are.
    class Later(Augment):
        later: Probe | None = None

    class LaterRecipe(Recipe):
        augment: Later

    recipe = load_recipe(write("minimal.yaml", MINIMAL))
    later = LaterRecipe.model_validate(recipe.model_dump(by_alias=True))
    assert later.settings("augment") == {**recipe.settings("augment"), "later": None}
    assert later.fingerprint == recipe.fingerprint


def test_equal_values_written_differently_are_one_recipe(write: Callable[[str, str], str]) -> None:
    plain = load_recipe(write("base.yaml", BASE))
    reordered = "\n".join(reversed(BASE.replace("5e-2", "0.05").replace("[0.2, 1]", "[0.2, 1.0]").splitlines()[:3]))
    other = load_recipe(
        write("other.yaml", reordered + "\n" + "\n".join(BASE.splitlines()[3:]) + "\nprobe: {knn_k: 200}\n")
    )
    assert other == plain
    assert other.fingerprint == plain.fingerprint


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    program = "from cssl_cli.recipe import load_recipe as load; print(load('simclr-shapes', ['seed=3']).fingerprint)"
    expected = load_recipe("simclr-shapes", ["seed=3"]).fingerprint
    assert len(expected) == 10
    assert set(expected) <= set("0123456789abcdef")
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.strip() == expected


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


def test_every_field_has_a_description() -> None:
    missing: list[Any] = [
        (title, key)
        for title, block in blocks(Recipe)
        for key, info in schema.keys_of(block).items()
        if not info.description
    ]
    assert missing == []
