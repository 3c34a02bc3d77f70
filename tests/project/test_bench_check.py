"""Which ratios of the benchmarks count as worse than the stored ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import run_all
from comparing import UNKNOWN_SPREAD, Comparison, compare, tolerance_of

MACHINE = {"device": "cpu", "processor": "one", "threads": 2, "precision": "bfloat16", "torch": "2.8.0"}


def results(*, better: str = "higher", machine: dict[str, Any] | None = None, **ratios: tuple[float, float | None]):
    held = {name: {"ratio": ratio, "spread": spread, "better": better} for name, (ratio, spread) in ratios.items()}
    return {"augment": {"machine": MACHINE | (machine or {}), "ratios": held, "numbers": {}}}


def only(before: dict[str, Any], now: dict[str, Any]) -> Comparison:
    (found,) = compare(before, now)
    return found


def test_noise_is_three_combined_spreads_and_a_quarter_at_least():
    assert tolerance_of(0.06, 0.08) == pytest.approx(3 * 0.10)
    assert tolerance_of(0.0, 0.0) == tolerance_of(0.01, 0.01) == 0.25
    assert tolerance_of(None, 0.0) == pytest.approx(3 * UNKNOWN_SPREAD)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(3.0, "within noise"), (3.74, "within noise"), (3.76, "better"), (2.41, "within noise"), (2.39, "worse")],
)
def test_a_change_by_more_than_a_quarter_counts(now: float, verdict: str):
    assert only(results(speed=(3.0, 0.01)), results(speed=(now, 0.01))).verdict == verdict


@pytest.mark.parametrize(("now", "verdict"), [(3.76, "worse"), (3.74, "within noise"), (2.39, "better")])
def test_where_less_is_better(now: float, verdict: str):
    before = results(better="lower", seconds=(3.0, 0.01))
    assert only(before, results(better="lower", seconds=(now, 0.01))).verdict == verdict


def test_a_noisy_ratio_may_change_by_more():
    quiet, noisy = 0.01, 0.1
    allowed = 1 + 3 * math.hypot(quiet, noisy)
    for now, verdict in ((2.0 / allowed * 1.01, "within noise"), (2.0 / allowed * 0.99, "worse")):
        found = only(results(speed=(2.0, quiet)), results(speed=(now, noisy)))
        assert found.verdict == verdict
        assert found.tolerance == pytest.approx(allowed - 1)
        assert found.change == pytest.approx(now / 2)


def test_ratios_of_one_side_alone_are_missing_or_new():
    found = compare(results(one=(1.0, 0.0), two=(2.0, 0.0)), results(two=(2.0, 0.0), three=(3.0, 0.0)))
    assert [(one.name, one.verdict) for one in found] == [("one", "missing"), ("two", "within noise"), ("three", "new")]
    assert [one.verdict for one in compare(results(one=(1.0, 0.0)), {})] == ["missing"]
    assert [one.verdict for one in compare({}, results(one=(1.0, 0.0)))] == ["new"]


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"precision": "float32"}, "precision bfloat16 → float32"),
        ({"threads": 1}, "threads 2 → 1"),
        ({"device": "cuda", "threads": 1}, "device cpu → cuda, threads 2 → 1"),
    ],
)
def test_other_conditions_are_not_compared(machine: dict[str, Any], reason: str):
    found = only(results(speed=(3.0, 0.0)), results(speed=(1.0, 0.0), machine=machine))
    assert (found.verdict, found.reason) == ("not comparable", reason)


def test_another_processor_or_torch_is_compared():
    found = only(results(speed=(3.0, 0.0)), results(speed=(1.0, 0.0), machine={"processor": "two", "torch": "2.9.0"}))
    assert found.verdict == "worse"


def test_a_script_without_ratios_is_passed_over():
    assert compare({}, {"losses": {"seconds": 1.0}}) == []


# ------------------------------------------------------------------------------------------------ from end to end
SCRIPT = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int)
parser.add_argument("--json", type=pathlib.Path)
parser.add_argument("--speed", type=float)
options = parser.parse_args()
print("measured")
ratios = {} if options.speed is None else {
    "speed": {"ratio": options.speed, "spread": 0.01, "better": "higher"}}
machine = {"processor": "one", "torch": "2.8.0", "device": "cpu", "precision": "float32", "threads": options.threads}
options.json.write_text(json.dumps({"ratios": ratios, "numbers": {"seconds": 1.0}, "machine": machine}))
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run all of two scripts, whose one ratio is given; returns the exit code and what was printed."""
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    (tmp_path / "measure.py").write_text(SCRIPT)

    def run(speed: float, *arguments: str) -> tuple[object, str]:
        quick = run_all.Benchmark("quick", "measure", [], ["--speed", str(speed)])
        full = run_all.Benchmark("full", "measure", ["--speed", "1"], None)
        monkeypatch.setattr(run_all, "BENCHMARKS", (quick, full))
        monkeypatch.setattr("sys.argv", ["run_all.py", "--out", str(tmp_path / "results"), *arguments])
        with pytest.raises(SystemExit) as ended:
            run_all.main()
        return ended.value.code, capsys.readouterr().out

    return run


def test_check_exits_with_1_when_a_ratio_is_worse(check, tmp_path: Path):
    baseline = tmp_path / "baseline.json"
    code, _ = check(3.0, "--store", str(baseline))
    assert code == 0
    kept = json.loads(baseline.read_text())
    assert list(kept) == ["quick"]
    assert kept["quick"]["ratios"]["speed"]["ratio"] == 3.0
    assert kept["quick"]["machine"]["threads"] == 2
    assert (tmp_path / "results" / "quick.txt").read_text() == "measured\n"

    code, said = check(2.9, "--check", str(baseline))
    assert code == 0
    assert "0 of 1 ratios are worse" in said
    code, said = check(2.0, "--check", str(baseline))
    assert code == 1
    assert "-33 %" in said
    assert "1 of 1 ratios are worse" in said
    code, said = check(2.0, "--check", str(baseline), "--threads", "1")
    assert code == 0
    assert "not comparable (threads 2 → 1)" in said


def test_a_check_without_a_baseline_says_how_to_make_one(check, tmp_path: Path):
    code, _ = check(3.0, "--check", str(tmp_path / "none.json"))
    assert "make bench-baseline" in str(code)


def test_a_script_that_fails_leaves_no_baseline(check, tmp_path: Path):
    (tmp_path / "measure.py").write_text("raise SystemExit(1)\n")
    code, said = check(3.0, "--store", str(tmp_path / "baseline.json"))
    assert code == 1
    assert "failed: quick" in said
    assert not (tmp_path / "baseline.json").exists()
