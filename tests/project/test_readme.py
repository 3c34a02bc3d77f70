"""Every command of the README runs, and its Python loads an encoder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cssl_cli.recipe import load_recipe
from cssl_cli.report.figures import figures
from tests.support.commands import Invoke, the_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = (
    "data.size=16 data.num_train=100 data.num_test=60 train.epochs=1 train.batch_size=50 optim.warmup_epochs=0 "
    "probe.penalties=[1.0] encoder.width=2 analyze.num_images=20 analyze.num_views=3 analyze.bootstrap=0 "
    "analyze.refine_pairs=0 analyze.distances=[pixels] analyze.deltas=[1.0]"
)
QUICK_FOLDER = "train.epochs=1 train.batch_size=8 encoder.width=2 optim.warmup_epochs=0"


def commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("cssl ")]


def shortened(line: str) -> str:
    """The command on fewer images and for less time; nothing else of it changes."""
    command = line.partition(" # ")[0]  # overrides behind a remark would be part of it
    return f"{command} {_changes(command)}" if _changes(command) else line


def _changes(command: str) -> str:
    of_sweeps = ("--concentration-only", "--only", "--jobs", "--report")
    of_shapes = command.startswith(("cssl pretrain simclr-shapes", "cssl analyze simclr-shapes "))
    if of_shapes or any(option in command for option in of_sweeps):
        return QUICK
    return QUICK_FOLDER if command.startswith("cssl pretrain simclr-folder") else ""


def words(line: str) -> list[str]:
    """What a shell makes of a command, in the current folder."""
    split = shlex.split(line, comments=True)
    return [word for pattern in split for word in sorted(map(str, Path().glob(pattern))) or [pattern]]


@pytest.mark.long
def test_every_command_runs(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    of_centers = figures.ANALYSIS_FIGURES["class_centers"]  # one for all, which take seconds
    monkeypatch.setattr(figures, "ANALYSIS_FIGURES", {"class_centers": of_centers})
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "path" / "to" / "images" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    assert len(commands()) >= 8
    for line in commands():
        program, *arguments = words(shortened(line))
        assert program == "cssl"
        done = invoke(*arguments)
        assert done.code == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "views.png").exists()


def test_the_names_in_the_text_are_recipes() -> None:
    names = set(re.findall(r"cssl pretrain ([\w-]+)`", README))
    assert names
    for name in names:
        load_recipe(name)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    assert not re.search(r"\b[A-Z]+_(TABLE|HERE|TODO)\b", text)


def test_the_encoder_loads_into_torchvision_as_shown(invoke: Invoke, tmp_path: Path) -> None:
    recipe = "data={name: shapes, num_train: 64, num_test: 20, size: 16} train={epochs: 1, batch_size: 32}"
    done = invoke("pretrain", "simclr-cifar10", *re.findall(r"\S+={.*?}", recipe))
    assert done.code == 0, done.stderr
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("runs/simclr-cifar10-...", str(the_run(tmp_path))), names)
    assert names["encoder"](names["torch"].zeros(1, 3, 32, 32)).shape == (1, 512)
