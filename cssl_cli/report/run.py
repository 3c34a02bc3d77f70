"""Reports of one run: how pretraining ended, and its accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cssl_cli.errors import escaped, shown_command, shown_path
from cssl_cli.report.few_labels import few_labels_table, finetuned_table
from cssl_cli.report.layout import console, heading, note, percent, plural, print_json, table
from cssl_cli.runs.results import CLASSIFIERS, ENCODERS
from cssl_cli.runs.run_dir import METRICS, RunDir

NO_RECORDS = "the encoder was trained elsewhere, and there are no records of it"


def show_pretrained(run: RunDir, as_json: bool) -> None:
    """Print where the run is and how its last epoch went."""
    metrics = run.read_records(METRICS)
    last = metrics[-1] if metrics else None
    status = run.status()
    imported = status.get("imported")
    if as_json:
        content = {"run": str(run.path), "status": status, "last_epoch": last}
        return print_json({**content, "reason": NO_RECORDS} if imported else content)
    out = console()
    if imported:
        out.print(f"imported from {escaped(str(imported['file']))}: {NO_RECORDS}")
    if last is not None:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in last["terms"].items())
        seconds = sum(record["seconds"] for record in metrics)
        out.print(f"epoch {last['epoch']}, step {last['step']:,}: {terms}")
        out.print(f"{seconds:,.0f} s of training recorded, {last['images_per_second']:,.0f} images/s in the last epoch")
    out.print(shown_path(run.path), soft_wrap=True)
    labelled = (run.environment() or {}).get("labelled", True)
    note(out, f"Next: {shown_command('cssl', 'probe' if labelled else 'analyze', run.path)}")
    return None


# ---------------------------------------------------------------------- probe
def show_probe(path: Path, result: dict[str, Any]) -> None:
    """Print accuracies of the trained encoder beside the untrained one and raw pixels; then class by class."""
    out = console()
    print_probe(out, result)
    if "transfer" not in result:
        note(out, f"\nNext: {shown_command('cssl', 'analyze', path)}")


def print_probe(out: Console, result: dict[str, Any]) -> None:
    """Print the accuracies, on other images also which, and those of each class."""
    _other_images(out, result)
    probe_table(out, result)
    few_labels_table(out, result)
    finetuned_table(out, result)
    _per_class(out, result["trained"])


def _other_images(out: Console, result: Mapping[str, Any]) -> None:
    """On which images, where they are not those of the run, and how they were brought to the encoder."""
    images = result.get("transfer")
    if images is None:
        return
    side, before = images["image_size"], images["original_size"]
    place = next((images["data"][field] for field in ("root", "file", "path") if images["data"].get(field)), None)
    size = f"brought from {before} to {side} pixels a side" if before != side else f"of {side} pixels a side"
    out.print(f"Transfer to {escaped(images['name'])}{'' if place is None else f', {escaped(place)}'}", style="bold")
    note(out, f"Images {size}, normalised with the mean and standard deviation of the run's own images.\n")


def probe_table(out: Console, result: dict[str, Any]) -> None:
    trained = result["trained"]
    measured = {name: label for name, label in ENCODERS.items() if name in result}
    _accuracies(out, "accuracy, %", {label: result[name] for name, label in measured.items()})
    if all("top_5" in result[name][classifier] for name in measured for classifier in CLASSIFIERS):
        of_top = {
            label: {classifier: result[name][classifier]["top_5"] for classifier in CLASSIFIERS}
            for name, label in measured.items()
        }
        out.print()
        _accuracies(out, "top-5 accuracy, %", of_top)
    linear, knn, center = (trained[classifier] for classifier in CLASSIFIERS)
    chosen = "" if linear["validation_accuracy"] is None else ", chosen on held-out training images"
    frozen = "frozen features" + (" of the last epoch" if "fingerprint" in result else "")
    views = center["center_views"]
    averaged = f"{plural(views, 'view')} of each training image" if views else "the clean training images"
    note(
        out,
        f"{plural(linear['num_images'], 'test image')}, 95 % intervals; {frozen}. Linear: "
        f"logistic regression, penalty {linear['penalty']:g} for the trained encoder{chosen}. k-NN: k = {knn['k']}, "
        f"temperature {knn['temperature']:g}. Nearest centre: class centres over {averaged}.",
    )
    if said := precision_note(result):
        note(out, said)
    for name, label in measured.items():
        for warning in result[name]["linear"].get("warnings", []):
            note(out, f"{label}: {warning}")


def _accuracies(out: Console, head: str, of_encoders: Mapping[str, Mapping[str, Any]]) -> None:
    grid = table(head, *(classifier.called for classifier in CLASSIFIERS.values()))
    for label, scores in of_encoders.items():
        shares = (scores[classifier] for classifier in CLASSIFIERS)
        grid.add_row(label, *(percent(share["accuracy"], share["interval"]) for share in shares))
    out.print(grid)


def precision_note(result: Mapping[str, Any] | None, of: str = "Features") -> str:
    """The effect of a lower precision on the features of probe.json or analysis.json; empty for float32."""
    if result is None or (precision := result["settings"].get("precision")) is None:
        return ""
    errors = [
        f"{100 * error['of_length']:.2g} % of their length"
        + ("" if error["of_spread"] is None else f" and {100 * error['of_spread']:.2g} % of their spread")
        + f" ({name}, over {error['num_views']:,} views)"
        for name, error in result["feature_error"].items()
    ]
    return f"{of} in {precision}, off those in float32 by {', '.join(errors)}, root mean square."


def _per_class(out: Console, scores: dict[str, Any]) -> None:
    heading(out, "Accuracy by class, trained encoder, %")
    # Older results lack the counts.
    counts: dict[str, int] = scores["linear"].get("images_per_class", {})
    unequal = len(set(counts.values())) > 1
    grid = table("class", *(["images"] if unequal else []), *(classifier.called for classifier in CLASSIFIERS.values()))
    for name in scores["linear"]["per_class"]:
        shares = (percent(scores[classifier]["per_class"][name]) for classifier in CLASSIFIERS)
        grid.add_row(name, *([f"{counts[name]:,}"] if unequal else []), *shares)
    out.print(grid)
    if unequal:
        largest = max(counts, key=lambda name: counts[name])
        share = percent(counts[largest] / sum(counts.values()))
        note(out, f"The classes are not equally large: always naming {largest} would be right for {share} %.")
