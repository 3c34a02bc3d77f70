"""What the rows of a table share, and what that leaves of their rank correlations."""

from __future__ import annotations

import io
import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cssl_cli.recipe import load_recipe
from cssl_cli.report.compare.catalogue import BY_NAME
from cssl_cli.report.compare.prediction import prediction_content, screen
from cssl_cli.report.compare.rows import rows_of
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.sweep.sweep import load_sweep
from tests.support.synthetic_members import random_member

METHODS = ("simclr", "moco")


def of_views(methods: tuple[str, ...], overrides: dict[str, list[str]], left_out: str = "") -> dict[str, Any]:
    """What is said of a sweep of methods, each under the augmentations that the overrides make."""
    numbers = random.Random(5)
    members = [
        random_member(
            f"{method}-{name}", 0, numbers, method=method, recipe=load_recipe("simclr-shapes", [*changes, *other])
        )
        for method, other in zip(methods, ([], ["method.temperature=0.7"], ["method.temperature=0.9"]), strict=False)
        for name, changes in overrides.items()
        if f"{method}-{name}" != left_out
    ]
    return screen(rows_of(members), "linear")


STRENGTHS = {f"s{strength}": [f"augment.jitter.strength={strength}"] for strength in (0.25, 0.5, 1)}


def test_rows_that_share_their_augmentations_are_not_taken_for_independent() -> None:
    found = of_views(METHODS, STRENGTHS)
    assert found["scopes"]["pooled"]["sets"] == found["scopes"]["within"]["sets"] == 3
    assert found["scopes"]["pooled"]["parts"] is None  # each set has a strength of its own
    assert not any("not independent" in warning for warning in found["warnings"])
    incomplete = of_views(METHODS, STRENGTHS, left_out=f"{METHODS[1]}-s0.5")
    (warning,) = (warning for warning in incomplete["warnings"] if "not independent" in warning)
    assert "5 rows share 3 sets of augmentations" in warning
    assert "sets" not in incomplete["scopes"]["pooled"]
    assert incomplete["terms"][0]["pooled"]["tau"]["interval"] is None
    for others in (of_views(("simclr",), STRENGTHS), of_views(("simclr", "moco", "byol"), {"full": []})):
        assert "sets" not in others["scopes"]["pooled"]  # a set a row; methods alone differ
        assert not any("not independent" in warning for warning in others["warnings"])


def without(*operations: str) -> list[str]:
    return [f"~augment.{name}" for name in operations]


def test_sets_that_share_operations_are_found_where_nobody_has_said_so() -> None:
    nested = {"full": [], "crop-color": without("flip", "blur"), "crop": without("flip", "blur", "jitter", "gray")}
    some = {"full": [], "no-blur": without("blur"), "no-flip": without("flip")}
    for sets, why in ((nested, "of which no two may change places"), (some, "which the sweep file does not say")):
        for methods in (("simclr",), METHODS):
            found = of_views(methods, sets)
            (warning,) = (warning for warning in found["warnings"] if "not independent" in warning)
            assert warning.startswith("The rows are built from shared augmentations, ")
            assert why in warning
            assert found["scopes"]["pooled"].get("parts") is None
    names = ("crop", "flip", "jitter", "gray", "blur")
    pairs = {"-".join(left): without(*(set(names) - set(left))) for left in itertools.combinations(names, 2)}
    found = of_views(("simclr",), pairs)
    assert (found["scopes"]["pooled"]["parts"], found["scopes"]["pooled"]["num_orders"]) == (5, 120)
    assert any(warning.startswith("The rows are all sets of 2 of the same 5") for warning in found["warnings"])


@pytest.mark.parametrize(("name", "parts"), [("paper-pairs", 5), ("paper-pairs-small", 5), ("paper-richness", None)])
def test_the_parts_that_a_sweep_file_declares_are_those_of_its_rows(name: str, parts: int | None) -> None:
    numbers = random.Random(7)
    members = [
        replace(random_member(one.row, one.seed, numbers, method=one.axes.get("method")), member=one)
        for one in load_sweep(name).members
    ]
    found = screen(rows_of(members), "linear")
    assert found["scopes"]["pooled"].get("parts") == parts
    said = "The rows are built from shared parts, of which no two may change places"
    assert any(warning.startswith(said) for warning in found["warnings"]) == (parts is None)
    if parts == 5:
        assert found["scopes"]["pooled"]["smallest_p"] >= 1 / 120
    assert all(entry["pooled"]["tau"]["interval"] is None for entry in found["terms"] if "tau" in entry["pooled"])
    file, rows = io.StringIO(), rows_of(members)
    out = Console(file=file, width=120, highlight=False, markup=False)
    print_prediction(out, rows, prediction_content(rows, ["linear"]), BY_NAME["linear"])
    text = " ".join(file.getvalue().split())
    assert ("against every order of the 5 parts that rows are built from being as likely" in text) == (parts == 5)
    assert "[" not in text.partition("Kendall")[0]


STRENGTH = "  augment.jitter.strength: [0.25, 0.5, 1]\n"
CROSSED = {
    # Two axes that both change the augmentations: rows are crossed, though each has views of its own.
    STRENGTH + "  augment.crop.scale: [[0.08, 1], [0.2, 1], [0.4, 1], [0.6, 1]]\n": (7, None, 1, 6 * 24),
    STRENGTH + "  method: {simclr: {}, vicreg: {method: {name: vicreg}}}\n": (None, 3, 2, 6 * 2),
    STRENGTH + "  train.epochs: [2, 3, 4]\n": (None, 3, 3, 6 * 6),
    "  train.epochs: [2, 3, 4]\n  method: {simclr: {}, vicreg: {method: {name: vicreg}}}\n": (None, 3, 2, 6 * 2),
    # Three: of sets, methods, and lengths of training.
    STRENGTH + "  train.epochs: [2, 3]\n  method: {simclr: {}, vicreg: {method: {name: vicreg}}}\n": (
        5,
        6,
        2,
        6 * 2 * 2,
    ),
    STRENGTH: (None, None, None, None),
    "  method: {simclr: {}, vicreg: {method: {name: vicreg}}, byol: {method: {name: byol}}}\n": (
        None,
        None,
        None,
        None,
    ),
}


@pytest.mark.parametrize(("axes", "expected"), CROSSED.items())
def test_the_axes_say_how_rows_are_crossed(axes: str, expected: tuple[int | None, ...], tmp_path: Path) -> None:
    """The number of parts, of sets, of columns, and of the orders that leave likeness along each axis as it is."""
    (tmp_path / "sweep.yaml").write_text(f"name: s\nbase: simclr-shapes\naxes:\n{axes}")
    numbers = random.Random(11)
    members = [
        replace(random_member(one.row, one.seed, numbers), member=one)
        for one in load_sweep(str(tmp_path / "sweep.yaml")).members
    ]
    found = screen(rows_of(members), "linear")
    parts, sets, columns, num_orders = expected
    scope = found["scopes"]["pooled"]
    assert scope.get("parts") == parts
    assert scope.get("sets") == (sets if parts is None or sets else len(members))
    assert (scope.get("columns"), scope.get("num_orders")) == (columns, num_orders)
    assert not any("not independent" in warning for warning in found["warnings"])
