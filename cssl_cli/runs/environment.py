"""environment.json: where and with what each process worked on a run."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import cssl_cli
from cssl_cli.data import Dataset
from cssl_cli.host.progress import Reporter, warn
from cssl_cli.recipe import Recipe
from cssl_cli.runs.images import has_labels
from cssl_cli.runs.run_dir import CHECKPOINT, ENVIRONMENT, RunDir
from cssl_cli.train.step import Compiled


def enter_environment(
    run: RunDir,
    recipe: Recipe,
    dataset: Dataset,
    here: dict[str, Any],
    reporter: Reporter,
    data_root: str | None,
) -> None:
    """Record this process, whose `environment` is `here`, in environment.json."""
    before = run.environment()
    if data_root is not None:
        here = {**here, "data_root": data_root}
    processes: list[dict[str, Any]] = before["processes"] if before else []
    if processes and run.file(CHECKPOINT).exists():
        last = {"compiled": False, "ranks": 1, **processes[-1]}  # defaults for environments written without
        now = {"ranks": 1, **here}
        named = ("torch", "device", "threads", "precision", "compiled", "ranks")
        changed = [name for name in named if last[name] != now[name]]
        if changed:
            changes = ", ".join(f"{name} {last[name]} → {now[name]}" for name in changed)
            warn(reporter, f"going on under other conditions ({changes}): the result may differ in its last digits")
    run.write_json(
        ENVIRONMENT,
        {
            "fingerprint": recipe.fingerprint,
            "content_key": dataset.content_key,
            "labelled": has_labels(dataset),
            "checksums": before is None or before.get("checksums", False),
            "processes": [*processes, here],
        },
    )


def enter_compiled(run: RunDir, *, compiled: Compiled) -> None:
    """Correct environment.json after compiling the step has failed."""
    content = run.environment()
    if content:
        content["processes"][-1]["compiled"] = compiled
        run.write_json(ENVIRONMENT, content)


def environment(device: torch.device, precision: torch.dtype, *, compiled: Compiled, ranks: int = 1) -> dict[str, Any]:
    """Where and with what a process works on a run, together with others where there are several `ranks`."""
    found = {
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
    return found if ranks == 1 else {**found, "ranks": ranks}


def _commit() -> str | None:
    """The commit of the source checkout that the package runs from, if any."""
    root = Path(cssl_cli.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, encoding="ascii", timeout=5, check=True).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
