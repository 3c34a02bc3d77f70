"""The device to compute on, and the precisions it supports."""

from __future__ import annotations

import torch

from cssl_cli.errors import InputError
from cssl_cli.runs.options import OTHER_DEVICE, require_device_name


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best available; `InputError` if it does not exist."""
    # float32 means float32: by default, CUDA convolutions use TF32 with 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    # Nearly all batches have the same shape, so searching for the fastest convolution algorithm pays.
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
    """The precision of training: as the recipe says, or bfloat16 if the device has instructions for it."""
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
    """`InputError` unless features can be computed in this precision on the device.

    On a CPU without bfloat16 instructions, bfloat16 is slow but correct.
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
