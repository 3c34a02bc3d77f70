"""The least memory that a recipe needs, and how much there is, checked before anything is computed.

Every estimate is a lower bound, so nothing that fits is refused. It counts weights, optimizer state and the largest
arrays of images, views, activations and resamples, but nothing that is made in blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError
from cssl_cli.recipe import Recipe

Needs = Mapping[str, float]  # bytes, by the recipe field that determines them

_FLOAT = 4
# Of the encoders that are our own; nothing is known of a library's before it is built.
_WEIGHTS_AT_64 = {  # of convolutions at width 64; they grow as width²
    "resnet18": 11.1e6,
    "resnet34": 21.2e6,
    "resnet50": 23.4e6,
    "resnet101": 42.3e6,
}
_FEATURES = {"resnet18": 8, "resnet34": 8, "resnet50": 32, "resnet101": 32, "small": 8}  # outputs, relative to width
_STATES = {"sgd": 1, "lars": 1, "adamw": 2}  # numbers that an optimizer keeps for each weight
# Numbers that a pass keeps of an image, by width and pixels: the outputs of convolutions (a compiler may drop the
# rest), or only the inputs of blocks.
_ACTIVATIONS = {"small": 1.875, "resnet18": 9.375, "resnet34": 15.625, "resnet50": 52.375, "resnet101": 77.875}
_INPUTS_OF_BLOCKS = {"small": 1.75, "resnet18": 4.625, "resnet34": 7.75, "resnet50": 28.0, "resnet101": 45.0}
_GPU = Path("/dev/nvidiactl")  # exists if there is an NVIDIA driver; training then need not fit into the host's memory


def of_images(recipe: Recipe) -> Needs:
    """Generated images; images from disk may be memory-mapped."""
    data: Any = recipe.data  # the fields depend on the data set
    if not hasattr(data, "num_train"):
        return {}
    pixels = 3 * (data.store_size or data.size) ** 2
    return {"data.num_train": data.num_train * pixels, "data.num_test": data.num_test * pixels}


def of_training(
    recipe: Recipe,
    image_size: int | None = None,
    channels: int | None = None,
    measured: tuple[float, float, float] | None = None,
) -> Needs:
    """Weights, gradients, optimizer state, and what the backward pass of a batch needs.

    image_size, channels: of the images, where they are known. measured: of a library's encoder for such images, its
    weights, the numbers that a pass keeps of an image, and its outputs (nn/least_memory.py).
    """
    encoder, method = recipe.encoder, recipe.method
    trained = 2 + (_STATES[recipe.optim.name] if getattr(recipe.optim, "momentum", None) != 0 else 0)
    copies = trained + (1 if hasattr(method, "ema_momentum") else 0)
    weights, kept, outputs = measured or (weights_of_encoder(recipe), None, _num_features(recipe))
    sizes = [outputs, *method.projector]
    of_projector = sum(first * second for first, second in zip(sizes, method.projector, strict=False))
    needs = {
        f"encoder.{'width' if hasattr(encoder, 'width') else 'model'}": _FLOAT * copies * weights,
        "method.projector": _FLOAT * copies * of_projector,
    }
    if hasattr(method, "predictor"):
        needs["method.predictor"] = _FLOAT * trained * 2 * method.predictor * method.projector[-1]
    if hasattr(method, "queue"):
        needs["method.queue"] = _FLOAT * method.queue * method.projector[-1]
    size = getattr(recipe.data, "size", None) or image_size or 32  # downloadable sets have no smaller images
    kept = _kept_of_an_image(recipe) * size**2 if kept is None else kept
    of_pass = 2 * kept  # activations may be bfloat16
    channels = channels or _channels(recipe)
    of_views = 2 * recipe.train.batch_size * channels * (_FLOAT * size**2 + _stored_pixels(recipe))
    if recipe.train.micro_batch is None:
        return needs | {"train.batch_size": of_views + 2 * recipe.train.batch_size * of_pass}
    return needs | {"train.batch_size": of_views, "train.micro_batch": recipe.train.micro_batch * of_pass}


def _stored_pixels(recipe: Recipe) -> int:
    """Of an image that is stored larger than its views: a batch of them, once for each view."""
    return (getattr(recipe.data, "store_size", None) or 0) ** 2


def weights_of_encoder(recipe: Recipe) -> float:
    """The weights of the convolutions, slightly underestimated; 0 where they are not known."""
    width = getattr(recipe.encoder, "width", 0)
    if recipe.encoder.name == "small":
        return 9 * (_channels(recipe) * width + 2 * width**2 + 8 * width**2 + 32 * width**2)
    return _WEIGHTS_AT_64.get(recipe.encoder.name, 0) * (width / 64) ** 2


def _channels(recipe: Recipe) -> int:
    """Of an image; 1 where they are not known."""
    return getattr(recipe.data, "channels", 3) or 1


def _num_features(recipe: Recipe) -> int:
    """The encoder's outputs; 0 where they are not known."""
    return _FEATURES.get(recipe.encoder.name, 0) * getattr(recipe.encoder, "width", 0)


def _kept_of_an_image(recipe: Recipe) -> float:
    """Numbers that a pass keeps for each pixel of an image; 0 where they are not known."""
    table = _INPUTS_OF_BLOCKS if recipe.train.checkpoint_activations else _ACTIVATIONS
    kept = table.get(recipe.encoder.name, 0.0)
    if getattr(recipe.encoder, "stem", None) == "imagenet":  # a quarter of the pixels, then a sixteenth
        first = 0 if recipe.train.checkpoint_activations else 1
        kept = first / 4 + (kept - first) / 16
    return kept * getattr(recipe.encoder, "width", 0)


def of_analysis(recipe: Recipe, num_images: int, settings: Mapping[str, int] | None = None) -> Needs:
    """Features of all views of the trained and the untrained encoder, and the bootstrap weights of the images.

    num_images: how many there are to choose from; settings: of the analyze block, in place of the recipe's.
    """
    wanted = recipe.analyze.model_dump() | dict(settings or {})
    images = min(wanted["num_images"], num_images)
    features = 2 * _FLOAT * images * _num_features(recipe)
    return {
        "analyze.num_images": features,
        "analyze.num_views": features * (wanted["num_views"] - 1),
        "analyze.bootstrap": 2 * _FLOAT * images * wanted["bootstrap"],  # in double precision
    }


def known_test_images(recipe: Recipe) -> int:
    """The number of test images, or 2 if it is known only once they are read."""
    number = recipe.data.num_test if hasattr(recipe.data, "num_test") else 2
    return min(number, recipe.data.limit_test or number)


def require(needs: Needs, free: float | None, *, checkpointed: bool = False) -> None:
    """`InputError`, naming the field that needs most, if there is not enough memory; None means unknown.

    checkpointed: whether `train.checkpoint_activations` already saves memory.
    """
    total = sum(needs.values())
    if free is None or total <= free:
        return
    field = max(needs, key=lambda name: needs[name])
    ways = [f"a smaller {field}"]
    if field == "train.batch_size" and "train.micro_batch" not in needs:
        ways.append("train.micro_batch, of which any batch is made")
    if field in ("train.batch_size", "train.micro_batch") and not checkpointed:
        ways.append("train.checkpoint_activations=true")
    smaller = " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))
    raise InputError(
        f"does not fit in memory: needs about {gib(total)} GiB, {gib(free)} are free",
        where=field,
        remedy=f"Give {smaller}, or use a machine with more memory.",
    )


def require_all(recipe: Recipe, device_name: str | None = None) -> None:
    """`require` for everything done with a recipe, as far as known before its images are read."""
    require_within(free_memory(), recipe, device_name)


def require_within(
    free: float | None, recipe: Recipe, device_name: str | None = None, *, trained: bool = False
) -> None:
    """`require_all` with known `free` memory; skips training if already `trained`."""
    for needs in _stages(recipe, device_name, trained=trained):
        require(needs, free, checkpointed=recipe.train.checkpoint_activations)


def largest_need(recipe: Recipe, device_name: str | None = None, *, trained: bool = False) -> float:
    """Bytes of this machine's memory needed by the largest stage that `require_within` checks."""
    return max(sum(needs.values()) for needs in _stages(recipe, device_name, trained=trained))


def _stages(recipe: Recipe, device_name: str | None, *, trained: bool) -> list[Needs]:
    stages = [of_images(recipe), of_analysis(recipe, known_test_images(recipe))]
    if not trained and recipe.train.epochs != 0 and (device_name == "cpu" or not _GPU.exists()):
        stages.append(of_training(recipe))
    return stages


def free_memory() -> float | None:
    """Bytes that this process may still use, swap included; None if the system does not say (not Linux)."""
    try:
        facts = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
        free = 1024.0 * (int(facts["MemAvailable"]) + int(facts["SwapFree"]))
    except (OSError, ValueError, KeyError):
        return None
    return min([free, *(left for groups in _CGROUPS for left in groups.left())])


@dataclass(frozen=True)
class _Groups:
    """Where a version of Linux's control groups keeps a process's memory limits."""

    own: str  # the line of /proc/self/cgroup that names the group
    folder: Path
    limit: str
    used: str
    of_files: str  # the line of memory.stat with file cache, which is given back when memory is short

    def left(self) -> list[float]:
        """What this process's group and each enclosing group have left; empty without a limit."""
        try:
            found = re.search(self.own, Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        except OSError:
            return []
        group = self.folder / (found[1] if found else "")
        around = [
            group,
            *(folder for folder in group.parents if folder == self.folder or self.folder in folder.parents),
        ]
        return [left for left in map(self._left_in, around) if left is not None]

    def _left_in(self, group: Path) -> float | None:
        try:
            limit = int((group / self.limit).read_text())
            used = int((group / self.used).read_text())
            of_files = re.search(self.of_files, (group / "memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no such file, or no limit: "max"
            return None
        return max(limit - used + int(of_files[1] if of_files else 0), 0)


_CGROUPS = (
    _Groups(r"^0::/(.*)$", Path("/sys/fs/cgroup"), "memory.max", "memory.current", r"^file (\d+)$"),
    _Groups(
        r"^\d+:(?:\w+,)*memory(?:,\w+)*:/(.*)$",
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        r"^total_cache (\d+)$",
    ),
)


def gib(number: float) -> str:
    """Bytes in GiB, for messages."""
    gib = number / 2**30
    return f"{gib:,.0f}" if gib >= 10 else f"{gib:.1f}"
