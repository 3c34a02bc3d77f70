"""How often p of Ψ is at most 0.05 under the null hypothesis, over orders of the settings and over orders within lines.

    python benchmarks/granulated_level.py [--tables 1000] [--seed 0] [--only WORD ...] [--json PATH]

In each table a term and an accuracy are unrelated; each is a sum of normal numbers, one for the row's setting of each
axis (or for each part of it) and one for the row. "Settings": p of Ψ over orders in which the settings of an axis
change places in all rows at once, as the report has it. "Attainable": the mean of the greatest p ≤ 0.05 that Ψ could
have had, which is the share expected of a correct p-value. "Within lines": p of ψ of the first axis over 999 orders of
the rows within each of its lines, which effects of the axis make too small. The standard error is 0.007 in 1,000
tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import measuring
import numpy as np

from cssl_cli.report.compare.measures.granulated import psi_in_orders
from cssl_cli.report.compare.measures.grid import Grid, grid_of
from cssl_cli.report.compare.measures.orders import orders_of_settings
from cssl_cli.report.compare.rank_correlation.permutation import shares_as_far
from cssl_cli.report.compare.rank_correlation.signs import Floats, Ints

LEVEL = 0.05
NUM_WITHIN = 999
SETTINGS, ATTAINABLE, WITHIN = COLUMNS = ("settings", "attainable", "within lines")


@dataclass(frozen=True)
class Design:
    """A grid of axes, each by its settings, and a setting by the parts that carry its effect.

    size: the deviation of the effect of a setting, where the row's own is 1. missing: rows left out, from the first on.
    """

    title: str
    axes: Sequence[Sequence[tuple[int, ...]]]
    size: float
    missing: int = 0

    @cached_property
    def rows(self) -> list[tuple[int, ...]]:
        return list(itertools.product(*(range(len(axis)) for axis in self.axes)))[self.missing :]

    @cached_property
    def grid(self) -> Grid:
        return grid_of([{str(axis): str(setting) for axis, setting in enumerate(row)} for row in self.rows])

    @cached_property
    def orders(self) -> Ints | None:
        parts = [
            frozenset((axis, part) for axis, setting in enumerate(row) for part in self.axes[axis][setting])
            for row in self.rows
        ]
        found = orders_of_settings(parts, [()] * len(self.rows))
        return None if isinstance(found, str) else found[0]

    def drawn(self, generator: np.random.Generator) -> Floats:
        """One number for each row (N,)."""
        values = generator.standard_normal(len(self.rows))
        for axis, settings in enumerate(self.axes):
            of_part = generator.standard_normal(max(map(max, settings)) + 1)
            effects = np.array([of_part[list(parts)].sum() / len(parts) ** 0.5 for parts in settings])
            values += self.size * effects[[row[axis] for row in self.rows]]
        return values


def singles(count: int) -> list[tuple[int, ...]]:
    return [(part,) for part in range(count)]


PAIRS = list(itertools.combinations(range(5), 2))
DESIGNS = (
    Design("4 × 3 × 3, no effects", (singles(4), singles(3), singles(3)), 0.0),
    Design("4 × 3 × 3, effects of every axis", (singles(4), singles(3), singles(3)), 1.0),
    Design("4 × 3 × 3, large effects", (singles(4), singles(3), singles(3)), 3.0),
    Design("5 × 2 × 2 × 2, effects of every axis", (singles(5), *[singles(2)] * 3), 1.0),
    Design("10 pairs of 5 × 2 × 2, effects of parts and axes", (PAIRS, singles(2), singles(2)), 1.0),
    Design("20 random draws × 2, large effects", (singles(20), singles(2)), 3.0),
    Design("5 × 4, one row missing, effects of every axis", (singles(5), singles(4)), 1.0, missing=1),
)


def shares(design: Design, tables: int, generator: np.random.Generator) -> dict[str, float]:
    """The share of tables with p ≤ 0.05, by column."""
    first, found = design.grid.lines[0], np.zeros((tables, 3))
    line = np.unique(design.grid.codes[:, 1:], axis=0, return_inverse=True)[1].reshape(-1)
    by_line = np.argsort(line, kind="stable")
    for table in range(tables):
        x, y = design.drawn(generator), design.drawn(generator)
        if design.orders is not None:
            scores = psi_in_orders(design.grid, x[:, None], y, design.orders)
            far = np.sort(np.abs(scores[:, 0]))
            possible = 1 - np.searchsorted(far, np.unique(far)) / len(far)
            found[table, 0] = shares_as_far(scores)[0] <= LEVEL
            found[table, 1] = max((p for p in possible if p <= LEVEL), default=0.0)
        permuted = np.repeat(y[None], NUM_WITHIN + 1, axis=0)
        permuted[1:, by_line] = y[np.argsort(line + generator.random((NUM_WITHIN, len(y))) / 2, axis=1)]
        agree = np.sign(permuted[:, first.first] - permuted[:, first.second]) @ np.sign(
            x[first.first] - x[first.second]
        )
        found[table, 2] = shares_as_far(agree[:, None])[0] <= LEVEL
    return dict(zip(COLUMNS, found.mean(axis=0).tolist(), strict=True))


def main() -> None:
    parser = measuring.option_parser(__doc__, threads=1)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="designs whose titles have all the words")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    print(f"Share of tables without any association that have p ≤ {LEVEL}:\n")
    print("| grid | rows | orders |", " | ".join(COLUMNS), "|")
    print("|", " | ".join(["---"] * 6), "|")
    for number, design in enumerate(DESIGNS):
        if not all(word in design.title for word in options.only):
            continue
        found = shares(design, options.tables, np.random.default_rng([options.seed, number]))
        report.numbers |= {f"{name}: {design.title}": share for name, share in found.items()}
        num_orders = 0 if design.orders is None else len(design.orders)
        cells = (f"{found[name]:.3f}" for name in COLUMNS)
        print("|", design.title, "|", len(design.rows), "|", f"{num_orders:,}", "|", " | ".join(cells), "|", flush=True)
    report.finish(options.json)


if __name__ == "__main__":
    main()
