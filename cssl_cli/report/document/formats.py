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
    '"': r"{\char34}",  # \textquotedbl is an error in the default encoding, OT1
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
# Symbols of several letters in the labels of our terms.
_MATHS = {"R_ε": r"$R_\varepsilon$", "μk·μl": r"$\mu_k\cdot\mu_l$", "d_A": "$d_A$", "d₀": "$d_0$"}
_IN_MATHS = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, _MATHS))})(?!\w)")
IN_PERCENT, NONE = ", %", "–"
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
    """The main table with every digit, shares as shares, safe in a spreadsheet."""
    if document.csv is not None:
        return document.csv
    grid = _table(document)
    columns = range(len(grid.heads))
    wide = [any(line.cells[column].interval for line in grid.lines) for column in columns]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    titles = [head.title.removesuffix(IN_PERCENT) for head in grid.heads]
    heads = [[title, *([f"{title} low", f"{title} high"] if wide[at] else [])] for at, title in enumerate(titles)]
    writer.writerow(csv_cell(title) for of_column in heads for title in of_column)
    for line in grid.lines:
        cells = [_with_ends(line.cells[column], wide[column]) for column in columns]
        if grid.in_percent:
            cells[0] = [line.cells[0].text.removesuffix(IN_PERCENT)]
        writer.writerow(csv_cell(cell) for of_column in cells for cell in of_column)
    return buffer.getvalue()


def _with_ends(cell: Cell, with_ends: bool) -> list[object]:
    value = ("" if cell.text == NONE else cell.text) if cell.value is None else cell.value
    return [value, *(cell.interval or ("", ""))] if with_ends else [value]


FORMATS: Mapping[str, Callable[[Document], str]] = {"md": as_markdown, "csv": as_csv, "latex": as_latex}


def _table(document: Document) -> Grid:
    return document.table or Grid((), ())


def _said(cell: Cell) -> str:
    return f"{cell.text} {cell.spread}".rstrip()


def _markdown(text: str) -> str:
    return _IN_MARKDOWN.sub(r"\\\1", text)


def _row(texts: Iterable[str]) -> str:
    text = " & ".join(_latex(text) for text in texts) + r" \\"
    return f"{{}}{text}" if text.startswith(("[", "*")) else text  # the row before would take it for an option


def _latex(text: str) -> str:
    parts = _IN_MATHS.split(text)  # every second one is a symbol
    return "".join(_MATHS.get(part) or "".join(_SYMBOLS.get(letter, letter) for letter in part) for part in parts)
