"""How often each p-value of `cssl sweep` is at most 0.05 under the null hypothesis, for several kinds of related rows.

    python benchmarks/type_1_error.py [--tables 1000] [--seed 0] [--only WORD ...] [--json PATH]

In each table the terms are unrelated to the accuracy; a term and the accuracy are each a sum of normal numbers, one for
each part (augmentation) of a row, one for its set of augmentations, one for its method and one for the row. The table
is screened as in the report, which knows what the rows are built from. The script prints the share of tables with p ≤
0.05; its standard error is 0.007 in 1,000 tables. "Rows": p of τ as if rows were independent. "Attainable": the mean of
the greatest p ≤ 0.05 that τ could have had, which is the share expected of a correct p-value when orders are few. "Any
term": the least adjusted p of three terms. "Methods": any one method by itself. Then the p-values of differences over
seeds.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import measuring
import numpy as np

from cssl_cli.report.compare.paired_difference import paired_difference
from cssl_cli.report.compare.rank_correlation.coefficients import rank_correlations
from cssl_cli.report.compare.rank_correlation.correction import holm, p_values_of_orders
from cssl_cli.report.compare.rank_correlation.crossed import crossed, of_parts
from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom
from cssl_cli.report.compare.rank_correlation.permutation import orders_within, permuted_scores
from cssl_cli.report.compare.rank_correlation.screening import screen_accuracy
from cssl_cli.report.compare.rank_correlation.signs import Floats, group_codes, signs

LEVEL = 0.05
TERMS = ("first", "second", "third")
ROWS, TAU, ATTAINABLE, RHO, ANY, WITHIN, METHODS = (
    "rows", "τ", "attainable", "ρ", "any term", "within", "methods",
)  # fmt: skip
COLUMNS = (ROWS, TAU, ATTAINABLE, RHO, ANY, WITHIN, METHODS)


@dataclass(frozen=True)
class Rows:
    """Rows of `methods` under the sets of augmentations, each a set of parts.

    part, of_set: the shares of the variance that single parts and whole sets carry, in terms and in the accuracy, the
    rest being the row's own. method: the deviation of an effect of the method. seeds: of which each row is a mean, its
    own share being noise of training; seeds have an effect in common. missing: sets that lack the last method.
    split: every set with one of the methods only, as many with each.
    """

    title: str
    sets: Sequence[tuple[int, ...]]
    methods: int = 1
    part: float = 0.0
    of_set: float = 0.0
    method: float = 0.0
    seeds: int = 1
    missing: int = 0
    split: bool = False
    design: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        every = list(itertools.product(range(len(self.sets)), range(self.methods)))
        last = {(one, self.methods - 1) for one in range(self.missing)}
        of_one = [(one, one * self.methods // len(self.sets)) for one in range(len(self.sets))]
        object.__setattr__(self, "design", of_one if self.split else [row for row in every if row not in last])

    def drawn(self, generator: np.random.Generator) -> Floats:
        """One number for each row (N,)."""
        normal = generator.standard_normal
        of_part, of_set, of_method = normal(max(map(max, self.sets)) + 1), normal(len(self.sets)), normal(self.methods)
        parts = np.array([of_part[list(parts)].sum() / math.sqrt(len(parts)) for parts in self.sets])
        sets, methods = np.array(self.design).T
        own = (normal((self.seeds, len(sets))) + normal((self.seeds, 1))).mean(axis=0)
        shared = math.sqrt(self.part) * parts[sets] + math.sqrt(self.of_set) * of_set[sets]
        return shared + math.sqrt(1 - self.part - self.of_set) * own + self.method * of_method[methods]


def singles(count: int) -> list[tuple[int, ...]]:
    return [(part,) for part in range(count)]


def pairs(count: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(count), 2))


NESTED = [tuple(range(size)) for size in range(1, 6)]
CASES = (
    Rows("5 independent rows", singles(5)),
    Rows("10 independent rows", singles(10)),
    Rows("70 independent rows", singles(70)),
    Rows("10 rows, each the mean of 3 seeds with effects in common", singles(10), seeds=3),
    Rows("8 rows of each of 3 methods, methods differ", singles(24), methods=3, method=1.0, split=True),
    Rows("5 sets × 4 methods, sets 80 %, methods differ", singles(5), methods=4, of_set=0.8, method=1.0),
    Rows("8 sets × 2 methods, sets 50 %, methods differ", singles(8), methods=2, of_set=0.5, method=1.0),
    Rows("10 pairs of 5, parts 0 %", pairs(5)),
    Rows("10 pairs of 5, parts 80 %", pairs(5), part=0.8),
    Rows("10 pairs of 5, parts 95 %", pairs(5), part=0.95),
    Rows("10 pairs of 5 × 2 methods, parts 70 %, pairs 20 %", pairs(5), methods=2, part=0.7, of_set=0.2),
    Rows("10 pairs of 5 × 2 methods, parts 95 %, methods differ", pairs(5), methods=2, part=0.95, method=1.0),
    Rows("10 pairs of 5 × 4 methods, parts 80 %, methods differ", pairs(5), methods=4, part=0.8, method=1.0),
    Rows("10 pairs of 5 × 8 methods, parts 80 %, methods differ", pairs(5), methods=8, part=0.8, method=1.0),
    Rows("10 triples of 5, parts 95 %", list(itertools.combinations(range(5), 3)), part=0.95),
    Rows("10 pairs × 2 methods, one row missing, parts 95 %", pairs(5), methods=2, part=0.95, missing=1),
    Rows("5 nested sets, parts 95 % (no p is printed)", NESTED, part=0.95),
    Rows("5 nested sets × 2 methods, parts 95 % (no p is printed)", NESTED, methods=2, part=0.95),
)


def screened(rows: Rows, columns: Mapping[str, Floats]) -> dict[str, list[bool]]:
    """Whether each p-value of a table is at most the level; for methods, one for each."""
    as_parts = [frozenset(rows.sets[of_set]) for of_set, _ in rows.design]
    methods = [f"method {method}" for _, method in rows.design]
    entries = [
        (str(row), methods[row], {name: values[row] for name, values in columns.items()})
        for row in range(len(rows.design))
    ]
    design = rows.design if rows.methods > 1 else None
    built_from = BuiltFrom(as_parts, methods, declared=True)
    found = screen_accuracy(entries, "accuracy", dict.fromkeys(TERMS), None, design, built_from)
    of_first = next(entry for entry in found["terms"] if entry["term"] == TERMS[0])
    hits = {
        TAU: _at_most([of_first["pooled"]["tau"]["p"]]),
        RHO: _at_most([of_first["pooled"]["rho"]["p"]]),
        ANY: [any(_at_most([entry["pooled"]["tau"]["p_adjusted"] for entry in found["terms"]]))],
    }
    if not hits[TAU]:  # rows that share more than any set of orders allows for
        return {}
    if found["scopes"]["within"] is not None:
        hits |= {
            WITHIN: _at_most([of_first["within"]["tau"]["p"]]),
            METHODS: _at_most([one["tau"]["p"] for one in of_first["groups"].values() if "tau" in one]),
        }
    return hits


def _at_most(p_values: Sequence[float | None]) -> list[bool]:
    """Whether each existing p-value is at most the level."""
    return [p <= LEVEL for p in p_values if p is not None]


def over_rows(x: Floats, y: Floats) -> bool:
    """Whether p of τ is at most the level as if rows were independent."""
    (found,) = rank_correlations(x[:, None], y, group_codes(None, len(y)), with_intervals=False)
    return found.tau.p <= LEVEL  # type: ignore[union-attr]


def attainable(rows: Rows, x: Floats, y: Floats) -> float | None:
    """The greatest p ≤ 0.05 that τ could have had with these numbers; None if there are too many orders."""
    codes = group_codes(None, len(y))
    as_parts = [frozenset(rows.sets[of_set]) for of_set, _ in rows.design]
    permuted = of_parts(as_parts, [method for _, method in rows.design]) or crossed(rows.design)
    if permuted is None and len(y) > 8:
        return None
    orders, method = orders_within(codes) if permuted is None else permuted.orders(codes)
    if method != "exact":
        return None
    ranks = signs(y, codes).sum(axis=1, dtype=np.float64)
    every = p_values_of_orders(permuted_scores([signs(x, codes)], ranks, orders))
    return max((float(p) for p in every.ravel() if p <= LEVEL), default=0.0)


def shares(rows: Rows, tables: int, generator: np.random.Generator) -> dict[str, float]:
    """The share of tables with p ≤ 0.05, for each p-value that these rows have."""
    hits: dict[str, list[float]] = {}
    for _ in range(tables):
        columns = {name: rows.drawn(generator) for name in ("accuracy", *TERMS)}
        of_table: dict[str, Sequence[float]] = dict(screened(rows, columns))
        x, y = columns[TERMS[0]], columns["accuracy"]
        level = attainable(rows, x, y)
        of_table |= {ROWS: [over_rows(x, y)]} | ({} if level is None else {ATTAINABLE: [level]})
        for name, values in of_table.items():
            hits.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in hits.items()}


# ---------------------------------------------------------------------- differences over seeds
def of_differences(seeds: int, rows: int, tables: int, generator: np.random.Generator) -> tuple[float, float, float]:
    """Shares with p ≤ 0.05, beyond seed noise, and with any adjusted p ≤ 0.05 of all rows against one.

    Accuracies on 2,000 images: noise of training of a point of standard deviation, an effect of the seed in common.
    """
    single, beyond, family = 0, 0, 0
    for _ in range(tables):
        chance = 0.4 + 0.01 * (generator.standard_normal((rows + 1, seeds)) + generator.standard_normal(seeds))
        accuracies = generator.binomial(2000, chance) / 2000
        first, *others = (dict(enumerate(row.tolist())) for row in accuracies)
        found = [paired_difference(other, first) for other in others]
        p = [1.0 if one is None or one.p is None else one.p for one in found]
        single += p[0] <= LEVEL
        beyond += bool(found[0] is not None and found[0].beyond_noise)
        family += min(holm(p)) <= LEVEL
    return single / tables, beyond / tables, family / tables


def main() -> None:
    parser = measuring.option_parser(__doc__, threads=1)
    parser.add_argument("--tables", type=int, default=1000, help="drawn of ten rows or fewer; of more rows fewer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose titles have all the words")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    chosen = [rows for rows in CASES if all(word in rows.title for word in options.only)]
    print(f"Share of tables without any association that have p ≤ {LEVEL}:\n")
    _print_line(["rows", "tables", *COLUMNS])
    _print_line(["---"] * (2 + len(COLUMNS)))
    for rows in chosen:
        _print_line(_of_rows(rows, options, report))
    if not options.only:
        print("\nDifferences of a row from another over seeds; the least adjusted p of nine rows:\n")
        _print_line(["seeds", "tables", "p", "beyond seed noise", "any row"])
        _print_line(["---"] * 5)
        for seeds in (2, 3, 5, 10):
            _print_line(_of_seeds(seeds, options, report))
    report.finish(options.json)


def _print_line(cells: Sequence[str]) -> None:
    """A line of a Markdown table."""
    print("|", " | ".join(cells), "|", flush=True)


def _of_rows(rows: Rows, options: argparse.Namespace, report: measuring.Report) -> list[str]:
    generator = np.random.default_rng([options.seed, CASES.index(rows)])
    size = len(rows.design)
    tables = max(1, options.tables // (1 if size <= 10 else 2 if size <= 60 else 5))
    found = shares(rows, tables, generator)
    report.numbers |= {f"{name}: {rows.title}": share for name, share in found.items()}
    return [rows.title, f"{tables:,}", *(f"{found[name]:.3f}" if name in found else "–" for name in COLUMNS)]


def _of_seeds(seeds: int, options: argparse.Namespace, report: measuring.Report) -> list[str]:
    found = of_differences(seeds, 9, 4 * options.tables, np.random.default_rng([options.seed, seeds]))
    names = ("p", "beyond seed noise", "any row")
    report.numbers |= {f"{name}: {seeds} seeds": share for name, share in zip(names, found, strict=True)}
    return [str(seeds), f"{4 * options.tables:,}", *(f"{share:.3f}" for share in found)]


if __name__ == "__main__":
    main()
