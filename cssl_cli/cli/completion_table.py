"""What shells complete, as data: `python -m cssl_cli.cli.completion_table > cssl_cli/cli/completion.json`.

Commands with their options, and the fields of recipes. A Tab must be answered before typer and pydantic are even
imported (cli/completion.py), so what they know is written down; a test compares.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

import typer

from cssl_cli.cli.app import app
from cssl_cli.recipe import schema
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.recipe import Recipe
from cssl_cli.report.analysis import SECTIONS
from cssl_cli.report.compare.catalogue import ACCURACIES
from cssl_cli.report.compare.named_quantities import NAMES
from cssl_cli.sweep.file import OWN_FIELDS, SweepFile


def table() -> dict[str, Any]:
    """The whole table."""
    group: Any = typer.main.get_command(app)
    own = schema.keys_of(SweepFile)
    return {
        "options": _options(group),
        "commands": {name: _command(command) for name, command in group.commands.items()},
        "fields": _fields(Recipe),
        "sweep_fields": {name: _field(own[name]) for name in OWN_FIELDS},
        "sections": [*SECTIONS, "all"],
        "accuracies": [accuracy.name for accuracy in ACCURACIES],
        "quantities": list(NAMES),
    }


def document() -> str:
    """The text of completion.json."""
    return json.dumps(table(), indent=0, ensure_ascii=False) + "\n"


def _command(command: Any) -> dict[str, Any]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    return {
        "help": (command.short_help or "").strip(),
        "options": _options(command),
        "arguments": [{"shown": one.metavar or one.name.upper(), "many": one.nargs == -1} for one in arguments],
    }


def _options(command: Any) -> list[dict[str, Any]]:
    """The options in order: their names, what they take (None: nothing), whether they may be repeated."""
    made = []
    for option in command.params:
        if option.param_type_name == "option":
            taken = None if option.is_flag else option.metavar or ""
            names = [*option.opts, *option.secondary_opts]
            said = "" if "-completion" in names[0] else option.help or ""  # those of typer change with its version
            made.append({"names": names, "takes": taken, "many": option.multiple, "help": said})
    return [*made, {"names": ["--help", "-h"], "takes": None, "many": False, "help": "Show help and exit."}]


# -------------------------------------------------------------------------------------------------------------- fields
def _fields(block: type[Block]) -> dict[str, Any]:
    return {key: _field(info) for key, info in schema.keys_of(block).items()}


def _field(info: schema.FieldInfo) -> dict[str, Any]:
    """A field: what it means, and its blocks, each by its names, or else its values and its default."""
    field: dict[str, Any] = {"help": info.description}
    blocks = schema.block_types(info.annotation)
    if blocks:
        return field | {"blocks": [{"names": schema.names_of(one), "fields": _fields(one)} for one in blocks]}
    values = _values(info.annotation)
    default = None if info.is_required() else info.get_default()
    field |= {"values": values} if values else {}
    field |= {"path": True} if schema.placeholder(info) == "PATH" else {}
    return field | ({} if default is None else {"default": json.loads(schema.show(default, limit=10_000))})


def _values(annotation: Any) -> list[str]:
    """The values that a field may have, where they are few, as an override gives them."""
    if get_origin(annotation) is tuple or get_origin(annotation) is list:
        return []
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    inner = [value for part in get_args(annotation) for value in _values(part)]
    return [] if inner == ["null"] else inner


if __name__ == "__main__":
    print(document(), end="")
