"""A run or a sweep on one screen of a terminal, whatever its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cssl_cli.errors import escaped
from cssl_cli.host.progress import clock
from cssl_cli.report.layout import number, percent, plural, table
from cssl_cli.report.watch.members import MemberState, SweepProgress
from cssl_cli.report.watch.plots import Curve, plot_grid
from cssl_cli.report.watch.progress import RunProgress, series
from cssl_cli.tracking.records import PROTOCOL

GAP = "   "
LEAST_NAME = 16  # of a member's name in the table, before a column is left out
# Members in this order when not all fit.
ORDER = ("running", "quiet", "measuring", "failed", "interrupted", "unknown", "new", "stopped", "finished")
COLUMNS = ("member", "state", "epoch", "loss", "k-NN, %", "left")
STYLES = {"failed": "red", "quiet": "yellow", "interrupted": "yellow", "finished": "green"}


def draw(progress: RunProgress | SweepProgress, out: Console, height: int) -> Group:
    """At most `height` lines, each as wide as the console at most."""
    if isinstance(progress, RunProgress):
        return _draw_run(progress, out, height)
    return _draw_sweep(progress, out, height)


# ---------------------------------------------------------------------- a run
def _draw_run(run: RunProgress, out: Console, height: int) -> Group:
    lines = _header(run, out.width)[:height]
    ascii_only = not str(out.encoding).lower().startswith("utf")
    plots = plot_grid(curves(run), out.width, height - len(lines), ascii_only=ascii_only)
    return Group(*lines, *(_line(line) for line in plots))


def _header(run: RunProgress, width: int) -> list[Text]:
    head = [_line(escaped(run.path.absolute().name), "bold")]
    facts = [_word(run.state) if run.stopped is None else "stopped by successive halving"]
    if run.num_epochs is not None:
        facts.append(f"epoch {run.epoch}/{run.num_epochs}")
    if run.num_steps:
        facts.append(f"step {run.step:,}/{run.num_steps:,} ({run.step / run.num_steps:.0%})")
    if run.seconds_left is not None:
        facts.append(f"about {clock(run.seconds_left)} left")
    head += _flow(facts, width, STYLES.get(run.state, ""))
    head += _flow(_numbers(run), width)
    if run.state == "running":
        head += _flow(_sign_of_life(run), width, "yellow" if run.quiet else "dim")
    if run.failure:
        head += _flow([escaped(run.failure)], width, "red")
    return head + [line for problem in run.problems for line in _flow([escaped(problem)], width, "red")]


def _numbers(run: RunProgress) -> list[str]:
    if not run.metrics:
        return ["no epoch has ended yet"] if run.state == "running" else []
    last = run.metrics[-1]
    facts = [f"{name} {number(value)}" for name, value in last["terms"].items()]
    facts += [f"lr {last['learning_rate']:.2g}", f"{last['images_per_second']:,.0f} images/s"]
    if run.accuracies:
        best = max(run.accuracies, key=lambda entry: entry[1])
        facts.append(f"{_knn(run)} {percent(run.accuracies[-1][1])} % (best {percent(best[1])} % at epoch {best[0]})")
    return facts


def _sign_of_life(run: RunProgress) -> list[str]:
    minutes, holder = round(run.age // 60), [f"taken by {run.holder}"] if run.holder else []
    if not run.quiet:
        return [f"last written {f'{run.age:.0f} s' if minutes < 1 else plural(minutes, 'minute')} ago", *holder]
    killed = "it may have been killed: the same command then goes on from its checkpoint"
    return [f"no record for {plural(minutes, 'minute')}", *holder, killed]


def curves(run: RunProgress) -> list[Curve]:
    """What there is to plot, the most telling first."""
    terms = list(run.metrics[-1]["terms"]) if run.metrics else []
    found = [
        Curve("loss", series(run.metrics, "loss"), number),
        Curve(f"{_knn(run)}, %", run.accuracies, percent),
        *(Curve(name, series(run.metrics, name), number) for name in terms if name != "loss"),
        Curve("images/s", series(run.metrics, "images_per_second"), "{:,.0f}".format),
        Curve("learning rate", series(run.metrics, "learning_rate"), "{:.2g}".format),
    ]
    traced = [name for name in (run.trace[-1] if run.trace else {}) if name not in PROTOCOL and name != "knn"]
    found += [Curve(f"{name.replace('_', ' ')} (quick)", series(run.trace, name), number) for name in traced]
    return [curve for curve in found if len(curve.points) > 1]


def _knn(run: RunProgress) -> str:
    return "k-NN" if run.knn else "k-NN of few images"


# ---------------------------------------------------------------------- a sweep
def _draw_sweep(sweep: SweepProgress, out: Console, height: int) -> Group:
    counts = {state: sum(one.state == state for one in sweep.members) for state in ORDER}
    facts = [f"{count} {_word(state)}" for state, count in counts.items() if count]
    lines = [
        _line(escaped(sweep.path.absolute().name), "bold"),
        *_flow([f"of {plural(len(sweep.members), 'member')}:", *facts] if facts else ["no run has begun"], out.width),
    ]
    told = [line for problem in sweep.problems[:3] for line in _flow([escaped(problem)], out.width, "red")]
    room = height - len(lines) - len(told) - 2  # the head of the table and its rule
    if not sweep.members or room < 1:
        return Group(*[*lines, *told][:height])
    shown, hidden = list(sweep.members), 0
    if len(shown) > room:
        hidden = len(shown) - room + 1
        kept = sorted(sweep.members, key=lambda one: ORDER.index(one.state))[: room - 1]
        shown = [one for one in sweep.members if one in kept]
    more = [_line(f"and {hidden} more", "dim")] if hidden else []
    return Group(*lines, *told, _table(shown, out.width), *more)


def _table(members: Sequence[MemberState], width: int) -> Table:
    """As many columns as the width takes; long names are cut."""
    cells = [_cells(one) for one in members]
    widths = [max(cell_len(row[place]) for row in (COLUMNS, *cells)) for place in range(len(COLUMNS))]
    shown = len(COLUMNS)
    while shown > 2 and width - _beside(widths[1:shown]) < min(widths[0], LEAST_NAME):
        shown -= 1
    grid = table(*COLUMNS[:shown], text_columns=2)
    for column in grid.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    grid.columns[0].width = max(min(widths[0], width - _beside(widths[1:shown])), 1)
    for one, row in zip(members, cells, strict=True):
        grid.add_row(row[0], Text(row[1], style=STYLES.get(one.state, "")), *row[2:shown])
    return grid


def _beside(widths: Sequence[int]) -> int:
    """What columns of these widths take beside another."""
    return sum(widths) + 3 * len(widths)


def _cells(member: MemberState) -> tuple[str, ...]:
    run = member.run
    epochs = f"{run.epoch}/{run.num_epochs}" if run.num_epochs else ""
    loss = number(run.metrics[-1]["terms"].get("loss")) if run.metrics else ""
    accuracy = percent(run.accuracies[-1][1]) if run.accuracies else ""
    left = "" if run.seconds_left is None else clock(run.seconds_left)
    quiet = f"quiet for {plural(round(run.age // 60), 'minute')}" if member.state == "quiet" else _word(member.state)
    return escaped(member.name), quiet, epochs, loss, accuracy, left


def _word(state: str) -> str:
    return {"new": "not begun", "unknown": "state unknown"}.get(state, state)


# ---------------------------------------------------------------------- lines
def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _flow(facts: Iterable[str], width: int, style: str = "") -> list[Text]:
    """The facts on as few lines as they take."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(GAP) + len(fact) <= width:
            lines[-1] += GAP + fact
        else:
            lines.append(fact)
    return [_line(line, style) for line in lines]
