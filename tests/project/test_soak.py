"""The campaign of faults can fail: faults put into the product, or into a case, are found, counted and kept."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cssl_cli.errors import InputError
from tests.conftest import pytest_configure
from tests.soak.command import Ended
from tests.soak.compare import Reference, leftovers
from tests.soak.damages import damage_of
from tests.soak.findings import Fault, Outcome, Tally
from tests.soak.images import Images
from tests.soak.kills import Before, _check_end
from tests.soak.material import Scenario
from tests.soak.readers import Readers, same
from tests.soak.recipes import Input, Recipes, attempt, shrink
from tests.soak.runner import run_part


def campaign(part: Any, folder: Path, *, cases: int) -> Tally:
    work = folder / "work"
    work.mkdir()
    return run_part(
        part,
        seed=1,
        numbers=range(cases),
        slots=2,
        folder=work,
        failures=folder / "failures",
        tell=lambda text: None,
    )


def kinds(tally: Tally) -> Counter[str]:
    found: Counter[str] = Counter()
    for (kind, _), kept in tally.kept.items():
        found[kind] += kept.count
    return found


# --------------------------------------------------------------------------------------------------------------- runner
class Fragile:
    """Each case goes wrong in a way of its own, or not at all."""

    name, cases, batch, limit, memory = "fragile", 6, 6, 1.0, None

    def prepare(self, folder: Path) -> None:
        pass

    def run(self, number: int, chance: random.Random, folder: Path) -> Outcome:
        if number == 1:
            time.sleep(60)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 3:
            raise KeyError("a bug of the harness")
        if number == 4:
            return Outcome(faults=[Fault("silent", "wrong", "", {"input": b"long"})])
        if number == 5:
            return Outcome(faults=[Fault("silent", "wrong", "", {"input": b"s"})])
        return Outcome(Counter({"fine": 1}))


def test_hangs_deaths_and_bugs_of_a_case_cost_only_that_case(tmp_path: Path) -> None:
    tally = campaign(Fragile(), tmp_path, cases=7)
    assert tally.cases == 7
    assert tally.counts == {"fine": 2}
    assert kinds(tally) == {"hang": 1, "death": 1, "harness": 1, "silent": 2}


def test_the_smallest_input_of_a_kind_is_kept_with_the_way_to_run_it_again(tmp_path: Path) -> None:
    campaign(Fragile(), tmp_path, cases=6)
    (folder,) = (tmp_path / "failures" / "fragile").glob("silent-*")
    kept = json.loads((folder / "fault.json").read_text())
    assert (folder / "input").read_bytes() == b"s"
    assert kept["times"] == 2
    assert kept["again"] == "python -m tests.soak --seed 1 --only fragile --case 5"


# ---------------------------------------------------------------------------------------------------------------- parts
def test_an_error_put_into_the_reading_of_recipes_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = campaign(Recipes(), tmp_path, cases=12)
    assert "harness" not in kinds(sound)
    assert sound.counts["recipe accepted"] > 0

    def broken(*_: object) -> None:
        raise KeyError("put in")

    monkeypatch.setattr("cssl_cli.recipe.load.resolve", broken)
    monkeypatch.setattr("tests.soak.recipes.SHRINKING", 2)
    (tmp_path / "broken").mkdir()
    tally = campaign(Recipes(), tmp_path / "broken", cases=12)
    assert kinds(tally)["traceback"] > 2


def test_an_error_put_into_the_decoding_of_images_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("put in")

    monkeypatch.setattr("cssl_cli.data.decode.decode_into", broken)
    tally = campaign(Images(), tmp_path, cases=10)
    assert kinds(tally) == {"traceback": 10}


def test_a_failing_recipe_is_made_smaller() -> None:
    given = Input(False, b"\n".join(b"line %d" % number for number in range(40)), ("a=1", "b=2"))
    smaller = shrink(given, lambda tried: b"line 17" in tried.text and "b=2" in tried.overrides)
    assert smaller.text == b"line 17"
    assert smaller.overrides == ("b=2",)


def test_a_folder_other_than_the_one_given_is_silently_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cssl_cli.recipe.files import shipped_path

    path = shipped_path("simclr-folder")
    assert path is not None
    given = Input(False, path.read_bytes(), ("data.root=/x/set",))
    assert attempt(given, tmp_path) == ("accepted", None)
    monkeypatch.setattr("cssl_cli.recipe.merge.parse_value", lambda text, where: "/elsewhere")
    _, fault = attempt(given, tmp_path)
    assert fault is not None
    assert fault.kind == "silent"


def test_a_reader_that_takes_damage_for_sound_is_silently_wrong(tmp_path: Path) -> None:
    def refuses(path: Path) -> Any:
        raise InputError("damaged", where=str(path))

    def breaks(path: Path) -> Any:
        raise KeyError("x")

    sound = {"accuracy": 0.5}
    trials = {
        "noticed": refuses,
        "fault": breaks,
        "silent": lambda path: {"accuracy": 0.6},
        "harmless": lambda path: {"accuracy": 0.5},
    }
    for expected, reader in trials.items():
        what, problem = Readers._trial(reader, tmp_path / "probe.json", sound)
        assert what == expected
        assert (problem is None) == (expected in ("noticed", "harmless"))


def test_damage_always_changes_the_file() -> None:
    for number in range(200):
        kind, damaged = damage_of(b'{"a": 1, "b": [2, 3]}', random.Random(number), other=b"{}", name="probe.json")
        assert damaged != b'{"a": 1, "b": [2, 3]}', kind


# ----------------------------------------------------------------------------------------------------------- comparison
def lay_out(folder: Path, *, accuracy: float = 0.5, seconds: float = 1.0, encoder: bytes = b"weights") -> Path:
    run = folder / "tiny-0"
    run.mkdir(parents=True)
    (run / "encoder.safetensors").write_bytes(encoder)
    (run / "probe.json").write_text(json.dumps({"linear": [accuracy], "nothing": float("nan")}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": seconds}) + "\n")
    return folder


def test_times_do_not_count_and_every_other_difference_does(tmp_path: Path) -> None:
    reference = Reference.of(lay_out(tmp_path / "one"), lay_out(tmp_path / "two", seconds=2.0))
    assert reference.differences(lay_out(tmp_path / "a", seconds=3.0)) == []
    assert reference.differences(lay_out(tmp_path / "b", encoder=b"Weights")) != []
    assert reference.differences(lay_out(tmp_path / "c", accuracy=0.6)) != []
    fewer = lay_out(tmp_path / "d")
    (fewer / "tiny-0" / "probe.json").unlink()
    assert reference.differences(fewer) != []
    with pytest.raises(RuntimeError, match="encoder"):
        Reference.of(lay_out(tmp_path / "e"), lay_out(tmp_path / "f", encoder=b"random"))


def test_values_are_compared_with_their_types_and_bits() -> None:
    import torch

    assert same({"a": [torch.ones(2), float("nan")]}, {"a": [torch.ones(2), float("nan")]})
    assert not same(torch.zeros(1), -torch.zeros(1))
    assert not same({"step": 1}, {"step": 1.0})


def test_a_signal_that_saves_nothing_and_leaves_half_a_file_is_found(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny-0"
    run.mkdir(parents=True)
    nothing = Before.of(tmp_path)
    (run / "metrics.jsonl").write_text('{"step": 4}\n')
    (run / ".status.0.partial").write_text("{")
    found: list[str] = []
    scenario = Scenario("pretrain", ("pretrain",))

    def end(code: int, text: str = "", before: Before = nothing) -> list[str]:
        found.clear()
        ended = Ended(code, "", text, "", 1.0, 0)
        _check_end(scenario, tmp_path, signal.SIGHUP, ended, 0.1, lambda kind, *_: found.append(kind), before)
        return found

    assert end(129) == ["leftover", "lost"]
    assert end(129, before=Before.of(tmp_path)) == []  # of an earlier kill
    assert leftovers(tmp_path) == ["runs/tiny-0/.status.0.partial"]
    (run / ".status.0.partial").unlink()
    (run / "status").write_text('{"state": "interrupted", "step": 4}')
    (run / "checkpoint.pt").touch()
    assert end(129) == []
    assert end(1) == ["exit code"]
    assert end(1, "Traceback (most recent call last):\n  ...\nKeyError: 1") == ["traceback"]


# ---------------------------------------------------------------------------------------------- the tests marked `soak`
@pytest.mark.parametrize(("arguments", "expression"), [(["tests"], "not soak"), (["tests/test_one.py::test_it"], "")])
def test_one_runs_where_it_is_named(arguments: list[str], expression: str):
    config: Any = SimpleNamespace(args=arguments, option=SimpleNamespace(markexpr="not soak"))
    pytest_configure(config)
    assert config.option.markexpr == expression
