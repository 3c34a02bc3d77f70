"""From a recipe's `augment` block to the augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cssl_cli.augment.op import Operation
from cssl_cli.augment.pipeline import OPERATIONS, Augmentation
from cssl_cli.augment.two_sided import TwoSided
from cssl_cli.errors import InputError, unknown_name

Settings = Mapping[str, Mapping[str, Any] | None]


def build_augmentation(
    settings: Settings,
    *,
    image_size: int,
    store_size: int | None = None,
    channels: int = 3,
) -> Augmentation:
    """The augmentation that a recipe's `augment` block describes, for views of side `image_size`.

    Images are stored at `store_size` (None: that of the views) with so many `channels`. An operation that is absent or
    None is not applied; the order of application is that of `OPERATIONS`, not of the block. Raises InputError on an
    unknown operation and on settings that no image of this size, or number of channels, allows.
    """
    first, second = ({name: side.get(name) for name in OPERATIONS} for side in of_views(settings))
    require_channels(settings, channels)
    sizes: dict[str, dict[str, Any]] = {name: {"image_size": image_size} for name in OPERATIONS}
    sizes["crop"]["store_size"] = store_size
    operations = _operations(first, sizes)
    if first == second:
        return Augmentation(operations, image_size=image_size, store_size=store_size)
    try:
        others = _operations(second, sizes)  # what both have has been made before: a fault is of the second's own
    except InputError as error:
        where = f"augment.view_2.{(error.where or '').removeprefix('augment.')}"
        raise InputError(error.what, where=where, remedy=error.remedy) from error
    return TwoSided(operations, others, image_size=image_size, store_size=store_size)


def _operations(side: Settings, sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, Operation]:
    return {name: OPERATIONS[name](**sizes[name], **fields) for name, fields in side.items() if fields is not None}


def of_views(settings: Settings) -> tuple[Settings, Settings]:
    """The operations of an `augment` block for the first view of a pair, and for the second.

    Those of `view_2`, if it is given, are the second's, all of them. Raises InputError on an unknown operation.
    """
    first = {name: fields for name, fields in settings.items() if name != "view_2"}
    second = settings.get("view_2")
    for name in (*first, *(second or ())):
        if name not in OPERATIONS:
            raise unknown_name("augmentation", name, OPERATIONS, where="augment")
    return first, first if second is None else second


def require_channels(settings: Settings, channels: int) -> None:
    """`InputError` that lists every operation of an `augment` block that images of so many channels do not allow."""
    first, second = of_views(settings)
    mixing = _mixing(first) + [f"view_2.{name}" for name in _mixing(second) if second is not first]
    if channels == 3 or not mixing:
        return
    remedy = f"Drop {'them' if len(mixing) > 1 else 'it'}: {' '.join(f'augment.{name}=null' for name in mixing)}."
    if "jitter" in mixing:
        remedy += " Or leave jitter its brightness and contrast: augment.jitter.saturation=0 augment.jitter.hue=0."
    raise InputError(
        f"{' and '.join(mixing)} mix red, green and blue, and the images have "
        f"{channels} channel{'s' if channels > 1 else ''}",
        where="augment",
        remedy=remedy,
    )


def _mixing(operations: Settings) -> list[str]:
    given = {name: fields for name in OPERATIONS if (fields := operations.get(name)) is not None}
    return [name for name, fields in given.items() if OPERATIONS[name].mixes_channels(fields)]
