"""Settings that the numeric core declares, as blocks of a recipe.

A method's file has a class `Settings`, a dataclass whose fields have types from `ranges` and a line of description
under each. Importing the file would import torch, which takes seconds, and recipes are checked without. So the file is
read, not imported: of it, the class is executed alone, with the imports of the names in it.
"""

from __future__ import annotations

import ast
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, Strict, create_model

from cssl_cli.recipe.blocks import MethodBlock

PACKAGE = Path(__file__).parent.parent

B = TypeVar("B", bound=MethodBlock)


def declared_blocks(room: str, base: type[B]) -> tuple[type[B], ...]:
    """A block for each file of a room of the package, chosen by the file's name; the class's docstring describes it."""
    files = sorted((PACKAGE / room).glob("*.py"))
    return tuple(_block(path, base) for path in files if path.stem != "__init__")


def _block(path: Path, base: type[B]) -> type[B]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"), None)
    assert node is not None, f"{path} declares no class Settings"
    settings = _executed(node, tree, path)
    meanings = _lines_under_fields(node)
    fields: dict[str, Any] = {"name": (Literal[path.stem], Field(description=settings.__doc__))}
    for name, annotation in settings.__annotations__.items():
        field = Field(getattr(settings, name, ...), alias=as_written(name), description=meanings.get(name))
        fields[name] = (_taking_lists(annotation), field)
    block = create_model(path.stem, __base__=base, **fields)
    block.declared = settings
    return block


def as_written(name: str) -> str | None:
    """A field's name in a recipe, where it is not the same: Python's keywords have a `_` behind them here."""
    return name[:-1] if name.endswith("_") and iskeyword(name[:-1]) else None


def _executed(node: ast.ClassDef, tree: ast.Module, path: Path) -> type:
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    statements: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [alias for alias in statement.names if (alias.asname or alias.name) in names]
            statements += [statement] if statement.names else []
    namespace: dict[str, Any] = {"__name__": f"cssl_cli.{path.parent.name}.{path.stem}"}
    exec(compile(ast.Module([*statements, node], []), str(path), "exec", dont_inherit=True), namespace)
    settings: type = namespace["Settings"]
    return settings


def _lines_under_fields(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(field.target)] = str(below.value.value)
    return found


def _taking_lists(annotation: Any) -> Any:
    """YAML has lists only: a tuple takes one, its items stay strict."""
    inner, *constraints = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    return Annotated[inner, Strict(False), *constraints] if get_origin(inner) is tuple else annotation
