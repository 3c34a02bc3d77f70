"""MoCo: its loss, its queue, its momentum encoder, and the sub-batches of its batch norms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cssl_cli.errors import InputError
from cssl_cli.methods import move_towards
from cssl_cli.methods.moco import MoCo, deal, queue_info_nce_loss, queue_info_nce_terms, undeal
from cssl_cli.recipe import load_recipe
from cssl_cli.train.optimizers import build_optimizer
from tests.support import reference_methods as reference
from tests.support.small_methods import images, normal, small_method

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False, "decay_norm_and_bias": True}


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return nn.functional.normalize(normal(*shape, seed=seed), dim=1)


def moco(**settings) -> MoCo:
    method = small_method("moco", **settings)
    assert isinstance(method, MoCo)
    return method


# ---------------------------------------------------------------------- the loss
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_the_loss_is_equation_1(temperature: float) -> None:
    queries, keys, queue = normal(6, 5, seed=1), normal(6, 5, seed=2), unit(9, 5, seed=3)
    expected = reference.moco(queries, keys, queue, temperature)
    assert queue_info_nce_loss(queries, keys, queue, temperature=temperature).item() == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_collapsed_projections_give_the_log_of_the_number_of_keys(length: int) -> None:
    z = unit(1, 6)
    loss = queue_info_nce_loss(3 * z.expand(4, 6), z.expand(4, 6), z.expand(length, 6), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(length + 1), abs=1e-12)


def test_aligned_views_orthogonal_to_the_queue() -> None:
    axes, temperature = torch.eye(8, dtype=torch.float64), 0.5
    alignment, divergence = queue_info_nce_terms(axes[:3], axes[:3], axes[3:], temperature=temperature)
    assert alignment.item() == pytest.approx(-1 / temperature)
    assert divergence.item() == pytest.approx(math.log(math.exp(1 / temperature) + 5))


def test_invariances() -> None:
    queries, keys, queue = normal(6, 5, seed=1), normal(6, 5, seed=2), unit(9, 5, seed=3)
    rotation, _ = torch.linalg.qr(normal(5, 5, seed=4))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    loss = queue_info_nce_loss(queries, keys, queue, temperature=0.2)
    for same in [
        queue_info_nce_loss(queries[order], keys[order], queue, temperature=0.2),
        queue_info_nce_loss(queries, keys, queue.flip(0), temperature=0.2),
        queue_info_nce_loss(queries @ rotation, keys @ rotation, queue @ rotation, temperature=0.2),
        queue_info_nce_loss(5 * queries, 0.1 * keys, queue, temperature=0.2),
    ]:
        torch.testing.assert_close(same, loss)
    # The other queries of the batch are no negatives.
    alone = torch.stack(
        [queue_info_nce_loss(queries[i, None], keys[i, None], queue, temperature=0.2) for i in range(6)]
    )
    torch.testing.assert_close(alone.mean(), loss)


def test_gradients_match_finite_differences() -> None:
    queries, keys, queue = normal(4, 3, seed=1).requires_grad_(), normal(4, 3, seed=2), unit(5, 3, seed=3)
    assert torch.autograd.gradcheck(lambda q: queue_info_nce_loss(q, keys, queue, temperature=0.3), [queries])


def test_it_does_not_overflow_at_small_temperature() -> None:
    z = unit(4, 3).float()
    assert torch.isfinite(queue_info_nce_loss(z, -z, z, temperature=0.001))


# ---------------------------------------------------------------------- the step
def test_the_method_is_the_mean_of_both_halves_against_the_queue_of_the_start() -> None:
    method = moco(batch_norm_splits=1)
    view_1, view_2 = images(seed=1), images(seed=2)
    before = method.queue.clone()
    loss = method(view_1, view_2)["loss"]
    keys_1, keys_2 = (method.momentum_projector(method.momentum_encoder(view)).detach() for view in (view_1, view_2))
    queries_1, queries_2 = (method.projector(method.encoder(view)).detach() for view in (view_1, view_2))
    halves = [
        reference.moco(queries_1, keys_2, before, method.temperature),
        reference.moco(queries_2, keys_1, before, method.temperature),
    ]
    assert loss.item() == pytest.approx(sum(halves) / 2, rel=1e-5)
    assert torch.equal(method.queue, before), "keys are enqueued before the step is done"


def test_the_queue_is_a_ring_of_the_latest_keys() -> None:
    method = moco()  # 40 keys
    expected = method.queue.clone()
    position = 0
    for step in range(4):
        views = images(seed=2 * step), images(seed=2 * step + 1)
        method(*views)
        keys = torch.cat([method.keys(view) for view in views])
        method.after_step()
        for key in keys:  # 16 keys a step: the third step goes round the end
            expected[position] = key
            position = (position + 1) % 40
        torch.testing.assert_close(method.queue, expected, rtol=0, atol=0)
        assert method.queue_position.item() == position
        torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(40))


def test_a_run_begins_with_equal_copies_and_a_queue_of_random_directions() -> None:
    method = moco(queue=2000)
    for part, copied in [
        (method.encoder, method.momentum_encoder),
        (method.projector, method.momentum_projector),
    ]:
        ours, theirs = part.state_dict(), copied.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(2000))
    # Uniform on the sphere: mean 0, covariance the identity over P.
    assert method.queue.mean(dim=0).abs().max() < 5 / math.sqrt(2000 * 8)
    torch.testing.assert_close(method.queue.T @ method.queue / 2000, torch.eye(8) / 8, rtol=0, atol=0.02)
    assert method.queue_position.item() == 0


def test_a_step_moves_the_momentum_encoder_once() -> None:
    method = moco(ema_momentum=0.75)
    optimizer = build_optimizer(method, SGD)
    copies = {key: value.clone() for key, value in method.named_parameters() if key.startswith("momentum_")}
    method(images(seed=1), images(seed=2))["loss"].backward()
    assert all(value.grad is None for key, value in method.named_parameters() if key in copies)
    optimizer.step()
    method.after_step()
    now = dict(method.named_parameters())
    for key, before in copies.items():
        # m θ + (1 − m) θ′ with the weights after the optimizer's step.
        expected = 0.75 * before + 0.25 * now[key.removeprefix("momentum_")]
        torch.testing.assert_close(now[key], expected)
    assert not torch.equal(now["momentum_encoder.layers.0.weight"], copies["momentum_encoder.layers.0.weight"])


def test_moving_towards_repeats_the_formula_and_leaves_buffers() -> None:
    one, other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other[1].running_mean += 1
    weight, target = one[0].weight.detach().clone(), other[0].weight.detach().clone()
    for _ in range(3):
        move_towards(one, other, ema_momentum=0.9)
    torch.testing.assert_close(one[0].weight.detach(), 0.9**3 * weight + (1 - 0.9**3) * target)
    assert one[1].running_mean.abs().max() == 0


def test_keys_carry_no_gradient() -> None:
    method = moco()
    terms = method(images(seed=1), images(seed=2))
    assert method.num_new_keys == 16
    assert not method.new_keys.requires_grad
    terms["loss"].backward()
    assert method.queue.grad is None


# ---------------------------------------------------------------------- off the CPU, and captured
def double_moco() -> tuple[MoCo, torch.optim.Optimizer]:
    method = moco().double()
    return method, build_optimizer(method, SGD)


def step_of(method: MoCo, optimizer: torch.optim.Optimizer, view_1: torch.Tensor, view_2: torch.Tensor) -> torch.Tensor:
    loss = gradients_of(method, optimizer, view_1, view_2)
    optimizer.step()
    method.after_step()
    return loss


def gradients_of(
    method: MoCo, optimizer: torch.optim.Optimizer, view_1: torch.Tensor, view_2: torch.Tensor
) -> torch.Tensor:
    loss = method(view_1, view_2)["loss"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return loss


def pairs(num: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layout = torch.channels_last
    return [
        (images(seed=2 * i).double().contiguous(memory_format=layout), images(seed=2 * i + 1).double())
        for i in range(num)
    ]


def require_same(one: MoCo, other: MoCo) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    for name in ours:
        if not name.endswith("num_batches_tracked"):  # which the trainer sets
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10)


def test_both_views_in_one_pass_are_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = double_moco(), double_moco()
    for views in pairs(3):
        expected = step_of(*one, *views)
        with monkeypatch.context() as patch:
            patch.setattr("cssl_cli.nn.batch_norm.launch_bound", lambda _: True)
            passes = count_calls(patch, other[0].encoder)
            loss = step_of(*other, *views)
        assert len(passes) == 1
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        require_same(one[0], other[0])


def count_calls(patch: pytest.MonkeyPatch, module: nn.Module) -> list[int]:
    calls, forward = [], module.forward
    patch.setattr(module, "forward", lambda images: calls.append(len(images)) or forward(images))
    return calls


class Tape(TorchDispatchMode):
    """What a CUDA graph keeps of a step: its operations and the memory they read and write, and nothing of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.mark.parametrize("off_the_cpu", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_captured_step_goes_on_by_itself(off_the_cpu: bool, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed without Python, keys, queue, its position and the momentum encoder move as in plain steps; also where
    the update is not captured."""
    monkeypatch.setattr("cssl_cli.nn.batch_norm.launch_bound", lambda _: off_the_cpu)
    one, other = double_moco(), double_moco()
    batches = pairs(5)
    for views in batches[:2]:  # warm up: the optimizer gets its buffers
        step_of(*one, *views)
        step_of(*other, *views)
    static = tuple(view.clone() for view in batches[2])
    with Tape() as tape:
        (step_of if whole else gradients_of)(*other, *static)
    if not whole:
        other[1].step()
        other[0].after_step()
    step_of(*one, *batches[2])
    require_same(one[0], other[0])
    for views in batches[3:]:
        step_of(*one, *views)
        for memory, view in zip(static, views, strict=True):
            memory.copy_(view)
        tape.replay()
        if not whole:
            other[1].step()
            other[0].after_step()
        require_same(one[0], other[0])


def test_a_checkpoint_holds_no_more_than_it_did() -> None:
    assert set(moco().state_dict()) - set(dict(moco().named_parameters())) == {"queue", "queue_position"} | {
        name for name, _ in moco().named_buffers() if "layers" in name
    }


# ---------------------------------------------------------------------- sub-batches
@pytest.mark.parametrize(("num", "hands"), [(8, 1), (8, 2), (12, 4), (16, 4), (32, 4), (64, 8)])
def test_dealing_gives_an_image_other_company_as_query_than_as_key(num: int, hands: int) -> None:
    order = deal(torch.arange(num)[:, None], hands)
    assert torch.equal(undeal(order, hands)[:, 0], torch.arange(num))
    size = num // hands
    as_query = {i: set(run) for run in order[:, 0].view(hands, size).tolist() for i in run}
    as_key = {i: set(run) for run in torch.arange(num).view(hands, size).tolist() for i in run}
    shared = max(len(as_query[i] & as_key[i]) for i in range(num))
    # As evenly spread as can be: of its company of B/s images no more than a 1/s-th, rounded up, comes again.
    assert shared == -(-size // hands)


def test_queries_and_keys_are_normalised_in_the_sub_batches_that_dealing_gives() -> None:
    method = moco(batch_norm_splits=4)
    views = images(16, seed=1), images(16, seed=2)
    method(*views)
    sub_batches = {"queries": [views[0][hand::4] for hand in range(4)], "keys": list(views[0].split(4))}
    for role, parts in sub_batches.items():
        network = method.encoder if role == "queries" else method.momentum_encoder
        head = method.projector if role == "queries" else method.momentum_projector
        plain = small_method("moco", batch_norm_splits=1)
        plain.encoder.load_state_dict(network.state_dict())
        plain.projector.load_state_dict(head.state_dict())
        apart = torch.cat([plain.projector(plain.encoder(part)) for part in parts])
        if role == "queries":
            torch.testing.assert_close(method.queries(views[0]), undeal(apart, 4), rtol=1e-4, atol=1e-5)
        else:
            expected = nn.functional.normalize(apart, dim=1)
            torch.testing.assert_close(method.keys(views[0]), expected, rtol=1e-4, atol=1e-5)


def test_an_image_cannot_be_told_by_its_company() -> None:
    # With the same sub-batches for both, a shift common to a sub-batch would tell query and key to be of one of B/s
    # images. Here an image's shift as query says nothing of its shift as key beyond the image itself.
    shift = torch.arange(4.0).repeat_interleave(4)[:, None]  # that of an image's sub-batch as key
    as_query = undeal(torch.arange(4.0).repeat_interleave(4)[:, None], 4)
    assert torch.corrcoef(torch.cat([shift, as_query], dim=1).T)[0, 1].abs() < 1e-6


# ---------------------------------------------------------------------- recipes
def test_the_published_settings() -> None:
    recipe = load_recipe("moco-cifar10")
    assert recipe.settings("method") == {
        "name": "moco",
        "temperature": 0.1,
        "queue": 4096,
        "ema_momentum": 0.99,
        "batch_norm_splits": 8,
        "projector": (512, 128),
    }
    assert recipe.optim.lr == 0.08
    for block in ("data", "augment", "encoder", "train"):
        assert recipe.settings(block) == load_recipe("simclr-cifar10").settings(block)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch_size=100"], "train has a batch_size of 100, which method.batch_norm_splits does not divide, 8"),
        (["train.batch_size=8"], "leaves a single image to each of the sub-batches"),
        (["method.queue=1000"], "whose 1024 keys do not fit into method.queue, 1000; give method.queue=1024 or more"),
    ],
)
def test_a_batch_that_does_not_suit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("moco-cifar10", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.batch_size=100", "method.batch_norm_splits=1"],
        ["train.batch_size=16"],
        ["method.queue=1024"],
        ["method.queue=1500"],
        ["train.batch_size=100", "method.name=simclr"],
    ],
)
def test_a_batch_that_suits_is_taken(overrides: list[str]) -> None:
    assert load_recipe("moco-cifar10", overrides)
