"""Keeping the page of a report: written whole, and only where it would differ from the one that is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cssl_cli.errors import CsslError, RunError, escaped_text, unknown_name
from cssl_cli.host.files import read_bytes, replacing
from cssl_cli.report.document.blocks import Document
from cssl_cli.report.document.formats import FORMATS
from cssl_cli.report.document.html import MARK, digest, render

PAGE = "report.html"
REMEDY = "Free some space or make the folder writable, or leave the page out with --no-html."
_LARGEST = 1 << 28  # bytes; a larger file is none of ours
_MARKED = re.compile(rb'<meta name="%s" content="(\w+)">' % MARK.encode())


def write_page(document: Document, path: Path, remedy: str = REMEDY) -> None:
    """Write the page, unless the one there is of the same content.

    Raises InputError or RunError if it cannot be written.
    """
    if not is_written(document, path):
        page = render(document).encode()
        with replacing(path, remedy) as partial:
            partial.write_bytes(page)


def in_format(document: Document, form: str) -> str:
    """The page, or the main table in another format; `InputError` for an unknown one."""
    if form == "html":
        return render(document)
    if form not in FORMATS:
        raise unknown_name("format", form, ["html", *FORMATS], where="format")
    return FORMATS[form](document)


def write_text(text: str, path: Path) -> None:
    """Write a report where it was asked for; raises InputError or RunError if that fails."""
    with replacing(path, "Give another --out FILE.") as partial:
        partial.write_text(text, encoding="utf-8")


def attempt(document: Callable[[], Document], path: Path) -> CsslError | None:
    """Make and write a page beside results that are safe already; the error, if that failed, instead of raising it."""
    try:
        write_page(document(), path)
    except CsslError as error:
        return error
    except Exception as error:  # a bug here must not cost the numbers
        what = f"the page was not made, by a fault of cssl itself: {type(error).__name__}: {error}"
        return RunError(
            escaped_text(what), where=str(path), remedy="The results are complete; --no-html leaves it out."
        )
    return None


def is_written(document: Document, path: Path) -> bool:
    """Whether there is a page of this content."""
    try:
        there = read_bytes(path, largest=_LARGEST)
    except OSError:
        return False
    found = _MARKED.search(there[:4096])
    return found is not None and found[1] == digest(document).encode() and there.endswith(b"</html>\n")
