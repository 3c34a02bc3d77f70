"""The table of terms: it says what is measured, and whatever stands in it is seen wherever it says so."""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

import cssl_cli
from cssl_cli.features.geometry import unit_norm
from cssl_cli.report.analysis import SECTION_PARTS
from cssl_cli.report.terms_reference import reference
from cssl_cli.runs.stored_analysis import SHAPES, _require_quantity
from cssl_cli.theory import terms
from cssl_cli.theory.analysis import Absent, Estimate, LossSettings, Pieces, analyze_table, measure
from cssl_cli.theory.concentration.refined_distance import QUANTITIES as REFINED
from cssl_cli.theory.concentration.sigma import QUANTITIES as CONCENTRATION
from cssl_cli.theory.concentration.star import QUANTITIES as STAR
from cssl_cli.theory.shown import Shown, rows_of, shown_in
from cssl_cli.theory.term import EVERYWHERE, Declared, In, Term
from tests.support.synthetic_members import CONTROL, estimate, member

Named = Callable[[str], ModuleType]

PIXELS = {"theorem_1": {"pixel_rho", "pixel_delta", "pixel_epsilon"}}  # which take the encoder and the pixels, too
ROOT = Path(__file__).parents[2]


def analysis(only: tuple[str, ...] | None = None) -> dict[str, dict[str, Any]]:
    """The terms of random features of three classes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(8)
    raw = torch.randn(3, 1, 6, generator=random)[labels] + 0.5 * torch.randn(24, 4, 6, generator=random)
    return analyze_table(
        unit_norm(raw.double()),
        labels,
        class_names=["a", "b", "c"],
        epsilons=(0.5, 1.0),
        bootstrap=20,
        loss=LossSettings(temperature=0.5, batch_size=8),
        generator=random,
        raw=raw,
        theta=torch.rand(24, 3, 2, generator=random),
        baseline=raw.flip(0),
        only=only,
    )


# ---------------------------------------------------------------------- what is declared is what is measured
def test_every_quantity_that_is_measured_is_declared_with_its_direction_of_error() -> None:
    measured = analysis()
    declared = {term.name: term for term in terms.TERMS if term.of == "features"}
    assert list(measured) == list(declared)
    for name, quantities in measured.items():
        rows = {row.name: row for row in declared[name].quantities}
        assert set(quantities) | PIXELS.get(name, set()) == set(rows), name
        for quantity, found in quantities.items():
            assert isinstance(found, Absent) or found.errs == rows[quantity].errs, (name, quantity)


def test_every_quantity_has_the_form_that_is_declared() -> None:
    sizes = {"classes": 3, "views": 4, "further views": 3, "epsilons": 2}
    for name, quantities in analysis().items():
        of_group = dict(sizes)
        for quantity, found in quantities.items():
            if isinstance(found, Estimate):
                _require_quantity(json.loads(json.dumps(found.to_dict())), SHAPES[name][quantity], of_group, quantity)


def test_what_is_measured_in_distances_is_declared() -> None:
    of_distance = {term.name: {row.name for row in term.quantities} for term in terms.TERMS if term.of == "distance"}
    assert of_distance == {"concentration": set(CONCENTRATION), "star": set(STAR), "refined_distance": set(REFINED)}


@pytest.mark.parametrize("term", terms.TERMS, ids=lambda term: term.name)
def test_a_row_of_the_table_holds_together(term: Term) -> None:
    assert callable(term.load())
    assert term.section in terms.SECTIONS
    pieces = set(Pieces.__dataclass_fields__) | set(vars(Pieces))
    assert set(term.pieces.values()) <= pieces
    for row in term.quantities:
        shown = [row.shown, *row.also.values()]
        assert row.expected or not any(place & (In.SWEEP | In.CONTROLS) for place in shown), row.name
        assert not row.also or term.of == "distance"


def test_a_legend_calls_nothing_too_high_or_too_low_that_is_exact_for_the_table_only() -> None:
    """Fewer images make 1 − σ too small, fewer views too large: it errs one way for the images at hand only."""
    for term in terms.TERMS:
        for row in term.quantities:
            if row.errs == "exact for the table" and re.search("too (high|low)", row.meaning):
                assert "of these images too" in row.meaning, row.meaning


def test_names_outside_the_sections_are_told_apart() -> None:
    for place in In:
        names = [shown.name for shown in shown_in(place)]
        if place is not In.SUMMARY:  # a row there is of several encoders and distances
            assert len(names) == len(set(names)), place
    in_columns, in_sweeps = ({shown.name for shown in shown_in(place)} for place in (In.COLUMN, In.SWEEP))
    assert in_columns < in_sweeps


def test_rows_stand_where_they_are_declared_or_after_another() -> None:
    def labels(*tables: str) -> list[str]:
        return [row.label for _, row in rows_of(*tables)]

    own = labels("own centres")
    assert own[own.index("Theorem A") + 1] == "   with connected parts"
    outside = labels("outside centres")
    assert outside[2:5] == ["1 labelled image a class", "   Cantelli: ≤", "   Luthra et al.: ≤"]
    assert labels("InfoNCE", "NT-Xent") == [*labels("InfoNCE"), *labels("NT-Xent")]


def test_every_table_is_printed_by_its_section() -> None:
    tables: dict[str, set[str]] = {}
    for term in terms.TERMS:
        for row in term.quantities:
            table = term.table_of(row)
            if table is not None and table != term.section:
                tables.setdefault(term.section, set()).add(table)
    for section, named in tables.items():
        source = Path(sys.modules[SECTION_PARTS[section].__module__].__file__ or "").read_text("utf-8")
        assert {table for table in named if f'"{table}"' not in source} == set()


def test_a_term_that_asks_for_what_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text("def asking(nothing=None): ...  # nor is its default taken\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="asking:asking asks for nothing"):
        measure(Term("asking", "companions", "asking:asking", ()), Pieces(*[None] * 9))  # type: ignore[arg-type]


def test_the_reference_is_that_of_the_table() -> None:
    """Written by `python -m cssl_cli.report.terms_reference > docs/terms.md`."""
    assert (ROOT / "docs" / "terms.md").read_text("utf-8") == reference()


# ---------------------------------------------------------------------- one more
KURTOSIS = '''
from cssl_cli.theory.estimate import Estimate


def kurtosis(table, class_weights, *, power):
    """Mean fourth power of the coordinates, `kurtosis`."""
    return {"kurtosis": Estimate((table.features**power).mean().item(), "mean", "consistent", table.stored_sample)}
'''
ROW = Term(
    "kurtosis",
    "companions",
    "extra_terms.kurtosis:kurtosis",
    (
        Declared(
            "kurtosis",
            "consistent",
            "kurtosis",
            shown=EVERYWHERE,
            head="kurt.",
            meaning="the mean fourth power",
            expected=1,
        ),
    ),
    settings={"power": 4},
)


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Named:
    """Modules of the report by name, with one term more: a file in a package of its own, and a row."""
    (tmp_path / "extra_terms").mkdir()
    (tmp_path / "extra_terms" / "__init__.py").touch()
    (tmp_path / "extra_terms" / "kurtosis.py").write_text(KURTOSIS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(terms, "TERMS", (*terms.TERMS, ROW))
    monkeypatch.setattr(cssl_cli, "report", cssl_cli.report)
    for name in [name for name in sys.modules if name.startswith("cssl_cli.report")]:
        monkeypatch.delitem(sys.modules, name)

    def named(name: str) -> ModuleType:
        return importlib.import_module(f"cssl_cli.report.{name}")

    yield named  # type: ignore[misc]
    for name in [name for name in sys.modules if name.startswith("cssl_cli.report")]:
        del sys.modules[name]  # monkeypatch puts those of before in their place


def printed(show: Callable[[Console], None]) -> str:
    out = Console(file=io.StringIO(), width=250)
    show(out)
    return out.file.getvalue()  # type: ignore[attr-defined]


def measured_member(row: str, value: float, **options: Any) -> Any:
    found = member(row, alignment=0.3, rankme=30.0, accuracies={"linear": value / 10}, **options)
    assert found.analysis is not None
    trained = {**found.analysis["trained"], "kurtosis": {"kurtosis": estimate(value)}}
    return replace(found, analysis={**found.analysis, "trained": trained})


def test_one_file_and_one_row_make_a_term_that_is_seen_everywhere(extended: Named) -> None:
    # measured, and in --json by its name
    found = analysis(only=("kurtosis",))["kurtosis"]["kurtosis"]
    assert not isinstance(found, Absent)
    assert found.value > 0

    # `cssl analyze`: summary, legend, section
    content = {
        "settings": {"epsilons": [0.5], "deltas": [0.5], "num_views": 4, "classes": None},
        **{"num_images": 24, "part": "test", "class_names": ["a", "b", "c"], "concentration": {}},
        "trained": {"kurtosis": {"kurtosis": found.to_dict()}},
    }
    shown = f"{found.value:.3f}"
    summary = {label: cells for label, _, cells in extended("summary").term_rows(content)}
    assert summary["kurtosis"] == [shown, "–", "–"]
    assert "Kurtosis the mean fourth power" in extended("summary").caption(
        content, None
    )  # the only term of this analysis
    section = printed(lambda out: extended("analysis").print_section(out, content, "companions"))
    assert f"kurtosis consist. {shown} – –" in " ".join(section.split())

    # sweeps: columns, table.csv, --versus, legend, rank correlations, claims, figure
    members = [measured_member(f"row{value}", float(value)) for value in range(1, 7)]
    members.append(measured_member("faded", 9.0, recipe=CONTROL))
    rows = extended("compare.rows").rows_of(members)
    table = printed(lambda out: extended("compare.tables.rows").print_table(out, rows))
    assert "kurt. ↑" in table
    assert "kurt. the mean fourth power" in " ".join(table.split())
    assert rows[2].mean("kurtosis") == 3.0
    predicted = extended("compare.prediction").prediction_content(rows)
    (entry,) = [one for one in predicted["correlations"]["linear"]["terms"] if one["term"] == "kurtosis"]
    assert entry["pooled"]["tau"]["value"] == 1
    assert entry["pooled"]["as_predicted"] is True
    (control,) = predicted["controls"]
    assert "kurtosis" in {one["term"] for one in control["accuracies"]["linear"]["terms"]}
    catalogue = extended("compare.catalogue")
    assert catalogue.LABELS["kurtosis"] == "kurtosis ↑"
    assert "kurtosis" in catalogue.FIGURE_TERMS
    assert "kurtosis" in extended("compare.versus").QUANTITIES
    assert extended("compare.named_quantities").require_quantity("kurtosis", "--sort") == "kurtosis"

    # control encoders
    judged = extended("control_encoders").BY_NAME["kurtosis"]
    assert judged.label(content["settings"]) == "kurtosis ↑"
    assert judged.pair(content, "hash")[0].value == found.value

    # docs/terms.md
    assert "### `kurtosis`" in extended("terms_reference").reference()
    assert "Mean fourth power of the coordinates" in extended("terms_reference").reference()


def test_what_an_older_analysis_does_not_have_gets_no_row() -> None:
    from cssl_cli.report.quantities import quantities_table

    old: dict[str, Any] = {"trained": {"uniformity": {"uniformity": estimate(-1.5)}}}
    text = printed(lambda out: quantities_table(out, old, "Companion measures", "companions"))
    assert "uniformity" in text
    assert "RankMe" not in text
    assert printed(lambda out: quantities_table(out, {}, "Companion measures", "companions")) == ""


def test_a_quantity_is_found_by_its_names() -> None:
    from cssl_cli.theory.shown import declared

    found = declared("spread", "ratio")
    assert isinstance(found, Shown)
    assert (found.name, found.called, found.declared.parts) == ("ratio", "within / between", ("within", "between"))
