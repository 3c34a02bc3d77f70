"""Memory and time of a step with train.checkpoint_activations and train.micro_batch.

    python benchmarks/wide_batches.py [--encoder resnet50] [--width 16] [--side 32] [--batch-size 64]
        [--micro-batch 8] [--precision float32] [--repetitions 5] [--threads 2] [--json PATH]

Memory is the peak of living tensors in forward and backward of SimCLR, including gradients, without weights and views.
It is counted on fake tensors, so any size is possible: with `--repetitions 0` nothing is computed. Seconds are of
forward and backward, in turns.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import measuring
import torch
from peak_memory import PeakMemory
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method, build_method
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.recompute import Encoder

METHOD = {"name": "simclr", "temperature": 0.5, "projector": (512, 128)}
PLAIN = "plain"


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--encoder", default="resnet50", choices=["resnet18", "resnet50", "small"])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    ways: dict[str, dict[str, Any]] = {
        PLAIN: {},
        "checkpoint_activations": {"checkpoint_activations": True},
        f"micro_batch {options.micro_batch}": {"micro_batch": options.micro_batch},
        "both": {"checkpoint_activations": True, "micro_batch": options.micro_batch},
    }
    case = (
        f"{options.encoder} width {options.width}, side {options.side}, batch {options.batch_size}, {options.precision}"
    )
    settings = {"name": options.encoder, "width": options.width}
    shape = (options.batch_size, 3, options.side, options.side)
    precision = getattr(torch, options.precision)

    def turn(way: dict[str, Any]) -> measuring.Turn:
        return partial(step, method_of(settings, way, shape[0]), *views_of(shape), precision)

    peaks = {name: counted_peak(settings, way, shape, precision) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {}
    if options.repetitions:
        turns = {name: turn(way) for name, way in ways.items()}
        seconds = measuring.alternate(turns, options.repetitions)
    rows = []
    for name in ways:
        report.numbers[f"{name}, bytes: {case}"] = peaks[name]
        row = [name, f"{peaks[name] / 2**20:,.0f}", f"{peaks[name] / peaks[PLAIN]:.3f}"]
        if seconds:
            found = measuring.ratio(seconds[name], seconds[PLAIN], better="lower")
            report.numbers[f"{name}, seconds: {case}"] = statistics.median(seconds[name])
            spread = "" if found["spread"] is None else f"{100 * found['spread']:.1f} %"
            row += [f"{statistics.median(seconds[name]):.2f}", f"{found['ratio']:.2f}", spread]
            if name != PLAIN:
                report.ratios[f"{name}, seconds over plain: {case}"] = found
        rows.append(row)
    print(f"SimCLR, {case}")
    measuring.print_table(["", "MiB", "of plain", *(["s", "of plain", "±"] if seconds else [])], rows)
    report.finish(options.json)


def counted_peak(settings: dict[str, Any], way: dict[str, Any], shape: tuple[int, ...], precision: torch.dtype) -> int:
    """Peak bytes of a step, counted on fake tensors."""
    method = method_of(settings, way, shape[0])
    with FakeTensorMode() as fake:
        for module in method.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(fake.from_tensor(weight).detach()))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, fake.from_tensor(buffer))
        views = views_of(shape)
        with PeakMemory() as memory:
            step(method, *views, precision)
    return memory.peak


def method_of(settings: dict[str, Any], way: dict[str, Any], batch_size: int) -> Method:
    with torch.device("meta"):
        method = build_method(METHOD, build_encoder(settings))
    method = materialize(method, stream(0, "init")).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(method.encoder, Encoder)
    if way:
        method.encoder.keep_less(**{"checkpoint_activations": False, "micro_batch": None} | way, batch_size=batch_size)
    return method.train()


def views_of(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    view = torch.randn(shape, generator=None).contiguous(memory_format=torch.channels_last)
    return view, view.flip(0)


def step(method: Method, view_1: torch.Tensor, view_2: torch.Tensor, precision: torch.dtype) -> None:
    method.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        terms = method(view_1, view_2)
    terms["loss"].backward()


if __name__ == "__main__":
    main()
