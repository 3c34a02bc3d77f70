"""The device that a command computes on, and the precisions that there are on it."""

from __future__ import annotations

import torch

from cssl_cli.errors import InputError
from cssl_cli.runs.options import OTHER_DEVICE, require_device_name


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best there is; `InputError` when it is not there."""
    # Where float32 is said, CUDA's convolutions are to compute in it, not in TF32 with its 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    # Nearly all batches have one shape: the fastest algorithm for each convolution is worth a search.
    torch.backends.cudnn.benchmark = True
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require_device_name(name)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        what = f"device {name!r} cannot be used ({reason})"
        raise InputError(what, where="--device", remedy=OTHER_DEVICE) from error
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
