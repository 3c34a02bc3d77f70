"""Which terms predict an accuracy along each axis: ψ, what the settings do not explain, and the worst environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.report.compare.granulated import LEVEL, best_first, short_axes
from cssl_cli.report.compare.tables.correlations import ALL_OF_THEM, p_value, signed, told_from_chance
from cssl_cli.report.layout import compacted, fits, heading, note, plural, table

Entry = Mapping[str, Any]
MOST = 10  # terms; --json has all
NONE = "–"
Cell = Callable[[Entry], str]
Column = tuple[str, Cell]


def print_granulated(
    out: Console, found: Mapping[str, Any], *, title: str, term_titles: Mapping[str, str], every: bool = True
) -> None:
    """Print the terms with the greatest |Ψ|, in one table or two, with a legend that counts pairs; nothing if none has.

    found: what `granulated.judged` found for the accuracy called `title`. Unless `every` term is asked for, those only
    whose Ψ can be told from chance, after adjustment; or one sentence where none can.
    """
    if not every:
        told = [entry for entry in found["terms"] if told_from_chance(entry["mean_psi"]["p_adjusted"])]
        if not told:
            return _nothing_told(out, found, title, term_titles)
        found = {**found, "terms": told}
    entries, others = best_first(found, MOST)
    if not entries:
        return None
    heading(out, f"{title} against each term, along each axis")
    for position, grid in enumerate(_widest(out, found, entries, term_titles)):
        if position:
            out.print()
        out.print(grid)
    for sentence in _warnings(found):
        out.print(Text(sentence, style="yellow"))
    return note(out, _caption(found, others))


def _nothing_told(out: Console, found: Mapping[str, Any], title: str, term_titles: Mapping[str, str]) -> None:
    """Print the sentence in place of the table."""
    entries, others = best_first(found, 1)
    if not entries:
        return
    (first,) = entries
    psi = first["mean_psi"]
    adjusted = "" if psi["p_adjusted"] is None else f", adjusted p {p_value(psi['p_adjusted'])}"
    strongest = (
        f"the strongest, {term_titles.get(first['term'], first['term'])}, has Ψ {signed(psi['value'])}{adjusted}"
    )
    text = f"{title} against {plural(others + 1, 'term')} along each axis: no Ψ can be told from chance ({strongest})"
    out.print()
    out.print(Text(f"{text}; {ALL_OF_THEM}"))


def _widest(
    out: Console, found: Mapping[str, Any], entries: Sequence[Entry], term_titles: Mapping[str, str]
) -> list[Table]:
    """Everything in one table if it fits, with fewer columns if not; else ψ by axis in a table or more of its own."""
    axes: list[Column] = [
        (f"ψ {head}", partial(_psi, axis["axis"]))
        for axis, head in zip(found["axes"], short_axes(found["axes"]), strict=True)
    ]

    def grid(columns: Sequence[Column]) -> Table:
        made = table("", *(head for head, _ in columns))
        for entry in entries:
            title = str(term_titles.get(entry["term"], entry["term"]))
            made.add_row(title, *(cell(entry) for _, cell in columns))
        return compacted(out, made)

    mean = MEAN if found["orders"]["num_orders"] else MEAN[:1]
    others = OTHERS if any(entry["sign_error"] for entry in entries) else OTHERS[:2]
    for left_out in LEFT_OUT:
        kept = [column for column in (*mean, *axes, *others) if column[1] not in left_out]
        if fits(out, whole := grid(kept)):
            return [whole]
    tables = [grid([*mean, *(column for column in others if column[1] is not _median)])]
    while axes:
        most = next((count for count in range(len(axes), 1, -1) if fits(out, grid(axes[:count]))), 1)
        tables.append(grid(axes[:most]))
        axes = axes[most:]
    return tables


# ---------------------------------------------------------------------- cells
def _mean_psi(entry: Entry) -> str:
    return signed(entry["mean_psi"]["value"])


def _p(entry: Entry) -> str:
    return p_value(entry["mean_psi"]["p"])


def _p_adjusted(entry: Entry) -> str:
    return p_value(entry["mean_psi"]["p_adjusted"])


def _psi(axis: str, entry: Entry) -> str:
    found = entry["psi"][axis]
    if found is None:
        return NONE
    return "tied" if found["num_tied_in_term"] == found["num_pairs"] else signed(found["value"])


def _information(entry: Entry) -> str:
    return _share(entry["information"], "value", 3)


def _information_by_chance(entry: Entry) -> str:
    return _share(entry["information"], "expected", 3)


def _worst(entry: Entry) -> str:
    return _share(entry["sign_error"], "worst")


def _worst_by_chance(entry: Entry) -> str:
    return _share(entry["sign_error"], "expected_worst")


def _median(entry: Entry) -> str:
    return _share(entry["sign_error"] and entry["sign_error"]["quantiles"], "0.5")


def _share(found: Mapping[str, Any] | None, name: str, digits: int = 2) -> str:
    return NONE if found is None or found[name] is None else f"{found[name]:.{digits}f}"


MEAN: tuple[Column, ...] = (("Ψ", _mean_psi), ("p", _p), ("adj. p", _p_adjusted))
OTHERS: tuple[Column, ...] = (
    ("K", _information),
    ("chance", _information_by_chance),
    ("worst", _worst),
    ("chance", _worst_by_chance),
    ("median", _median),
)
# What to drop first in a narrow terminal.
LEFT_OUT: tuple[tuple[Cell, ...], ...] = (
    (),
    (_median,),
    (_median, _p),
    (_median, _p, _worst_by_chance),
)


def _warnings(found: Mapping[str, Any]) -> list[str]:
    orders = found["orders"]
    if orders["num_orders"] == 0:
        return [f"No p of Ψ: {orders['reason']}{_held_fixed(orders)}."]
    if orders["smallest_p"] is not None and orders["smallest_p"] > LEVEL:
        return [
            f"No Ψ can have p below {orders['smallest_p']:.2g} over {plural(orders['num_orders'], 'order')} of the "
            "settings."
        ]
    return []


def _caption(found: Mapping[str, Any], others: int) -> str:
    orders, noise, pairs = found["orders"], found["noise"], found["pairs"]
    counted = "; ".join(
        f"{head} {plural(axis['num_pairs'], 'pair')} in {plural(axis['num_lines'], 'line')}"
        for axis, head in zip(found["axes"], short_axes(found["axes"]), strict=True)
    )
    sentences = [
        f"ψ: Kendall's τ among rows that differ along this axis only, mean over such lines ({counted}); tied: the term "
        f"is the same along it, which counts 0. Ψ: the mean of ψ, over {found['n']} rows."
    ]
    if any(axis["drawn"] for axis in found["axes"]):
        sentences.append("Draw: random draws, which differ in all that is sampled; K and worst are over other axes.")
    if orders["num_orders"]:
        drawn = "drawn orders" if orders["p_method"] == "Monte Carlo" else "orders"
        sentences.append(
            f"p: against {orders['num_orders']:,} {drawn} of the settings of each axis, the same in all "
            f"rows{_held_fixed(orders)}, two-sided; adj. p: for all terms."
        )
    drawn = ", drawn" if pairs["drawn"] else ""
    sentences.append(
        "K: the share of what is open about the order of two accuracies, once the settings of up to two axes are "
        f"known, that the order of the term tells; the least over the axes ({pairs['num_pairs']:,} pairs{drawn}). "
        f"Chance: the mean of {pairs['num_random']} random orders of the term among rows of the same settings of "
        "these axes, above 0 by bias."
    )
    if any(entry["sign_error"] for entry in found["terms"]):
        counts = [entry["sign_error"]["num_environments"] for entry in found["terms"] if entry["sign_error"]]
        sentences.append(
            "Worst: the greatest share of pairs that the term, by its predicted sign, orders wrongly between two "
            f"settings of an axis, all else equal; {max(counts)} such environments of {noise['least_pairs']} pairs or "
            f"more, without {noise['num_left_out']:,} of {noise['num_pairs']:,} pairs within noise; its chance: that "
            "of random orders of the term among all rows; median: over the environments."
        )
    else:
        sentences.append(
            f"No worst case: no two settings of an axis have {noise['least_pairs']} pairs that differ beyond noise."
        )
    if others:
        sentences.append(f"The other {plural(others, 'term')} are in table.json and --json.")
    return " ".join(sentences)


def _held_fixed(orders: Mapping[str, Any]) -> str:
    """Which axes are left as they are, and why."""
    held = " and ".join(orders["held_fixed"])
    return f" ({held} held fixed: the sweep file does not say as `parts` what its variants share)" if held else ""
