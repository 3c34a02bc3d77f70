"""Figures inside a page: text that can be read and searched, names as text, identifiers that do not meet."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

from cssl_cli.report.document.blocks import Figure
from cssl_cli.report.document.drawn import SVG, drawn
from cssl_cli.report.figures.class_centers import class_centers
from cssl_cli.report.figures.projection import projection
from cssl_cli.report.figures.r_epsilon import r_epsilon
from tests.report.document.conftest import HOSTILE
from tests.support.html_pages import Page
from tests.support.synthetic_analysis import analysis


def svg_of(draw: Any, name: str = "one") -> str:
    found = drawn(Figure(name, draw))
    assert found is not None
    return found.svg


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")]


def test_names_of_classes_are_text() -> None:
    names = [name for name in HOSTILE if len(name) <= 16]
    content = analysis(len(names)) | {"class_names": names}
    svg = svg_of(partial(class_centers, content))
    shown = texts(svg)
    assert {"[red]", "=cmd('/c calc')", "a|b"} <= set(shown)
    page = Page(f"<p>{svg}</p>")
    assert "[red]" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", svg)


def test_an_element_in_a_name_is_none_of_the_figure() -> None:
    content = analysis(2) | {"class_names": ["<script>", "</svg><b>"]}
    svg = svg_of(partial(class_centers, content))
    assert {"<script>", "</svg><b>"} <= set(texts(svg))
    assert not {tag for tag, _ in Page(svg).tags} & {"script", "b"}


def test_two_figures_share_no_identifier_and_refer_to_their_own() -> None:
    content = analysis(3)
    first, second = (Page(svg_of(partial(r_epsilon, content), name)) for name in ("one", "two"))
    assert first.ids()
    assert not set(first.ids()) & set(second.ids())
    for page in (first, second):
        used = re.findall(r"url\(#([^)]+)\)", " ".join(" ".join(attributes.values()) for _, attributes in page.tags))
        used += [a["xlink:href"][1:] for _, a in page.tags if a.get("xlink:href", "").startswith("#")]
        assert set(used) == set(page.ids())


def test_nothing_of_a_figure_reaches_the_page() -> None:
    page = Page(svg_of(partial(r_epsilon, analysis(3))))
    assert not {tag for tag, _ in page.tags} & {"style", "metadata", "script"}
    assert page.tags[0][1]["viewbox"]
    assert "width" not in page.tags[0][1]


def test_many_points_become_a_picture() -> None:
    few, many = (svg_of(partial(projection, analysis(10, number))) for number in (1000, 5000))
    assert "data:image/png" not in few
    assert many.count("data:image/png") == 1
    assert len(many) < 2 * len(few)


def test_nothing_to_draw() -> None:
    assert drawn(Figure("none", lambda: None)) is None
