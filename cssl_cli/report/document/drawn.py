"""Figures as SVG elements inside a page: text as text, identifiers of their own, nothing that reaches outside."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any, NamedTuple

from cssl_cli.report.document.blocks import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
MOST_POINTS = 1500  # of one pair of axes that are drawn one by one; more become a picture
FONTS = "'DejaVu Sans', Verdana, 'Bitstream Vera Sans', sans-serif"  # of letters as wide as those of the first
_DPI = 150  # of such pictures
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DIGITS = re.compile(r"(\.\d\d)\d+")  # finer than a hundredth of a point
_STYLE = "stroke-linejoin:round;stroke-linecap:butt"  # what matplotlib says of all elements, here those of a page


class Drawn(NamedTuple):
    """A figure as the text of an SVG element; `title` is read to those who do not see it."""

    name: str
    title: str
    svg: str


def drawn(asked: Figure) -> Drawn | None:
    """The figure; None if there is nothing to draw."""
    from cssl_cli.report.figures.style import KINDS, drawing, fix_layout

    with drawing():
        import matplotlib

        figure = asked.draw()
        if figure is None:
            return None
        title = next((text.get_text() for text in figure.texts), asked.name)
        if figure.get_layout_engine() is not None:  # else it was laid out for a file
            fix_layout(figure)
        _rasterize(figure)
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(buffer, format="svg", dpi=_DPI, metadata=KINDS["svg"])
    return Drawn(asked.name, _without_formulas(title), _embedded(buffer.getvalue(), asked.name))


def _rasterize(figure: Any) -> None:
    """Have the points of axes that hold many drawn as one picture."""
    for axes in figure.axes:
        layers = {layer: len(layer.get_offsets()) for layer in axes.collections}
        layers |= {line: len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None"}
        if sum(layers.values()) > MOST_POINTS:
            for layer, count in layers.items():
                layer.set_rasterized(count > 1)


def _without_formulas(title: str) -> str:
    return re.sub(r"[${}\\]", "", title)


def _embedded(svg: bytes, name: str) -> str:
    """The root element, for a page in which others like it stand."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    used = {reference for element in root.iter() for reference in _references(element)}
    for element in root.iter():
        _rename(element, name, used)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("style", _STYLE)
    root.set("role", "img")
    root.set("aria-labelledby", f"figure-{name}")
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: Any) -> Iterator[str]:
    for attribute, value in element.attrib.items():
        yield from _REFERENCE.findall(value)
        if attribute == f"{{{XLINK}}}href" and value.startswith("#"):
            yield value[1:]


def _rename(element: Any, name: str, used: set[str]) -> None:
    """Identifiers that are referred to begin with the figure's name; the others go."""
    if (own := element.attrib.pop("id", None)) in used:
        element.set("id", f"{name}-{own}")
    for attribute, value in list(element.attrib.items()):
        if attribute in ("d", "x", "y"):
            element.set(attribute, _DIGITS.sub(r"\1", value))
        elif attribute == f"{{{XLINK}}}href" and value.startswith("#"):
            element.set(attribute, f"#{name}-{value[1:]}")
        elif attribute == "style" and "font" in value:
            element.set(attribute, re.sub(r"'DejaVu Sans'(, *('[^']*'|[\w-]+))*", FONTS, value))
        elif "url(#" in value:
            element.set(attribute, _REFERENCE.sub(rf"url(#{name}-\1)", value))
