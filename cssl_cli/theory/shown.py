"""What of the table of terms is shown where, and in which order."""

from __future__ import annotations

from typing import NamedTuple

from cssl_cli.theory import terms
from cssl_cli.theory.term import DISTANCES, Declared, In, Term


class Shown(NamedTuple):
    """A quantity where it is shown: of the features of an encoder, `trained` as a rule, or in a distance."""

    term: Term
    declared: Declared
    where: str

    @property
    def name(self) -> str:
        """Its name in sweeps and of control encoders."""
        return self.declared.known_as.format(distance=self.where)

    @property
    def called(self) -> str:
        """What it is called outside its section."""
        return self.declared.name_outside.format(distance=DISTANCES.get(self.where, self.where))


def in_sections() -> list[Term]:
    """The terms section by section."""
    order = list(terms.SECTIONS)
    return sorted(terms.TERMS, key=lambda term: order.index(term.section))


def rows_of(*tables: str) -> list[tuple[Term, Declared]]:
    """The rows of tables one table after the other, each where it is declared or `after` another."""
    found: list[tuple[Term, Declared]] = []
    for table in tables:
        rows = [(term, row) for term in in_sections() for row in term.quantities if term.table_of(row) == table]
        placed = [row for row in rows if not row[1].after]
        for term, declared in (row for row in rows if row[1].after):
            names = [f"{other.name}.{row.name}" for other, row in placed]
            placed.insert(names.index(declared.after) + 1, (term, declared))
        found += placed
    return found


def shown_in(place: In) -> list[Shown]:
    """The quantities that are shown there, errors and bounds on them first."""
    return [
        Shown(term, declared, where)
        for term in sorted(in_sections(), key=lambda term: term.section != "certificates")
        for where in (DISTANCES if term.of == "distance" else ("trained",))
        for declared in term.quantities
        if place in declared.shown | declared.also.get(where, In.NOWHERE)
    ]


def declared(term: str, name: str) -> Shown:
    """A quantity by the name of its term and its own; `StopIteration` where there is none."""
    found = (Shown(one, row, "trained") for one in terms.TERMS if one.name == term for row in one.quantities)
    return next(shown for shown in found if shown.declared.name == name)
