"""Settings that the files of methods and augmentations declare, as blocks of a recipe.

Such a file has a class `Settings`, a dataclass whose fields have types from `ranges` and a line of description under
each. Importing the file would import torch, which takes seconds, and recipes are checked without. So the file is read,
not imported: of it, the class is executed alone, with the imports of the names in it.
"""

from __future__ import annotations

import ast
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, Strict, create_model

from cssl_cli.recipe.blocks import AugmentBlock, MethodBlock, OperationBlock

PACKAGE = Path(__file__).parent.parent


def method_blocks() -> tuple[type[MethodBlock], ...]:
    """A block for each file of a method, in the order of their names."""
    paths = sorted(path for path in (PACKAGE / "methods").glob("*.py") if path.stem != "__init__")
    return tuple(_method_block(path) for path in paths)


def _method_block(path: Path) -> type[MethodBlock]:
    settings, fields = _declared(path)
    name: Any = (Literal[path.stem], Field(description=settings.__doc__))
    block = create_model(path.stem, __base__=MethodBlock, name=name, **fields)
    block.declared = settings
    return block


def augment_block() -> type[AugmentBlock]:
    """A block with a field for each operation, in the order of the table `OPERATIONS` in augment/pipeline.py."""
    room = PACKAGE / "augment"
    fields: dict[str, Any] = {}
    for name in _keys_of_table(room / "pipeline.py", "OPERATIONS"):
        settings, own = _declared(room / f"{name}.py")
        block = create_model(name, __base__=OperationBlock, **own)
        fields[name] = (block | None, Field(None, description=f"{settings.__doc__}; absent: not applied"))
    return create_model("Augment", __base__=AugmentBlock, **fields)


def _keys_of_table(path: Path, table: str) -> list[str]:
    for statement in _parsed(path).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == table:
            assert isinstance(statement.value, ast.Dict)
            return [ast.literal_eval(key) for key in statement.value.keys if key is not None]
    raise AssertionError(f"{path} has no table {table}")


# ------------------------------------------------------------------------------------------------------------ one file
def _declared(path: Path) -> tuple[type, dict[str, Any]]:
    """The class `Settings` of a file, and its fields as pydantic takes them."""
    tree = _parsed(path)
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"), None)
    assert node is not None, f"{path} declares no class Settings"
    settings, meanings = _executed(node, tree, path), _lines_under_fields(node)
    fields = {}
    for name, annotation in settings.__annotations__.items():
        field = Field(getattr(settings, name, ...), alias=_as_written(name), description=meanings.get(name))
        fields[name] = (_taking_lists(annotation), field)
    return settings, fields


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


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


def _as_written(name: str) -> str | None:
    """A field's name in a recipe, where it is another: Python's keywords have a `_` behind them here."""
    return name[:-1] if name.endswith("_") and iskeyword(name[:-1]) else None


def _taking_lists(annotation: Any) -> Any:
    """YAML has lists only: a tuple takes one, its items stay strict."""
    inner, *constraints = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    return Annotated[inner, Strict(False), *constraints] if get_origin(inner) is tuple else annotation
