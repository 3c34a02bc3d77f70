"""Passes that keep less give the loss, the gradients and the statistics of the plain step, and take less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_methods import SETTINGS, images, normal, small_method
from tensor_memory import PeakMemory
from test_train import finish, make_trainer, same_state
from torch import nn

from cssl_cli.batch_norm import SplitBatchNorm2d
from cssl_cli.encoder import build_encoder, materialize
from cssl_cli.methods import Method, build_method, method_names
from cssl_cli.recompute import Encoder

ONE_PASS = {"simclr", "simple_contrastive", "t_infonce"}  # over both views
BATCH = 8


def keep_less(method: nn.Module, *, checkpoint_activations: bool = False, micro_batch: int | None = None) -> None:
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            encoder.keep_less(
                checkpoint_activations=checkpoint_activations, micro_batch=micro_batch, batch_size=BATCH
            )


def replace_norms(method: nn.Module, replacement: Callable[[nn.BatchNorm2d], nn.Module]) -> None:
    for parent in list(method.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, replacement(norm))


def split_norms(method: nn.Module, num_splits: int) -> None:
    """Batch norms over sub-batches in place of plain ones, with the same weights."""

    def split(norm: nn.BatchNorm2d) -> nn.Module:
        replaced = SplitBatchNorm2d(norm.num_features, num_splits=num_splits).to(norm.weight)
        replaced.load_state_dict(norm.state_dict())
        return replaced.requires_grad_(norm.weight.requires_grad)

    replace_norms(method, split)


def steps(method: Method, num_steps: int = 3) -> dict[str, torch.Tensor]:
    """Losses and gradients of some steps in float64, and all that has moved after them."""
    found = {}
    method.train()
    optimizer = torch.optim.SGD([one for one in method.parameters() if one.requires_grad], lr=1e-3)
    for step in range(num_steps):
        loss = method(normal(BATCH, 3, 8, 8, seed=2 * step), normal(BATCH, 3, 8, 8, seed=2 * step + 1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        found[f"loss {step}"] = loss.detach()
        found |= {f"gradient {step} {name}": one.grad for name, one in method.named_parameters() if one.requires_grad}
        found = {name: value.clone() for name, value in found.items()}
        optimizer.step()
        method.after_step()
    return found | method.state_dict()


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}")


def around_resnet(name: str, method: str = "byol") -> Method:
    with torch.device("meta"):
        built = build_method(SETTINGS[method], build_encoder({"name": name, "width": 2}))
    generator = torch.Generator().manual_seed(0)
    materialize(built, generator)
    built.after_initialization(generator)
    return built.double()


# ---------------------------------------------------------------------- the same numbers
@pytest.mark.parametrize("micro_batch", [2, 4, 8])
@pytest.mark.parametrize("method", [name for name in method_names() if name != "moco"])
def test_micro_batches_are_the_plain_step_with_batch_norms_of_as_many_images(method: str, micro_batch: int) -> None:
    plain = small_method(method).double()
    ours = copy.deepcopy(plain)
    split_norms(plain, (2 if method in ONE_PASS else 1) * BATCH // micro_batch)
    keep_less(ours, micro_batch=micro_batch)
    assert_equal(steps(ours), steps(plain))


@pytest.mark.parametrize(("num_splits", "micro_batch"), [(4, 2), (4, 4), (2, 4), (1, 8)])
def test_micro_batches_of_whole_sub_batches_leave_moco_as_it_is(num_splits: int, micro_batch: int) -> None:
    plain = small_method("moco", batch_norm_splits=num_splits).double()
    ours = copy.deepcopy(plain)
    keep_less(ours, micro_batch=micro_batch)
    assert_equal(steps(ours), steps(plain))


@pytest.mark.parametrize("method", method_names())
def test_activations_computed_again_change_nothing(method: str) -> None:
    plain = small_method(method).double()
    ours = copy.deepcopy(plain)
    keep_less(ours, checkpoint_activations=True)
    assert_equal(steps(ours), steps(plain))


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_blocks_and_both_together(name: str, micro_batch: int | None) -> None:
    plain = around_resnet(name)
    ours = copy.deepcopy(plain)
    if micro_batch is not None:
        split_norms(plain, BATCH // micro_batch)
    keep_less(ours, checkpoint_activations=True, micro_batch=micro_batch)
    assert_equal(steps(ours, num_steps=2), steps(plain, num_steps=2))


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_without_batch_norms_micro_batches_change_nothing(method: str) -> None:
    plain = small_method(method).double()
    for encoder in plain.modules():
        if isinstance(encoder, Encoder):
            replace_norms(encoder, lambda _: nn.Identity())
    ours = copy.deepcopy(plain)
    keep_less(ours, micro_batch=2)
    assert_equal(steps(ours), steps(plain))


def test_in_float32_activations_computed_again_are_the_same_to_the_last_bit() -> None:
    plain, ours = make_trainer("barlow_twins", epochs=2), make_trainer("barlow_twins", epochs=2)
    keep_less(ours.method, checkpoint_activations=True)
    finish(plain)
    finish(ours)
    assert same_state(plain, ours)


def test_in_evaluation_nothing_differs_and_any_number_of_images_will_do() -> None:
    plain = small_method("simclr").encoder
    ours = copy.deepcopy(plain)
    keep_less(ours, micro_batch=2, checkpoint_activations=True)
    assert torch.equal(ours.eval()(images(7)), plain.eval()(images(7)))
    assert ours.state_dict().keys() == plain.state_dict().keys()


# ---------------------------------------------------------------------- memory
def peak_of(encoder: Encoder, batch: torch.Tensor) -> int:
    encoder.train()
    with PeakMemory() as memory:
        encoder(batch).square().sum().backward()
    return memory.peak


def test_the_peak_falls() -> None:
    batch = normal(32, 3, 16, 16, dtype=torch.float32)

    def peak(**settings: object) -> int:
        encoder = materialize(build_encoder({"name": "resnet50", "width": 2}), torch.Generator().manual_seed(0))
        if settings:
            encoder.keep_less(**settings, batch_size=32)
        return peak_of(encoder, batch)

    plain = peak()
    both = peak(checkpoint_activations=True, micro_batch=4)
    print(plain, peak(checkpoint_activations=True, micro_batch=None)/plain, peak(checkpoint_activations=False, micro_batch=4)/plain, both/plain)


# ---------------------------------------------------------------------- compiled
@pytest.mark.parametrize("settings", [{"checkpoint_activations": True}, {"micro_batch": 4}, {"checkpoint_activations": True, "micro_batch": 4}], ids=str)
def test_one_graph_for_the_compiler(settings: dict) -> None:
    torch.compiler.reset()
    plain = small_method("byol").double()
    keep_less(plain, **settings)
    ours = copy.deepcopy(plain)
    forward = torch.compile(ours.forward, backend="aot_eager", fullgraph=True, dynamic=False)
    ours.forward = forward  # type: ignore[method-assign]
    assert_equal(steps(ours), steps(plain))
