"""Random axes of a sweep: the same draws everywhere, paired over the other axes, and what a file may not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cssl_cli.errors import InputError
from cssl_cli.sweep import sampling
from cssl_cli.sweep.sampling import _value
from cssl_cli.sweep.stored import load_stored_sweep, store_sweep
from cssl_cli.sweep.sweep import Sweep, load_sweep

SWEEP = """\
name: random
base: simclr-shapes
axes:
  method: {simclr: {}, vicreg: {method: {name: vicreg, projector: [8]}}}
sample:
  optim.lr: {log_uniform: [1e-4, 1e-1]}
  train.batch_size: {choice: [64, 128]}
num: 3
"""
DRAWN = {"s00": (0.000203, 128), "s01": (0.00855, 64), "s02": (0.0108, 64)}  # fixed for ever: runs are found by them
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return str(path)

    return write


def drawn(sweep: Sweep, key: str) -> list[object]:
    return list({member.axes["draw"]: member.sampled[key] for member in sweep.members}.values())


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        load_sweep(path, overrides)
    return str(error.value)


def test_every_draw_meets_every_variant_and_seed_and_is_what_is_run(write: Write) -> None:
    sweep = load_sweep(write(SWEEP + "seeds: 2\n"))
    assert sweep.axes == {"method": ("simclr", "vicreg"), "draw": ("s00", "s01", "s02")}
    assert [member.name for member in sweep.members[:3]] == ["simclr-s00-seed0", "simclr-s00-seed1", "simclr-s01-seed0"]
    for member in sweep.members:
        lr, batch_size = DRAWN[member.axes["draw"]]
        assert member.sampled == {"optim.lr": lr, "train.batch_size": batch_size}
        assert (member.recipe.optim.lr, member.recipe.train.batch_size) == (lr, batch_size)


def test_more_draws_and_other_keys_leave_the_draws_as_they_are(write: Write) -> None:
    path = write(SWEEP)
    few = load_sweep(path)
    more = load_sweep(path, ["num=120", "sample.encoder.width.int_uniform=[8,32]", "~sample.train.batch_size"])
    assert drawn(more, "optim.lr")[:3] == drawn(few, "optim.lr")
    assert more.members[119].row == "simclr-s119"
    assert drawn(load_sweep(path, ["sample_seed=1"]), "optim.lr") != drawn(few, "optim.lr")


def test_a_draw_that_repeats_an_earlier_one_is_left_out(write: Write) -> None:
    path = write("name: s\nbase: simclr-shapes\nsample: {train.batch_size: {choice: [64, 128]}}\nnum: 2\n")
    assert [(one.row, one.sampled) for one in load_sweep(path).members] == [
        ("s00", {"train.batch_size": 128}),
        ("s01", {"train.batch_size": 64}),
    ]
    assert "num (override 'num=3') is 3, and only 2 draws differ" in refusal(path, "num=3")


def test_more_draws_than_there_are_is_told_at_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[object] = []

    def value(*arguments: Any) -> Any:
        values.append(_value(*arguments))
        return values[-1]

    monkeypatch.setattr(sampling, "_value", value)
    sample = "{train.batch_size: {choice: [64, 128]}, encoder.width: {int_uniform: [8, 9]}}"
    path = write(f"name: s\nbase: simclr-shapes\nsample: {sample}\nnum: 9000\n")
    assert "num (line 4) is 9,000, and only 4 draws differ" in refusal(path)
    assert len(values) < 200


@pytest.mark.parametrize(
    ("content", "low", "high", "middle"),
    [
        ({"uniform": [-1, 3]}, -1, 3, 1),
        ({"uniform": [1, 1.001]}, 1, 1.001, 1.0005),
        ({"log_uniform": [1e-4, 1e-1]}, 1e-4, 1e-1, 10**-2.5),
        ({"log_uniform": [1, 1.1]}, 1, 1.1, 1.1**0.5),
        ({"int_uniform": [8, 32]}, 8, 32, 20),
        ({"choice": [0, 10]}, 0, 10, 5),
    ],
)
def test_values_are_spread_over_the_range(
    content: dict[str, list[float]], low: float, high: float, middle: float
) -> None:
    values = np.array([_value(content, 0, "key", number) for number in range(4000)])
    assert low <= values.min() < values.max() <= high
    share = np.log(values / low) / np.log(high / low) if "log_uniform" in content else (values - low) / (high - low)
    assert (
        abs(share.mean() - 0.5) < 0.025
    )  # four standard errors of a mean of uniform numbers are 0.018, of a coin 0.03
    assert abs(np.mean(values <= middle) - 0.5) < 0.05
    if "choice" not in content:
        assert abs(share.std() - 12**-0.5) < 0.015
    assert len(set(values.tolist())) >= (2 if "choice" in content else 25 if "int_uniform" in content else 90)


def test_every_whole_number_and_choice_comes_up() -> None:
    assert {_value({"int_uniform": [8, 11]}, 0, "key", number) for number in range(60)} == {8, 9, 10, 11}
    assert {str(_value({"choice": [None, [1, 2], "a"]}, 0, "k", number)) for number in range(60)} == {
        "None",
        "[1, 2]",
        "a",
    }


def test_names_and_values_are_short() -> None:
    for number in range(200):
        assert len(repr(_value({"log_uniform": [1e-4, 1e-1]}, 0, "key", number)).replace("e-05", "")) <= 8


def test_an_item_of_a_list_may_be_drawn(write: Write) -> None:
    path = write("name: s\nbase: simclr-shapes\nsample: {augment.crop.scale: [{uniform: [0.05, 0.5]}, 1.0]}\nnum: 4\n")
    members = load_sweep(path).members
    lows = [member.recipe.augment.crop.scale[0] for member in members if member.recipe.augment.crop is not None]
    assert len(set(lows)) == 4
    assert all(0.05 <= low <= 0.5 for low in lows)
    assert [member.sampled["augment.crop.scale"] for member in members] == [[low, 1.0] for low in lows]


def test_a_whole_block_may_be_chosen(write: Write) -> None:
    path = write("name: s\nbase: simclr-shapes\nsample: {augment.blur: {choice: [null, {p: 0.1}]}}\nnum: 2\n")
    blurs = [member.recipe.augment.blur for member in load_sweep(path).members]
    assert {None if blur is None else blur.p for blur in blurs} == {None, 0.1}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[1e-4, 1e-1]", "[1e-1, 1e-4]", "sample.optim.lr (line 6) has log_uniform [0.1, 0.0001]; must be [low, high]"),
        (
            "[1e-4, 1e-1]",
            "[0, 1e-1]",
            "sample.optim.lr (line 6) has log_uniform [0, 0.1]; must be [low, high] with 0 <",
        ),
        ("[1e-4, 1e-1]", "[.nan, 1]", "must be [low, high], two numbers"),
        ("[1e-4, 1e-1]", "[true, 2]", "must be [low, high], two numbers"),
        ("[1e-4, 1e-1]", "0.1", "sample.optim.lr (line 6) has log_uniform 0.1; must be [low, high]"),
        ("log_uniform", "log_unifrom", "sample.optim.lr.log_unifrom (line 6) is [0.0001, 0.1]; must be a distribution"),
        ("{log_uniform: [1e-4, 1e-1]}", "0.3", "sample.optim.lr (line 6) is 0.3; must be a distribution"),
        ("{log_uniform: [1e-4, 1e-1]}", "{uniform: [0, 1], choice: [2, 3]}", "must be one distribution"),
        ("optim.lr", "optim.lrr", "sample.optim.lrr (line 6) is not a field of a recipe; did you mean optim.lr?"),
        ("optim.lr", "data", "sample.data (line 6) is a block; give its fields"),
        ("optim.lr", "seed", "sample.seed (line 6) is set by the sweep itself; use seeds"),
        ("optim.lr", "method.name", "sample.method.name (line 6) is set by the axis method, too"),
        (
            "[64, 128]",
            "[64, 64]",
            "sample.train.batch_size (line 7) has a choice of [64, 64]; must be a list of two or",
        ),
        ("num: 3\n", "", "num is required beside sample"),
        ("num: 3", "num: 0", "num (line 8) is 0; must be a whole number >= 1"),
        ("[1e-4, 1e-1]", "[-1, 1]", "with 0 < low"),
        ("choice: [64, 128]", "uniform: [64, 128]", "train.batch_size (draw s00, line 7) is 114.42; must be a whole"),
        ("  method:", "  draw:", "axes.draw is called like the axis of the draws"),
        (
            "name: random",
            "name: random\nparts: {draw: {s00: [a], s01: [b], s02: [c]}}",
            "parts.draw (line 2) is no axis",
        ),
    ],
)
def test_faults_name_the_field_and_the_line(write: Write, old: str, new: str, told: str) -> None:
    assert told in refusal(write(SWEEP.replace(old, new)))


def test_what_is_sampled_is_set_by_nothing_else(write: Write) -> None:
    path = write(SWEEP)
    told = refusal(path, "optim.lr=0.1")
    assert "sample.optim.lr (line 6) is set by override 'optim.lr=0.1', too; take it out with ~sample.optim.lr" in told
    assert load_sweep(path, ["optim.lr=0.1", "~sample.optim.lr", "num=2"]).members[0].recipe.optim.lr == 0.1
    removed = SWEEP.replace("vicreg: {", "vicreg: {augment: {crop: null}, ")
    assert "sample.augment.crop.scale" in refusal(write(removed), "sample.augment.crop.scale.choice=[[0.1,1],[0.2,1]]")
    block = refusal(write(SWEEP), "sample.augment.blur.choice=[null,{}]", "sample.augment.blur.p.uniform=[0,1]")
    assert "contains augment.blur.p, which is sampled, too" in block


def test_num_alone_and_too_many_members(write: Write) -> None:
    path = write(SWEEP)
    assert len(load_sweep(path, ["~sample"]).members) == 2
    assert "has 12,000 members (2 of method x 6,000 draws), more than 10,000" in refusal(path, "num=6000")
    assert "num (line 3) is a number of draws" in refusal(write("name: s\nbase: simclr-shapes\nnum: 3\n"))


def test_a_sweep_may_be_based_on_one_that_samples(write: Write, tmp_path: Path) -> None:
    write(SWEEP)
    wider = tmp_path / "wider.yaml"
    wider.write_text("name: wider\nbased_on: sweep.yaml\nsample: {optim.lr: {uniform: [0.1, 0.2]}}\nnum: 2\n")
    members = load_sweep(str(wider)).members
    assert len(members) == 4
    assert all(0.1 <= float(member.recipe.optim.lr) <= 0.2 for member in members)
    assert [member.sampled["train.batch_size"] for member in members[:2]] == [128, 64]


def test_the_folder_of_the_sweep_gives_the_same_draws(write: Write, tmp_path: Path) -> None:
    sweep = load_sweep(write(SWEEP), ["num=4", "sample.optim.lr.uniform=[0.1,0.2]"])
    store_sweep(sweep, tmp_path)
    assert load_stored_sweep(tmp_path).members == sweep.members
