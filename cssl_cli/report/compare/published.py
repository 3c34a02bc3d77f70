"""Published accuracies beside ours: differences, how the protocols differ, and whether the order of the rows agrees.

Ours follows theirs where possible: if theirs is the best epoch on the test images, ours is too, if recorded. The
accuracy of the last epoch is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from cssl_cli.errors import InputError
from cssl_cli.report.compare.catalogue import BY_NAME
from cssl_cli.report.compare.named_quantities import difference, mean_of
from cssl_cli.report.compare.paired_difference import exceeds
from cssl_cli.report.compare.rows import Row, is_finished
from cssl_cli.report.compare.sharing import sharing_of
from cssl_cli.runs.run_dir import EPOCH_KNN, RunDir
from cssl_cli.sweep.file import Reference
from cssl_cli.sweep.sweep import Sweep

BEST = "best_"  # prefix of an accuracy: that of the epoch that did best on the test images
DATA = "data.name"
Comparison = dict[str, Any]


def published_of(reference: Reference | None, row: str) -> dict[str, float]:
    """A row's published accuracies as shares, by the names of ours they compare with."""
    if reference is None or row not in reference.values:
        return {}
    names = [reference.accuracy, *([f"{BEST}{reference.accuracy}"] if reference.selection == "best_epoch" else [])]
    return {name: reference.values[row] / 100 for name in names if name in BY_NAME}


def compare_published(sweep: Sweep, rows: Sequence[Row], *, chosen: bool = False) -> Comparison | None:
    """Ours and theirs row by row, the order of the rows by method, and the protocols. None without published values.

    Accuracies are shares of 1. `ours` names our quantity that is compared with theirs, `last` that of the last epoch.
    `order` has one entry per method: the `rank_correlation` of ours with theirs, and the neighbours in their order that
    are swapped in ours. `protocol` has one entry per field: `theirs`, and all values of `ours`. Where the rows were
    `chosen` by an accuracy, orders have no p and no intervals.
    """
    reference = sweep.reference
    compared = [] if reference is None else [row for row in rows if row.name in reference.values]
    if reference is None or not compared:
        return None
    best = f"{BEST}{reference.accuracy}"
    measured = [row for row in compared if row.done]
    like = reference.selection == "best_epoch" and best in BY_NAME and bool(measured)
    ours = best if like and all(mean_of(row, best) is not None for row in measured) else reference.accuracy
    entries = [
        {
            "row": row.name,
            "ours": mean_of(row, ours),
            "last": mean_of(row, reference.accuracy),
            "theirs": reference.values[row.name] / 100,
            "seeds": row.done,
        }
        for row in compared
    ]
    for entry in entries:
        entry["difference"] = None if entry["ours"] is None else entry["ours"] - entry["theirs"]
    return {
        "source": reference.source,
        "accuracy": reference.accuracy,
        "selection": reference.selection,
        "seeds": reference.seeds,
        "ours": ours,
        "last": reference.accuracy,
        "epochs_measured": _epochs_measured(measured) if ours == best else None,
        "rows": entries,
        "order": [_order(group, of_group, ours, reference, chosen) for group, of_group in _groups(compared, ours)],
        "protocol": _protocol(reference, compared),
    }


def _groups(rows: Sequence[Row], ours: str) -> list[tuple[str, list[Row]]]:
    """The rows with the accuracy, by method, for methods with at least two."""
    present = [row for row in rows if mean_of(row, ours) is not None]
    groups = [(group, [row for row in present if row.group == group]) for group in {row.group: None for row in present}]
    return [(group, of_group) for group, of_group in groups if len(of_group) > 1]


def _order(group: str, rows: Sequence[Row], ours: str, reference: Reference, chosen: bool) -> dict[str, Any]:
    theirs = {row.name: reference.values[row.name] / 100 for row in rows}
    means = {row.name: mean_of(row, ours) or 0.0 for row in rows}
    ranked = sorted(rows, key=lambda row: theirs[row.name])
    return {
        "group": group,
        "n": len(rows),
        "rank_correlation": _rank_correlation(rows, list(means.values()), list(theirs.values()), chosen),
        "out_of_order": [
            {
                "rows": [low.name, high.name],
                "theirs": [theirs[low.name], theirs[high.name]],
                "ours": [means[low.name], means[high.name]],
                "difference": difference(high, low, ours),
            }
            for low, high in pairwise(ranked)
            if theirs[low.name] < theirs[high.name] and not exceeds(means[high.name], means[low.name])
        ],
    }


def _rank_correlation(
    rows: Sequence[Row], ours: Sequence[float], theirs: Sequence[float], chosen: bool
) -> dict[str, Any]:
    """Of our accuracies with theirs; p is over orders of the sets or parts that rows share, null if there are none."""
    from cssl_cli.report.compare.rank_correlation.coefficients import Undefined, rank_correlation
    from cssl_cli.report.compare.rank_correlation.crossed import over_sets, without_tests
    from cssl_cli.report.compare.rank_correlation.row_sharing import sharing_of_rows
    from cssl_cli.report.compare.rank_correlation.signs import as_column, group_codes

    found, shared, alone = rank_correlation(ours, theirs), sharing_of(rows), group_codes(None, len(rows))
    if isinstance(found, Undefined):
        return found.to_dict()
    if chosen:
        return without_tests(found).to_dict()
    decided = sharing_of_rows(as_column(theirs), alone, shared.design, shared.built_from)
    if decided.permuted is not None:
        (over,), _, _ = over_sets([found], as_column(ours)[:, None], as_column(theirs), alone, decided.permuted)
        return over.to_dict()
    return (found if decided.independent else without_tests(found)).to_dict()


def _epochs_measured(rows: Sequence[Row]) -> list[int]:
    """Over how many epochs the best was taken: the least and the greatest number over the members."""
    counts = set()
    for result in (result for row in rows for result in row.members if is_finished(result)):
        try:
            counts.add(len(RunDir(result.path).read_records(EPOCH_KNN)))
        except (InputError, OSError):  # the member then has no best epoch and is not compared
            continue
    return [min(counts), max(counts)] if counts else []


# ---------------------------------------------------------------------- protocols
def _protocol(reference: Reference, rows: Sequence[Row]) -> list[dict[str, Any]]:
    recipes = [
        member.member.recipe.model_dump(mode="json", by_alias=True) for row in rows for member in row.members[:1]
    ]
    keys = sorted(reference.protocol, key=lambda key: key != DATA)  # the data first: they matter most
    entries = []
    for key in keys:
        theirs, values = reference.protocol[key], [_at(recipe, key) for recipe in recipes]
        differing = _distinct(value for value in values if value != theirs)
        entries.append({"key": key, "theirs": theirs, "ours": _distinct(values), "same": not differing})
    return entries


def _at(recipe: Any, key: str) -> Any:
    for part in key.split("."):
        recipe = recipe.get(part) if isinstance(recipe, dict) else None
    return recipe


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
