"""Published accuracies beside ours as a table, with differences of protocol and the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cssl_cli.recipe.schema import show
from cssl_cli.report.compare.catalogue import BY_NAME
from cssl_cli.report.compare.published import DATA, Comparison
from cssl_cli.report.compare.tables.differences import noise
from cssl_cli.report.layout import compacted, heading, note, plural, table

SELECTIONS = {"best_epoch": "best epoch on the test images", "last_epoch": "last epoch"}


def print_published(out: Console, compared: Comparison | None) -> None:
    """Print ours beside theirs, then what matters for comparing them; nothing unless both have numbers."""
    if compared is None or not any(row["seeds"] for row in compared["rows"]):
        return
    like_theirs = compared["ours"] != compared["last"]
    called = BY_NAME[compared["last"]].title
    heading(out, f"Published: {compared['source']}")
    columns = [f"best {called}", f"last {called}"] if like_theirs else [called]
    grid = table("", *columns, "theirs", "difference")
    for row in compared["rows"]:
        ours = [row["ours"], row["last"]] if like_theirs else [row["ours"]]
        points = "–" if row["difference"] is None else f"{100 * row['difference']:+.1f}"
        grid.add_row(row["row"], *(_percent(value, 1) for value in ours), _percent(row["theirs"], 2), points)
    out.print(compacted(out, grid))
    note(out, _about_protocol(compared))
    for order in compared["order"]:
        note(out, _order_in_words(order))
        for pair in order["out_of_order"]:
            out.print(Padding(Text(_pair_in_words(pair), style="dim"), (0, 0, 0, 2)))


def _percent(share: float | None, digits: int) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}"


def _about_protocol(compared: Comparison) -> str:
    differing = [entry for entry in compared["protocol"] if not entry["same"]]
    same = [entry["key"] for entry in compared["protocol"] if entry["same"]]
    sentences = []
    if differing and differing[0]["key"] == DATA:
        data = differing.pop(0)
        sentences.append(f"Other images: ours {_values(data['ours'])}, theirs {data['theirs']}.")
    sentences.append(f"Theirs in %: {_theirs(compared)}; difference: ours less theirs, in points.")
    if differing:
        said = "; ".join(f"{e['key']} {_values(e['ours'])}, theirs {_value(e['theirs'])}" for e in differing)
        sentences.append(f"What differs: {said}.")
    if same:
        sentences.append(f"The same: {', '.join(same)}.")
    return " ".join(sentences)


def _theirs(compared: Comparison) -> str:
    called = BY_NAME[compared["last"]].title
    runs = "" if compared["seeds"] is None else f", {plural(compared['seeds'], 'run')}"
    counts = sorted({row["seeds"] for row in compared["rows"]} - {0})
    seeds = "" if not counts else f" of {plural(counts[-1], 'seed')}"
    if len(counts) > 1:
        seeds = f" of {counts[0]} to {counts[-1]} seeds"
    theirs = f"{called}, {SELECTIONS[compared['selection']]}{runs}"
    if compared["selection"] == "last_epoch":
        return f"{theirs}; ours is the last epoch, too{seeds and f', the mean{seeds}'}"
    if compared["ours"] == compared["last"]:
        return f"{theirs}; ours is the last epoch{seeds and f', the mean{seeds}'}, since no other was recorded"
    least, most = compared["epochs_measured"] or (0, 0)
    epochs = str(most) if least == most else f"{least} to {most}"
    return (
        f"{theirs}; ours best {called} is the best of {epochs} epochs measured, chosen likewise on the test images, "
        f"the mean{seeds}; last is the last epoch"
    )


def _values(values: Sequence[Any]) -> str:
    shown = [_value(value) for value in values]
    return " and ".join(shown) if len(shown) < 4 else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


def _value(value: Any) -> str:
    return "not given" if value is None else value if isinstance(value, str) else show(value)


def _order_in_words(order: dict[str, Any]) -> str:
    found, wrong = order["rank_correlation"], order["out_of_order"]
    tau = f"{found['tau']['value']:.2f} over" if "tau" in found else "none,"
    neighbours = "not in their order:" if wrong else "all neighbours in their order."
    return f"Kendall's τ of ours with theirs, {order['group']}: {tau} {plural(order['n'], 'row')}; {neighbours}"


def _pair_in_words(pair: dict[str, Any]) -> str:
    theirs, ours = ([_percent(share, digits) for share in pair[of]] for of, digits in (("theirs", 2), ("ours", 1)))
    return (
        f"{' and '.join(pair['rows'])}: theirs {', '.join(theirs)}; ours {', '.join(ours)}, {noise(pair['difference'])}"
    )
