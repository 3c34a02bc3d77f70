"""Rank correlations: which terms predict an accuracy over the rows of a sweep, and how far to trust that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cssl_cli.report.compare.rank_correlation.screening import LEVEL
from cssl_cli.report.layout import heading, note, plural, print_widest, table

Entry = Mapping[str, Any]
Screened = Mapping[str, Any]
TAU, P, ADJUSTED, RHO, WITHIN, PREDICTED, N, TIES = "τ", "p", "adj. p", "ρ", "within", "predicted", "n", "ties"
# What to drop first in a narrow terminal.
VERSIONS: tuple[tuple[frozenset[str], bool], ...] = (
    (frozenset(), True),
    (frozenset({RHO}), True),
    (frozenset({RHO, TIES}), True),
    (frozenset(), False),
    (frozenset({RHO, TIES}), False),
    (frozenset({RHO, TIES, P, N}), False),
    (frozenset({RHO, TIES, P, N, PREDICTED}), False),
)
ALL_OF_THEM = "--correlations prints all."
HOW = {
    "Westfall–Young step-down min-p": "adj. p: for the {m} terms with a p (Westfall–Young, over the same orders)",
    "Holm": "adj. p: for the {m} terms with a p (Holm)",
}


def print_correlations(
    out: Console, screened: Screened, *, accuracy_title: str, term_titles: Mapping[str, str], every: bool = True
) -> bool:
    """Print one accuracy against each term: a table, its legend, and what so few rows cannot show.

    screened: the result of `rank_correlation.screening.screen_accuracy`, or the same read from a file. Unless `every`
    term is asked for, those only that can be told from chance, after adjustment; or one sentence where none can.
    Returns whether there is a table.
    """
    head = f"{accuracy_title} against each term, over rows"
    if not screened["terms"]:
        heading(out, head)
        note(out, "No terms.")
        return False
    shown = screened["terms"] if every else [entry for entry in screened["terms"] if _is_told(entry)]
    if not shown:
        out.print()
        out.print(Text(_nothing_told(screened, accuracy_title, term_titles)))
        return False
    heading(out, head)
    narrowed = {**screened, "terms": shown}
    print_widest(out, [_grid(narrowed, term_titles, left_out, spans) for left_out, spans in VERSIONS])
    if left := len(screened["terms"]) - len(shown):
        note(out, f"The other {plural(left, 'term')} cannot be told from chance; {ALL_OF_THEM}")
    for sentence in screened["warnings"]:
        out.print(Text(sentence, style="yellow"))
    note(out, _caption(screened))
    _reasons(out, shown, term_titles)
    return True


def _is_told(entry: Entry) -> bool:
    """Whether τ over all rows or within groups can be told from chance, adjusted for all terms."""
    return any(told_from_chance(entry[scope].get("tau", {}).get("p_adjusted")) for scope in ("pooled", "within"))


def told_from_chance(p: float | None) -> bool:
    """Whether a p-value, if there is one, is at most 0.05."""
    return p is not None and p <= LEVEL


def _nothing_told(screened: Screened, accuracy_title: str, term_titles: Mapping[str, str]) -> str:
    """The sentence in place of the table."""
    first, scope = screened["terms"][0], screened["scopes"]["pooled"]
    rows = plural(screened["n"] if scope is None else scope["n"], "row")
    said = f"{accuracy_title} against each of {plural(len(screened['terms']), 'term')}: over {rows} no rank correlation"
    if "tau" not in first["pooled"]:
        return f"{said} is defined; {ALL_OF_THEM}"
    tau = first["pooled"]["tau"]
    strongest = f"the strongest, {term_titles.get(first['term'], first['term'])}, has τ {signed(tau['value'])}"
    adjusted = "" if tau["p_adjusted"] is None else f", adjusted p {p_value(tau['p_adjusted'])}"
    return f"{said} can be told from chance ({strongest}{adjusted}); {ALL_OF_THEM}"


def _grid(screened: Screened, term_titles: Mapping[str, str], left_out: frozenset[str], with_intervals: bool) -> Table:
    grouped = screened["scopes"]["within"] is not None
    columns = [TAU, P, ADJUSTED, RHO, *([WITHIN, P, ADJUSTED] if grouped else []), PREDICTED, N, TIES]
    grid = table("", *(name for name in columns if name not in left_out))
    for entry in screened["terms"]:
        cells = _cells(entry, with_intervals, grouped)
        shown = [cell for name, cell in zip(columns, cells, strict=True) if name not in left_out]
        grid.add_row(str(term_titles.get(entry["term"], entry["term"])), *shown)
    return grid


def _cells(entry: Entry, with_intervals: bool, grouped: bool) -> list[str]:
    pooled, within = entry["pooled"], entry["within"]
    of_groups = [*_of_tau(within, False)] if grouped else []
    rho = signed(pooled["rho"]["value"]) if "rho" in pooled else "–"
    predicted = {True: "yes", False: "no", None: "–"}[pooled.get("as_predicted")]
    counts = [f"{pooled[name]:,}" if "n" in pooled else "–" for name in ("n", "num_tied_pairs")]
    return [*_of_tau(pooled, with_intervals), rho, *of_groups, predicted, *counts]


def _of_tau(found: Mapping[str, Any], with_interval: bool) -> tuple[str, str, str]:
    """τ with its interval, p, and adjusted p."""
    if "tau" not in found:
        return "–", "–", "–"
    tau = found["tau"]
    text = signed(tau["value"])
    if with_interval and tau["interval"] is not None:
        text += "  [{}, {}]".format(*map(signed, tau["interval"]))
    return text, p_value(tau["p"]), p_value(tau["p_adjusted"])


def signed(value: float) -> str:
    """A coefficient to two decimals."""
    return f"{round(value, 2) + 0.0:.2f}"


def p_value(p: float | None) -> str:
    """A p-value to three decimals, "<" the least of these if smaller; a dash if there is none."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _caption(screened: Screened) -> str:
    pooled, within = screened["scopes"]["pooled"], screened["scopes"]["within"]
    if pooled is None:
        return f"{plural(screened['n'], 'row')} with this accuracy."
    sentences = [
        f"Kendall's τ_b of the accuracy with each term over {pooled['n']} rows, each the mean of its seeds: 1 the same "
        "order, −1 the reverse, sorted by |τ|."
    ]
    sets, parts = pooled.get("sets"), pooled.get("parts")
    if any(entry["pooled"].get("tau", {}).get("interval") for entry in screened["terms"]):
        of = "rows" if sets is None else f"{sets} sets of augmentations"
        sentences.append(f"In brackets 95 % intervals, as if the {of} were a sample of others like them.")
    elif parts is not None:
        sentences.append("No intervals: rows that share parts are no sample, and none that was tried held.")
    elif "within" in pooled:
        sentences.append("No intervals: rows of one method are alike.")
    if pooled["correction"] is not None:
        sentences.append(
            f"p: against every order {_orders(pooled)} being as likely, two-sided; "
            + HOW[pooled["correction"]].format(m=pooled["num_terms"])
            + "."
        )
    if pooled.get("least_tau") is not None:
        enough = pooled["least_tau_adjusted"]
        of_all = "" if enough is None else f"; {_up(enough)} is enough for adj. p ≤ 0.05"
        sentences.append(
            f"With {pooled['n']} rows without ties p ≤ 0.05 takes |τ| ≥ {_up(pooled['least_tau'])}{of_all}."
        )
    sentences.append("ρ: Spearman's. Predicted: whether τ has the sign that the theory predicts. Ties: pairs of rows.")
    if within is not None:
        sentences.append(
            f"Within: τ, p and adj. p from pairs of rows of one group only ({within['n']} rows in {within['groups']} "
            "groups), which differences between groups cannot feign."
        )
    return " ".join(sentences)


def _orders(scope: Mapping[str, Any]) -> str:
    """What the orders permute."""
    if "within" in scope:
        return "of the rows within their methods"
    if scope.get("sets") is None:
        return "of the rows"
    parts, columns = scope["parts"], scope["columns"]
    shared = f"of the {scope['sets']} sets of augmentations that rows share"
    shared = shared if parts is None else f"of the {parts} parts that rows are built from"
    return shared if columns == 1 else f"{shared}, and of the methods (or what else differs),"


def _up(tau: float) -> str:
    """Two decimals, rounded up, since it is a required minimum."""
    return f"{-(-round(100 * tau, 6) // 1) / 100:.2f}"


def _reasons(out: Console, entries: Sequence[Entry], term_titles: Mapping[str, str]) -> None:
    """Print why coefficients over all rows are missing, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        if "reason" in entry["pooled"]:
            by_reason.setdefault(entry["pooled"]["reason"], []).append(term_titles.get(entry["term"], entry["term"]))
    for reason, terms in by_reason.items():
        note(out, f"–: {', '.join(terms)}: {reason}.")
