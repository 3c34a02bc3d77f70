"""The figures of an analysis: their names, and what is written in them."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    "concentration",
    "r_epsilon",
    "class_centers",
    "projection",
    "training",
    "certificate",
    "theorem_1",
    "spectrum",
}
OF_CLASSES = ("class_centers", "projection")
NAMES_DRAWN = {10: NAMES, 40: {*OF_CLASSES, "training"}}  # by the number of classes
BOTH = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


def names_of(paths: list[Path]) -> set[str]:
    return {path.stem for path in paths if path.suffix == ".png"}


def texts_of(path: Path) -> str:
    """What is written in an SVG: matplotlib keeps each text as a comment beside its outlines."""
    comments = ElementTree.TreeBuilder(insert_comments=True)
    tree = ElementTree.parse(path, ElementTree.XMLParser(target=comments))
    return html.unescape("\n".join(str(node.text) for node in tree.iter() if node.tag is ElementTree.Comment))


def said_by(make: Callable[[Any], Any], content: Any) -> str:
    """What is written in a figure of `content` that is made and not drawn, its lines as one."""
    from matplotlib.text import Text

    from cssl_cli.report.figures.style import drawing

    with drawing():
        figure = make(content)
    assert figure is not None
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())
