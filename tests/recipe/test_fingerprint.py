"""The fingerprint: what it depends on, and those of all that ships."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe, load_recipe, schema
from cssl_cli.recipe.blocks import Block, Probe
from cssl_cli.recipe.files import shipped_names
from cssl_cli.recipe.recipe import Augment
from cssl_cli.sweep.sweep import load_sweep
from tests.support.recipe_files import MINIMAL

# Another valid value for every field that decides a result.
OTHER: dict[str, dict[str, str]] = {
    "": {"seed": "1"},
    "data: shapes": {
        "limit": "20",
        "limit_test": "20",
        "num_train": "50",
        "num_test": "50",
        "size": "16",
        "store_size": "64",
    },
    "data: cifar10": {"limit": "20", "limit_test": "20"},
    "data: folder": {
        "limit": "20",
        "limit_test": "20",
        "root": "elsewhere",
        "size": "16",
        "store_size": "64",
        "channels": "1",
        "test_fraction": "0.3",
        "labels": "labels.csv",
    },
    "data: torchvision": {
        "limit": "20",
        "limit_test": "20",
        "set": "MNIST",
        "size": "16",
        "store_size": "64",
        "channels": "1",
        "test_fraction": "0.3",
    },
    "data: arrays": {
        "limit": "20",
        "limit_test": "20",
        "file": "other.npz",
        "size": "16",
        "store_size": "64",
        "channels": "1",
        "test_fraction": "0.3",
    },
    "data: huggingface": {
        "limit": "20",
        "limit_test": "20",
        "path": "other",
        "config": "plain",
        "revision": "main",
        "image": "img",
        "label": "y",
        "train": "training",
        "test": "validation",
        "size": "16",
        "store_size": "64",
        "channels": "1",
        "test_fraction": "0.3",
    },
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
    "encoder: resnet18": {"width": "8", "stem": "imagenet"},
    "encoder: small": {"width": "8"},
    "encoder: torchvision": {"model": "resnet34", "image_size": "64"},
    "encoder: timm": {"model": "resnet34", "image_size": "64", "patch_size": "8", "channels": "1"},
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
    "method: byol": {"ema_momentum": "0.5", "projector": "[8]", "predictor": "8", "ema_schedule": "cosine"},
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
        "label_fraction": "[0.1, 1]",
        "shots": "[1, 5]",
        "draws": "3",
    },
    "probe.finetune": {
        "epochs": "3",
        "min_steps": "3",
        "batch_size": "8",
        "lr": "0.7",
        "weight_decay": "0.1",
        "views": "recipe",
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
for _source in ("shapes", "cifar10", "folder", "torchvision", "arrays", "huggingface"):
    OTHER[f"data: {_source}"] |= {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"}
OTHER |= {title.replace("augment.", "augment.view_2."): own for title, own in OTHER.items() if "augment." in title}
_OF_WEIGHTS = ("weights", "weights_sha256")
UNDECIDING = {
    "name",
    "train.checkpoint_minutes",
    "train.checkpoint_activations",
    "data: cifar10.root",
    "data: torchvision.root",
    # The digest decides, and not without a file: see below.
    *(f"encoder: {name}.{key}" for name in ("resnet18", "small", "torchvision", "timm") for key in _OF_WEIGHTS),
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
        given = {"folder": "root: here", "torchvision": "set: USPS", "arrays": "file: x.npz", "huggingface": "path: x"}
        given |= {key: f"{given[key]}, size: 24" for key in ("torchvision", "arrays", "huggingface")}
        return path, [f"data={{name: {name}{', ' + given[name] if name in given else ''}}}"]
    if title in ("encoder: torchvision", "encoder: timm"):
        return path, [f"encoder={{name: {name}, model: resnet18}}"]
    if path == "optim":
        return path, [f"optim={{name: {name}, lr: 0.5}}"]
    if name:
        return path, [f"{path}.name={name}"]
    return path, [f"{path}={{}}"] if path.startswith(("augment.", "probe.")) else []


@pytest.mark.parametrize("title", OTHER)
def test_every_field_that_decides_the_encoder_changes_the_fingerprint(
    write_as: Callable[[str, str], str], title: str
) -> None:
    path, setup = chosen(title)
    base = write_as("minimal.yaml", MINIMAL)
    plain = load_recipe(base, setup)
    fingerprints = {plain.fingerprint}
    for key, value in OTHER[title].items():
        changed = load_recipe(base, [*setup, f"{f'{path}.' if path else ''}{key}={value}"])
        assert changed != plain
        fingerprints.add(changed.fingerprint)
    decides_the_encoder = path.split(".")[0] not in ("probe", "analyze")
    assert len(fingerprints) == 1 + (len(OTHER[title]) if decides_the_encoder else 0)


def test_every_choice_of_a_block_changes_the_fingerprint(write_as: Callable[[str, str], str]) -> None:
    base = write_as("minimal.yaml", MINIMAL)
    titles = [title for title in OTHER if title != "probe.finetune"]  # how it is measured decides nothing
    recipes = [load_recipe(base, chosen(title)[1]) for title in titles]
    different = [recipe for number, recipe in enumerate(recipes) if recipe not in recipes[:number]]
    assert len({recipe.fingerprint for recipe in different}) == len(different)
    # The choices that MINIMAL has already made, and the blocks that are always there, change nothing.
    unchanged = [title for title, recipe in zip(titles, recipes, strict=True) if recipe == recipes[0]]
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


def test_the_digest_of_the_weights_decides_and_not_where_they_lie(
    write_as: Callable[[str, str], str], tmp_path: Path
) -> None:
    base = write_as("minimal.yaml", MINIMAL)
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    plain = load_recipe(base)
    a, b, c = (load_recipe(base, [f"encoder.weights={tmp_path / name}"]) for name in "abc")
    assert a.encoder.weights_sha256 == hashlib.sha256(b"1").hexdigest()
    assert a.fingerprint == b.fingerprint
    assert len({plain.fingerprint, a.fingerprint, c.fingerprint}) == 3
    assert load_recipe(write_as("again.yaml", a.to_yaml()), [f"encoder.weights={tmp_path / 'c'}"]) == c, "its digest"
    (tmp_path / "a").write_bytes(b"3")
    assert load_recipe(base, [f"encoder.weights={tmp_path / 'a'}"]).fingerprint not in (a.fingerprint, c.fingerprint)
    (tmp_path / "a").unlink()  # the recipe of a run is read without the file
    assert load_recipe(write_as("gone.yaml", a.to_yaml())) == a
    with pytest.raises(InputError, match="no such file"):
        load_recipe(base, [f"encoder.weights={tmp_path / 'a'}"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a named pipe, not a file"):
        load_recipe(base, [f"encoder.weights={tmp_path / 'pipe'}"])
    with pytest.raises(InputError, match=r"give encoder\.weights, too"):
        load_recipe(base, [f"encoder.weights_sha256={'a' * 64}"])


def test_a_field_younger_than_its_block_is_left_out_at_its_default(write_as: Callable[[str, str], str]) -> None:
    base = write_as("minimal.yaml", MINIMAL)
    plain = load_recipe(base, ["encoder.name=resnet18"])
    assert "stem" in plain.settings("encoder")
    assert load_recipe(base, ["encoder={name: resnet18, stem: small}"]).fingerprint == plain.fingerprint
    # As it was before there was a choice of stems.
    assert plain.fingerprint == "ce8f9c06f3"


def test_nothing_is_trained_only_where_there_are_weights(write_as: Callable[[str, str], str], tmp_path: Path) -> None:
    base = write_as("minimal.yaml", MINIMAL)
    with pytest.raises(InputError, match=r"train\.epochs.* 0 epochs.*encoder\.weights"):
        load_recipe(base, ["train.epochs=0"])
    (tmp_path / "a").write_bytes(b"1")
    recipe = load_recipe(base, ["train.epochs=0", f"encoder.weights={tmp_path / 'a'}", "optim.warmup_epochs=0"])
    assert recipe.train.epochs == 0


def test_what_is_recorded_during_training_belongs_to_the_run(write_as: Callable[[str, str], str]) -> None:
    base = write_as("minimal.yaml", MINIMAL)
    plain = load_recipe(base).fingerprint
    settings = [f"{block}.every={every}" for block in ("analyze", "probe") for every in (1, 2)]
    recorded = [load_recipe(base, [setting]).fingerprint for setting in settings]
    recorded.append(load_recipe(base, ["probe.every=1", "probe.knn_k=3"]).fingerprint)
    assert len({plain, *recorded}) == 6
    assert {load_recipe(base, [f"{block}.every=null"]).fingerprint for block in ("analyze", "probe")} == {plain}


def test_what_is_not_given_is_left_out_of_the_fingerprint(write_as: Callable[[str, str], str]) -> None:
    # So that an operation which a later version adds, absent by default, leaves the names of finished runs as they are.
    class Later(Augment):
        later: Probe | None = None

    class LaterRecipe(Recipe):
        augment: Later

    recipe = load_recipe(write_as("minimal.yaml", MINIMAL))
    later = LaterRecipe.model_validate(recipe.model_dump(by_alias=True))
    assert later.settings("augment") == {**recipe.settings("augment"), "later": None}
    assert later.fingerprint == recipe.fingerprint


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


# -------------------------------------------------------------------------------------------------------- what ships
# They name the run directories of users, and must not change.
RECIPES = {
    "barlow_twins-cifar10": "1015a011bb",
    "barlow_twins-cifar10-small": "364b07a274",
    "barlow_twins-shapes": "ff7d9ecc77",
    "byol-cifar10": "1087cb41eb",
    "byol-cifar10-small": "25d6ddca0b",
    "byol-shapes": "4406d825d4",
    "moco-cifar10": "6ffd2d6dd2",
    "moco-cifar10-small": "c9e08cf123",
    "moco-shapes": "3d54fd596d",
    "simclr-cifar10": "af07c667d0",
    "simclr-cifar10-small": "7572f06cd1",
    "simclr-folder": "c1b46adba0",
    "simclr-shapes": "c0a37766c0",
    "simple_contrastive-shapes": "3fbff6f956",
    "simsiam-cifar10": "ebd5241f9c",
    "simsiam-cifar10-small": "84e06876f0",
    "simsiam-shapes": "b1866d31a8",
    "t_infonce-cifar10": "6e33786d6f",
    "t_infonce-cifar10-small": "b2a829e195",
    "t_infonce-shapes": "26aaf310ca",
    "vicreg-cifar10": "2e91d28403",
    "vicreg-cifar10-small": "0686dce877",
    "vicreg-shapes": "c0f1daa919",
}
# Of a sweep the number of its members, and a digest over their names and fingerprints.
SWEEPS = {
    "methods-shapes": (16, "9b0209cc1b"),
    "paper-pairs": (33, "a94a8ec42f"),
    "paper-pairs-cifar100": (33, "1ac5249501"),
    "paper-pairs-small": (22, "736f9aad23"),
    "paper-richness": (72, "f09d52079b"),
    "paper-richness-cifar100": (72, "8f196e0c10"),
    "paper-richness-small": (48, "8fdf460108"),
    "paper-strength": (60, "d47d3b230f"),
    "paper-strength-cifar100": (60, "7413a20529"),
    "paper-strength-small": (40, "86fe9596bc"),
    "predictors-sets-small": (52, "b4973c1a83"),
    "predictors-small": (192, "2d003ceea4"),
    "predictors-small-cifar10": (48, "f2a62c49a1"),
    "quickstart": (6, "5cb6ba08cc"),
}


def test_every_shipped_file_is_here() -> None:
    assert (set(RECIPES), set(SWEEPS)) == (set(shipped_names("recipe")), set(shipped_names("sweep")))


@pytest.mark.parametrize("name", RECIPES)
def test_fingerprint_of_a_recipe(name: str) -> None:
    overrides = ["data.root=/images"] if name == "simclr-folder" else []
    assert load_recipe(name, overrides).fingerprint == RECIPES[name]


@pytest.mark.parametrize("name", SWEEPS)
def test_fingerprints_of_a_sweep(name: str) -> None:
    lines = [f"{member.name} {member.fingerprint}" for member in load_sweep(name).members]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:10]) == SWEEPS[name]
