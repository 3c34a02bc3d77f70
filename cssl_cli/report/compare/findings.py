"""What the table of a sweep means, in two sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cssl_cli.errors import some
from cssl_cli.report.compare.catalogue import BY_NAME, FEATURE_TERMS, LAST_EPOCH, Column
from cssl_cli.report.compare.paired_difference import equal
from cssl_cli.report.compare.rows import Row, circumstances, is_finished


def findings(rows: Sequence[Row], accuracy: Column) -> list[str]:
    """The row of the greatest accuracy and what beats the untrained encoder; then which terms point to that row.

    Negative controls are left out. Nothing without two finished rows that have the accuracy.
    """
    measured = [row for row in rows if not row.control and row.mean(accuracy.name) is not None]
    if len(measured) < 2:
        return []
    highest = max(row.mean(accuracy.name) or 0.0 for row in measured)
    best = [row for row in measured if equal(highest, row.mean(accuracy.name) or 0.0)]
    return [_about_accuracy(measured, best, accuracy), *_about_terms(measured, best, accuracy)]


def _about_accuracy(rows: Sequence[Row], best: Sequence[Row], accuracy: Column) -> str:
    said = f"Highest {accuracy.label}: {some([row.name for row in best])}, {_percent(best[0], accuracy)}"
    untrained = best[0].mean(f"untrained_{accuracy.name}") if accuracy in LAST_EPOCH else None
    if untrained is None:
        return f"{said}."
    said += f", against {BY_NAME['linear'].shown(untrained)} % of the untrained encoder"
    compared = [accuracy, *(one for one in LAST_EPOCH[:2] if one is not accuracy)]
    beaten = [f"{sum(_beats_untrained(row, one) for row in rows):,} in {one.label}" for one in compared]
    return f"{said}. Of {len(rows):,} rows, {' and '.join(beaten)} beat it by more than the 95 % intervals of both."


def _beats_untrained(row: Row, accuracy: Column) -> bool:
    """Whether each seed's accuracy is above the untrained encoder's, the intervals over the test images apart."""
    from cssl_cli.features.proportions import clopper_pearson  # scipy, only where there are accuracies

    found = []
    for result, values, measured in zip(row.members, row.values, row.circumstances, strict=True):
        if not is_finished(result):
            continue
        trained, untrained, n = values[accuracy.name], values[f"untrained_{accuracy.name}"], measured.probed_images
        if trained is None or untrained is None or not n:
            return False
        lowest, highest = clopper_pearson(round(trained * n), n)[0], clopper_pearson(round(untrained * n), n)[1]
        found.append(lowest > highest)
    return bool(found) and all(found)


def _about_terms(rows: Sequence[Row], best: Sequence[Row], accuracy: Column) -> list[str]:
    """For each main term, whether the row that it puts first is the best one; of several best rows, which."""
    facts = circumstances(rows)
    alike = all(len(facts[name]) <= 1 for name in ("views", "epsilons", "deltas"))
    pointing: dict[str, list[str]] = {}
    for term in FEATURE_TERMS:
        known = [row for row in rows if row.mean(term.name) is not None]
        if len(known) < len(rows) or (term.of_views and not alike):
            continue
        values = [row.mean(term.name) or 0.0 for row in known]
        ahead = term.best(values)
        first = [row for row, value in zip(known, values, strict=True) if equal(value, ahead)]
        if len(first) == 1:
            pointing.setdefault(first[0].name, []).append(term.title.rstrip(" ↑↓"))
    agreeing = pointing.pop(best[0].name, []) if len(best) == 1 else []
    by_name = {row.name: row for row in rows}
    parts = [f"{some(agreeing)} {_put(agreeing)} it first, too"] if agreeing else []
    parts += [
        f"{some(terms)} {_put(terms)} {name} first, of {_percent(by_name[name], accuracy)}"
        for name, terms in pointing.items()
    ]
    return [f"By the theory's terms: {'; '.join(parts)}."] if parts else []


def _put(terms: Sequence[str]) -> str:
    return "puts" if len(terms) == 1 else "put"


def _percent(row: Row, accuracy: Column) -> str:
    return f"{accuracy.shown(row.mean(accuracy.name) or 0.0)} %"
