"""A JSON Schema (draft 2020-12) of sweep files; that of recipes is in recipe/json_schema.py.

Axes and their variants, the base and the claims are checked as far as one file says what they are. Whether a row or a
quantity exists is told when the sweep is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cssl_cli.recipe.field_types import MAX_NAME_LENGTH, NAME_PATTERN
from cssl_cli.recipe.json_schema import (
    CHANGES,
    COMPLETE,
    DEFINED,
    DIALECT,
    Schema,
    based_on,
    dotted_fields,
    given,
    of_file,
    recipe_definitions,
    recipe_schema,
    without,
)
from cssl_cli.sweep.file import MAX_SEEDS, Claim, SweepFile

_NUMBER: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS}  # of seeds
_AXIS: Schema = {"pattern": r"\S", "maxLength": MAX_NAME_LENGTH}
_VARIANT: Schema = {"pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_LENGTH}


def sweep_schema() -> Schema:
    """The schema of a sweep's file."""
    definitions = recipe_definitions()
    del definitions["name"]
    own = SweepFile.model_json_schema(by_alias=True)
    fields = of_file(own)["properties"]
    definitions |= {name: _whole(block) for name, block in own["$defs"].items()}
    definitions |= {"claim": _claim(), "variants": _variants(), "base": _base(definitions), "axes": _axes(definitions)}
    special: Schema = {
        "base": {"anyOf": [based_on("recipe"), {"$ref": f"{DEFINED}base"}]},
        "axes": {"anyOf": [{"$ref": f"{DEFINED}axes"}, {"type": "null"}]},
        "seeds": {"anyOf": [_NUMBER, *({**seeds, "uniqueItems": True} for seeds in fields["seeds"]["anyOf"])]},
        "parts": {"type": ["object", "null"], "additionalProperties": _parts()},
        "claims": {"type": ["array", "null"], "items": {"$ref": f"{DEFINED}claim"}},
    }
    for key, schema in special.items():
        fields[key] = {"description": fields[key]["description"], **schema}
    fields["name"] = {key: value for key, value in fields["name"].items() if key != "type"} | {"type": "string"}
    return {
        "$schema": DIALECT,
        "title": "a sweep of cssl",
        "type": "object",
        "properties": {"name": fields.pop("name"), "based_on": based_on("sweep"), **fields},
        "required": ["name"],
        "additionalProperties": False,
        "if": without("based_on"),
        "then": given(["base"]) | {"properties": {"base": {"if": _of_its_own(), "then": {"$ref": _complete()}}}},
        "$defs": definitions,
    }


def _whole(block: Schema) -> Schema:
    """A block that has no base, with what it has to give."""
    return of_file(block) | {"required": block.get("required", [])}


def _complete() -> str:
    return f"{DEFINED}{COMPLETE}"


def _of_its_own() -> Schema:
    """Holds for a base that is a whole recipe: a mapping that is based on nothing."""
    return {"type": "object", **without("based_on")}


def _base(definitions: Schema) -> Schema:
    """A base that is a mapping: a recipe's fields, perhaps based on a recipe; its name, if any, is not used."""
    fields = {key: {"$ref": f"{DEFINED}{CHANGES}/properties/{key}"} for key in definitions[CHANGES]["properties"]}
    return {
        "type": "object",
        "properties": {"based_on": based_on("recipe"), **fields},
        "additionalProperties": False,
    }


def _variants() -> Schema:
    """The variants of an axis: what each changes of the base, but its seed, which the sweep sets."""
    change = {
        "anyOf": [{"$ref": f"{DEFINED}{CHANGES}"}, {"type": "null"}],
        "not": {"type": "object", "required": ["seed"]},
    }
    return {"type": "object", "minProperties": 1, "propertyNames": _VARIANT, "additionalProperties": change}


def _axes(definitions: Schema) -> Schema:
    """Axes of named variants, or lists of values for the field of which the axis has the name."""
    either: list[Any] = [{"$ref": f"{DEFINED}variants"}, {"type": "null"}]
    lists = {}
    for key, places in dotted_fields(definitions).items():
        if key == "seed":
            continue
        values = [{"$ref": place} for place in places]
        items = values[0] if len(values) == 1 else {"anyOf": values}
        lists[key] = {"anyOf": [{"type": "array", "minItems": 1, "items": items}, *either]}
    return {"type": "object", "propertyNames": _AXIS, "properties": lists, "additionalProperties": {"anyOf": either}}


def _parts() -> Schema:
    """The parts of an axis: for each of its variants a list of them."""
    names = {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}}
    return {"type": ["object", "null"], "additionalProperties": names}


def _claim() -> Schema:
    """A claim: rows that are ahead of all others, or an order."""
    claim = _whole(Claim.model_json_schema(by_alias=True))
    for field in ("rows", "smallest", "largest", "order", "by"):
        one = {"type": "string", "minLength": 1}
        names = {"type": "array", "minItems": 2 if field == "order" else 1, "uniqueItems": True, "items": one}
        description = claim["properties"][field]["description"]
        claim["properties"][field] = {"description": description, "anyOf": [one, names, {"type": "null"}]}
    claim["anyOf"] = [
        given(["rows"]) | {"anyOf": [given(["smallest"]), given(["largest"])]} | _none_of("order", "by", "increasing"),
        given(["order", "by"]) | _none_of("rows", "smallest", "largest"),
    ]
    return claim


def _none_of(*fields: str) -> Schema:
    """Holds where a mapping has none of the fields, or null there."""
    return {"not": {"anyOf": [given([field]) for field in fields]}}


SCHEMAS: dict[str, Callable[[], Schema]] = {"recipe": recipe_schema, "sweep": sweep_schema}
