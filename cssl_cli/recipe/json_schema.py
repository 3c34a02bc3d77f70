"""A JSON Schema (draft 2020-12) of recipe files, from the blocks: what an editor completes and checks.

It is of files as they are written: with `based_on`, a file gives what it changes and no more, and null stands for what
is not given. Without, it gives what every recipe needs. A block with a known `name` has the fields of that name; one
without may be of any. What needs the values of several blocks (a batch that the method takes, a base that lacks a
field) is told when the recipe is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cssl_cli.recipe.files import shipped_names
from cssl_cli.recipe.recipe import Recipe

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFINED = "#/$defs/"
CHANGES, COMPLETE = "changes", "complete"  # a recipe's fields, as a patch; what a recipe without a base has to give
ANY_OF = ("anyOf", "oneOf")
_NULL: Schema = {"type": "null"}
_ODD = ("kernel_size",)  # a predicate, which makes no schema

# Epochs or steps: pydantic checks it in a function, which makes no schema.
_ONE_DURATION: Schema = {
    "not": {
        "required": ["epochs", "steps"],
        "properties": {"epochs": {"type": "integer"}, "steps": {"type": "integer"}},
    }
}
_A_DURATION: Schema = {
    "anyOf": [
        {"required": [unit], "properties": {unit: {"type": "integer"}}, "title": f"train.{unit}"}
        for unit in ("epochs", "steps")
    ]
}


def recipe_schema() -> Schema:
    """The schema of a recipe's file."""
    definitions = recipe_definitions()
    fields = {key: {"$ref": f"{DEFINED}{CHANGES}/properties/{key}"} for key in definitions[CHANGES]["properties"]}
    return {
        "$schema": DIALECT,
        "title": "a recipe of cssl",
        "type": "object",
        "properties": {"name": definitions.pop("name"), "based_on": based_on("recipe"), **fields},
        "required": ["name"],
        "additionalProperties": False,
        "if": without("based_on"),
        "then": {"$ref": f"{DEFINED}{COMPLETE}"},
        "$defs": definitions,
    }


def recipe_definitions() -> Schema:
    """The blocks by name, with `changes`, `complete`, and `name`, the field that only a file has."""
    written = Recipe.model_json_schema(by_alias=True)
    definitions: Schema = {}
    needed: dict[str, list[str]] = {}
    for name, block in written["$defs"].items():
        needed[name] = [key for key in block.pop("required", ()) if key != "name"]
        definitions[name] = of_file(block)
    definitions["Train"] |= _ONE_DURATION
    required = [key for key in written.pop("required") if key != "name"]
    whole = {key: _complete(value, needed) for key, value in written["properties"].items() if key in required}
    whole["train"] |= _A_DURATION
    changes = of_file(written)
    name = changes["properties"].pop("name") | {"type": "string"}
    definitions[CHANGES] = changes
    definitions[COMPLETE] = {
        "description": "what a recipe that is based on no other has to give",
        "required": required,
        "properties": {key: {"type": "object"} | value for key, value in whole.items()},
    }
    return {**definitions, "name": name}


def of_file(block: Schema) -> Schema:
    """A block as a file may give it: any of its fields, each of which null takes back to its default."""
    fields = {key: _of_field(key, field) for key, field in block["properties"].items()}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def based_on(*kinds: str) -> Schema:
    """The field that names another file."""
    names = sorted(name for kind in kinds for name in shipped_names(kind))  # type: ignore[arg-type]
    return {
        "description": "the file that this one changes: the name of one that ships, or a path from this file",
        "anyOf": [{"enum": names}, {"type": "string", "minLength": 1}, {"type": "null"}],
    }


def without(field: str) -> Schema:
    """Holds where a mapping lacks the field, or has null there."""
    return {"not": {"required": [field], "properties": {field: {"not": {"type": "null"}}}}}


# -------------------------------------------------------------------------------------------------------------- fields
def _of_field(key: str, field: Mapping[str, Any]) -> Schema:
    made = {name: value for name, value in field.items() if name not in ("title", "discriminator", *ANY_OF)}
    options = [option for kind in ANY_OF for option in field.get(kind, ()) if option != _NULL]
    if "discriminator" in field:
        made["properties"] = {"name": {"enum": list(field["discriminator"]["mapping"])}}
    if isinstance(made.get("default"), dict):  # an editor would write out every field of the block
        del made["default"]
    if key in _ODD:
        made["not"] = {"type": "integer", "multipleOf": 2}
    if "$ref" in made:
        options = [{"$ref": made.pop("$ref")}]
    if options:
        made["anyOf"] = [*options, _NULL]
    elif "const" in made or "enum" in made:
        constants = [made.pop("const")] if "const" in made else made["enum"]
        del made["type"]
        made["enum"] = constants if key == "name" else [*constants, None]
    elif "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def _complete(field: Mapping[str, Any], needed: Mapping[str, Sequence[str]]) -> Schema:
    """What a block has to give where no base gives it: its name, and what it has no default for."""
    mapping = field.get("discriminator", {}).get("mapping", {})
    if not mapping:
        (reference,) = _references(field) or ("",)
        return given(needed.get(reference, ()))
    chosen = [
        {"if": {"required": ["name"], "properties": {"name": {"const": name}}}, "then": given(fields)}
        for name, reference in mapping.items()
        if (fields := needed[reference.removeprefix(DEFINED)])
    ]
    return given(["name"]) | ({"allOf": chosen} if chosen else {})


def given(fields: Iterable[str]) -> Schema:
    """Holds where a mapping has the fields, none of them null."""
    fields = list(fields)
    if not fields:
        return {}
    return {"required": fields, "properties": {field: {"not": {"type": "null"}} for field in fields}}


def _references(field: Mapping[str, Any]) -> list[str]:
    found = [field, *field.get("anyOf", ())]
    return [option["$ref"].removeprefix(DEFINED) for option in found if "$ref" in option]


# --------------------------------------------------------------------------------------------------------------- paths
def dotted_fields(definitions: Mapping[str, Schema]) -> dict[str, list[str]]:
    """Where the schemas of each field of a recipe are, by its dotted key; several where blocks share a field."""
    found: dict[str, list[str]] = {}
    for path, place in _fields_of(f"{DEFINED}{CHANGES}", definitions):
        places = found.setdefault(path, [])
        if place not in places:
            places.append(place)
    return found


def _fields_of(place: str, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, str]]:
    block = definitions[place.removeprefix(DEFINED)]
    for key, field in block["properties"].items():
        yield key, f"{place}/properties/{key}"
        for reference in _references(field):
            for path, below in _fields_of(f"{DEFINED}{reference}", definitions):
                yield f"{key}.{path}", below
