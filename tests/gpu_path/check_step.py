"""Every method's step on a fake CUDA device: what it launches, copies and waits for, and its graphs for a compiler."""

from __future__ import annotations

import pytest

from cssl_cli.methods import method_names
from cssl_cli.recipe import load_recipe
from gpu_path.fake_cuda import Ledger, last_step, trainer_of


@pytest.mark.parametrize("name", method_names())
def test_step(name):
    ledger = Ledger()
    with trainer_of(load_recipe(f"{name}-shapes")) as trainer:
        views, terms = last_step(trainer, ledger)
        print(name, ledger.num_kernels, ledger.of_parts(), ledger.copies)


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_step2(name):
    ledger = Ledger()
    with trainer_of(load_recipe(f"{name}-cifar10")) as trainer:
        views, terms = last_step(trainer, ledger)
        print(name, ledger.num_kernels, ledger.of_parts(), ledger.copies)
