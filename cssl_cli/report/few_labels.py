"""The tables of accuracies with few labelled images, and of fine-tuned encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from cssl_cli.report.layout import heading, note, percent, plural, print_widest, table, without_interval
from cssl_cli.runs.results import CLASSIFIERS, ENCODERS


def few_labels_table(out: Console, result: Mapping[str, Any]) -> None:
    """Each encoder and classifier at each number of labelled images; nothing where none was asked for."""
    measured = {name: label for name, label in ENCODERS.items() if name in result}
    levels = result["trained"]["linear"].get("few_labels", [])
    if not levels:
        return
    heading(out, "Accuracy with few labelled training images, %")
    grids = [table("labels", *(classifier.called for classifier in CLASSIFIERS.values())) for _ in range(2)]
    for place, level in enumerate(levels):
        if len(measured) > 1:
            _add(grids, level_called(level), *[""] * len(CLASSIFIERS))
        for name, label in measured.items():
            cells = [_mean(result[name][classifier]["few_labels"][place]) for classifier in CLASSIFIERS]
            _add(grids, f"  {label}" if len(measured) > 1 else level_called(level), *cells)
    print_widest(out, grids)
    # All labels at once are no draw: their penalty is that of the plain accuracy.
    crossed = [level for level in levels if level["labelled_images"] <= 1000 and len(level["accuracies"]) > 1]
    penalties = ", by cross-validation" if crossed else ""
    note(
        out,
        f"{_of_draws(levels)} The same images for every encoder, drawn class by class (all of one that has fewer), "
        f"and a draw's smaller choices within its larger ones. Linear: penalty chosen within the labelled "
        f"images{penalties}; the strongest where there is one of each class. k-NN: k at most the labelled images of an "
        "average class.",
    )


def finetuned_table(out: Console, result: Mapping[str, Any]) -> None:
    """The encoder trained on with labels, beside the same from scratch; nothing where it was not."""
    started = {"trained": "pretrained", "untrained": "from scratch"}
    found = {label: result[name]["finetune"] for name, label in started.items() if "finetune" in result.get(name, {})}
    if not found:
        return
    heading(out, "Accuracy after fine-tuning, %")
    grids = [table("labels", *found) for _ in range(2)]
    levels = next(iter(found.values())).get("few_labels", [])
    for place, level in enumerate(levels):
        if level.get("label_fraction") != 1:  # the last row
            _add(grids, level_called(level), *(_mean(scores["few_labels"][place]) for scores in found.values()))
    _add(grids, "all", *(percent(scores["accuracy"], scores["interval"]) for scores in found.values()))
    if all("top_5" in scores for scores in found.values()):
        top_5 = [scores["top_5"] for scores in found.values()]
        _add(grids, "all, top-5", *(percent(share["accuracy"], share["interval"]) for share in top_5))
    print_widest(out, grids)
    settings = result["settings"]["finetune"]
    views = "crop and flip" if settings["views"] == "crop_flip" else "the recipe's augmentations"
    steps = next(iter(found.values()))["steps"]
    several = f" {_of_draws(levels)} All: interval over test images." if levels else " Intervals over test images."
    note(
        out,
        f"Encoder and linear classifier trained together on the labelled training images for "
        f"{plural(settings['epochs'], 'epoch')}, at least {plural(settings['min_steps'], 'step')} ({steps:,} with all "
        f"labels): SGD, learning rate {settings['lr']:g}, weight decay {settings['weight_decay']:g}, {views}. Measured "
        f"after the last step, whatever the test images say.{several}",
    )


def level_called(level: Mapping[str, Any]) -> str:
    """ "1 % (500 images)" or "5 shots (50 images)"."""
    images = plural(level["labelled_images"], "image")
    if level.get("shots") is not None:
        return f"{plural(level['shots'], 'shot')} ({images})"
    return f"{100 * level['label_fraction']:g} % ({images})"


def _of_draws(levels: list[Mapping[str, Any]]) -> str:
    draws = max(level["n"] for level in levels)
    if draws == 1:
        return "One draw of the labelled images, which says nothing about others."
    return (
        f"Few labels: means over {draws} draws of the labelled images, and 95 % intervals of the mean over all draws "
        "(Student's t), for this encoder and these test images."
    )


def _mean(entry: Mapping[str, Any]) -> str:
    return percent(entry["accuracy"], entry["interval"])


def _add(grids: list[Any], label: str, *cells: str) -> None:
    wide, narrow = grids
    wide.add_row(label, *cells)
    narrow.add_row(label, *map(without_interval, cells))
