"""Settings that the files of data sets, augmentations, encoders and methods declare, as blocks of a recipe.

Such a file has a class `Settings`, a dataclass whose fields have types from `ranges` and a line of description under
each. Importing the file would import torch, which takes seconds, and recipes are checked without. So the file is read,
not imported: of it, the class is executed alone, with the imports of the names in it.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, Strict, create_model

from cssl_cli.errors import InputError
from cssl_cli.recipe.blocks import AugmentBlock, DataBlock, DeclaredBlock, EncoderBlock, MethodBlock, OtherViewBlock

PACKAGE = Path(__file__).parent.parent

B = TypeVar("B", DataBlock, EncoderBlock, MethodBlock)


def data_blocks() -> tuple[type[DataBlock], ...]:
    """A block for each module of the table `SOURCES` in data/__init__.py, chosen by the names that lead to it."""
    return _of_table(PACKAGE / "data", "SOURCES", DataBlock)


def encoder_blocks() -> tuple[type[EncoderBlock], ...]:
    """A block for each module of the table `ENCODERS` in nn/encoders/__init__.py, as of `data_blocks`."""
    return _of_table(PACKAGE / "nn" / "encoders", "ENCODERS", EncoderBlock)


def augment_block() -> type[AugmentBlock]:
    """A block with a field for each operation, in the order of the table `OPERATIONS` in augment/pipeline.py.

    The field `view_2` has the same fields again.
    """
    fields: dict[str, Any] = {}
    for key in _table(PACKAGE / "augment" / "pipeline.py", "OPERATIONS").keys:
        assert isinstance(key, ast.Constant)
        name = str(key.value)
        settings, own = _declared(PACKAGE / "augment" / f"{name}.py")
        block = create_model(name, __base__=DeclaredBlock, **own)
        fields[name] = (block | None, Field(None, description=f"{settings.__doc__}; absent: not applied"))
    other: Any = create_model("OtherView", __base__=OtherViewBlock, **fields)
    said = "what is otherwise in the second view of each pair; null: nothing, both views are made alike"
    return create_model(
        "Augment", __base__=AugmentBlock, **fields, view_2=(other | None, Field(None, description=said))
    )


def method_blocks() -> tuple[type[MethodBlock], ...]:
    """A block for each file of a method, in the order of their names.

    A file whose name begins with `_`, or holds a dot more (of an editor, of a copy), is none, as for `method_names`.
    """
    files = (PACKAGE / "methods").glob("*.py")
    paths = sorted(path for path in files if "." not in path.stem and not path.stem.startswith("_"))
    return tuple(_chosen_by([path.stem], path, MethodBlock) for path in paths)


def _of_table(folder: Path, table: str, base: type[B]) -> tuple[type[B], ...]:
    names: dict[str, list[str]] = {}
    for name, module in ast.literal_eval(_table(folder / "__init__.py", table)).items():
        names.setdefault(module.rpartition(".")[2], []).append(name)
    return tuple(_chosen_by(own, folder / f"{module}.py", base) for module, own in names.items())


def _chosen_by(names: list[str], path: Path, base: type[B]) -> type[B]:
    """The block that a file declares, of which a recipe's `name` is one of `names`."""
    settings, fields = _declared(path)
    name: Any = (Literal[tuple(names)], Field(description=settings.__doc__))  # pyrefly: ignore[invalid-literal]
    block = create_model(path.stem, __base__=base, name=name, **fields)
    block.declared = settings
    return block


def _table(path: Path, name: str) -> ast.Dict:
    """The mapping of that name in a file."""
    for statement in ast.parse(_source(path)).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            assert isinstance(statement.value, ast.Dict)
            return statement.value
    raise AssertionError(f"{path} has no table {name}")


# ------------------------------------------------------------------------------------------------------------ one file
def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            remedy="The fields of recipes are read from the package's source files: install it unpacked, with them.",
        ) from error


_DECLARATION = re.compile(r"^class Settings\b.*\n(?:(?:[ \t#].*)?\n)*", re.MULTILINE)  # to the next statement


def _declared(path: Path) -> tuple[type, dict[str, Any]]:
    """The class `Settings` of a file, and its fields as pydantic takes them; `InputError` where it cannot be read."""
    source = _source(path) + "\n"
    declaration = _DECLARATION.search(source)
    if declaration is None:
        raise _unreadable(path, "the file declares none")
    try:
        tree = ast.parse(source[: declaration.end()], str(path))  # what comes after it is most of the file
        node = tree.body[-1]
        assert isinstance(node, ast.ClassDef)
        settings, meanings = _executed(node, tree, path), _lines_under_fields(node)
    except (SyntaxError, NameError, AttributeError, ImportError, TypeError) as error:
        raise _unreadable(path, str(error)) from error
    if settings.__bases__ != (object,):
        raise _unreadable(path, "it is based on another class, whose fields would be missing")
    fields = {}
    for name, annotation in settings.__annotations__.items():
        if name == "name":
            raise _unreadable(path, "a recipe chooses the file by the field name; call this one something else")
        if isinstance(annotation, str):
            raise _unreadable(path, f"the type of {name} is in quotes; write it without")
        default = getattr(settings, name, ...)
        if isinstance(default, dataclasses.Field):
            raise _unreadable(path, f"the default of {name} is a field(); write the value itself")
        field = Field(default, alias=_as_written(name), description=meanings.get(name))
        fields[name] = (_taking_lists(annotation), field)
    return settings, fields


def _unreadable(path: Path, why: str) -> InputError:
    remedy = (
        "Recipes read the class without the rest of its file: it may use what the file imports, not what it defines."
    )
    if path.parent.name == "methods":
        remedy += " Begin the name of a file that is no method with _."
    return InputError(f"its class Settings cannot be read: {why}", where=str(path), remedy=remedy)


def _executed(node: ast.ClassDef, tree: ast.Module, path: Path) -> type:
    node.decorator_list = []  # nothing is made of it here, and to make it a dataclass takes long
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    statements: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [
                alias for alias in statement.names if (alias.asname or alias.name.partition(".")[0]) in names
            ]
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
