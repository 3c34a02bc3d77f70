"""What each choice for the step on a CPU gains: forward, loss and backward of SimCLR, in turns.

Memory format (NCHW or channels_last), an allocator that keeps freed memory, and compiling, each added to the one
before, each in its own process and in float32. Then how far the gradients of one step are from those in float64 on the
same weights and views of drawn images, and from one another, plain and compiled; |difference| over |gradient|.

    python benchmarks/step_choices.py [--encoder resnet18] [--width 16] [--batch-size 128] [--repetitions 5]
        [--no-gradients]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import measuring
import torch
from contenders import TrainingOfItsOwn, compete
from torch import Tensor

from cssl_cli.augment import normalize
from cssl_cli.data import load_dataset
from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.setup import initial_method, make_augmentation
from cssl_cli.train.allocator import keep_freed_memory

SIDE = 32
KEPT = "and freed memory kept"
WAYS = {
    "NCHW": {"channels_last": False, "keep": False, "compiled": False},
    "channels_last": {"channels_last": True, "keep": False, "compiled": False},
    KEPT: {"channels_last": True, "keep": True, "compiled": False},
    "and compiled": {"channels_last": True, "keep": True, "compiled": True},
}


def passes(encoder: str, width: int, batch_size: int, way: str) -> Iterator[None]:
    """Yields once for each forward, loss and backward."""
    chosen = WAYS[way]
    method, images = prepared(encoder, width, batch_size, channels_last=chosen["channels_last"])
    forward = torch.compile(method, dynamic=False) if chosen["compiled"] else method
    for done in itertools.count():
        method.zero_grad(set_to_none=True)
        forward(*images.chunk(2))["loss"].backward()
        if done == 0 and chosen["keep"]:
            keep_freed_memory()
        yield


def prepared(encoder: str, width: int, batch_size: int, *, channels_last: bool) -> tuple[Method, Tensor]:
    """SimCLR with its initial weights, and two views of a batch of drawn images, one after the other (2B, 3, H, W)."""
    recipe = load_recipe("simclr-shapes", [f"encoder={{name: {encoder}, width: {width}}}"])
    drawn = {"name": "shapes", "num_train": batch_size, "num_test": 10, "size": SIDE}
    drawn |= dict.fromkeys(("store_size", "limit", "limit_test"))
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(drawn, cache_dir=Path(folder), progress=None)
        images = dataset.pretrain.images.repeat(2, 1, 1, 1)
    augmentation = make_augmentation(recipe, dataset)
    views = augmentation.apply(images, augmentation.draw(2 * batch_size, stream(0, "augment")))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    method = initial_method(recipe).to(memory_format=memory_format)  # type: ignore[call-overload]
    return method.train(), normalize(views, dataset.mean, dataset.std).contiguous(memory_format=memory_format)


def gradient(method: Method, images: Tensor, precision: torch.dtype, *, compiled: bool) -> Tensor:
    """All gradients of one step in one vector, from the same weights each time."""
    torch.compiler.reset()
    forward = torch.compile(method, dynamic=False) if compiled else method
    method.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
        terms = forward(*images.chunk(2))
    terms["loss"].backward()
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--encoder", default="resnet18", choices=["resnet18", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="timed in a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-gradients", action="store_true", help="seconds only; gradients take minutes")
    options = parser.parse_args()
    device = measuring.prepare(options)
    report = measuring.Report(measuring.machine(device))
    case = f"{options.encoder} width {options.width}, batch {options.batch_size}"
    compare_speeds(report, options, case, device)
    if not options.no_gradients:
        compare_gradients(report, options, case)
    report.finish(options.json)


def compare_speeds(report: measuring.Report, options: argparse.Namespace, case: str, device: torch.device) -> None:
    ways = list(WAYS)
    if not keep_freed_memory():
        print("freed memory cannot be kept (too little is free, or the C library has no such setting): left out")
        ways.remove(KEPT)
    contenders = {
        name: TrainingOfItsOwn(
            passes,
            options.encoder,
            options.width,
            options.batch_size,
            name,
            threads=options.threads,
            device=device,
            num_steps=options.steps,
            untimed=1,
        )
        for name in ways
    }
    seconds = compete(contenders, repetitions=options.repetitions, rest=False)
    for contender in contenders.values():
        contender.process.shutdown()
    for before, after in pairwise(ways):
        name = f"{after}, times as fast as before: {case}, float32"
        report.ratios[name] = measuring.ratio(seconds[before], seconds[after])
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    report.numbers |= {f"seconds, {name}: {case}, float32": spent for name, spent in medians.items()}
    print(f"forward, loss and backward, SimCLR, {case}, float32, {options.threads} threads")
    measuring.print_table(["", "ms"], [[name, f"{1e3 * spent:,.1f}"] for name, spent in medians.items()])


def compare_gradients(report: measuring.Report, options: argparse.Namespace, case: str) -> None:
    method, images = prepared(options.encoder, options.width, options.batch_size, channels_last=True)
    plain, compiled, plain_16, compiled_16 = (
        gradient(method, images, precision, compiled=compiled).double()
        for precision in (torch.float32, torch.bfloat16)
        for compiled in (False, True)
    )
    method.to(memory_format=torch.contiguous_format)
    first = gradient(method, images.contiguous(), torch.float32, compiled=False).double()
    exact = gradient(method.double(), images.double(), torch.float64, compiled=False)
    pairs = {
        "float32 from float64": (plain, exact),
        "float32 in NCHW from float64": (first, exact),
        "float32, compiled from float64": (compiled, exact),
        "float32, compiled from plain": (compiled, plain),
        "bfloat16 from float64": (plain_16, exact),
        "bfloat16, compiled from float64": (compiled_16, exact),
        "bfloat16, compiled from plain": (compiled_16, plain_16),
    }
    found = {name: float((one - other).norm() / other.norm()) for name, (one, other) in pairs.items()}
    report.numbers |= {f"gradient, {name}: {case}": value for name, value in found.items()}
    print("\ndistance of the gradients of one step, relative")
    measuring.print_table(["", "distance"], [[name, f"{value:.1e}"] for name, value in found.items()])


if __name__ == "__main__":
    main()
