"""A run that is killed at each moment at which it writes a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.host.progress import Silent
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import ENCODER, STATUS, RunDir
from tests.support.commands import TINY_RECIPE
from tests.support.run_files import Told


class Killed(BaseException):
    """As SIGKILL would end it: nothing of ours catches it."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    small = ["data.num_train=64", "data.num_test=30", "train.batch_size=32", "train.epochs=2"]
    return folder, load_recipe(str(folder / "tiny.yaml"), [*small, "probe.every=1", "train.checkpoint_minutes=0"])


def written(run: RunDir) -> dict[str, bytes]:
    return {name: run.file(name).read_bytes() for name in (ENCODER, "projector.safetensors", "knn.jsonl", STATUS)}


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_run_killed_at_each_write_ends_as_if_undisturbed(
    short: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    folder, recipe = short
    undisturbed = pretrain(recipe, out=folder / "undisturbed", reporter=Silent())
    real, calls, kill_at = getattr(os, function), 0, 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, function, counted)
    told, run = Told(), None
    while run is None:  # one write further each time, until nothing is left to kill
        calls, kill_at = 0, kill_at + 1
        with suppress(Killed):
            run = pretrain(recipe, out=tmp_path, reporter=told)
    assert kill_at >= 8
    assert written(run) == written(undisturbed)
    assert sorted(path.name for path in run.path.iterdir()) == sorted(path.name for path in undisturbed.path.iterdir())
    assert not [line for line in told.said if "damaged" in line]
