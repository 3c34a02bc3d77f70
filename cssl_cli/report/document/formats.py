"""The main table of a report for a paper or another program: Markdown, CSV, LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping

from cssl_cli.report.compare.content import csv_cell
from cssl_cli.report.document.blocks import Cell, Document, Grid

# Letters of our labels that the fonts of LaTeX may lack.
_SYMBOLS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "½": r"$\frac{1}{2}$",
    "‖": r"$\Vert$",
    "²": "$^2$",
    "₀": "$_0$",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "ψ": r"$\psi$",
    "–": "--",
    "…": r"\ldots{}",
    **{letter: f"\\{letter}" for letter in "&%$#_"},
}
_IN_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$#])")


def as_markdown(document: Document) -> str:
    """The main table with pipes."""
    grid = _table(document)
    lines = ["| " + " | ".join(_markdown(head.title) for head in grid.heads) + " |"]
    lines.append("|" + "|".join("---:" if head.numeric else ":---" for head in grid.heads) + "|")
    lines += ["| " + " | ".join(_markdown(_said(cell)) for cell in line.cells) + " |" for line in grid.lines]
    return "\n".join(lines) + "\n"


def as_latex(document: Document) -> str:
    """The main table as a tabular with the rules of booktabs, to be put into a table."""
    grid = _table(document)
    columns = "".join("r" if head.numeric else "l" for head in grid.heads)
    lines = [r"% \usepackage{booktabs}", f"\\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_row(head.title for head in grid.heads), r"\midrule"]
    for position, line in enumerate(grid.lines, start=1):
        lines.append(_row(_said(cell) for cell in line.cells))
        if line.ends and position < len(grid.lines):
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_csv(document: Document) -> str:
    """The main table with every digit, safe in a spreadsheet."""
    if document.csv is not None:
        return document.csv
    grid = _table(document)
    spread = [any(line.cells[column].spread for line in grid.lines) for column in range(len(grid.heads))]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = [
        title
        for head, has_spread in zip(grid.heads, spread, strict=True)
        for title in (head.title, *([f"{head.title} interval"] if has_spread else []))
    ]
    writer.writerow(map(csv_cell, heads))
    for line in grid.lines:
        cells = []
        for cell, has_spread in zip(line.cells, spread, strict=True):
            cells += [cell.text if cell.value is None else cell.value, *([cell.spread] if has_spread else [])]
        writer.writerow(map(csv_cell, cells))
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[Document], str]] = {"md": as_markdown, "csv": as_csv, "latex": as_latex}


def _table(document: Document) -> Grid:
    return document.table or Grid((), ())


def _said(cell: Cell) -> str:
    return f"{cell.text} {cell.spread}".rstrip()


def _markdown(text: str) -> str:
    return _IN_MARKDOWN.sub(r"\\\1", text)


def _row(texts: Iterable[str]) -> str:
    return " & ".join(_latex(text) for text in texts) + r" \\"


def _latex(text: str) -> str:
    return "".join(_SYMBOLS.get(letter, letter) for letter in text)
