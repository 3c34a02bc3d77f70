"""Every method's step on a fake CUDA device: what it launches, copies and waits for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_equality import EVERY_OPERATION
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from cssl_cli.augment import OPERATIONS, build_augmentation
from cssl_cli.augment.crop import Crop
from cssl_cli.data.batches import ResidentImages
from cssl_cli.methods import method_names
from cssl_cli.nn import batch_norm
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products, log_sum_exp_of_t_kernel, log_sum_exp_over_keys
from cssl_cli.nn.off_diagonal import off_diagonal_squares
from cssl_cli.recipe import load_recipe
from cssl_cli.train import theta_ahead
from cssl_cli.train.step import TrainingStep
from tests.gpu_path.fake_cuda import CUDA, Ledger, fake_cuda, last_step, trainer_of

# Kernels of an uncompiled step, with torch 2.14; other versions split operations a little differently.
KERNELS = {
    "barlow_twins-shapes": 258,
    "byol-shapes": 368,
    "moco-shapes": 304,
    "simclr-shapes": 382,
    "simple_contrastive-shapes": 190,
    "simsiam-shapes": 325,
    "t_infonce-shapes": 151,
    "vicreg-shapes": 255,
    "simclr-cifar10": 523,
}
TOLERANCE = 1.04


# The other operations are the same for all methods, and more than half of what a step launches: SimCLR has them all.
FLIP_ONLY = tuple(f"augment.{name}=null" for name in ("crop", "jitter", "gray", "blur"))

TWICE = ("simclr-shapes", "byol-shapes")  # of these, what a second step does is followed, too


def follow(name: str, *overrides: str) -> Ledger:
    """The step of a recipe, which must wait for nothing and stay on the device."""
    short = () if name.startswith("simclr") else FLIP_ONLY
    recipe, ledger = load_recipe(name, ["train.batch_size=64", *short, *overrides]), Ledger()
    with trainer_of(recipe) as trainer:
        views, terms = last_step(trainer, ledger, num_steps=2 if name in TWICE else 1)
        parameters = [one for one in trainer.method.parameters() if one.requires_grad]
        weights = [layer.weight for layer in trainer.method.modules() if isinstance(layer, nn.Conv2d)]
    assert trainer.precision == torch.bfloat16
    for image in (*views, *weights):
        assert image.device == CUDA
        assert image.is_contiguous(memory_format=torch.channels_last)
    assert all(term.device == CUDA and term.dtype == torch.float32 and term.ndim == 0 for term in terms.values())
    assert all(one.grad is not None and one.grad.device == CUDA for one in parameters)
    # The order of the images and theta, for all steps at once; nothing comes back.
    assert [(copy.part, copy.way, copy.blocks) for copy in ledger.copies] == [("batch", "cpu → cuda", False)] * 2
    return ledger


def require_few_kernels(name: str, ledger: Ledger) -> None:
    assert ledger.num_kernels <= TOLERANCE * KERNELS[name], ledger.of_parts()


@pytest.mark.parametrize("name", KERNELS)
def test_step_waits_for_nothing_and_launches_no_more_than_it_did(name: str) -> None:
    ledger = follow(name)
    require_few_kernels(name, ledger)
    parts = ", ".join(f"{part} {kernels} ({gb:.3f} GB)" for part, (kernels, gb) in ledger.of_parts().items())
    print(f"\n{name}: {ledger.num_kernels} kernels: {parts}")
    assert ledger.num_kernels >= KERNELS[name] / TOLERANCE, "fewer than ever: let the table say so"


def test_every_method_is_among_them() -> None:
    assert {f"{name}-shapes" for name in method_names()} < set(KERNELS)


def test_a_store_larger_than_the_views_waits_for_nothing() -> None:
    follow("simclr-shapes", *FLIP_ONLY[1:], "data.store_size=48")


def test_lars_takes_all_weights_together() -> None:
    assert follow("simclr-shapes", *FLIP_ONLY, "optim={name: lars, lr: 0.1}").of_parts()["update"][0] < 40


# ---------------------------------------------------------------------- sabotage
def test_a_look_at_the_loss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = TrainingStep.backward
    monkeypatch.setattr(TrainingStep, "backward", lambda self, terms: backward(self, terms) or float(terms["loss"]))
    with pytest.raises(DataDependentOutputException):
        follow("simclr-shapes", *FLIP_ONLY)


def test_a_tensor_of_the_host_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Crop.apply
    monkeypatch.setattr(Crop, "apply", lambda self, *both: apply(self, *both) * torch.ones(32))
    with pytest.raises(RuntimeError, match="device"):
        follow("simclr-shapes")


@pytest.mark.parametrize(
    "blocking",
    [
        lambda tensors, device: [tensor.to(device, non_blocking=True) for tensor in tensors],  # not page-locked
        lambda tensors, device: [tensor.pin_memory().to(device) for tensor in tensors],
    ],
)
def test_a_copy_that_waits_is_caught(monkeypatch: pytest.MonkeyPatch, blocking: object) -> None:
    monkeypatch.setattr(theta_ahead, "sent", blocking)
    with pytest.raises(AssertionError, match="True"):
        follow("simclr-shapes", *FLIP_ONLY)


def test_small_kernels_by_the_hundred_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "launch_bound", lambda _: False)
    with pytest.raises(AssertionError, match="forward"):
        require_few_kernels("moco-shapes", follow("moco-shapes"))


# ---------------------------------------------------------------------- parts of it
@pytest.mark.parametrize("names", [*([name] for name in OPERATIONS), list(OPERATIONS)], ids="-".join)
def test_augmentations(names: list[str]) -> None:
    follow_views({name: EVERY_OPERATION[name] for name in names})


def test_views_of_two_kinds() -> None:
    follow_views({**EVERY_OPERATION, "view_2": {**EVERY_OPERATION, "gray": None, "blur": {"p": 0.1}}})


def follow_views(settings: dict[str, Any]) -> None:
    augmentation = build_augmentation(settings, image_size=32)
    ledger = Ledger()
    with fake_cuda():
        images = torch.zeros((64, 3, 32, 32), dtype=torch.uint8, device=CUDA)
        theta = augmentation.draw_pairs(32, torch.Generator()).to(CUDA)
        augmentation.apply(images, theta)  # fills the tables
        with ledger:
            views = augmentation.apply(images, theta)
        assert (views.device, views.dtype, views.shape) == (CUDA, torch.float32, images.shape)
    assert ledger.copies == []


@pytest.mark.parametrize("tile", [40, None])
def test_losses_in_blocks(tile: int | None) -> None:
    with fake_cuda(), Ledger() as ledger:
        z = torch.zeros((100, 24), device=CUDA, requires_grad=True)
        keys = torch.zeros((70, 24), device=CUDA)
        for value in (
            log_sum_exp_of_inner_products(z, temperature=0.5, tile=tile).sum(),
            log_sum_exp_of_t_kernel(z, t_df=3.0, tau=0.1, tile=tile).sum(),
            log_sum_exp_over_keys(z, keys, temperature=0.5, rows=tile).sum(),
            off_diagonal_squares(z, z, rows=tile),
            off_diagonal_squares(z, 2 * z, rows=tile),
        ):
            z.grad = None
            value.backward()
            assert z.grad.device == CUDA
            assert z.grad.shape == z.shape
    assert ledger.copies == []


def test_the_order_of_many_batches_is_sent_at_once() -> None:
    ledger = Ledger()
    with fake_cuda(), ledger:
        images = ResidentImages(torch.zeros((100, 3, 8, 8), dtype=torch.uint8, device=CUDA))
        batches = list(images.batches(torch.arange(100).split(10)))
        assert len(batches) == 10
        assert all(batch.device == CUDA and len(batch) == 10 for batch in batches)
    assert [(copy.way, copy.blocks) for copy in ledger.copies] == [("cpu → cuda", False)]
