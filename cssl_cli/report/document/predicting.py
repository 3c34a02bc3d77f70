"""Which terms predict the accuracy: what can be told from chance at once, all the rest behind a line to click on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cssl_cli.report.compare.catalogue import Column
from cssl_cli.report.compare.rows import Row
from cssl_cli.report.compare.tables.correlations import ALL_OF_THEM
from cssl_cli.report.compare.tables.prediction import print_prediction
from cssl_cli.report.document.blocks import Block, Folded, Paragraph
from cssl_cli.report.document.page import Page


def prediction_blocks(rows: Sequence[Row], predicted: Mapping[str, Any], accuracy: Column) -> list[Block]:
    """What the terminal prints, then what it prints with --correlations; empty where no row has the accuracy."""
    if accuracy.name not in predicted["correlations"]:
        return []
    told, everything = Page(), Page()
    print_prediction(told, rows, predicted, accuracy, every=False)
    print_prediction(everything, rows, predicted, accuracy, every=True)
    if told.blocks == everything.blocks:
        return everything.blocks
    return [*map(_on_a_page, told.blocks), Folded("All terms, over rows and along each axis", everything.blocks)]


def _on_a_page(block: Block) -> Block:
    """A page has no options: all correlations are below."""
    if not isinstance(block, Paragraph):
        return block
    return replace(block, text=block.text.replace(ALL_OF_THEM, "all of them are below."))
