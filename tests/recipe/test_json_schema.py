"""The JSON Schema of recipes and sweeps: what ships is valid, as it is and merged, and each fault is found."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.book import copy_recipe, schema_name
from cssl_cli.recipe.files import read_text, shipped_kind, shipped_paths
from cssl_cli.recipe.json_schema import dotted_fields, recipe_definitions
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.recipe.schema import keys_of, paths
from cssl_cli.recipe.yaml_text import parse
from cssl_cli.sweep.file import SweepFile
from cssl_cli.sweep.json_schema import SCHEMAS
from cssl_cli.sweep.sweep import load_sweep

SHIPPED = shipped_paths()
WHOLE = (
    "{name: r, data: {name: shapes}, augment: {crop: {}}, encoder: {name: small}, method: {name: simclr}, "
    "optim: {name: sgd, lr: 0.1}, train: {epochs: 2}}"
)


@functools.cache
def validator(kind: str) -> Draft202012Validator:
    schema = SCHEMAS[kind]()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def read(text: str) -> Any:
    return parse(text, where="here").value


def faults(kind: str, document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(document)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_is_valid_as_it_is_and_merged(path: Path) -> None:
    kind = shipped_kind(path)
    assert faults(kind, read(read_text(path))) == []
    if kind == "recipe":
        recipes = [load_recipe(path.stem, ["data.root=images"] if path.stem == "simclr-folder" else [])]
    else:  # axes multiply the same blocks
        members = load_sweep(path.stem).members
        recipes = [member.recipe for member in (members[0], members[-1])]
    for recipe in recipes:
        assert faults("recipe", read(recipe.to_yaml())) == []


VALID = {
    "recipe": [
        WHOLE,
        "{name: r, based_on: ./mine.yaml}",
        "{name: r, based_on: simclr-shapes, optim: {lr: 1}, train: {steps: 20}, seed: null, augment: {blur: null}}",
        "{name: r, based_on: simclr-shapes, method: {name: vicreg}, probe: {finetune: {}}, train: {compile: graph}}",
        "{name: r, based_on: simclr-shapes, augment: {view_2: {blur: null, solarize: {p: 0.2}}}}",
        "{name: r, based_on: simclr-shapes, optim: {name: adamw, lr: 1e-3, betas: [0.9, 0.99]}, data: null}",
    ],
    "sweep": [
        "{name: s, base: simclr-shapes, axes: {optim.lr: [0.1, 1], mine: {a: {}, b: {train: {epochs: 3}}, c: null}}}",
        "{name: s, base: {based_on: simclr-shapes, train: {epochs: 3}}, seeds: 3}",
        "{name: s, based_on: quickstart, axes: {method: null}, seeds: [1, 5], parts: null}",
        "{name: s, based_on: quickstart, base: {train: {epochs: 3}}, axes: {augment.blur: [null, {p: 0.5}]}}",
        f"{{name: s, base: {WHOLE.replace('name: r, ', '')}, seeds: 2}}",
        "{name: s, base: simclr-shapes, claims: [{says: x, rows: a, smallest: [linear]}, "
        "{says: y, order: [a, b], by: knn, increasing: false}]}",
    ],
}
WRONG = {
    "recipe": [
        ("{based_on: simclr-shapes}", "'name' is a required property"),
        ("{name: 'A b', based_on: simclr-shapes}", "does not match"),
        ("{name: r}", "is a required property"),
        (WHOLE.replace("lr: 0.1", "momentum: 0.5"), "'lr' is a required property"),
        (WHOLE.replace("name: shapes", "name: folder"), "'root' is a required property"),
        (WHOLE.replace("epochs: 2", "batch_size: 8"), "$.train"),
        ("{name: r, based_on: simclr-shapes, train: {epochs: 1, steps: 1}}", "$.train"),
        ("{name: r, based_on: simclr-shapes, optimizer: {lr: 1}}", "'optimizer' was unexpected"),
        ("{name: r, based_on: simclr-shapes, optim: {lrr: 1}}", "$.optim"),
        ("{name: r, based_on: simclr-shapes, optim: {lr: 0}}", "$.optim"),
        ("{name: r, based_on: simclr-shapes, optim: {lr: '0.1'}}", "$.optim"),
        ("{name: r, based_on: simclr-shapes, optim: {name: sgd, lr: 1, betas: [0.9, 0.9]}}", "$.optim"),
        ("{name: r, based_on: simclr-shapes, optim: {momentum: 0.9, betas: [0.9, 0.9]}}", "$.optim"),
        ("{name: r, based_on: simclr-shapes, method: {name: simclear}}", "'simclear' is not one of"),
        ("{name: r, based_on: simclr-shapes, augment: {blur: {kernel_size: 4}}}", "$.augment"),
        ("{name: r, based_on: simclr-shapes, augment: {crop: {scale: [0.1]}}}", "$.augment"),
        ("{name: r, based_on: simclr-shapes, augment: {view_2: {view_2: {}}}}", "$.augment"),
        ("{name: r, based_on: simclr-shapes, probe: {label_fraction: [2]}}", "$.probe"),
        ("{name: r, based_on: simclr-shapes, seed: -1}", "$.seed"),
        ("{name: r, based_on: simclr-shapes, axes: {}}", "'axes' was unexpected"),
        ("{name: r, based_on: 3}", "$.based_on"),
    ],
    "sweep": [
        ("{name: s}", "'base' is a required property"),
        ("{name: s, base: simclr-shapes, train: {epochs: 1}}", "'train' was unexpected"),
        ("{name: s, base: {train: {epochs: 1}}}", "is a required property"),
        ("{name: s, base: simclr-shapes, axes: {optim.lr: [0.1, -1]}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {optim.lrr: [0.1, 1]}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {a: {b: {seed: 1}}}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {a: {b: {name: x}}}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {a: {B: {}}}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {a: {b: {optim: {lrr: 1}}}}}", "$.axes"),
        ("{name: s, base: simclr-shapes, axes: {a: {}}}", "$.axes"),
        ("{name: s, base: simclr-shapes, seeds: 0}", "$.seeds"),
        ("{name: s, base: simclr-shapes, seeds: [1, 1]}", "$.seeds"),
        ("{name: s, base: simclr-shapes, rank: 10}", "$.rank"),
        ("{name: s, base: simclr-shapes, parts: {a: {b: c}}}", "$.parts"),
        ("{name: s, base: simclr-shapes, claims: [{rows: a, smallest: knn}]}", "'says' is a required property"),
        ("{name: s, base: simclr-shapes, claims: [{says: x, rows: a}]}", "$.claims"),
        ("{name: s, base: simclr-shapes, claims: [{says: x, rows: a, smallest: b, order: [a, b]}]}", "$.claims"),
        ("{name: s, base: simclr-shapes, reference: {source: x}}", "$.reference"),
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in VALID.items() for text in texts])
def test_what_a_file_may_say_is_valid(kind: str, text: str) -> None:
    assert faults(kind, read(text)) == []


@pytest.mark.parametrize(
    ("kind", "text", "words"), [(kind, text, words) for kind, rows in WRONG.items() for text, words in rows]
)
def test_what_it_may_not_say_is_found(kind: str, text: str, words: str, tmp_path: Path) -> None:
    found = faults(kind, read(text))
    assert any(words in fault for fault in found), found
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(InputError):  # by the command, too
        (load_recipe if kind == "recipe" else load_sweep)(str(tmp_path / "wrong.yaml"))


def test_every_field_is_in_it_with_what_it_means() -> None:
    definitions = recipe_definitions()
    assert set(map(".".join, paths(Recipe, {}))) == {*dotted_fields(definitions), "name"}
    blocks: dict[str, Any] = {"changes": Recipe, "Train": Recipe.model_fields["train"].annotation}
    for name, block in blocks.items():
        for key, info in keys_of(block).items():
            assert key == "name" or definitions[name]["properties"][key]["description"] == info.description
    assert definitions["SGD"]["properties"]["momentum"]["default"] == 0.9
    for key, info in SweepFile.model_fields.items():
        assert SCHEMAS["sweep"]()["properties"][key]["description"] == info.description


def test_no_default_is_a_whole_block() -> None:
    """An editor would write every field of it into the file."""
    for block in recipe_definitions().values():
        for field in block.get("properties", {}).values():
            assert not isinstance(field.get("default"), dict | Block)


def test_a_copy_leads_editors_to_the_schema_beside_it(tmp_path: Path) -> None:
    for name in ("simclr-shapes", "byol-shapes", "quickstart"):
        path = copy_recipe(name, [str(tmp_path / f"{name}.yaml")], schema_of=lambda kind: SCHEMAS[kind]())
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        kind = "sweep" if name == "quickstart" else "recipe"
        assert first == f"# yaml-language-server: $schema=.cssl-{kind}.schema.json"
        assert "\n".join(rest) + "\n" == read_text(next(path for path in SHIPPED if path.stem == name))
        assert json.loads((tmp_path / schema_name(kind)).read_text(encoding="utf-8")) == SCHEMAS[kind]()
    assert load_recipe(str(tmp_path / "simclr-shapes.yaml")) == load_recipe("simclr-shapes")
