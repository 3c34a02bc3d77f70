"""A new method is one file and one recipe: shown on a copy of the package to which both are added."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cssl_cli

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
RECIPE = """\
# What: two views attract
# Time: no time
# Result: collapse
name: attract-shapes
data: {name: shapes, num_train: 64, num_test: 20, size: 16}
augment: {flip: {}}
encoder: {name: small, width: 2}
method: {name: attract}
optim: {name: sgd, lr: 0.01}
train: {steps: 1, batch_size: 16}
"""
SEEN = """
import sys
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
assert "torch" not in sys.modules

trained = typer.testing.CliRunner().invoke(app, ["pretrain", "attract-shapes", "--json"])
assert trained.exit_code == 0, trained.output
assert (next(Path("runs").iterdir()) / "encoder.safetensors").exists()
"""


def test_a_method_is_one_file_and_one_recipe(tmp_path: Path) -> None:
    package = Path(cssl_cli.__file__).parent
    shutil.copytree(package, tmp_path / "cssl_cli", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "cssl_cli" / "methods" / "attract.py").write_text(METHOD)
    (tmp_path / "recipes" / "attract-shapes.yaml").write_text(RECIPE)
    done = subprocess.run([sys.executable, "-c", SEEN], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
