"""The figures of an analysis: their names, and what is written in them."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree
from pathlib import Path

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
BOTH = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}


def names_of(paths: list[Path]) -> set[str]:
    return {path.stem for path in paths if path.suffix == ".png"}


def texts_of(path: Path) -> str:
    """What is written in an SVG: matplotlib keeps each text as a comment beside its outlines."""
    comments = ElementTree.TreeBuilder(insert_comments=True)
    tree = ElementTree.parse(path, ElementTree.XMLParser(target=comments))
    return html.unescape("\n".join(str(node.text) for node in tree.iter() if node.tag is ElementTree.Comment))
