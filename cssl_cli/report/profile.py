"""Report of a profile: where the time of a training step goes."""

from __future__ import annotations

from typing import Any

from cssl_cli.errors import shown_path
from cssl_cli.report.layout import console, note, print_json, table
from cssl_cli.runs.run_dir import RunDir

PARTS = {
    "batch": "batch and parameters of its views",
    "augmentation": "augmentation",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "optimizer": "optimizer",
}
COMPILED = {False: "not compiled", True: "compiled", "graph": "captured as a CUDA graph"}


def show_profile(run: RunDir, content: dict[str, Any], as_json: bool) -> None:
    """Print a table of the parts, then the achieved rate beside the machine's."""
    if as_json:
        return print_json({"profile": str(run.path), **content})
    out = console()
    spent = {part: seconds for part, seconds in content["parts"].items() if seconds is not None}
    total = sum(spent.values())
    grid = table("part of a step", "ms", "%")
    for part, seconds in spent.items():
        grid.add_row(PARTS[part], f"{1e3 * seconds:,.2f}", f"{100 * seconds / total:.1f}")
    grid.add_section()
    grid.add_row("in all, part after part", f"{1e3 * total:,.2f}", "100.0")
    grid.add_row("step as in training", f"{1e3 * content['seconds']:,.2f}", "")
    out.print(grid)
    note(
        out,
        f"Means over {content['num_steps']} steps in rounds, of which the median is shown; the device is waited for "
        "after each part."
        + (" Compiled: the loss is part of forward." if "loss" not in spent else "")
        + (" The parts are of the step that is not captured." if content["compiled"] == "graph" else "")
        + (" Compiling failed; these are uncompiled steps." if content["compiling_failed"] else "")
        + " Operations are those of matrix products and convolutions; the rate of products is the best of a few, which "
        "convolutions may exceed on some processors.",
    )
    out.print()
    rate, most = content["flops"] / content["seconds"], content["matrix_rate"]
    share = f"{100 * rate / most:.0f} %"
    out.print(
        f"{content['batch_size'] / content['seconds']:,.0f} images/s in batches of {content['batch_size']}: "
        f"{content['precision']}, {_where(content)}, {COMPILED[content['compiled']]}"
    )
    out.print(
        f"{_flops(content['flops'])} a step, forward and backward: {_rate(rate)}, {share} of the "
        f"{_rate(most)} of large matrix products here"
    )
    single, double = content["matrix_rate_float32"], content["matrix_rate_float64"]
    out.print(
        f"cssl analyze computes in float64: {_rate(double)} of matrix products here, {_share(double / single)} of the "
        "rate in float32"
    )
    if content["device_memory_mb"] is not None:
        out.print(f"{content['device_memory_mb']:,.0f} MiB of device memory at most")
    return note(
        out, f"\nWritten to {shown_path(run.path)}: profile.json, and trace.json.gz for Perfetto or chrome://tracing"
    )


def _where(content: dict[str, Any]) -> str:
    threads = content["threads"]
    return content["device"] if content["device_type"] == "cuda" else f"{threads} thread{'' if threads == 1 else 's'}"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.2 else f"1/{1 / share:.0f}"


def _rate(flops: float) -> str:
    return f"{_flops(flops)}/s"


def _flops(flops: float) -> str:
    """With at least two digits before the decimal point."""
    for unit, name in ((1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= 10 * unit:
            return f"{flops / unit:,.1f} {name}" if flops < 100 * unit else f"{flops / unit:,.0f} {name}"
    return f"{flops / 1e6:,.0f} MFLOP"
