"""`cssl probe` and `cssl analyze` in several processes: the numbers of one, told once, and an end for all."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.cli import guard
from cssl_cli.errors import RunError
from cssl_cli.runs import analyze, probe
from cssl_cli.runs.dealing import Part
from cssl_cli.runs.prober import FeatureExtractor
from tests.support.commands import the_run
from tests.support.started_ranks import SILENCE, Start, Started

pytestmark = pytest.mark.long
STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    ((code, _, said),) = Started(folder, 1, 1).end()
    assert code == 0, said
    return the_run(folder)


@pytest.fixture
def measure(start: Start, trained: Path, tmp_path: Path) -> Callable[..., Started]:
    """Starts a command on a copy of the run, as so many ranks."""

    def begin(size: int, command: str, *words: object, **settings: Any) -> Started:
        run = tmp_path / "run"
        if not run.exists():
            shutil.copytree(trained, run)
        options = ["--no-figures", "--no-html"] if command == "analyze" else []
        return start(".", size, 1, of=(command, run, *options, *words), **settings)

    return begin


@pytest.mark.parametrize(("command", "size"), [("probe", 2), ("analyze", 3)])
def test_ranks_come_to_the_numbers_of_one(
    measure: Callable[..., Started], tmp_path: Path, command: str, size: int
) -> None:
    file = tmp_path / "run" / f"{'probe' if command == 'probe' else 'analysis'}.json"
    again = ["--again"] if command == "analyze" else []
    ((code, told, said),) = measure(1, command, "--json").end()
    assert code == 0, said
    expected = json.loads(file.read_text())
    file.unlink()
    leader, *others = measure(size, command, "--json", *again).end()
    assert (leader[:2], *others) == ((0, told), *[(0, "", "")] * (size - 1)), leader[2]
    assert json.loads(file.read_text()) == expected
    if command == "analyze":  # what was measured is read by rank 0, and the others end
        assert [ended[:2] for ended in measure(2, command, "--json").end()] == [(0, told), (0, "")]


def test_ranks_share_the_concentration_of_a_recipe(start: Start) -> None:
    words = ("analyze", "recipe.yaml", "--json", "analyze.distances=[pixels,untrained]", "analyze.refine_pairs=20")
    ((code, told, said),) = start("one", 1, 1, of=words).end()
    assert code == 0, said
    leader, follower = start("two", 2, 1, of=words).end()
    assert (leader[:2], follower) == ((0, told), (0, "", "")), leader[2]


def linger() -> None:
    """Say that this rank is in the middle of a part, or of features, and be there for long."""

    def slowly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        Path("at work").touch()
        time.sleep(30)
        return function(*args, **kwargs)

    deal = analyze._parts
    analyze._parts = lambda *args: {name: functools.partial(slowly, part) for name, part in deal(*args).items()}
    FeatureExtractor.views = functools.partialmethod(slowly_views)  # type: ignore[assignment]


def slowly_views(self: FeatureExtractor, *_: object, **__: object) -> None:
    Path("at work").touch()
    time.sleep(30)


@pytest.mark.parametrize(("command", "fault"), [("probe", signal.SIGSTOP), ("analyze", signal.SIGKILL)])
def test_a_rank_that_is_lost_ends_all(
    measure: Callable[..., Started], tmp_path: Path, trained: Path, command: str, fault: int
) -> None:
    ranks = measure(2, command, before=(1, linger))
    ranks.wait_for_file("at work")
    ranks.ranks[1].send_signal(fault)
    began = time.monotonic()
    ((code, out, said),) = ranks.end(of=[0])
    assert (code, out) == (1, "")
    assert time.monotonic() - began < SILENCE + 12
    assert f"rank 1 (process {ranks.ranks[1].pid} on " in said
    assert ("has not been heard of for 3 s" in said) or (fault == signal.SIGKILL and "is gone" in said)
    assert "checkpoint" not in said
    assert "Traceback" not in said
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in trained.iterdir()}


def linger_over_images() -> None:
    def slowly(*_: object, **__: object) -> None:
        Path("at work").touch()
        time.sleep(30)

    analyze.finished_run_data = probe.finished_run_data = slowly  # type: ignore[assignment]


@pytest.mark.parametrize("command", ["probe", "analyze"])
def test_a_signal_to_a_rank_that_waits_ends_all(measure: Callable[..., Started], command: str) -> None:
    ranks = measure(2, command, before=(0, linger_over_images))
    ranks.wait_for_file("at work")
    time.sleep(0.5)
    ranks.ranks[1].send_signal(signal.SIGTERM)
    leader, follower = ranks.end()
    assert (leader, follower) == ((STOPPED, "", "interrupted\n"), (STOPPED, "", ""))


def fail_in_a_part() -> None:
    def fail() -> dict[str, Any]:
        raise RunError("a fault in a part", remedy="Mend it.")

    deal = analyze._parts

    def parts(*args: Any) -> dict[str, Part]:
        return dict.fromkeys(deal(*args), fail)

    analyze._parts = parts


def test_an_error_of_another_rank_is_told_by_rank_0(measure: Callable[..., Started], tmp_path: Path) -> None:
    ranks = measure(2, "analyze", before=(1, fail_in_a_part))
    leader, follower = ranks.end()
    assert (leader[:2], follower) == ((1, ""), (1, "", ""))
    assert f"rank 1 (process {ranks.ranks[1].pid} on " in leader[2]
    assert "a fault in a part\n  Mend it." in leader[2]
    assert not (tmp_path / "run" / "analysis.json").exists()


def wait_briefly() -> None:
    guard.PRECEDENCE = 1.0


def test_what_all_meet_before_they_have_met_is_said_once(start: Start) -> None:
    cases = {
        ("analyze", "runs/missing"): "there is no such run",
        ("pretrain", "simclr-shape"): "Did you mean",
        ("cache",): "`cssl cache`, which runs in one",
        ("probe",): "Missing argument",
    }
    started = [start("run", 2, 1, of=words, before=(1, wait_briefly)) for words in cases]
    for ranks, said in zip(started, cases.values(), strict=True):
        leader, follower = ranks.end()
        assert (leader[:2], follower) == ((2, ""), (2, "", ""))
        assert said in leader[2]


def test_a_rank_that_is_not_heard_fails_after_the_one_that_is(start: Start) -> None:
    ranks = start("run", 2, 1, of=("pretrain", "simclr-shape"))
    ((code, _, _),) = ranks.end(of=[0])
    assert (code, ranks.ranks[1].poll()) == (2, None)  # torchrun ends it then
