"""What computes the comparisons prints nothing: only their tables know the library that draws on the screen."""

from __future__ import annotations

import ast
from pathlib import Path

import cssl_cli.report.compare

FOLDER = Path(cssl_cli.report.compare.__file__).parent


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_only_the_tables_import_rich() -> None:
    with_rich = {path.relative_to(FOLDER).parts[0] for path in FOLDER.rglob("*.py") if "rich" in imported(path)}
    assert with_rich == {"tables"}
