"""What `cssl watch` draws fits into any terminal, and its labels are the numbers."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from cssl_cli.report.console import make_console
from cssl_cli.report.watch.members import SweepFollower
from cssl_cli.report.watch.plots import Curve, plot, plot_grid
from cssl_cli.report.watch.progress import Follower
from cssl_cli.report.watch.screen import draw
from cssl_cli.runs.run_dir import ANALYSIS, METRICS, RunDir
from tests.support.commands import Invoke
from tests.support.written_run import STEPS, record_epochs, written_run

SIZES = [(40, 10), (50, 20), (80, 24), (120, 40), (200, 60)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(found: Any, width: int, height: int) -> list[str]:
    stream = io.StringIO()
    out = make_console(stream, width=width)
    out.print(draw(found, out, height))
    return stream.getvalue().splitlines()


def runs(folder: Path) -> list[RunDir]:
    """One that trains, one that has just begun, one that has not, one that failed, and one with damaged files."""
    made = [written_run(folder, seed=1, epochs=8, of=20), written_run(folder, seed=2)]
    made += [written_run(folder, seed=3, state=None), written_run(folder, seed=4, epochs=1)]
    made[-1].write_status("failed", step=4, num_steps=12, error="the term 'loss' became nan at step 5\x1b[31m" * 9)
    damaged = written_run(folder, seed=5, epochs=2)
    damaged.file(METRICS).write_text("{}\n")
    return [*made, damaged]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_runs_and_sweeps_fit_into_a_screen(tmp_path: Path, width: int, height: int) -> None:
    made = runs(tmp_path / "a sweep with a name that is rather long, as people call them")
    views = [Follower(run.path).look() for run in made]
    for view in (*views, SweepFollower(made[0].path.parent).look()):
        lines = lines_of(view, width, height)
        assert 0 < len(lines) <= height
        assert max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)


def test_the_numbers_of_a_run_are_on_it(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=8, of=20)
    text = "\n".join(lines_of(Follower(run.path).look(), 120, 40))
    for part in (run.path.name, "running", "epoch 8/20", "step 32/80 (40%)", "about 2:00 left", "loss 2.333"):
        assert part in text
    assert "alignment -2.667" in text
    assert "k-NN 80.0 % (best 80.0 % at epoch 8)" in text
    assert "process" in text
    for title in ("loss  2.333", "k-NN, %  80.0", "images/s  100", "learning rate  0.0063", "alignment (quick)  1.143"):
        assert title in text, title
    assert "rankme" not in text, "of which there is no number"


def test_a_silent_run_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written_run(tmp_path, epochs=2, of=20)
    follower = Follower(run.path)
    follower.look()
    follower.written -= 14 * 60
    text = " ".join(" ".join(lines_of(follower.look(), 80, 24)).split())
    assert "no record for 14 minutes" in text
    assert "left" not in text


def test_the_labels_of_a_plot_are_its_greatest_and_least_number() -> None:
    curve = Curve("term", [(0, 0.798), (1, 0.6), (2, 0.494)], "{:.3f}".format)
    lines = plot(curve, 40, 9)
    assert len(lines) == 9
    assert {len(line) for line in lines} == {40}
    assert lines[0].strip() == "term  0.494"
    assert [line.rpartition("│")[2].strip() for line in lines[2:-2]] == ["0.798", "", "", "", "0.494"]
    assert re.fullmatch(r" epoch 0 +2 *", lines[-1])
    assert all(line.isascii() for line in plot(curve, 40, 9, ascii_only=True))


@pytest.mark.parametrize("values", [[0.5, 0.5], [1e-12, 1e12], [-3.0, 4.0], [float(n % 7) for n in range(5000)]])
def test_any_numbers_can_be_plotted(values: list[float]) -> None:
    lines = plot(Curve("any", list(enumerate(values)), "{:.2g}".format), 36, 8)
    assert [len(line) for line in lines] == [36] * 8


@pytest.mark.parametrize(("width", "height"), [(10, 50), (36, 7), (40, 8), (200, 8), (79, 60)])
def test_plots_never_take_more_than_they_are_given(width: int, height: int) -> None:
    curves = [Curve(f"term {number}", [(1, 0.0), (2, 1.0)], "{:.1f}".format) for number in range(9)]
    lines = plot_grid(curves, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert plot_grid([], width, height) == []


def test_a_run_that_halving_stopped_is_shown_as_such(tmp_path: Path) -> None:
    run = written_run(tmp_path, epochs=1, of=4)
    stopped = {"epoch": 1, "epochs": 4, "knn": 0.1, "place": 2, "num_rows": 2, "num_kept": 1, "eta": 2}
    run.write_status("interrupted", step=STEPS, num_steps=4 * STEPS, stopped=stopped)
    assert lines_of(Follower(run.path).look(), 80, 24)[1].startswith("stopped by successive halving   epoch 1/4")
    assert "of 1 member:   1 stopped" in lines_of(SweepFollower(tmp_path).look(), 80, 24)


def test_of_many_members_those_at_work_come_first(tmp_path: Path) -> None:
    for seed in range(30):
        written_run(tmp_path, seed=seed, epochs=1, state="finished" if seed < 28 else "running")
    for path in tmp_path.glob("*"):
        (path / ANALYSIS).write_text("{}")
    lines = lines_of(SweepFollower(tmp_path).look(), 80, 12)
    assert len(lines) == 12
    assert sum("running" in line for line in lines[2:]) == 2
    assert lines[1] == "of 30 members:   2 running   28 finished"
    assert lines[-1] == "and 23 more"


# ---------------------------------------------------------------------- the command
def test_watch_prints_a_snapshot_where_there_is_no_terminal(invoke: Invoke, tmp_path: Path) -> None:
    run = written_run(tmp_path / "runs", epochs=2, of=20)
    outcome = invoke("watch", run.path)
    assert outcome.code == 0
    assert "epoch 2/20" in outcome.stdout
    outcome = invoke("watch", run.path, "--json")
    assert '"epoch": 2' in outcome.stdout
    outcome = invoke("watch", "runs", "--once")
    assert outcome.stdout.startswith("runs\nof 1 member:   1 running\n")
    outcome = invoke("watch", "runs", "--json")
    assert '"state": "running"' in outcome.stdout


def test_watch_needs_a_run(invoke: Invoke, tmp_path: Path) -> None:
    for place, sentence in ((tmp_path, "not a run directory"), (tmp_path / "no", "there is no such run directory")):
        outcome = invoke("watch", place)
        assert outcome.code == 2
        assert sentence in outcome.stderr


def test_watching_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cssl_cli.cli import watch

    run = written_run(tmp_path, epochs=1, of=3)
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            record_epochs(run, 3)
            run.write_status("finished", step=3 * STEPS, num_steps=3 * STEPS)

    monkeypatch.setattr(watch.time, "sleep", sleep)
    monkeypatch.setattr(watch.time, "monotonic", lambda: float(len(slept)))
    watch.watch(run.path, every=1.0)
    assert len(slept) == 3
    drawn = screen.getvalue()
    assert "\x1b[?1049h" in drawn, "on a screen of its own"
    before, _, after = drawn.partition("\x1b[?1049l")
    assert "epoch 1/3" in before
    assert "epoch 3/3" in after, "and the end stays to be read"
