"""The page in a real browser: what is read there is --json's, sorted without scripts, and fits a telephone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cssl_cli.errors import escaped
from cssl_cli.report.document.html import render
from cssl_cli.report.document.of_run import RunFiles, document_of_run
from cssl_cli.report.document.of_sweep import document_of_sweep
from cssl_cli.report.figures import figures
from cssl_cli.sweep.run import MemberResult
from cssl_cli.sweep.sweep import Sweep
from tests.support.browser import BROWSER, ask

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="there is no browser: neither chromium nor google-chrome"),
]

# Rows from top to bottom, as they are drawn; what is cut at each width; what was asked of anyone.
LOOK = """
const rows = () => [...page.querySelectorAll("table.sort")[0].querySelectorAll("tbody tr")]
  .map(row => [row.getBoundingClientRect().top, row.cells[0].innerText.split("\\n")[0], row.cells[1].innerText])
  .sort((one, other) => one[0] - other[0]).map(row => row.slice(1))
const said = {text: page.body.innerText, title: page.title, first: rows()}
const table = page.querySelectorAll("table.sort")[0]
for (const way of ["up", "down"]) { table.querySelector(`.${way}1`).click(); said[way] = rows() }
for (const one of page.querySelectorAll("details")) one.open = true
said.everything = page.body.innerText
said.cut = {}
for (const width of [400, 800, 1600]) {
  frame.width = width
  const inside = page.documentElement.clientWidth
  const out = [...page.body.querySelectorAll("*")].filter(
    one => one.getBoundingClientRect().right > inside + 1 && !one.closest(".scroll, pre, figure"))
  said.cut[width] = [page.documentElement.scrollWidth - inside, out.map(one => one.outerHTML.slice(0, 200))]
}
said.asked = view.performance.getEntriesByType("resource").map(one => one.name)
said.figures = [...page.querySelectorAll("figure svg")].map(one => [one.clientWidth, one.clientHeight, one.textContent])
said.policy = (() => { try { return view.eval("1") } catch (error) { return error.name } })()
return said
"""


def test_a_sweep(sweep: Sweep, results: list[MemberResult], content: dict[str, Any], tmp_path: Path) -> None:
    said = ask(render(document_of_sweep(sweep, results, content, tmp_path / "runs")), LOOK)
    means = {row["row"]: row["cells"]["linear"]["mean"] for row in content["rows"] if row["cells"]["linear"]}
    last = ["vicreg-0.004", "untrained encoder", "raw pixels"]
    for way, reverse in (("up", False), ("down", True)):
        names = [name for name, _ in said[way]]
        assert names[len(means) :] == last
        sorted_means = [means[name] for name in names[: len(means)]]
        assert sorted_means == sorted(means.values(), reverse=reverse)
    shown = {name: text.split("\n")[0].rstrip("*") for name, text in said["first"]}
    assert [name for name, _ in said["first"]][: len(content["rows"])] == [row["row"] for row in content["rows"]]
    assert {name: shown[name] for name in means} == {name: f"{100 * mean:.1f}" for name, mean in means.items()}
    assert said["title"] == "compared"
    assert "<script>alert(1)</script> is best" in said["text"]
    _require_whole(said)


def test_a_run_whose_classes_have_hostile_names(hostile_run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    of_names = {name: figures.ANALYSIS_FIGURES[name] for name in ("class_centers", "projection", "concentration")}
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", of_names)
    said = ask(render(document_of_run(hostile_run)), LOOK)
    assert hostile_run.analysis is not None
    for name in hostile_run.analysis["class_names"]:
        assert " ".join(escaped(name).split()) in " ".join(said["everything"].split())
    assert len(said["figures"]) >= len(of_names)
    assert all(width > 300 and height > 100 for width, height, _ in said["figures"])
    assert any("[red]" in text for _, _, text in said["figures"])
    _require_whole(said)


def _require_whole(said: dict[str, Any]) -> None:
    """Nothing stands out of the page at any width, nothing was asked of anyone, and no script may run."""
    assert said["cut"] == {width: [0, []] for width in ("400", "800", "1600")}
    assert said["asked"] == []
    assert said["policy"] == "EvalError"
