"""The compiled step equals the plain one, and a compiler that fails costs a sentence, not the run."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.utils import counters

from cssl_cli.augment import build_augmentation
from cssl_cli.errors import RunError
from cssl_cli.host.randomness import stream
from cssl_cli.methods import method_names
from cssl_cli.train.loop import Trainer
from tests.support.small_methods import OneLayer
from tests.train.test_loop import exact, finish, make_trainer, random_images, same_state, through_a_file

compile_with = torch.compile


make_small = functools.partial(make_trainer, encoder=OneLayer)


def traced(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and statistics after a whole run, and the losses of its epochs."""
    losses = [record.terms["loss"] for record in finish(trainer)]
    return {**trainer.method.state_dict(), "losses": torch.tensor(losses)}


# Of what is written in place (queue, momentum encoder, statistics) and of a backward pass of our own.
DIFFERENTIATED_TOO = ("moco", "barlow_twins")


@pytest.mark.parametrize("method", method_names())
def test_a_run_of_traced_steps_equals_the_plain_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is taken, of some differentiated as for any compiler, and then carried out operation by operation."""
    backend = "aot_eager" if method in DIFFERENTIATED_TOO else "eager"
    monkeypatch.setattr(torch, "compile", functools.partial(compile_with, backend=backend))
    said: list[str] = []
    make = make_trainer if method == "simclr" else make_small
    plain = traced(make(method, epochs=2))
    trainer = make(method, epochs=2, compiled=True, notice=said.append)
    compiled = traced(trainer)
    assert [sentence.split()[0] for sentence in said] == ["compiling", "compiled"], said
    assert trainer.training_step.compiled
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["simclr", "byol", "barlow_twins"])
def test_gradients_of_a_traced_step_in_bfloat16(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes through the same weights are added up in another order, at bfloat16's precision of 2⁻⁸; later steps
    would amplify that."""
    monkeypatch.setattr(torch, "compile", functools.partial(compile_with, backend="aot_eager"))
    gradients, losses = [], []
    for compiled in (False, True):
        trainer = make_small(method, precision=torch.bfloat16, compiled=compiled)
        trainer.method.train()
        step = trainer.training_step
        terms = step.forward(*step.views(random_images(16), trainer.draw_theta(16)))
        step.backward(terms)
        gradients.append(torch.cat([one.grad.flatten() for one in step.method.parameters() if one.grad is not None]))
        losses.append(terms["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert (gradients[0] - gradients[1]).norm() < 2**-8 * gradients[0].norm()


def test_the_compiled_step_equals_the_plain_one_and_goes_on_where_it_was() -> None:
    said: list[str] = []
    make: Callable[..., Trainer] = functools.partial(make_small, epochs=3, compiled=True, notice=said.append)
    plain = traced(make_small(epochs=3))
    whole = make()
    records = finish(whole)
    assert [sentence.split()[0] for sentence in said] == ["compiling", "compiled"], said
    losses = torch.tensor([record.terms["loss"] for record in records])
    for name, value in {**whole.method.state_dict(), "losses": losses}.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)
    hits = counters["aot_autograd"]["autograd_cache_hit"]
    first = make()
    for progress in first.run():
        if progress.step == 6:  # within the second epoch
            break
    second = make()
    second.load_state_dict(through_a_file(first.state_dict()))
    assert [exact(record) for record in finish(second)] == [exact(record) for record in records[1:]]
    assert same_state(second, whole)
    assert counters["aot_autograd"]["autograd_cache_hit"] == hits + 2  # made once, and kept


def test_views_compiled_for_a_gpu_are_one_graph_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code cannot look at the parameters: all images take every operation, and those it concerns change."""
    jitter = {"strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}
    settings = {
        "crop": {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
        "flip": {"p": 0.5},
        "jitter": {"p": 0.8, **jitter},
        "gray": {"p": 0.2},
        "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
        "cutout": {"p": 0.5, "scale": (0.1, 0.3)},
    }
    augmentation = build_augmentation(settings, image_size=12)
    step = make_trainer().training_step
    step.augmentation = augmentation
    theta = augmentation.draw(2 * 16, stream(0, "augment"))
    plain = step._both_views(random_images(16), theta)
    monkeypatch.setattr("cssl_cli.augment.op.on_cpu", lambda _: False)
    compiled = compile_with(step._both_views, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(random_images(16), theta), plain, rtol=0, atol=1e-5)


def test_every_run_of_a_process_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler gives up silently after some graphs of the same code, eight by default, which all steps share."""
    graphs = 0

    def counting(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(compile_with, backend=counting))
    # Not by monkeypatch, which would delete it afterwards: what torch keeps there is no attribute of the module.
    with torch._dynamo.config.patch(recompile_limit=2):
        for number in range(3):
            trainer = make_small(epochs=2, compiled=True)
            trainer.method.temperature = 0.1 + 0.1 * number  # another graph
            finish(trainer)
            assert graphs == number + 1


@pytest.mark.parametrize("fails", ["forward", "backward"])
def test_a_compiler_that_fails_leaves_the_run_as_if_it_had_not_been_asked(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def failing(function, **_):
        def compiled(view_1, view_2):
            if fails == "forward":
                raise RuntimeError("no C++ compiler\nand a page of details")
            terms = function(view_1, view_2)  # moves the statistics of the batch norms
            return {name: value * _Fails.apply(value) for name, value in terms.items()}

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    said: list[str] = []
    trainer = make_trainer("barlow_twins", epochs=2, compiled=True, notice=said.append)
    records = finish(trainer)
    plain = make_trainer("barlow_twins", epochs=2)
    assert [exact(record) for record in records] == [exact(record) for record in finish(plain)]
    assert same_state(trainer, plain)
    first, sentence = said
    assert first.startswith("compiling")
    assert sentence.endswith("runs uncompiled (no C++ compiler)")
    assert not trainer.training_step.compiled


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return torch.ones_like(value)

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no C++ compiler")


def test_a_compiler_that_fails_later_ends_the_run_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def failing_later(function, **_):
        def compiled(view_1, view_2):
            nonlocal calls
            calls += 1
            if calls == 2:
                raise torch._dynamo.exc.InternalTorchDynamoError("a guard failed\nand a page of details")
            return function(view_1, view_2)

        return compiled

    monkeypatch.setattr(torch, "compile", failing_later)
    trainer = make_trainer(compiled=True)
    with pytest.raises(RunError, match=r"\(a guard failed\)") as found:
        finish(trainer)
    assert trainer.step == 1
    assert "same command" in found.value.remedy
    assert "train.compile=false" in found.value.remedy


def test_what_fails_uncompiled_too_is_raised() -> None:
    trainer = make_trainer(compiled=True)
    trainer.method.forward = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        finish(trainer)
