"""The house rules: rooms import downwards only, and the numeric core knows no screen and no files of settings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cssl_cli

PACKAGE = Path(cssl_cli.__file__).parent

# From the ground up; a room may import the rooms before it (and its own parts).
ORDER = [
    "escape",
    "errors",
    "files",
    "checksums",
    "sealed_folder",
    "paths",
    "progress",
    "streams",
    "signals",
    "randomness",
    "recipe",
    "sweep_file",
    "claimed_rows",
    "sweep_checks",
    "members",
    "sweep",
    "selection",
    "memory",
    "data",
    "batches",
    "theta_ahead",
    "augment",
    "batch_norm",
    "recompute",
    "encoder",
    "machine",
    "allocator",
    "operators",
    "log_sum_exp",
    "off_diagonal",
    "flops",
    "methods",
    "optim",
    "step",
    "captured_step",
    "train",
    "geometry",
    "intervals",
    "rank_correlation",
    "paired_difference",
    "feature_precision",
    "features",
    "probe",
    "theory",
    "plot",
    "stored",
    "weights_file",
    "run_lock",
    "run_dir",
    "results_index",
    "pipeline",
    "workers",
    "launch",
    "console",
    "report",
    "terminal",
    "sweep_display",
    "measure",
    "guard",
    "cli",
    "__main__",
]
CORE = ORDER[ORDER.index("data") : ORDER.index("plot")]
FORBIDDEN_IN_CORE = {"typer", "rich", "yaml", "pydantic", "cssl_cli.recipe", "cssl_cli.sweep", "cssl_cli.run_dir"}
THEORY_SHARED = {
    "augmented_distance",
    "chains",
    "class_geometry",
    "class_overlap",
    "cliques",
    "conditions",
    "correlation_intervals",
    "error_bounds",
    "estimate",
    "image_pairs",
    "main_parts",
    "spectral",
    "subsets",
    "table",
    "theorem_2",
    "threshold_grid",
    "threshold_search",
}
TORCH_FREE = {
    "escape",
    "memory",
    "errors",
    "files",
    "checksums",
    "sealed_folder",
    "paths",
    "progress",
    "streams",
    "signals",
    "console",
    "guard",
    "recipe",
    "selection",
    "sweep_file",
    "claimed_rows",
    "sweep_checks",
    "members",
    "sweep",
    "rank_correlation",
    "paired_difference",
    "report",
    "stored",
    "weights_file",
    "run_lock",
    "run_dir",
    "results_index",
    "workers",
    "launch",
    "terminal",
    "sweep_display",
    "measure",
    "cli",
    "__main__",
}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found[name] = path
    return found


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name}: imports are written out in full"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str:
    return module.split(".")[0]


def rooms_imported(path: Path) -> set[str]:
    inside = {name.removeprefix("cssl_cli.") for name in imports_of(path) if name.startswith("cssl_cli.")}
    return {room(name) for name in inside if room(name) in ORDER}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(module) for module in modules()} == set(ORDER)


@pytest.mark.parametrize("module", sorted(modules()))
def test_rooms_import_downwards_only(module: str) -> None:
    upwards = [other for other in rooms_imported(modules()[module]) if ORDER.index(other) > ORDER.index(room(module))]
    assert upwards == []


@pytest.mark.parametrize("module", sorted(module for module in modules() if room(module) in CORE))
def test_the_numeric_core_knows_no_screen_and_no_settings_files(module: str) -> None:
    imported = imports_of(modules()[module])
    found = {name for name in FORBIDDEN_IN_CORE for used in imported if used == name or used.startswith(f"{name}.")}
    assert found == set()


@pytest.mark.parametrize("package", ["methods", "theory"])
def test_methods_and_terms_do_not_import_each_other(package: str) -> None:
    # The shared parts of a package: what its files may build on.
    shared = {"methods": set(), "theory": THEORY_SHARED}[package]
    for path in (PACKAGE / package).glob("*.py"):
        if path.stem == "__init__":
            continue
        siblings = {file.stem for file in path.parent.glob("*.py")} - {"__init__"} - shared
        used = {name for name in siblings if any(i.startswith(f"cssl_cli.{package}.{name}") for i in imports_of(path))}
        assert used == set(), f"{path.name} imports {used}"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_core_loads_no_screen_library() -> None:
    core = [module for module in modules() if room(module) in CORE]
    code = "import importlib, sys\n"
    code += "".join(f"importlib.import_module('cssl_cli.{module}')\n" for module in core)
    code += "print([name for name in ('typer', 'rich', 'yaml', 'pydantic') if name in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_the_command_line_and_reports_load_without_torch() -> None:
    light = [module for module in modules() if room(module) in TORCH_FREE]
    code = "import importlib, sys\n"
    code += "".join(f"importlib.import_module('cssl_cli.{module}')\n" for module in light if module != "__main__")
    code += "print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
