"""Passes that keep less give the loss, the gradients and the statistics of the plain step, and take less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peak_memory import PeakMemory
from torch import nn

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Silent
from cssl_cli.methods import Method, build_method, method_names
from cssl_cli.nn.batch_norm import BatchNorm2d, SplitBatchNorm2d
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.recompute import Encoder
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.profile import _step_flops, profile
from cssl_cli.runs.setup import initial_method
from cssl_cli.runs.trainer import make_trainer as trainer_of
from tests.support.small_methods import SETTINGS, images, normal, small_method
from tests.train.test_loop import finish, make_trainer, same_state

BATCH = 8


def keep_less(method: nn.Module, *, checkpoint_activations: bool = False, micro_batch: int | None = None) -> None:
    for encoder in method.modules():
        if isinstance(encoder, Encoder):
            encoder.keep_less(checkpoint_activations=checkpoint_activations, micro_batch=micro_batch, batch_size=BATCH)


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


def steps(method: Method, num_steps: int = 3, rate: float = 1e-3) -> dict[str, torch.Tensor]:
    """Losses and gradients of some steps in float64, and all that has moved after them."""
    found = {}
    method.train()
    optimizer = torch.optim.SGD([one for one in method.parameters() if one.requires_grad], lr=rate)
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
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}"
        )


def around_resnet(name: str, method: str = "byol") -> Method:
    with torch.device("meta"):
        built = build_method(SETTINGS[method], build_encoder({"name": name, "width": 2}))
    generator = torch.Generator().manual_seed(0)
    materialize(built, generator)
    built.after_initialization(generator)
    return built.double()


# ---------------------------------------------------------------------- the same numbers
@pytest.mark.parametrize("micro_batch", [2, 8])
@pytest.mark.parametrize("method", [name for name in method_names() if name != "moco"])
def test_micro_batches_are_the_plain_step_with_batch_norms_of_as_many_images(method: str, micro_batch: int) -> None:
    plain = small_method(method).double()
    ours = copy.deepcopy(plain)
    split_norms(plain, (2 if plain.num_passes == 1 else 1) * BATCH // micro_batch)
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
    assert_equal(steps(ours, num_steps=2, rate=1e-6), steps(plain, num_steps=2, rate=1e-6))


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
def peak(name: str, **settings: Any) -> int:
    """Bytes alive at the most in a forward and a backward pass of 32 images, weights and images not counted."""
    encoder = materialize(build_encoder({"name": name, "width": 4}), torch.Generator().manual_seed(0)).train()
    assert isinstance(encoder, Encoder)
    if settings:
        encoder.keep_less(**{"checkpoint_activations": False, "micro_batch": None} | settings, batch_size=32)
    batch = normal(32, 3, 32, 32, dtype=torch.float32)
    with PeakMemory() as memory:
        encoder(batch).square().sum().backward()
    return memory.peak


def test_the_peak_is_that_of_one_micro_batch() -> None:
    assert peak("small", micro_batch=4) < (4 / 32 + 0.05) * peak("small")


def test_the_peak_is_that_of_the_inputs_of_blocks_and_one_block() -> None:
    plain, ours = peak("resnet18"), peak("resnet18", checkpoint_activations=True)
    assert ours < 0.5 * plain
    assert peak("resnet18", checkpoint_activations=True, micro_batch=8) < 0.4 * ours


# ---------------------------------------------------------------------- compiled
class TwoLayers(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), BatchNorm2d(3), nn.ReLU()) for _ in range(2))
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            images = self.block(layer, images)
        return images.mean(dim=(2, 3))


def test_one_graph_for_the_compiler() -> None:
    torch.compiler.reset()
    plain = materialize(TwoLayers(), torch.Generator().manual_seed(0)).double()
    keep_less(plain, checkpoint_activations=True, micro_batch=4)
    ours = copy.deepcopy(plain)
    forward = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=False)
    for images_given in (normal(BATCH, 3, 8, 8, seed=seed) for seed in range(2)):
        for one in (plain, forward):
            one(images_given).square().sum().backward()
    for (name, found), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-10, msg=name)
    counters = {name for name in plain.state_dict() if name.endswith("num_batches_tracked")}
    assert {plain.state_dict()[name].item() for name in counters} == {2}  # which compiled code leaves to the trainer
    found, expected = (
        {name: value for name, value in one.state_dict().items() if name not in counters} for one in (ours, plain)
    )
    assert_equal(found, expected)


# ---------------------------------------------------------------------- recipes
def test_a_recipe_asks_for_it_and_momentum_encoders_follow() -> None:
    recipe = load_recipe(
        "simclr-shapes",
        ["method={name: byol}", "train.batch_size=64", "train.micro_batch=16", "train.checkpoint_activations=true"],
    )
    method = initial_method(recipe)
    for encoder in (method.encoder, method.momentum_encoder):
        assert isinstance(encoder, Encoder)
        assert (encoder.micro_batch, encoder.checkpoint_activations) == (16, True)
    moco = ["method={name: moco}", "train.batch_size=64", "train.micro_batch=16"]
    norms = [
        norm
        for norm in initial_method(load_recipe("simclr-shapes", moco)).modules()
        if isinstance(norm, SplitBatchNorm2d)
    ]
    assert {norm.num_splits for norm in norms} == {2}  # sub-batches of 64 / 8 images


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_size=64", "train.micro_batch=24"], "train.micro_batch does not divide train.batch_size, 64"),
        (["train.micro_batch=1"], "train.micro_batch"),
        (
            ["method={name: moco}", "train.batch_size=64", "train.micro_batch=4"],
            "cuts the sub-batches of 8 images of method.batch_norm_splits, 8; give method.batch_norm_splits=16",
        ),
        (
            ["method={name: moco, batch_norm_splits: 1}", "train.batch_size=64", "train.micro_batch=32"],
            "give method.batch_norm_splits=2",
        ),
    ],
)
def test_what_does_not_divide_is_refused_with_the_recipe(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe("simclr-shapes", overrides)
    assert message in str(error.value)


def test_fingerprints() -> None:
    """Old recipes keep theirs; activations computed again are the same numbers, other batch norms are not."""
    plain = load_recipe("simclr-cifar10")
    assert plain.fingerprint == "af07c667d0"  # before there were these fields
    assert load_recipe("simclr-cifar10", ["train.checkpoint_activations=true"]).fingerprint == plain.fingerprint
    assert load_recipe("simclr-cifar10", ["train.micro_batch=64"]).fingerprint != plain.fingerprint


def test_a_run_with_both_trains_and_is_profiled(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cssl_cli.runs.machine.MATRIX_SIDE", {"cpu": 256})
    monkeypatch.setattr("cssl_cli.runs.machine.COPY_BYTES", {"cpu": 2**20})
    for name in ("WARM_UP_STEPS", "ROUNDS", "MOST_STEPS", "TRACED_STEPS"):
        monkeypatch.setattr(f"cssl_cli.runs.profile.{name}", 1)
    recipe, plain = (
        load_recipe(str(tiny_recipe), ["train.steps=2", *overrides])
        for overrides in (["train.micro_batch=32", "train.checkpoint_activations=true"], [])
    )
    dataset = prepare_data(plain, Silent())
    assert pretrain(recipe, out=tmp_path, reporter=Silent()).finished
    _, found = profile(recipe, out=tmp_path, reporter=Silent())
    assert all(seconds > 0 for seconds in found["parts"].values())
    # The forward pass, a third of the operations or a little more, twice again: a micro-batch, then its blocks.
    once = trainer_of(load_recipe(str(tiny_recipe), ["train.micro_batch=32"]), dataset, torch.device("cpu"))
    flops = _step_flops(trainer_of(plain, dataset, torch.device("cpu")))
    assert 1.3 < _step_flops(once) / flops < 1.5
    assert 4 / 3 < found["flops"] / flops < 2


def test_micro_batches_are_only_compiled_if_asked_for(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cssl_cli.runs.compiling.COMPILED_STEPS", 1)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")

    def compiled(*overrides: str) -> bool:
        recipe = load_recipe(str(tiny_recipe), overrides)
        return trainer_of(recipe, prepare_data(recipe, Silent()), torch.device("cpu")).training_step.compiled

    assert compiled()
    assert not compiled("train.micro_batch=32")
    assert compiled("train.micro_batch=32", "train.compile=true")
