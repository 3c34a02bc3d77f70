"""What `cssl rank --optimise` prints: the settings found, what new images say of them, and how to train with them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cssl_cli.report.layout import compacted, console, note, percent, plural, print_json, table
from cssl_cli.report.rank import LEVEL, USUAL_IMAGES


def show_optimised(result: Mapping[str, Any], arguments: Sequence[str], as_json: bool) -> None:
    """Print the result as tables, with the command that trains the proposal; `arguments` are those of the recipe."""
    proposal = result["proposal"]
    command = shlex.join(["cssl", "pretrain", *arguments, *proposal["overrides"]]) if proposal is not None else None
    if as_json:
        return print_json({**result, "command": command})
    out = console()
    found = "found" if proposal is None else "proposal"
    fields = table("field", "start", found, "searched")
    for field in result["fields"]:
        low, high = field["range"]
        fields.add_row(field["field"], _value(field["start"]), _value(field["found"]), f"{low:g} … {high:g}")
    out.print(compacted(out, fields))
    out.print()
    together = result["together"]
    shares = table("share, %", "images climbed on", "new images", *(["together"] if together is not None else []))
    for row, name in (("start", "start"), (found, "found")):
        new = result["judged_on"][name]["share"]
        cells = [percent(result["climbed_on"][name]), percent(new["value"], new.get("interval"))]
        shares.add_row(row, *cells, *([percent(together[name])] if together is not None else []))
    out.print(compacted(out, shares))
    out.print()
    out.print(_verdict(result))
    if command is not None:
        out.print(command, soft_wrap=True)
    return note(out, _legend(result))


def _value(value: float | Sequence[float]) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else f"[{', '.join(f'{own:.3g}' for own in value)}]"


def _verdict(result: Mapping[str, Any]) -> str:
    difference, together = result["difference"], result["together"]
    if difference is None:
        moved = result["climbed_on"]["found"] > result["climbed_on"]["start"]
        why = "one of the two has no share on new images" if moved else "no greater share was found"
    else:
        low, high = (100 * end for end in difference["interval"])
        by = f"{100 * difference['value']:+.2f} points on new images [{low:+.2f}, {high:+.2f}]"
        by += f", p = {difference['p']:.2g}"
        if result["proposal"] is not None:
            return f"The proposal has the greater share: {by}. {_caution(result)}To train with it:"
        if difference["p"] > LEVEL:
            why = f"{by}, which is within noise"
        elif together is None:
            why = by
        else:
            why = (
                f"{by}, but none with all {result['num_images']['together']:,} images together. It is too few images "
                "that make the one look better"
            )
    return f"Nothing was gained: {why}. Nothing is proposed."


def _caution(result: Mapping[str, Any]) -> str:
    number = result["num_images"]["climbed_on"]
    if number >= USUAL_IMAGES:
        return ""
    return (
        f"But it was found with {number:,} images and not the {USUAL_IMAGES:,} for which the share was tried: "
        "the fewer they are, the more noise favours weak augmentations, in new images as in those climbed on. "
    )


def _legend(result: Mapping[str, Any]) -> str:
    images, evaluations = result["num_images"], result["evaluations"]
    found = "found" if result["proposal"] is None else "proposal"
    text = f"{plural(evaluations['made'], 'augmentation')} tried on {plural(images['climbed_on'], 'training image')}"
    text += "" if evaluations["converged"] else ", and no more by --evaluations"
    text += f". The best is so by luck, too: start and {found} are compared on {images['judged_on']:,} new images, "
    text += "with other filters and views. Intervals: 95 %, over images and views. "
    if images["climbed_on"] < images["asked"]:
        text += f"There are not twice {images['asked']:,} images: half of what there is served for each. "
    for field in result["fields"]:
        if field["at_ends"]:
            ends = " and ".join(f"{end:g}" for end in field["at_ends"])
            text += f"{field['field']} lies at an end of its range, {ends}. "
    return text + (
        "The share was tried as a predictor on ordinary sets of augmentations, not on sets found by climbing it, where "
        f"it can mislead (docs/predictors.md has a case): train start and {found}, and compare."
    )
