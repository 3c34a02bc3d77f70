"""Every method's step on a fake CUDA device, through torch.compile, and some up to the graphs of AOTAutograd."""

from __future__ import annotations

import os

import pytest
import torch

from cssl_cli.methods import method_names
from cssl_cli.recipe import load_recipe
from cssl_cli.runs import setup
from tests.gpu_path.fake_cuda import CUDA, trainer_of
from tests.support.small_methods import OneLayer

# The graph of a backward pass takes as long again: of the tiles of a loss, beside batch norms in one pass.
BACKWARD_TOO = ("simclr",)
# The others' parts are in these; every method is traced on the CPU, too (tests/train/test_step.py).
METHODS = method_names() if "CSSL_EVERY_METHOD" in os.environ else ("barlow_twins", "byol", "moco", "simclr")


@pytest.mark.parametrize("name", METHODS)
def test_forward_and_backward_are_one_graph_to_the_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them around the encoder of its recipe, the others around a single layer, which takes a third as long."""
    torch.compiler.reset()
    if name != "simclr":
        monkeypatch.setattr(setup, "build_encoder", lambda *_: OneLayer())
    with trainer_of(load_recipe(f"{name}-shapes", ["train.batch_size=64"])) as trainer:
        step = trainer.training_step
        images = torch.zeros((128, 3, 32, 32), device=CUDA).contiguous(memory_format=torch.channels_last)
        with step._autocast():
            backend = "aot_eager" if name in BACKWARD_TOO else "eager"
            compiled = torch.compile(lambda *both: step.method(*both), dynamic=False, fullgraph=True, backend=backend)
            terms = compiled(*images.chunk(2))
        terms["loss"].backward()
        assert all(p.grad is not None for p in step.method.parameters() if p.requires_grad)
