"""What a method, an augmentation and a data set take: shown on a copy of the package to which they are added."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cssl_cli
from cssl_cli.augment import OPERATIONS
from cssl_cli.data import SOURCES
from cssl_cli.errors import InputError
from cssl_cli.methods import method_names
from cssl_cli.recipe import declared, schema
from cssl_cli.recipe.blocks import MethodBlock
from cssl_cli.recipe.declared import _declared, augment_block, data_blocks, method_blocks
from cssl_cli.recipe.ranges import Count

METHOD = '''\
"""A method that pulls the two views of an image together, and does nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cssl_cli.methods import Method, directions
from cssl_cli.nn.encoder import MLP
from cssl_cli.recipe.ranges import Positive, Widths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """nobody, unpublished: two views attract"""

    pull: Positive = 2.0
    """how hard the views attract"""
    projector: Widths = (16, 8)
    """widths of the projector's layers, the last one P"""


class Attract(Method):
    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = MLP(encoder.num_features, settings.projector, batch_norm=False)
        self.pull = settings.pull

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        z_1, z_2 = (directions(self.projector(self.encoder(view))) for view in (view_1, view_2))
        return {"loss": -self.pull * (z_1 * z_2).sum(dim=1).mean()}


def build(encoder: nn.Module, settings: Settings) -> Attract:
    return Attract(encoder, settings)
'''
AUGMENTATION = '''\
"""Photographic negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cssl_cli.augment.op import Operation, chance
from cssl_cli.recipe.ranges import Probability


@dataclass(frozen=True, kw_only=True)
class Settings:
    """photographic negative"""

    p: Probability = 0.25
    """probability of a negative"""


@dataclass(frozen=True, kw_only=True)
class Negate(Settings, Operation):
    num_parameters: ClassVar[int] = 1
    continuous = ()

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        return {"applied": chance(theta[:, 0], self.p)[0]}

    def apply(self, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return 1 - images
'''
DATA_SET = '''\
"""Two classes, dark and bright."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cssl_cli.data.image_set import ImageSet, Source
from cssl_cli.recipe.ranges import ImageCount


@dataclass(frozen=True, kw_only=True)
class Settings:
    """dark and bright images"""

    number: ImageCount = 32
    """images of each part"""


def load(settings, **_):
    labels = torch.arange(settings["number"]) % 2
    images = (200 * labels[:, None, None, None] + torch.arange(256).reshape(16, 16) % 50).byte().expand(-1, 3, -1, -1)
    part = ImageSet(images.contiguous(), labels)
    return Source("dusk", ("dark", "bright"), pretrain=part, train=part, test=part)
'''
RECIPE = """\
# What: two views attract
# Time: no time
# Result: collapse
name: attract-shapes
data: {name: dusk}
augment: {negate: {}}
encoder: {name: small, width: 2}
method: {name: attract}
optim: {name: sgd, lr: 0.01}
train: {steps: 1, batch_size: 16}
"""
SEEN = """
import sys
from collections.abc import Callable
from pathlib import Path

import typer.testing

from cssl_cli.cli.app import app
from cssl_cli.errors import InputError
from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.reference import reference

listed = typer.testing.CliRunner().invoke(app, ["recipes"])
assert "attract-shapes" in listed.stdout and "two views attract" in listed.stdout, listed.output
assert load_recipe("attract-shapes").settings("method") == {"name": "attract", "pull": 2.0, "projector": (16, 8)}
for override, message in (
    ("method.pull=0", "method.pull is 0; must be a number > 0"),
    ("method.pul=1", "method.pul is not a field of attract; did you mean method.pull?"),
    ("method.name=attrac", "did you mean attract?"),
    ("augment.negate.p=2", "augment.negate.p is 2; must be a number in [0, 1]"),
    ("data.number=1", "data.number is 1; must be a whole number >= 2"),
):
    try:
        load_recipe("attract-shapes", [override])
    except InputError as error:
        assert message in str(error), error
    else:
        raise AssertionError(override)
tables = reference()
assert "| `name` | attract | required | nobody, unpublished: two views attract |" in tables
assert "| `pull` | a number > 0 | `2.0` | how hard the views attract |" in tables
assert "| `negate` | a block of p | `null` | photographic negative; absent: not applied |" in tables
assert "| `number` | a whole number >= 2 | `32` | images of each part |" in tables
assert "torch" not in sys.modules

trained = typer.testing.CliRunner().invoke(app, ["pretrain", "attract-shapes", "--json"])
assert trained.exit_code == 0, trained.output
assert (next(Path("runs").iterdir()) / "encoder.safetensors").exists()
"""


def test_each_is_one_file_and_at_most_one_row(tmp_path: Path) -> None:
    package, copy = Path(cssl_cli.__file__).parent, tmp_path / "cssl_cli"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "methods" / "attract.py").write_text(METHOD)
    (copy / "augment" / "negate.py").write_text(AUGMENTATION)
    insert(
        copy / "augment" / "pipeline.py",
        "from cssl_cli.augment.negate import Negate\n",
        before="from cssl_cli.augment.op ",
    )
    insert(copy / "augment" / "pipeline.py", '    "negate": Negate,\n', before='    "fade": Fade,\n')
    (copy / "data" / "dusk.py").write_text(DATA_SET)
    insert(copy / "data" / "__init__.py", '    "dusk": "cssl_cli.data.dusk",\n', before='    "folder"')
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "attract-shapes.yaml").write_text(RECIPE)
    done = subprocess.run([sys.executable, "-c", SEEN], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def insert(path: Path, line: str, *, before: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, line + before))


def test_all_that_is_declared_can_be_built() -> None:
    """What recipes read of a file is what the numeric core gets from importing it."""
    methods = {schema.names_of(block)[0]: block for block in method_blocks()}
    assert list(methods) == method_names()
    for name, block in methods.items():
        built = importlib.import_module(f"cssl_cli.methods.{name}").Settings()
        assert {**block(name=name).model_dump(), "name": ...} == {"name": ..., **vars(built)}
    operations = schema.keys_of(augment_block())
    (other,) = schema.block_types(operations.pop("view_2").annotation)
    assert list(operations) == list(schema.keys_of(other)) == list(OPERATIONS)
    for key, info in operations.items():
        (block,) = schema.block_types(info.annotation)
        operation = OPERATIONS[key](image_size=32)
        assert block().model_dump() == {name: getattr(operation, name) for name in block.model_fields}
    assert [name for block in data_blocks() for name in schema.names_of(block)] == list(SOURCES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\n", "the file declares none"),
        ("class Settings:\n    p: float = HALF\n", "name 'HALF' is not defined"),
        ("x = (\nclass Settings:\n    p: float = 1\n", "was never closed"),
        ("from nowhere import Half\n\nclass Settings:\n    p: Half = 1\n", "No module named 'nowhere'"),
        ("from fractions import Fraction\n\nclass Settings(Fraction):\n    p: float = 1\n", "based on another class"),
        ("from dataclasses import field\n\nclass Settings:\n    p: float = field(default=1.0)\n", "the default of p"),
        ("class Settings:\n    name: str = 'x'\n", "call this one something else"),
        ("class Settings:\n    p: 'float' = 1\n", "the type of p is in quotes"),
    ],
)
def test_a_class_that_cannot_be_read_is_told_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "new.py").write_text(text)
    with pytest.raises(InputError, match=message) as told:
        _declared(tmp_path / "new.py")
    assert told.value.where == str(tmp_path / "new.py")


@pytest.mark.parametrize(
    "text",
    [
        "class Settings:\n    a: int = 1\n    b: int = 2",  # no line break at the end of the file
        "class Settings:  # of two fields\n    a: int = 1\n# a comment at the margin\n    b: int = 2\n\nx = 3\n",
        "class Settings():\n\ta: int = 1\n\n\tb: int = 2\n",
        "\ufeffimport cssl_cli.recipe.ranges\nclass Settings:\n    a: cssl_cli.recipe.ranges.Count = 1\n    b: int = 2",
    ],
)
def test_no_field_is_lost_to_the_way_a_file_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "new.py").write_text(text)
    assert {name: field.default for name, (_, field) in _declared(tmp_path / "new.py")[1].items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize("blocks", [data_blocks, augment_block])
def test_a_package_without_its_sources_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: Callable[[], object]
) -> None:
    """As in a zip archive, or where only compiled files are installed."""
    monkeypatch.setattr(declared, "PACKAGE", tmp_path)
    with pytest.raises(InputError, match=r"No such file.*\n.*install it unpacked"):
        blocks()


def test_a_check_of_batches_that_needs_the_rest_of_its_file_is_told() -> None:
    class Settings:
        def check_batches(self, batch_size: int, micro_batch: int | None) -> None:
            halves(batch_size)  # type: ignore[name-defined]  # noqa: F821

    class Attract(MethodBlock):
        name: str = "attract"

    Attract.declared = Settings
    with pytest.raises(InputError, match=r"methods/attract.py: check_batches cannot be called: name 'halves'"):
        Attract().check_batches(128, None)


def test_files_beside_the_methods_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(declared.PACKAGE / "methods", tmp_path / "methods"))
    monkeypatch.setattr(declared, "PACKAGE", tmp_path)
    monkeypatch.setattr("cssl_cli.methods.__path__", [str(folder)])
    before = method_names()
    (folder / ".#simclr.py").symlink_to("someone@somewhere.1234")  # the lock of an editor
    (folder / "._simclr.py").write_bytes(b"\x00\x05\x16\x07\xff")  # what some archives and network drives add
    (folder / "simclr.conflict.py").write_text("nothing")
    (folder / "_common.py").write_text("import torch\n")
    assert [schema.names_of(block)[0] for block in method_blocks()] == method_names() == before


def test_only_the_imports_that_settings_use_are_executed(tmp_path: Path) -> None:
    text = "from nowhere import Other\nimport nothing\nfrom cssl_cli.recipe.ranges import Count, Decay\n\n\n"
    text += "class Settings:\n    '''what it is'''\n\n    class_: Count = 3\n    '''how many'''\n\n\nOther.fails()\n"
    (tmp_path / "new.py").write_text(text)
    settings, fields = _declared(tmp_path / "new.py")
    assert settings.__doc__ == "what it is"
    (annotation, info) = fields["class_"]
    assert (annotation, info.default, info.alias, info.description) == (Count, 3, "class", "how many")
