"""What gpu_check.py found, to be read: a table of speeds, numbers, notes, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

COLUMNS = {
    "images_per_second": ("images/s", "{:,.0f}"),
    "share_of_matrix_rate": ("of the matrix rate", "{:.0%}"),
    "milliseconds": ("ms a step", "{:.2f}"),
    "augmentation_share": ("augmentation", "{:.1%}"),
    "kernels": ("kernels a step", "{:,.0f}"),
    "busy": ("device busy", "{:.0%}"),
    "waits": ("waits a step", "{:.2g}"),
    "compile_seconds": ("compiling, s", "{:.1f}"),
    "break_even_steps": ("pays from step", "{:,.0f}"),
    "memory_mb": ("memory, MiB", "{:,.0f}"),
}


def show(content: Mapping[str, Any]) -> None:
    stages = content["stages"]
    speeds = {case: columns for stage in stages.values() for case, columns in stage.get("speeds", {}).items()}
    if speeds:
        print()
        for line in aligned(speed_table(speeds)):
            print(line)
    for letter, stage in stages.items():
        lines = [f"{name}: {shown(value)}" for name, value in stage.get("numbers", {}).items()]
        lines += stage.get("notes", [])
        if lines:
            print(f"\n({letter}) {stage['title']}")
            for line in lines:
                print(f"  {line}")
    print()
    for line in verdict(stages):
        print(line)


def speed_table(speeds: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Headings and a line for each way to train; columns that none of them has are left out."""
    used = {name: column for name, column in COLUMNS.items() if any(name in of_case for of_case in speeds.values())}
    lines = [["", *(heading for heading, _ in used.values())]]
    for case, found in speeds.items():
        cells = [form.format(found[name]) if name in found else "" for name, (_, form) in used.items()]
        lines.append([case, *cells])
    return lines


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    first, *others = zip(*lines, strict=True)
    columns = [pad(first, str.ljust), *(pad(column, str.rjust) for column in others)]
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]


def pad(column: Sequence[str], justify: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, column))
    return [justify(cell, width) for cell in column]


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def verdict(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many checks passed, and a line for each that did not and for each stage that did not come to its end."""
    checks = [
        (letter, name, check) for letter, stage in stages.items() for name, check in stage.get("checks", {}).items()
    ]
    passed = sum(check["passed"] for _, _, check in checks)
    lines = [f"{passed} of {len(checks)} checks passed"]
    lines += [f"FAILED ({letter}) {name}: {check['seen']}" for letter, name, check in checks if not check["passed"]]
    for letter, stage in stages.items():
        if stage["outcome"] != "done":
            error = stage.get("error")
            lines.append(f"STAGE {letter}: {stage['outcome']}{f', {error}' if error else ''}")
    return lines
