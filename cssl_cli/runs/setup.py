"""From names to objects: device, precision, data, augmentation, method, and the record of where a run took place."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cssl_cli
from cssl_cli.augment import Augmentation, build_augmentation
from cssl_cli.data import Dataset, load_dataset
from cssl_cli.data.batches import Images, ResidentImages, StreamedImages
from cssl_cli.errors import InputError, unknown_name
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.precision import PRECISIONS
from cssl_cli.host.paths import UnknownPath, expand
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method, build_method
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe import Recipe
from cssl_cli.runs import memory
from cssl_cli.runs.run_dir import ENVIRONMENT, RunDir
from cssl_cli.train.step import Compiled

EVALUATION_BATCH = {"cpu": 64, "cuda": 512}  # on a CPU, activations that stay in its caches
RESIDENT_SHARE = 0.5  # of the device's free memory that images may take
ELSEWHERE = "If they lie elsewhere now, give that folder with --data-root DIR."


def cache_dir() -> Path:
    """Where prepared data are kept: $CSSL_CACHE, or the user's cache folder. Raises InputError where neither is known.

    `~` and variables are replaced: what sets the environment (systemd, SLURM, a .env file) may be no shell.
    """
    for name, rest in (("CSSL_CACHE", ""), ("XDG_CACHE_HOME", "cssl")):
        if given := os.environ.get(name):
            try:
                return Path(expand(given), rest).absolute()
            except UnknownPath as error:
                raise InputError(f"{given!r} {error}", where=name, remedy="Give the folder in full.") from error
    try:
        return Path.home() / ".cache" / "cssl"
    except RuntimeError as error:
        raise InputError(
            "there is no home folder to keep prepared images in",
            where="HOME",
            remedy="Name a folder for them in $CSSL_CACHE.",
        ) from error


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best there is; `InputError` when it is not there."""
    # Where float32 is said, CUDA's convolutions are to compute in it, not in TF32 with its 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    # Nearly all batches have one shape: the fastest algorithm for each convolution is worth a search.
    torch.backends.cudnn.benchmark = True
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    remedy = "Give cpu, cuda or cuda:N, or leave --device out to take the best device there is."
    if re.fullmatch(r"mps(:\d+)?", name):
        raise InputError(
            "Apple GPUs (mps) are not supported: they have no float64, in which terms and classifiers are computed, "
            "and nothing was ever tried on one",
            where="--device",
            remedy="Give cpu, or leave --device out, which on a Mac is the same.",
        )
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"unknown device {name!r}", where="--device", remedy=remedy)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} cannot be used ({reason})", where="--device", remedy=remedy) from error
    return device


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """What training computes in: as the recipe says, or bfloat16 where the device has instructions for it."""
    if setting == "auto":
        setting = "bfloat16" if _has_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[setting]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def prepare_data(
    recipe: Recipe, reporter: Reporter, *, data_root: str | None = None, own: Iterable[Path] = ()
) -> Dataset:
    """The recipe's images, from the cache where they have been prepared before; `InputError` where they cannot fit.

    `data_root` is where they lie, in place of the recipe's data.root; `own` are folders that are written to, and hold
    none of them.
    """
    memory.require(memory.of_images(recipe), memory.free_memory())
    settings = recipe.settings("data", data_root=data_root)
    if data_root is not None and "root" not in settings:
        raise InputError(
            f"the images of {settings['name']} lie in no folder", where="--data-root", remedy="Leave it out."
        )
    return load_dataset(
        settings,
        cache_dir=Path() if settings["name"] == "shapes" else cache_dir(),  # shapes are drawn: no home folder needed
        progress=lambda done, total, what: reporter.advance(what, done, total),
        notice=reporter.notice,
        own=own,
    )


def images_of_run(
    run: RunDir, recipe: Recipe, reporter: Reporter, *, data_root: str | None, own: Iterable[Path]
) -> Dataset:
    """`prepare_data`, with words for a run that has begun, whose images may lie elsewhere by now."""
    try:
        return prepare_data(recipe, reporter, data_root=data_root, own=own)
    except InputError as error:
        root = getattr(recipe.data, "root", None)
        if data_root is None and root is not None and run.file(ENVIRONMENT).exists():
            gone = not os.path.isdir(root)  # noqa: PTH112 (false, too, where a path cannot be looked for)
            error.remedy = f"{'The images of this run were there.' if gone else error.remedy} {ELSEWHERE}"
        raise


def require_memory(recipe: Recipe, device: torch.device, dataset: Dataset | None) -> None:
    """`InputError` when images and training cannot fit into the memory of this machine and of the device."""
    images = memory.of_images(recipe) if dataset is None else {}
    size = None if dataset is None else dataset.pretrain.images.shape[-1]
    training, checkpointed = memory.of_training(recipe, size), recipe.train.checkpoint_activations
    if device.type == "cuda":
        # What an earlier run in this process has given back, torch keeps for the next.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        memory.require(training, torch.cuda.mem_get_info(device)[0] + kept, checkpointed=checkpointed)
        training = {}
    memory.require({**images, **training}, memory.free_memory(), checkpointed=checkpointed)


def place_images(images: Tensor, device: torch.device) -> Images:
    """The images on the device if they take no more than `RESIDENT_SHARE` of its free memory, else streamed to it."""
    if device.type == "cuda" and images.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return StreamedImages(images, device)
    return ResidentImages(images.to(device))


def make_augmentation(recipe: Recipe, image_size: int) -> Augmentation:
    return build_augmentation(recipe.settings("augment"), image_size=image_size)


def require_precision(name: str) -> None:
    """`InputError` unless features have a precision of this name, here or elsewhere."""
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS, where="--precision")


def require_feature_precision(name: str, device: torch.device) -> None:
    """`InputError` unless features can be computed in the precision of this name there.

    On a CPU without the instructions bfloat16 is slow, and right.
    """
    if name == "bfloat16":
        has = device.type == "cpu" or _has_bfloat16(device)
    else:
        has = name == "float32" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0))
    if not has:
        raise InputError(
            f"{device} does not compute in {name}",
            where="--precision",
            remedy="NVIDIA GPUs do from the A100 and the RTX 30 series on. Leave it out: float32 works everywhere.",
        )


def with_precision(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """The settings of a result whose features were computed in this precision; float32 goes without saying."""
    return settings if precision == "float32" else {**settings, "precision": precision}


def make_extractor(
    encoder: nn.Module | None,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    precision: str = "float32",
) -> FeatureExtractor:
    """What `encoder` (None: pixels) says of images with these statistics, in batches that suit the device."""
    batch_size = EVALUATION_BATCH[device.type]
    return FeatureExtractor(encoder, mean=mean, std=std, batch_size=batch_size, device=device, precision=precision)


def initial_method(recipe: Recipe) -> Method:
    """Encoder, heads and loss with the initial weights that the recipe's seed gives."""
    with torch.device("meta"):
        method = build_method(recipe.settings("method"), build_encoder(recipe.settings("encoder")))
    generator = stream(recipe.seed, "init")
    materialize(method, generator)
    method.after_initialization(generator)
    train = recipe.train
    if train.checkpoint_activations or train.micro_batch is not None:
        for encoder in method.modules():
            if isinstance(encoder, Encoder):  # the momentum encoder, too
                encoder.keep_less(
                    checkpoint_activations=train.checkpoint_activations,
                    micro_batch=train.micro_batch,
                    batch_size=train.batch_size,
                )
    return method


def environment(device: torch.device, precision: torch.dtype, *, compiled: Compiled) -> dict[str, Any]:
    """Where and with what a process worked on a run."""
    return {
        "cssl": cssl_cli.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "precision": str(precision).removeprefix("torch."),
        "compiled": compiled,
    }


def _commit() -> str | None:
    """The commit of a source checkout that the package runs from, if it does."""
    root = Path(cssl_cli.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, encoding="ascii", timeout=5, check=True).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
