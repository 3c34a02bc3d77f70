"""What `cssl rank` prints: augmentations, best first, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cssl_cli.report.layout import console, note, number, percent, plural, print_json, print_widest, table

LEVEL = 0.05
USUAL_IMAGES = 4000
CONTROL = " (control)"
MOST_NAMES = 4  # of one augmentation; --json has all


def show_ranking(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the ranking as a table with its legend, or as JSON."""
    if as_json:
        return print_json(result)
    out = console()
    has_labels = result["class_names"] is not None
    columns = ("share, %", "about class", "shared") if has_labels else ("shared",)
    if result["train_seeds"] is None:
        print_widest(out, [_grid(result, columns)])
    else:  # what the rows are ordered by leaves little room for the rest
        print_widest(out, [_grid(result, ("k-NN, %", *columns[:count])) for count in (3, 1)])
    return note(out, _legend(result, has_labels))


def _grid(result: Mapping[str, Any], columns: Sequence[str]) -> Table:
    grid = table("", "augmentations", *columns, "not told from", text_columns=2)
    grid.columns[-1].justify, grid.columns[-1].no_wrap = "left", False
    alike = _not_told_apart(result)
    largest = max((abs(row["share"]["value"] or 0) for row in result["rows"]), default=0)
    decimals = 1 if largest >= 0.01 else 2
    for place, row in enumerate(result["rows"], start=1):
        cells = {"share, %": _share(row["share"], decimals)}
        if result["train_seeds"] is not None:
            cells["k-NN, %"] = percent(row["brief_knn"]["value"], row["brief_knn"]["interval"])
        cells |= {"about class": number(row["about_class"]["value"]), "shared": number(row["shared"]["value"])}
        grid.add_row(f"{place}", _named(row), *(cells[name] for name in columns), ", ".join(alike.get(row["row"], ())))
    return grid


def _share(share: Mapping[str, Any], decimals: int) -> str:
    """In per cent, with its interval; with more decimals where all are so small that one would not tell them apart."""
    if share["value"] is None or decimals == 1:
        return percent(share["value"], share.get("interval"))
    value, low, high = (f"{100 * number:.{decimals}f}" for number in (share["value"], *share["interval"]))
    return f"{value}  [{low}, {high}]"


def _named(row: Mapping[str, Any]) -> str:
    """The first of the rows with one augmentation, and how many others there are."""
    names = [row["row"], *row["same"]]
    shown, others = (names, 0) if len(names) <= MOST_NAMES else (names[: MOST_NAMES - 1], len(names) - MOST_NAMES + 1)
    return (
        ", ".join(shown) + (f" and {others:,} others" if others else "") + (CONTROL if row["negative_control"] else "")
    )


def _not_told_apart(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each row, the rows whose difference from it is within the noise, by their places."""
    places = {row["row"]: place for place, row in enumerate(result["rows"], start=1)}
    found: dict[str, list[int]] = {}
    for entry in result["differences"]:
        if entry["p_adjusted"] > LEVEL:
            found.setdefault(entry["better"], []).append(places[entry["worse"]])
            found.setdefault(entry["worse"], []).append(places[entry["better"]])
    return {name: [str(place) for place in sorted(others)] for name, others in found.items()}


def _legend(result: Mapping[str, Any], has_labels: bool) -> str:
    measured = (
        f"{plural(result['num_images'], 'training image')}, {plural(result['num_views'], 'view')} each, in fixed "
        "features that need no training. shared: information that two views of an image share, in nats. "
    )
    if has_labels:
        few = result["labels_per_class"]
        of = "" if few is None else f" (labels of {plural(few, 'image')} a class)"
        labelled = "these images" if few is None else "the images with these labels"
        measured += (
            f"about class: what of a view is about its class{of}. share: that over shared, with its 95 % interval over "
            "images and views. The reading: a good augmentation leaves the views of an image little in common but the "
            "class, so more is better; small crops are ranked too high, and on drawn shapes it predicted nothing. "
        )
        if result["train_seeds"] is None:
            measured += "--train 2 predicted k-NN accuracies better, at some ten seconds for each set. "
        if result["train_seeds"] is not None:
            measured += (
                f"k-NN: accuracy on {labelled}, clean, in the features of a tiny encoder after brief training, the "
                f"mean over {result['train_seeds']} seeds, with its 95 % interval over seeds and images; too low, as "
                "neighbours are from half of the images, and too high, as the encoder has seen all, without labels. "
                "The rows are in its order. "
            )
    else:
        measured += (
            "Without labels the least shared comes first. This cannot see an augmentation that destroys the class "
            "together with all else: a set that turns images gray would be first. "
        )
    if result["num_images"] < USUAL_IMAGES:
        measured += (
            f"Fewer images than the {USUAL_IMAGES:,} for which the ranking was tried: noise makes shared too large, "
            "most where little is shared. "
        )
    if any(row["negative_control"] for row in result["rows"]):
        measured += (
            "(control): a negative control, whose views fade to gray. Where it is ahead of other sets, do not trust "
            "the ranking. "
        )
    noise = "jackknife over the same images" if result["train_seeds"] is None else "Student's t over seeds and images"
    return measured + (
        f"not told from: places whose difference is within noise ({noise}, Holm over all pairs, "
        f"{100 * LEVEL:g} %). What it predicts, and how well: docs/predictors.md."
    )
