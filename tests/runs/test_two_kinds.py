"""A run whose pairs have views of two kinds, under a momentum that rises: trained in parts, measured, reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import CHECKPOINT, ENCODER
from tests.support.commands import QUICKLY_MEASURED, Invoke

METHOD = "method={name: byol, ema_momentum: 0.9, ema_schedule: cosine, projector: [16, 8], predictor: 8}"
VIEWS = "augment.view_2={gray: null, blur: {p: 0.1}, solarize: {p: 0.5}}"


def test_from_pretraining_to_the_analysis(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(QUICKLY_MEASURED)
    recipe = load_recipe(str(tmp_path / "tiny.yaml"), [METHOD, VIEWS, "train.checkpoint_minutes=0"])
    whole = pretrain(recipe, out=tmp_path / "whole", reporter=Silent())

    class Broken(Exception):
        pass

    class Once(Silent):
        def advance(self, what: str, done: int, total: int, detail: str = "") -> None:
            if what == "pretrain" and done >= 5:
                raise Broken

    with pytest.raises(Broken):
        pretrain(recipe, out=tmp_path / "runs", reporter=Once())
    (begun,) = (tmp_path / "runs").iterdir()
    assert (begun / CHECKPOINT).exists()
    run = pretrain(recipe, out=tmp_path / "runs", reporter=Silent())
    assert run.file(ENCODER).read_bytes() == whole.file(ENCODER).read_bytes()
    done = invoke("analyze", run.path, "--no-figures", "--export", tmp_path / "f.npz")
    assert done.code == 0, done.stderr
    assert "as a first view or as a second by the toss of a coin" in " ".join(done.stdout.split())
    assert json.loads(invoke("analyze", tmp_path / "f.npz", "--json").stdout)["views_of_two_kinds"] is True
    content = json.loads(invoke("analyze", run.path, "--no-figures", "--json").stdout)
    assert content["views_of_two_kinds"] is True
    constants = content["trained"]["R_epsilon_bounds"]["theorem_2_constants"]  # its few views differ in their coins
    assert constants["reason"].startswith("no two stored views of an image agree in coins and orders")
