"""The loop: exact continuation, every image once an epoch, fresh views, and the watch over infinite numbers."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cssl_cli.augment import build_augmentation
from cssl_cli.data.batches import ResidentImages
from cssl_cli.errors import InputError, RunError
from cssl_cli.host.randomness import stream
from cssl_cli.methods import Method, build_method, method_names
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.recompute import Encoder
from cssl_cli.train.loop import EpochRecord, Trainer, make_plan
from cssl_cli.train.optimizers import learning_rate
from cssl_cli.train.step import Notice
from tests.support.small_methods import SETTINGS

OPTIM = {
    "name": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "nesterov": False,
    "decay_norm_and_bias": True,
    "schedule": "cosine",
}
AUGMENT = {"crop": {"scale": (0.3, 1.0), "ratio": (0.75, 4 / 3)}, "flip": {"p": 0.5}}


def random_images(num: int = 70) -> Tensor:
    return torch.randint(0, 256, (num, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make_trainer(
    method_name: str = "simclr",
    *,
    epochs: int = 4,
    precision: torch.dtype = torch.float32,
    compiled: bool = False,
    notice: Notice = lambda _: None,
    encoder: Callable[[], Encoder] = lambda: build_encoder({"name": "small", "width": 2}),
) -> Trainer:
    settings = SETTINGS[method_name]
    with torch.device("meta"):
        method = build_method(settings, encoder())
    generator = stream(0, "init")
    materialize(method, generator)
    method.after_initialization(generator)
    return Trainer(
        method,
        build_augmentation(AUGMENT, image_size=12),
        ResidentImages(random_images()),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        optim=OPTIM,
        plan=make_plan(num_images=70, batch_size=16, epochs=epochs, steps=None, warmup_epochs=1),
        precision=precision,
        device=torch.device("cpu"),
        order=stream(0, "order"),
        augment=stream(0, "augment"),
        compiled=compiled,
        notice=notice,
    )


def finish(trainer: Trainer) -> list[EpochRecord]:
    return [progress.record for progress in trainer.run() if progress.ends_epoch and progress.record is not None]


def exact(record: EpochRecord) -> dict:
    """What of a record must not depend on the clock."""
    kept = dataclasses.asdict(record)
    return {key: value for key, value in kept.items() if key not in ("seconds", "images_per_second")}


def same_state(one: Trainer, other: Trainer) -> bool:
    a, b = one.method.state_dict(), other.method.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)


# ---------------------------------------------------------------------- plans
def test_a_plan_counts_full_batches() -> None:
    plan = make_plan(num_images=70, batch_size=16, epochs=3, steps=None, warmup_epochs=0.5)
    assert (plan.steps_per_epoch, plan.num_steps, plan.warmup_steps, plan.num_epochs) == (4, 12, 2, 3)
    plan = make_plan(num_images=70, batch_size=16, epochs=None, steps=10, warmup_epochs=0)
    assert (plan.num_steps, plan.num_epochs) == (10, 3)


def test_a_batch_larger_than_the_data_and_a_warmup_longer_than_the_run_are_refused() -> None:
    with pytest.raises(InputError, match="batch of 80"):
        make_plan(num_images=70, batch_size=80, epochs=1, steps=None, warmup_epochs=0)
    with pytest.raises(InputError, match="warm-up"):
        make_plan(num_images=70, batch_size=16, epochs=None, steps=4, warmup_epochs=1)


# ---------------------------------------------------------------------- the loop
def test_records_and_learning_rates() -> None:
    trainer = make_trainer()
    rates = []
    records = []
    for progress in trainer.run():
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        if progress.ends_epoch and progress.record:
            records.append(progress.record)
    expected = [learning_rate(s, base=0.1, schedule="cosine", warmup_steps=4, num_steps=16) for s in range(16)]
    assert rates == expected
    assert [(record.epoch, record.step) for record in records] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    assert all(set(record.terms) == {"loss", "alignment", "divergence"} for record in records)


def test_a_run_counted_in_steps_may_end_within_an_epoch() -> None:
    trainer = make_trainer()
    trainer.plan = make_plan(num_images=70, batch_size=16, epochs=None, steps=6, warmup_epochs=0)
    records = finish(trainer)
    assert [(record.epoch, record.step) for record in records] == [(1, 4), (2, 6)]


def test_the_recorded_loss_is_the_mean_over_the_epochs_steps() -> None:
    trainer = make_trainer()
    losses: list[float] = []
    forward = trainer.method.forward

    def spying(view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        terms = forward(view_1, view_2)
        losses.append(terms["loss"].item())
        return terms

    trainer.method.forward = spying  # type: ignore[method-assign]
    records = finish(trainer)
    for number, record in enumerate(records):
        expected = sum(losses[4 * number : 4 * number + 4]) / 4
        assert record.terms["loss"] == pytest.approx(expected, rel=1e-6)


class Recorder(Method):
    """Keeps the views it is shown; its loss is a weight's square, so that steps are harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(1, 1, bias=False)
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.steps_done = 0

    def forward(self, view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        self.seen.append((view_1.detach().clone(), view_2.detach().clone()))
        return {"loss": self.encoder.weight.square().sum()}

    def after_step(self) -> None:
        self.steps_done += 1


def recording_trainer(augment: dict, epochs: int) -> tuple[Trainer, Recorder, Tensor]:
    images = torch.arange(70, dtype=torch.uint8).view(70, 1, 1, 1).expand(70, 3, 12, 12).contiguous()
    method = Recorder()
    trainer = Trainer(
        method,
        build_augmentation(augment, image_size=12),
        ResidentImages(images),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        optim=OPTIM,
        plan=make_plan(num_images=70, batch_size=16, epochs=epochs, steps=None, warmup_epochs=0),
        precision=torch.float32,
        device=torch.device("cpu"),
        order=stream(0, "order"),
        augment=stream(0, "augment"),
    )
    return trainer, method, images


def test_an_epoch_shows_each_image_at_most_once_and_the_left_out_ones_change() -> None:
    trainer, method, _ = recording_trainer({}, epochs=6)
    finish(trainer)
    epochs = []
    for number in range(6):
        batches = [view_1[:, 0, 0, 0] for view_1, _ in method.seen[4 * number : 4 * number + 4]]
        shown = (torch.cat(batches) * 255).round().int().tolist()
        assert len(set(shown)) == 64
        epochs.append(shown)
    assert len({tuple(shown) for shown in epochs}) == 6, "the order repeats"
    assert set().union(*map(set, epochs)) == set(range(70)), "some image is never shown"
    assert method.steps_done == 24


def test_both_views_are_of_the_same_image_and_differ_from_each_other_and_between_epochs() -> None:
    trainer, method, _ = recording_trainer({"jitter": jitter()}, epochs=2)
    trainer.images = ResidentImages(random_images())
    finish(trainer)
    for view_1, view_2 in method.seen:
        assert not torch.equal(view_1, view_2)
    thetas_differ = [
        not torch.equal(one[0], other[0]) for one, other in zip(method.seen[:4], method.seen[4:], strict=True)
    ]
    assert all(thetas_differ)
    plain, recorder, _ = recording_trainer({}, epochs=1)
    finish(plain)
    assert all(torch.equal(view_1, view_2) for view_1, view_2 in recorder.seen)


def jitter() -> dict:
    return {"p": 1.0, "strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None}


# ---------------------------------------------------------------------- going on
def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_continuing_from_a_state_is_bit_identical(method: str, precision: torch.dtype) -> None:
    """Again and again: within an epoch, at its end, before the last step, and after it."""
    make = functools.partial(make_trainer, method, epochs=2, precision=precision)
    whole = make()
    expected = finish(whole)
    trainer, found = make(), []
    for stop in (1, 4, 6, 7, 8):
        for progress in trainer.run():
            if progress.ends_epoch and progress.record:
                found.append(progress.record)
            if progress.step == stop:
                break
        state = through_a_file(trainer.state_dict())
        trainer = make()
        trainer.load_state_dict(state)
    found += finish(trainer)
    assert same_state(whole, trainer)
    assert [exact(record) for record in found] == [exact(record) for record in expected]


def test_two_runs_are_bit_identical_whatever_the_global_generator_holds() -> None:
    first = make_trainer()
    torch.manual_seed(1)
    finish(first)
    second = make_trainer()
    torch.manual_seed(2)
    finish(second)
    assert same_state(first, second)


# ---------------------------------------------------------------------- infinite numbers
def poison(trainer: Trainer, at_step: int, term: str) -> None:
    forward = trainer.method.forward

    def poisoned(view_1: Tensor, view_2: Tensor) -> dict[str, Tensor]:
        terms = forward(view_1, view_2)
        if trainer.step + 1 == at_step:
            terms[term] = terms[term] * torch.nan
        return terms

    trainer.method.forward = poisoned  # type: ignore[method-assign]


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_nan_stops_the_run_naming_step_and_term(step: int) -> None:
    trainer = make_trainer()
    poison(trainer, step, "alignment")
    with pytest.raises(RunError, match=f"'alignment' became nan at step {step}") as error:
        finish(trainer)
    assert ("optim.lr" in str(error.value.remedy)) == (step > 1)  # the first loss is of the initial weights
    assert "checkpoint" not in str(error.value)  # which this loop knows nothing of


def test_no_state_is_handed_out_after_a_nan() -> None:
    trainer = make_trainer()
    poison(trainer, 2, "loss")
    steps = trainer.run()
    next(steps), next(steps)
    with pytest.raises(RunError, match="'loss' became nan at step 2"):
        trainer.state_dict()


def test_no_state_is_handed_out_with_an_infinite_weight() -> None:
    trainer = make_trainer()
    next(trainer.run())
    with torch.no_grad():
        next(iter(trainer.method.parameters()))[0, 0, 0, 0] = torch.inf
    with pytest.raises(RunError, match="weight"):
        trainer.state_dict()


def test_weights_beyond_the_root_of_the_largest_number_are_finite() -> None:
    """The sum of their squares would not be."""
    trainer = make_trainer()
    next(trainer.run())
    with torch.no_grad():
        next(iter(trainer.method.parameters()))[0, 0, 0, 0] = -3e38
    trainer.check_finite()


# ---------------------------------------------------------------------- batches that were seen
def counters(method: Method) -> set[int]:
    return {int(buffer) for name, buffer in method.named_buffers() if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", method_names())
def test_batches_are_counted_as_torch_counts_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(name, epochs=2)
    by_torch = set()
    for progress in trainer.run():
        if progress.step == 3:  # within an epoch: nothing has been set
            by_torch = counters(trainer.method)
            break
    # As on a GPU, where no step touches them.
    monkeypatch.setattr("cssl_cli.nn.batch_norm.launch_bound", lambda _: True)
    trainer = make_trainer(name, epochs=2)
    for progress in trainer.run():
        if progress.step == 3:
            assert counters(trainer.method) == {0}
            trainer.state_dict()
            assert counters(trainer.method) == by_torch == {3 * trainer.method.num_passes}
        elif progress.ends_epoch:
            assert counters(trainer.method) == {progress.step * trainer.method.num_passes}
