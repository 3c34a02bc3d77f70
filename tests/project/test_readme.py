"""Every command of the README runs, and its Python loads an encoder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from cssl_cli.cli.app import app
from cssl_cli.features import patches
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.book import shipped_names
from cssl_cli.report.figures import accuracy_vs_terms, figures
from cssl_cli.runs import brief_training
from cssl_cli.sweep.sweep import load_sweep
from tests.support.commands import Invoke, the_run
from tests.support.forked_process import ForkedProcess

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
    of_sweeps = ("--concentration-only", "--only", "--jobs", "--retry", "--report")
    of_shapes = command.startswith(
        ("cssl pretrain simclr-shapes", "cssl analyze simclr-shapes ", "cssl rank quickstart")
    )
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
    monkeypatch.setattr(accuracy_vs_terms, "MAX_PANELS", 1)
    monkeypatch.setattr(patches, "NUM_FILTERS", 6)
    monkeypatch.setattr(brief_training, "STEPS", 3)
    monkeypatch.setattr(brief_training, "WARMUP_STEPS", 1)
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "path" / "to" / "images" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    assert len(commands()) >= 8
    for line in commands():
        if line == "cssl doctor":  # measures for ten seconds, and judges this machine: tests/runs/test_doctor.py
            continue
        program, *arguments = words(shortened(line))
        assert program == "cssl"
        if "--retry" in arguments:  # in processes of its own, which are forked there
            process = ForkedProcess(tmp_path, *arguments, "--no-figures", "--no-html")
            _, stderr = process.communicate(timeout=300)
            code: int | None = process.returncode
        else:
            done = invoke(*arguments)
            code, stderr = done.code, done.stderr
        assert code == 0, f"{line}\n{stderr}"
    assert (tmp_path / "views.png").exists()


def test_the_names_in_the_text_are_recipes() -> None:
    names = set(re.findall(r"cssl pretrain ([\w-]+)`", README))
    assert names
    for name in names:
        load_recipe(name)


COMMANDS = typer.main.get_command(app)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            continue
        document = path.parent / target if target else path
        assert document.exists(), link
        assert not anchor or anchor in anchors(document), link
    assert not re.search(r"\b[A-Z]+_(TABLE|HERE|TODO)\b", text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_have_options_and_fields_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ").replace(" DATA ", " data.limit=100 ")
    fenced = "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    indented = "".join(re.findall(r"(?m)^    +cssl .*\n", text))
    for line in (fenced + indented).splitlines():
        if not line.strip().startswith("cssl "):
            continue
        _, name, *arguments = shlex.split(line, comments=True)
        COMMANDS.commands[name].make_context(name, list(arguments))  # raises for an unknown option
        if name in ("pretrain", "sweep") and arguments[0] in (*shipped_names("recipe"), *shipped_names("sweep")):
            load = load_sweep if name == "sweep" else load_recipe
            load(arguments[0], [word for word in arguments if re.match(r"~|[a-z._]+=", word)])


@pytest.mark.parametrize(
    "path", [ROOT / "docs" / "first-hour.md", ROOT / "docs" / "how-to" / "sweeps.md"], ids=["first-hour", "sweeps"]
)
def test_the_sweep_files_shown_are_valid(path: Path, tmp_path: Path) -> None:
    example = "".join(re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))
    (tmp_path / "sweep.yaml").write_text(example, encoding="utf-8")
    assert len(load_sweep(str(tmp_path / "sweep.yaml")).members) >= 9


def test_the_index_of_the_manual_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    found = {index}
    for page in (index, ROOT / "docs" / "theory.md"):
        links = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
        found |= {(page.parent / link).resolve() for link in links}
    assert {path.resolve() for path in DOCUMENTS[1:]} <= {path.resolve() for path in found}


def test_the_encoder_loads_into_torchvision_as_shown(invoke: Invoke, tmp_path: Path) -> None:
    recipe = "data={name: shapes, num_train: 16, num_test: 10, size: 16} train={epochs: 1, batch_size: 16}"
    done = invoke("pretrain", "simclr-cifar10", *re.findall(r"\S+={.*?}", recipe))
    assert done.code == 0, done.stderr
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("runs/simclr-cifar10-...", str(the_run(tmp_path))), names)
    assert names["encoder"](names["torch"].zeros(1, 3, 32, 32)).shape == (1, 512)
