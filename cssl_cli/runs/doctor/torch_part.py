"""What is examined with torch, in a process of its own: a broken torch may raise anything, crash, or never answer.

Findings are written to a pipe as they are made, a line of JSON each, with the name of each check before it begins.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cssl_cli.runs.doctor.findings import Check, Finding, broken

SECONDS = 0.3  # that a rate is measured for
PAYS = 1.1  # times faster than float32, from where on bfloat16 pays
LOSES = 0.7  # from where on it does not, by more than busy neighbours explain
AGAIN = "Install torch again, as https://pytorch.org/get-started says for this machine, and torchvision with it."


def main(descriptor: int, request: dict[str, Any]) -> None:
    """Examine everything and write the findings to the descriptor of a pipe."""
    with open(descriptor, "w", encoding="ascii") as pipe:

        def write(line: dict[str, Any]) -> None:
            pipe.write(json.dumps(line) + "\n")
            pipe.flush()

        for name, check in checks(request).items():
            write({"begins": name})
            try:
                for finding in check():
                    write({"finding": asdict(finding)})
                    if finding.check == "torch" and finding.state == "failed":
                        return  # nothing else can be asked
            except Exception as error:
                write({"finding": asdict(broken(name, error))})


def checks(request: dict[str, Any]) -> dict[str, Check]:
    """The checks by name, in order."""
    found: dict[str, Check] = {
        "torch": _torch,
        "torchvision": _torchvision,
        "device": _device,
        "precision": _precision,
        "rates": _rates,
    }
    if request["data"]:
        found["data"] = lambda: _data(request["data"])
    if request["compile"]:
        found["torch.compile"] = _compile
    return found


# ---------------------------------------------------------------------------------------------------------- what works
def _torch() -> Iterator[Finding]:
    began = time.perf_counter()
    try:
        import torch

        said = f"{torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}"
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        wrong = product.sum().item() != 8
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        yield Finding("torch", f"cannot be loaded: {type(error).__name__}: {first}", "failed", AGAIN)
        return
    if wrong:
        yield Finding("torch", f"{said}: a product of matrices is wrong", "failed", AGAIN)
        return
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    seconds = time.perf_counter() - began
    yield Finding("torch", f"{said}, loaded in {seconds:.1f} s, {facts['threads']} threads", facts=facts)


def _torchvision() -> Iterator[Finding]:
    import torch

    remedy = "Install both together: pip install --upgrade torch torchvision."
    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
        kept = torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        yield Finding("torchvision", f"does not fit this torch: {type(error).__name__}: {first}", "failed", remedy)
        return
    if kept != [0]:
        yield Finding("torchvision", "computes something wrong", "failed", remedy)
        return
    yield Finding("torchvision", f"{torchvision.__version__}, fits this torch")


def _device() -> Iterator[Finding]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    said = [str(warning.message).strip().partition("\n")[0] for warning in caught]
    card = Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/nvidia0").exists()
    if there:
        yield from _cards()
    elif said or card:
        why = said[0] if said else "torch was built without CUDA" if torch.version.cuda is None else "torch finds none"
        remedy = (
            "Install a torch that is built for this driver's CUDA version (nvidia-smi tells it), or a newer driver."
        )
        yield Finding("device", f"cpu, although there is a GPU: {why}", "warning", remedy)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        yield Finding("device", f"cpu, {capability}; there is no GPU", facts={"cpu_capability": capability})


def _cards() -> Iterator[Finding]:
    import torch

    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            torch.ones(8, device=f"cuda:{number}").sum().item()
            free, total = torch.cuda.mem_get_info(number)
        except (RuntimeError, AssertionError) as error:
            first = str(error).strip().partition("\n")[0]
            remedy = "Install a torch that is built for this card, end what else uses it, or give --device cpu."
            yield Finding("device", f"cuda:{number}, {name}: cannot be used: {first}", "failed", remedy)
            continue
        full = free < 1e9
        said = f"cuda:{number}, {name}: {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        other = "End what else uses it, or choose another with --device."
        facts = {"free": free, "total": total}
        yield Finding("device", said, "warning" if full else "ok", other if full else None, facts)


def _precision() -> Iterator[Finding]:
    """What train.precision auto takes, and whether bfloat16 pays, by products of matrices."""

    from cssl_cli.runs.device import choose_device, choose_precision

    device = choose_device(None)
    chosen = str(choose_precision("auto", device)).removeprefix("torch.")
    rates = _matrix_rates(device)
    ratio = rates["bfloat16"] / rates["float32 beside it"]
    pays = f"bfloat16 {'pays' if ratio > PAYS else 'does not pay'}, {ratio:.2g} times float32"
    facts = {"auto": chosen, "bfloat16_over_float32": ratio, "flop_per_second_float32": rates["float32"]}
    said = f"auto takes {chosen}; {pays}; products of matrices: {rates['float32'] / 1e9:,.1f} GFLOP/s in float32"
    if chosen == "bfloat16" and ratio < LOSES:
        yield Finding("precision", said, "warning", "Give train.precision=float32.", facts)
    else:
        yield Finding("precision", said, facts=facts)


def _matrix_rates(device: Any) -> dict[str, float]:
    """Operations per second in products of matrices: in bfloat16, in float32 at the same size, and in float32 at best.

    Where bfloat16 is only emulated, a product of large matrices would take seconds: small ones then.
    """
    large = 4096 if device.type == "cuda" else 1024
    small = _product_rate(device, "bfloat16", large // 4)
    side = large if 2 * large**3 / small < SECONDS else large // 4
    found = {"bfloat16": _product_rate(device, "bfloat16", side) if side == large else small}
    found["float32 beside it"] = _product_rate(device, "float32", side)
    found["float32"] = found["float32 beside it"] if side == large else _product_rate(device, "float32", large)
    return found


def _product_rate(device: Any, dtype: str, side: int) -> float:
    import torch

    from cssl_cli.runs.machine import synchronize

    left, right = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return 2 * side**3 / _least_seconds(lambda: left @ right, lambda: synchronize(device))


def _rates() -> Iterator[Finding]:
    """Images a second of the recipe that the demo is made of, and bytes a second of a copy."""
    import torch

    from cssl_cli.augment.building import build_augmentation
    from cssl_cli.nn.encoder import build_encoder, materialize
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs.device import choose_device
    from cssl_cli.runs.machine import synchronize

    device, batch = choose_device(None), 128
    recipe = load_recipe("simclr-shapes")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, 32, 32), generator=generator, dtype=torch.uint8).to(device)
    augmentation = build_augmentation(recipe.settings("augment"), image_size=32)
    theta = augmentation.draw(batch, generator).to(device)
    encoder = materialize(build_encoder(recipe.settings("encoder")), generator).to(device)
    views = augmentation.apply(images, theta).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        encoder(views).square().sum().backward()

    copied = torch.zeros(64 * 2**20 // 4, device=device)
    target = torch.empty_like(copied)
    measured = {
        "augmented_per_second": batch / _timed(lambda: augmentation.apply(images, theta), device, synchronize),
        "encoded_per_second": batch / _timed(step, device, synchronize),
        "copied_bytes_per_second": 2 * copied.nbytes / _timed(lambda: target.copy_(copied), device, synchronize),
    }
    augmented, encoded, copies = measured.values()
    said = f"{augmented:,.0f} views/s augmented, {encoded:,.0f} images/s forward and back in the small encoder"
    yield Finding("rates", f"{said}, {copies / 1e9:,.1f} GB/s copied in memory", facts=measured)


def _timed(function: Callable[[], object], device: Any, synchronize: Callable[[Any], None]) -> float:
    return _least_seconds(function, lambda: synchronize(device))


def _least_seconds(function: Callable[[], object], wait: Callable[[], object]) -> float:
    """The least time of a call, after one that does not count; calls for `SECONDS`, three at least."""
    function()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        wait()
        began = time.perf_counter()
        function()
        wait()
        taken.append(time.perf_counter() - began)
    return max(min(taken), 1e-9)


def _compile() -> Iterator[Finding]:
    """Whether torch.compile works, with nothing from its cache."""
    import tempfile

    import torch

    from cssl_cli.runs.device import choose_device
    from cssl_cli.train.step import first_line

    device = choose_device(None)
    with tempfile.TemporaryDirectory(prefix="cssl-doctor-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        began = time.perf_counter()
        try:
            torch.compile(lambda x: (2 * x).sin().sum())(torch.ones(64, device=device)).item()
        except Exception as error:
            said = f"does not work: {first_line(error)}"
            yield Finding("torch.compile", said, "warning", "Leave train.compile out, or set it to false.")
            return
    seconds = time.perf_counter() - began
    yield Finding("torch.compile", f"works; a tiny function took {seconds:.0f} s", facts={"seconds": seconds})


# ---------------------------------------------------------------------------------------------------------------- data
def _data(name: str) -> Iterable[Finding]:
    """The images of a recipe: whether they are there, how many, whether they fit, and how fast files are decoded.

    name: of the recipe; overrides follow, each after a NUL.
    """
    from cssl_cli.errors import CsslError

    recipe_name, *overrides = name.split("\0")
    try:
        return [_images_of(recipe_name, overrides)]
    except CsslError as error:
        where = "" if error.where is None else f"{error.where}: "
        return [Finding("data", f"{where}{error.what}", "failed", error.remedy or "Change the recipe or the images.")]


def _images_of(name: str, overrides: list[str]) -> Finding:
    from cssl_cli.data import SOURCES
    from cssl_cli.recipe import load_recipe
    from cssl_cli.runs import memory

    recipe = load_recipe(name, overrides)
    settings = recipe.settings("data")
    memory.require_all(recipe)
    source: Any = importlib.import_module(SOURCES[settings["name"]])
    number = source.shape_of(settings, own=())[0] if hasattr(source, "shape_of") else None
    facts: dict[str, Any] = {"num_images": number}
    said = "an unknown number of images" if number is None else f"{number:,} images"
    if settings["name"] == "folder":
        rate = _decoded_per_second(Path(settings["root"]), settings["store_size"] or settings["size"])
        facts["decoded_per_second"] = rate
        if rate and number:
            said += f", {rate:,.0f} decoded a second: {number / rate / 60:,.1f} minutes to prepare them, once"
    return Finding("data", said, facts=facts)


def _decoded_per_second(root: Path, size: int) -> float | None:
    """The rate of the first images below the folder, on all threads."""
    import numpy as np

    from cssl_cli.data.decode import decode_into
    from cssl_cli.data.scan import IMAGE_SUFFIXES

    found = []
    for parent, _, files in os.walk(root, followlinks=True):
        found += [Path(parent, file) for file in sorted(files) if Path(file).suffix.lower() in IMAGE_SUFFIXES]
        if len(found) >= 64:
            break
    if not found:
        return None
    found = found[:64]
    began = time.perf_counter()
    decode_into(np.empty((len(found), 3, size, size), np.uint8), found, progress=None)
    return len(found) / (time.perf_counter() - began)
