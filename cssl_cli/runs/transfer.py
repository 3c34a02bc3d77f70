"""Transfer: the encoder of a finished run on other images, a file of its folder `transfer/` out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from cssl_cli.data import Dataset, ImageSet
from cssl_cli.errors import DamagedError, InputError, shown_path
from cssl_cli.features.patches import at_a_time
from cssl_cli.host.files import explained
from cssl_cli.host.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs.device import choose_device, require_feature_precision
from cssl_cli.runs.finished import finished_run_data, open_finished
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.loaded_encoder import facts_of_images
from cssl_cli.runs.options import require_precision, with_precision
from cssl_cli.runs.prober import Prober
from cssl_cli.runs.run_dir import RESULTS_FORMAT, TRANSFER, RunDir
from cssl_cli.runs.stored import Transfer, require


def transfer(
    path: Path,
    *,
    elsewhere: Recipe,
    recipe: Recipe,
    reporter: Reporter,
    device_name: str | None = None,
    data_root: str | None = None,
    precision: str = "float32",
    again: bool = False,
) -> dict[str, Any]:
    """Accuracies of the run's encoder on the images of the recipe `elsewhere`, as `runs.probe.probe` has them.

    Both recipes are the run's, with its measurement settings; `elsewhere` has other data. Where it gives no `size`, the
    images are prepared at the encoder's; they are brought to it otherwise, and normalised as the run's own images were.
    What was measured before on the same images with the same settings is read, unless `again`. `data_root` is where the
    images are, in place of what `elsewhere` says. Raises InputError without labels, and for another number of channels.
    """
    run, recipe = open_finished(path, reporter, recipe)
    device = choose_device(device_name)
    require_precision(precision)
    settings = with_precision(recipe.settings("probe"), precision)
    facts = facts_of_images(run)
    mean, std, side = tuple(facts["mean"]), tuple(facts["std"]), facts.get("image_size")
    if side is None:
        side = _side(run, recipe, reporter)
    elsewhere = _at_this_size(elsewhere, side)
    dataset = prepare_data(elsewhere, reporter, data_root=data_root, own=[run.path, run.path.absolute().parent])
    _require_channels(dataset, len(mean))
    head = {
        "format": RESULTS_FORMAT,
        "fingerprint": recipe.fingerprint,
        "content_key": dataset.content_key,
        "encoder_sha256": run.encoder_digest(),
        "settings": json.loads(json.dumps(settings)),
    }
    file = f"{TRANSFER}/{elsewhere.data.name}-{_key(head)}.json"
    if not again and (stored := _stored(run, file, head, reporter)) is not None:
        reporter.say(f"measured before, and read from {shown_path(run.file(file))}")
        return stored
    with run.locked():
        require_feature_precision(precision, device)
        seen = replace(_at_side(dataset, side), mean=mean, std=std)
        prober = Prober(elsewhere, seen, device, reporter, precision)
        result = {
            **head,
            "transfer": {
                "name": dataset.name,
                "data": json.loads(json.dumps(elsewhere.settings("data", data_root=data_root))),
                "image_size": side,
                "original_size": dataset.image_size,
                "mean": list(mean),
                "std": list(std),
            },
            **prober.encoders(run, recipe, {}),
        }
        if prober.errors:
            result["feature_error"] = prober.errors
        with explained(run.file(TRANSFER), "Make the folder writable."):
            run.file(TRANSFER).mkdir(exist_ok=True)
        run.write_json(file, result)
    return result


def _key(head: dict[str, Any]) -> str:
    """Of what a result depends on."""
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()[:10]


def _stored(run: RunDir, file: str, head: dict[str, Any], reporter: Reporter) -> dict[str, Any] | None:
    """What was measured before; None where it was not, or the file is damaged, which is reported."""
    try:
        content = run.read_json(file)
        if content is None:
            return None
        try:
            require(Transfer, content)
        except ValueError as error:
            raise run.damaged(file, str(error)) from error
        for name, value in head.items():
            if content[name] != value:
                raise run.damaged(file, f"its {name} is another")
    except DamagedError as error:
        reporter.say(f"{error.where}: {error.what}; it is made again")
        return None
    return content


# ---------------------------------------------------------------------- images as the encoder saw its own
def _side(run: RunDir, recipe: Recipe, reporter: Reporter) -> int:
    """Pixels a side of the images that an older run was trained on; they are read where the recipe does not say."""
    size = getattr(recipe.data, "size", None)
    if size is None:
        size = finished_run_data(run, recipe, None, reporter, None).image_size
    return int(size)


def _at_this_size(recipe: Recipe, side: int) -> Recipe:
    """The recipe with the images prepared at this size, unless it says another."""
    if "size" not in type(recipe.data).model_fields or "size" in recipe.data.model_fields_set:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"size": side})})


def _require_channels(dataset: Dataset, channels: int) -> None:
    found = dataset.channels
    if found != channels:
        raise InputError(
            f"the images of {dataset.name} have {found} channel{'' if found == 1 else 's'}, and the encoder was "
            f"trained on images of {channels}",
            where="--data",
            remedy=f"Give images of {channels} channels.",
        )


def _at_side(dataset: Dataset, side: int) -> Dataset:
    """The labelled images at `side` pixels: bilinear, over all pixels that a smaller one stands for."""
    if dataset.image_size == side:
        return dataset
    train, test = _resized(dataset.train, side), _resized(dataset.test, side)
    return replace(dataset, pretrain=train or dataset.pretrain, train=train, test=test, image_size=side)


def _resized(part: ImageSet | None, side: int) -> ImageSet | None:
    if part is None or part.images.shape[-1] == side:
        return part
    blocks = [
        F.interpolate(block.float(), size=(side, side), mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for block in part.images.split(at_a_time(part.images.shape[-1]))
    ]
    return ImageSet(torch.cat(blocks), part.labels)
