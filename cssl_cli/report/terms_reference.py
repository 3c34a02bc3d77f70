"""The reference of terms, docs/terms.md, generated from the table of terms and its functions' docstrings.

`python -m cssl_cli.report.terms_reference > docs/terms.md` writes it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cssl_cli
from cssl_cli.theory import terms
from cssl_cli.theory.shown import in_sections
from cssl_cli.theory.term import Declared, In, Term

HEAD = """# Terms

Every quantity of `cssl analyze`, and of the ranking of a sweep, by section. This file is made from the table of terms
(`cssl_cli/theory/terms.py`) by `python -m cssl_cli.report.terms_reference > docs/terms.md`; the mathematics is in
[theory.md](theory.md).

*Quantity* is the name in `--json` and analysis.json, under the name of its term. *Errs* is how the estimate errs
against the full augmentation and the population of images: *unbiased*; on average too *low* or too *high*; *either*,
few views pushing one way and few images the other; *consistent*, with a bias that vanishes as the images grow in
number; *exact for the table*, a fact about the stored images and views. *Better*: whether the theory expects better
encoders to have more (↑) or less (↓) of it. *Also in*: beside its section, the summary of an analysis, sweeps (tables,
rank correlations, claims, `--sort`) and the table of control encoders, with its name there.
"""
PLACES = {In.SUMMARY: "summary", In.SWEEP: "sweeps", In.CONTROLS: "controls"}
MEASURED_ON = {
    "features": "",
    "distance": " Measured in every distance of `analyze.distances`, which stands for DISTANCE.",
    "encoder": " Measured on the encoder itself.",
    "augmentation": " Measured in fixed features before any training, by sweeps with `rank`: in rank.json.",
}


def reference() -> str:
    """The whole file."""
    lines = [HEAD]
    for section in terms.SECTIONS:
        lines += [f"## {section.capitalize()}", ""]
        for term in in_sections():
            if term.section == section:
                lines += [*_of_term(term), ""]
    return "\n".join(lines).rstrip() + "\n"


def _of_term(term: Term) -> Iterator[str]:
    path, said = _documented(term)
    yield f"### `{term.name}`"
    yield ""
    yield f"{said}{MEASURED_ON[term.of]} ({path})"
    yield ""
    yield "| quantity | what | errs | better | also in |"
    yield "|---|---|---|---|---|"
    for row in term.quantities:
        arrow = {1: "↑", -1: "↓", None: ""}[row.expected]
        label = row.label.strip().replace("|", "\\|")
        yield f"| `{row.name}` | {label} | {row.errs} | {arrow} | {_elsewhere(row)} |"


def _elsewhere(row: Declared) -> str:
    everywhere = row.shown
    for places in row.also.values():
        everywhere |= places
    named = [words for place, words in PLACES.items() if place in everywhere]
    if not named:
        return ""
    if named == ["summary"]:
        return "summary"
    return f"{', '.join(named)}: `{row.known_as.format(distance='DISTANCE')}`"


def _documented(term: Term) -> tuple[str, str]:
    """The file of the term's function, and the first paragraph of its docstring, without importing it."""
    spec = find_spec(term.module)
    assert spec is not None, f"{term.name}: there is no module {term.module}"
    assert spec.origin is not None, f"{term.name}: {term.module} is no file"
    path, name = Path(spec.origin), term.function.partition(":")[2]
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    said = (ast.get_docstring(functions[name]) or "").partition("\n\n")[0]
    said = said.replace(": `QUANTITIES`", "").replace(", `QUANTITIES`", "")  # already in the table
    home = Path(cssl_cli.__file__).parents[1]
    shown = path.relative_to(home).as_posix() if path.is_relative_to(home) else path.name
    return f"[{path.name}](../{shown})", " ".join(said.split())


if __name__ == "__main__":
    print(reference(), end="")
