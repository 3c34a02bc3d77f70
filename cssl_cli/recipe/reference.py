"""The text of docs/recipe-fields.md, from the schema: `python -m cssl_cli.recipe.reference > docs/recipe-fields.md`."""

from __future__ import annotations

from cssl_cli.recipe import schema
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.recipe import Recipe

_INTRODUCTION = """# Fields of a recipe

Generated from the schema by `python -m cssl_cli.recipe.reference`; do not edit by hand. [recipes.md](recipes.md)
explains how recipes are written, changed and combined.

An augmentation block that is absent is not applied; `{}` applies it with its defaults. Augmentations are applied in the
order of the table, whatever their order in the file."""

_HEAD = "| field | takes | default | meaning |\n|---|---|---|---|"


def document() -> str:
    """The whole text of docs/recipe-fields.md."""
    return f"{_INTRODUCTION}\n\n{reference()}\n"


def reference() -> str:
    """A table of the recipe's own fields, then one for each block that a recipe may have."""
    return "\n\n".join(_tables(Recipe, "a recipe", shown=set()))


def table(block: type[Block], title: str) -> str:
    """The fields of one block as a Markdown table under its title."""
    rows = [
        f"| `{key}` | {schema.allowed(info)} | {_default(info)} | {info.description} |"
        for key, info in schema.keys_of(block).items()
    ]
    return "\n".join([f"**{title}**", "", _HEAD, *rows])


def _tables(block: type[Block], title: str, path: str = "", *, shown: set[type[Block]]) -> list[str]:
    """Of the block and those in it, without what is in `shown`, to which they are added."""
    tables = [table(block, title)]
    for key, info in schema.keys_of(block).items():
        for inner in schema.block_types(info.annotation):
            if inner in shown:
                continue
            shown.add(inner)
            names = ", ".join(schema.names_of(inner))
            inner_path = f"{path}.{key}" if path else key
            tables += _tables(inner, f"`{inner_path}`" + (f": {names}" if names else ""), inner_path, shown=shown)
    return tables


def _default(info: schema.FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default()
    return "as below" if isinstance(value, Block) else f"`{schema.show(value, limit=200)}`"


if __name__ == "__main__":
    print(document(), end="")
