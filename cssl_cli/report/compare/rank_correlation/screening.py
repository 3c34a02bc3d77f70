"""Which terms predict the accuracy: every term against every accuracy over the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cssl_cli.report.compare.rank_correlation.attainable import least_tau, smallest_p_values
from cssl_cli.report.compare.rank_correlation.coefficients import (
    MAX_ROWS_RESAMPLED,
    MIN_ROWS_COMPARED,
    RankCorrelation,
    Undefined,
    rank_correlations,
)
from cssl_cli.report.compare.rank_correlation.correction import (
    holm,
    smallest_adjusted_p,
    smallest_p_values_of,
    step_down_min_p,
)
from cssl_cli.report.compare.rank_correlation.crossed import (
    Crossed,
    Found,
    WithinColumns,
    over_sets,
    without_intervals,
    without_tests,
)
from cssl_cli.report.compare.rank_correlation.parts import BuiltFrom
from cssl_cli.report.compare.rank_correlation.permutation import orders_within, permuted_scores
from cssl_cli.report.compare.rank_correlation.row_sharing import (
    Alike,
    Design,
    RowSharing,
    over_all_groups,
    sharing_of_rows,
)
from cssl_cli.report.compare.rank_correlation.signs import (
    Floats,
    Ints,
    as_column,
    group_codes,
    group_sizes,
    in_order,
    signs,
    variable,
)

RowMeans = tuple[str, str, Mapping[str, float | None]]  # its name, its group, its quantities (means over seeds)
LEVEL = 0.05
MIN_P = "Westfall–Young step-down min-p"
HOLM = "Holm"


def screen_accuracy(
    rows: Sequence[RowMeans],
    accuracy: str,
    terms: Mapping[str, int | None],
    titles: Mapping[str, str] | None = None,
    design: Design | None = None,
    built_from: BuiltFrom | None = None,
    chosen: str | None = None,
) -> dict[str, Any]:
    """One accuracy against each of the terms, best predictors first (by |τ| over all rows).

    `n` rows have the accuracy. Each of `terms` is {"term", "predicted_sign", "pooled", "within", "groups"}: over all
    rows; within groups; and for each group of at least three rows alone, without an interval. Each of these is a
    `RankCorrelation` as JSON types with `as_predicted` (whether τ has the predicted sign; None if τ is 0 or nothing is
    predicted) and, except for single groups, `p_adjusted` of τ for the terms screened together; or `value` null and a
    reason. Rows known to share more than any orders allow for have no p (null) and no intervals. `scopes` says for
    "pooled" and "within" how many terms were screened, by which `correction`, and what |τ| would be needed; `warnings`
    are sentences.

    rows: one per variant, its quantities already averaged over seeds: seeds are replicates, not rows. terms: the sign
    that the theory predicts for each term's association with an accuracy, +1 or −1, or None. titles: the names of the
    terms in warnings.
    design: for each row, what it shares with others (its set of augmentations) and what distinguishes it apart from
    that. If these are crossed (`crossed.py`), p and intervals are over sets, and `scopes` give their number as `sets`.
    If groups share no sets, p over all rows is over orders within groups, `scopes` give their number as `within`, and
    there are no intervals.
    built_from: for each row, the parts that its set is built from. If rows share exchangeable parts (`parts.py`), p is
    over orders of the parts, `scopes` give their number as `parts`, and there are no intervals.
    chosen: a warning for rows that were chosen by an accuracy; these have no p and no intervals.
    """
    y = as_column([quantities.get(accuracy) for _, _, quantities in rows])
    x = (
        np.stack([as_column([q.get(term) for _, _, q in rows]) for term in terms], axis=1)
        if terms
        else y[:, None][:, :0]
    )
    names = [group for _, group, _ in rows]
    codes, alone = group_codes(names, len(rows)), group_codes(None, len(rows))
    if chosen is None:
        sharing = sharing_of_rows(y, codes, design, built_from)
    else:
        sharing = RowSharing(np.arange(len(y)), warnings=(chosen,), independent=False, tested=False)
    over_all = over_all_groups(codes, sharing, design)
    pooled, of_pooled = _scope(x, y, alone, list(terms.values()), over_all)
    grouped = len(set(names)) > 1
    within, of_within = (
        _scope(x, y, codes, list(terms.values()), sharing) if grouped else ([_ONE_GROUP] * len(terms), None)
    )
    alike = Alike(sharing, design, built_from)
    by_group = _by_group(x, y, names, list(terms.values()), alike) if grouped else {}
    entries: list[dict[str, Any]] = [
        {
            "term": term,
            "predicted_sign": terms[term],
            "pooled": pooled[position],
            "within": within[position],
            "groups": {group: found[position] for group, found in by_group.items()},
        }
        for position, term in enumerate(terms)
    ]
    entries.sort(key=lambda entry: -abs(entry["pooled"]["tau"]["value"]) if "tau" in entry["pooled"] else 1)
    scopes = {"pooled": of_pooled, "within": of_within}
    called = {term: (titles or {}).get(term, term) for term in terms}
    return {
        "n": int(np.isfinite(y).sum()),
        "num_rows": len(rows),
        "scopes": scopes,
        "terms": entries,
        "warnings": [
            *_about_size(scopes),
            *_about_missing(scopes, entries, called),
            *_about_groups(entries, called),
            *([] if of_pooled is None else over_all.warnings),
        ],
    }


_ONE_GROUP = Undefined("all rows are of one group").to_dict()


def _scope(
    x: Floats, y: Floats, codes: Ints, predicted: Sequence[int | None], sharing: RowSharing
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The entries of all terms (N, M) over the rows in groups `codes`, and their joint facts."""
    found: Found = rank_correlations(x, y, codes)
    defined = [position for position, result in enumerate(found) if isinstance(result, RankCorrelation)]
    if not defined:
        return _entries(found, predicted), None
    if not sharing.tested:
        return _scope_without_tests(found, y, codes, predicted)
    if not sharing.independent:
        found = [without_intervals(one) if isinstance(one, RankCorrelation) else one for one in found]
    if sharing.permuted is not None:
        rows = sharing.rows
        return _scope_over_sets(found, x[rows], y[rows], codes[rows], predicted, defined, sharing.permuted)
    entries = _entries(found, predicted)
    raw = [entries[position]["tau"]["p"] for position in defined]
    adjusted, correction, smallest = _adjusted(x[:, defined], y, codes, raw)
    for position, p in zip(defined, adjusted, strict=True):
        entries[position]["tau"]["p_adjusted"] = p
    sizes = _sizes_with(y, codes)
    scope: dict[str, Any] = {"n": sum(sizes), "groups": len(sizes), "num_terms": len(defined), "correction": correction}
    if sum(sizes) <= MAX_ROWS_RESAMPLED:
        perfect, next_to_perfect = smallest_p_values(sizes)
        scope |= {
            "smallest_p": perfect,
            "next_smallest_p": next_to_perfect,
            "smallest_adjusted_p": smallest,
            "least_tau": least_tau(sizes, LEVEL),
            "least_tau_adjusted": least_tau(sizes, LEVEL / len(defined)),
        }
    return entries, scope


def _scope_without_tests(
    found: Found, y: Floats, codes: Ints, predicted: Sequence[int | None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`_scope` for rows that share more than any orders allow for."""
    entries = _entries([without_tests(one) if isinstance(one, RankCorrelation) else one for one in found], predicted)
    defined = [entry["tau"] for entry in entries if "tau" in entry]
    for tau in defined:
        tau["p_adjusted"] = None
    sizes = _sizes_with(y, codes)
    return entries, {"n": sum(sizes), "groups": len(sizes), "num_terms": len(defined), "correction": None}


def _scope_over_sets(
    found: Found,
    x: Floats,
    y: Floats,
    codes: Ints,
    predicted: Sequence[int | None],
    defined: Sequence[int],
    sharing: Crossed | WithinColumns,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`_scope` for rows that share their sets, or parts of them, or a method; their `least_tau` is unknown."""
    found, scores, method = over_sets(found, x, y, codes, sharing)
    entries, scores = _entries(found, predicted), scores[:, defined]
    sizes, exact = _sizes_with(y, codes), method == "exact"
    least = smallest_p_values_of(scores)
    for position, p, smallest in zip(defined, step_down_min_p(scores), least, strict=True):
        entries[position]["tau"]["p_adjusted"] = p
        entries[position]["smallest_p"] = smallest if exact else None
    return entries, {
        "n": sum(sizes),
        "groups": len(sizes),
        **_what_is_put_in_orders(sharing),
        "num_orders": len(scores),
        "num_terms": len(defined),
        "correction": MIN_P,
        "smallest_p": min(least) if exact else None,
        "smallest_adjusted_p": smallest_adjusted_p(scores) if exact else None,
    }


def _what_is_put_in_orders(sharing: Crossed | WithinColumns) -> dict[str, int | None]:
    if isinstance(sharing, WithinColumns):
        return {"within": len(set(sharing.columns.tolist()))}
    return {"sets": sharing.num_sets, "columns": sharing.num_columns, "parts": sharing.num_parts}


def _entries(found: Found, predicted: Sequence[int | None]) -> list[dict[str, Any]]:
    entries = []
    for result, sign in zip(found, predicted, strict=True):
        entry = result.to_dict()
        if isinstance(result, RankCorrelation):
            tau = result.tau.value
            entry["as_predicted"] = None if sign is None or tau == 0 else (tau > 0) == (sign > 0)
        entries.append(entry)
    return entries


def _adjusted(x: Floats, y: Floats, codes: Ints, raw: Sequence[float]) -> tuple[list[float], str, float | None]:
    """p-values of τ adjusted for all M terms, the method, and the least attainable one if known.

    Few rows: each order of the rows is applied to all terms together, so that terms which rank the rows alike cost
    little. A row that misses a term keeps its place in the orders, without pairs for that term.
    """
    there = np.isfinite(y)
    x, y, codes = in_order(x[there], y[there], codes[there])
    if len(y) > MAX_ROWS_RESAMPLED:
        return holm(raw), HOLM, None
    orders, method = orders_within(codes)
    scores = permuted_scores([signs(column, codes) for column in x.T], variable(y, codes).ranks, orders)
    together = [max(pair) for pair in zip(step_down_min_p(scores), raw, strict=True)]
    return together, MIN_P, smallest_adjusted_p(scores) if method == "exact" else None


def _sizes_with(y: Floats, codes: Ints) -> tuple[int, ...]:
    """The sizes of the groups of at least two rows with the accuracy, the smallest first."""
    return tuple(sorted(size for size in group_sizes(codes[np.isfinite(y)]) if size > 1))


def _by_group(
    x: Floats, y: Floats, names: Sequence[str], predicted: Sequence[int | None], alike: Alike
) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for group in dict.fromkeys(names):
        rows = np.array([name == group for name in names])
        if rows.sum() >= MIN_ROWS_COMPARED:
            one = group_codes(None, int(rows.sum()))
            of_group: Found = rank_correlations(x[rows], y[rows], one, with_intervals=False)
            # Several rows of a group may also share a set: those of methods with several temperatures, say.
            shared = alike.within(rows, y)
            there = shared.rows
            if shared.permuted is not None:
                of_group, _, _ = over_sets(of_group, x[there], y[there], group_codes(None, len(there)), shared.permuted)
            elif not shared.tested:
                of_group = [without_tests(one) if isinstance(one, RankCorrelation) else one for one in of_group]
            found[group] = _entries(of_group, predicted)
    return found


# ---------------------------------------------------------------------- warnings
def _about_size(scopes: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Warnings about too few rows, hence too few orders, to tell much or anything from chance."""
    said = []
    for name, scope in scopes.items():
        if scope is None or scope.get("smallest_p") is None:
            continue
        rows = f"n = {scope['n']} rows" + _of_what(scope)
        rows += f" in {scope['groups']} groups, ordered within them" if name == "within" else ""
        perfect, adjusted = scope["smallest_p"], scope["smallest_adjusted_p"]
        if perfect > LEVEL:
            said.append(f"{rows}: even a perfect order has p = {perfect:.2g}; nothing here can be told from chance.")
            continue
        if scope.get("next_smallest_p", 0) > LEVEL:
            said.append(f"{rows}: even a perfect order has p = {perfect:.2g}; nothing weaker can be told from chance.")
        if adjusted is not None and adjusted > LEVEL:
            said.append(
                f"{rows}, {scope['num_terms']} terms screened: even a perfect order has an adjusted p of at least "
                f"{adjusted:.2g}; no term can be told from chance."
            )
    return said


def _of_what(scope: Mapping[str, Any]) -> str:
    if scope.get("parts") is not None:
        return f" of {scope['parts']} parts"
    if "within" in scope:
        return f" of {scope['within']} methods, put in orders within these"
    return f" of {scope['sets']} sets" if "sets" in scope else ""


def _about_missing(
    scopes: Mapping[str, Mapping[str, Any] | None], entries: Sequence[Mapping[str, Any]], called: Mapping[str, str]
) -> list[str]:
    """Terms missing in so many rows that even a perfect order of the others would show nothing."""
    said = []
    for entry in entries:
        n, of = entry["pooled"].get("n"), (scopes["pooled"] or {}).get("n", 0)
        if n is not None and n < of:
            perfect = smallest_p_values((n,))[0] if n <= MAX_ROWS_RESAMPLED else 0.0
            if "smallest_p" in entry["pooled"]:  # rows that share sets or parts
                perfect = entry["pooled"]["smallest_p"]
            if perfect is not None and perfect > LEVEL:
                said.append(f"{called[entry['term']]}: {n} of {of} rows; even a perfect order has p = {perfect:.2g}.")
    return said


def _about_groups(entries: Sequence[Mapping[str, Any]], called: Mapping[str, str]) -> list[str]:
    """Terms whose association reverses within groups: they distinguish groups rather than rows."""
    said = []
    for entry in entries:
        pooled, within = (entry[scope].get("tau", {}).get("value", 0.0) for scope in ("pooled", "within"))
        if pooled * within < 0:
            said.append(f"{called[entry['term']]}: τ = {pooled:+.2f} over all rows but {within:+.2f} within groups.")
    return said
