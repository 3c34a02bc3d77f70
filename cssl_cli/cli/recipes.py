"""`cssl recipes`: list the recipes that ship, or print, copy or draw one; the schema of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import Device, Json, Overrides, read_path
from cssl_cli.errors import InputError, shown_path
from cssl_cli.runs.options import require_device_name

EXAMPLES = (
    "cssl recipes",
    "cssl recipes simclr-cifar10",
    "cssl recipes simclr-cifar10 --copy",
    "cssl recipes simclr-cifar10 --copy my-recipe.yaml",
    "cssl recipes simclr-shapes --views views.png",
    "cssl recipes --schema > recipe.schema.json",
)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="RECIPE | SWEEP", help="A recipe or sweep to look at.")] = None,
    overrides: Overrides = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write it to a file to edit, NAME.yaml or the FILE given, and its schema.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, or of sweeps: --schema sweep.")
    ] = False,
    views: Annotated[
        Path | None, typer.Option(metavar="FILE.png", parser=read_path, help="Draw images and their views.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """List the recipes that ship, or print, copy or draw one."""
    from cssl_cli.report.recipes import show_recipe, show_recipes

    if schema:
        return _show_schema(name or "recipe", given=[*(overrides or []), *_options(copy=copy, views=views)])
    if name is None:
        if copy or views is not None:
            raise InputError("no recipe is named", remedy="Give a NAME; cssl recipes lists them.")
        return show_recipes(as_json)
    if copy:
        return _copy(name, overrides or [], as_json)
    if views is not None:
        return _draw(name, overrides or [], views, device, as_json)
    return show_recipe(name, overrides or [], as_json)


def _options(*, copy: bool, views: Path | None) -> list[str]:
    return ["--copy"] * copy + ["--views"] * (views is not None)


def _show_schema(name: str, *, given: Sequence[str]) -> None:
    from cssl_cli.recipe.files import find, follow
    from cssl_cli.report.layout import print_json
    from cssl_cli.sweep.json_schema import SCHEMAS

    if given:
        what = f"cannot go with {' '.join(given)}"
        raise InputError(what, where="--schema", remedy="Leave it out; the schema goes to standard output.")
    kind = name if name in SCHEMAS else follow(find(name, None)).kind
    print_json(SCHEMAS[kind]())


def _copy(name: str, overrides: Sequence[str], as_json: bool) -> None:
    from cssl_cli.recipe.book import copy_recipe
    from cssl_cli.sweep.json_schema import SCHEMAS

    _show_written(copy_recipe(name, overrides, schema_of=lambda kind: SCHEMAS[kind]()), as_json)


def _draw(name: str, overrides: Sequence[str], path: Path, device: str | None, as_json: bool) -> None:
    from cssl_cli.recipe import load_recipe

    recipe = load_recipe(name, overrides)
    require_device_name(device)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.runs.contact_sheet import draw_views

    with TerminalReporter() as reporter:
        draw_views(recipe, path, reporter=reporter, device_name=device)
    _show_written(path, as_json)


def _show_written(path: Path, as_json: bool) -> None:
    from cssl_cli.report.layout import print_json

    print_json({"path": str(path)}) if as_json else print(shown_path(path))
