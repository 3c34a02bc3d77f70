"""The house rules: rooms import downwards only, and the numeric core knows no screen and no files of settings."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cssl_cli

PACKAGE = Path(cssl_cli.__file__).parent

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
# The table of rooms, from the ground up; a room may import the rooms before it (and its own parts).
ORDER = [
    name.removesuffix("/").removesuffix(".py")
    for name in re.findall(r"(?m)^\| `([\w/.]+)` \|", ARCHITECTURE.read_text("utf-8"))
]
CORE = ORDER[ORDER.index("data") : ORDER.index("runs")]
FORBIDDEN_IN_CORE = {
    "typer",
    "rich",
    "yaml",
    "pydantic",
    "cssl_cli.recipe",
    "cssl_cli.sweep.sweep",
    "cssl_cli.runs.run_dir",
}
RANGES = "cssl_cli.recipe.ranges"  # the types of declared settings, which load nothing
# What terms may build on; every other file of the theory is a term.
THEORY_SHARED = {
    "augmented_distance",
    "certificates.chains",
    "certificates.conditions",
    "certificates.error_bounds",
    "certificates.threshold_grid",
    "certificates.threshold_search",
    "class_geometry",
    "companions.trade_off",
    "concentration.class_overlap",
    "concentration.cliques",
    "concentration.main_parts",
    "alignment.theorem_2",
    "distance_terms",
    "estimate",
    "image_pairs",
    "lipschitz.spectral",
    "spectrum.view_covariances",
    "losses.cross_correlation_intervals",
    "spectrum.contexture",
    "spectrum.eigenfunctions",
    "spectrum.information",
    "spectrum.jackknife",
    "subsets",
    "shown",
    "table",
    "term",
    "terms",
}
# Of the rooms from `runs` up, and of those below `data`, what loads torch; all the rest does without.
NEEDS_TORCH = {"host.randomness"} | {
    f"runs.{name}"
    for name in (
        "analyze",
        "brief_training",
        "compiling",
        "concentrate",
        "contact_sheet",
        "dealing",
        "device",
        "encoder_terms",
        "environment",
        "features",
        "finished",
        "finishing",
        "following",
        "images",
        "import_run",
        "joining",
        "loaded_encoder",
        "machine",
        "optimise",
        "outlook",
        "pretrain",
        "probe",
        "prober",
        "profile",
        "rank",
        "setup",
        "team",
        "trainer",
        "training_trace",
        "transfer",
        "views",
        "watch",
        "weights_source",
    )
}


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports_of(path: Path) -> set[str]:
    return {name for node in ast.walk(parsed(path)) for name in imported_by(node, path)}


def imported_by(node: ast.AST, path: Path) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, f"{path.name}: imports are written out in full"
        return {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


@functools.cache
def loaded_by(path: Path) -> set[str]:
    """What importing a file imports: not what its functions do, nor what only types need."""
    found: set[str] = set()
    left: list[ast.AST] = [parsed(path)]
    while left:
        node = left.pop()
        found |= imported_by(node, path)
        of_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr) and not of_types:
            left += ast.iter_child_nodes(node)
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def rooms_imported(path: Path) -> set[str]:
    inside = {name.removeprefix("cssl_cli.") for name in imports_of(path) if name.startswith("cssl_cli.")}
    return {room(name) for name in inside if room(name) in ORDER}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(module) for module in modules()} == set(ORDER)


def test_rooms_import_downwards_only() -> None:
    upwards = [
        (module, other)
        for module, path in modules().items()
        for other in rooms_imported(path)
        if ORDER.index(other) > ORDER.index(room(module))
    ]
    assert upwards == []


def test_the_numeric_core_knows_no_screen_and_no_settings_files() -> None:
    found = [
        (module, used)
        for module, path in modules().items()
        if room(module) in CORE
        for used in imports_of(path)
        if any(used == name or used.startswith(f"{name}.") for name in FORBIDDEN_IN_CORE)
        and not used.startswith(RANGES)
    ]
    assert found == []


@pytest.mark.parametrize(("package", "shared"), [("methods", set()), ("theory", THEORY_SHARED | {"analysis"})])
def test_methods_and_terms_do_not_import_each_other(package: str, shared: set[str]) -> None:
    parts = {
        name.removeprefix(f"{package}."): path for name, path in modules().items() if name.startswith(f"{package}.")
    }
    terms = {name for name, path in parts.items() if path.stem != "__init__"} - shared
    for name in terms:
        imported = imports_of(parts[name])
        used = {other for other in terms - {name} if f"cssl_cli.{package}.{other}" in imported}
        assert used == set(), f"{name} imports {used}"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_core_loads_no_screen_library() -> None:
    """Not by way of the rooms below it either."""
    found = modules()
    seen: set[str] = set()
    left = {module for module in found if room(module) in CORE}
    while left:
        module = left.pop()
        seen.add(module)
        names = {name.removeprefix("cssl_cli.") for name in loaded_by(found[module])}
        with_packages = {
            ".".join(name.split(".")[: number + 1]) for name in names for number in range(name.count(".") + 1)
        }
        left |= (with_packages & found.keys()) - seen
        assert not with_packages & {"typer", "rich", "yaml", "pydantic"}, module
    assert {"features.extractor", "errors", "recipe.ranges"} <= seen


def test_the_command_line_and_reports_load_without_torch() -> None:
    light = [module for module in modules() if room(module) not in CORE and module not in NEEDS_TORCH]
    code = "import importlib, sys\n"
    code += "".join(f"importlib.import_module('cssl_cli.{module}')\n" for module in light if module != "__main__")
    code += "print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_torchvision_is_loaded_where_it_is_used_only() -> None:
    """It takes as long to import as torch."""
    loading = {
        module
        for module, path in modules().items()
        if {"torchvision", "timm"} & {n.split(".")[0] for n in loaded_by(path)}
    }
    assert loading == {"nn.encoders.torchvision_models"}
