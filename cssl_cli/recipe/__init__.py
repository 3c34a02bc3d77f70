"""Recipes: YAML and `key=value` overrides in, one frozen and validated recipe out.

The names below are looked up on first use: listing the shipped recipes (`cssl_cli.recipe.book`) needs no pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cssl_cli.recipe.book import Listing, list_recipes, read_recipe_text
    from cssl_cli.recipe.load import load_recipe
    from cssl_cli.recipe.recipe import Recipe

__all__ = ["Listing", "Recipe", "list_recipes", "load_recipe", "read_recipe_text"]

_HOMES = {
    "Recipe": "recipe",
    "Listing": "book",
    "list_recipes": "book",
    "read_recipe_text": "book",
    "load_recipe": "load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
