"""`cssl watch`: how a run or a sweep is getting on, as its files say."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cssl_cli.cli.options import Json, read_path

if TYPE_CHECKING:
    from cssl_cli.report.watch.members import SweepFollower
    from cssl_cli.report.watch.progress import Follower

EXAMPLES = (
    "cssl watch runs/simclr-shapes-0123456789",
    "cssl watch runs/quickstart --every 10",
    "cssl watch runs/quickstart --once",
)
LOOK = 0.25  # seconds between looks at the size of the terminal
PIPED_SIZE = 120, 40  # characters and lines where there is no terminal


def watch(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or the folder of a sweep.", parser=read_path)
    ],
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often to look.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print how it stands now, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Follow a run or a sweep in the terminal, until it ends.

    Only reads files, so that it works over a shared folder and leaves training alone.
    """
    from cssl_cli.report.console import make_console
    from cssl_cli.report.layout import LEAST_WIDTH, print_json
    from cssl_cli.report.watch.screen import draw

    follower = _follow(path)
    if as_json:
        return print_json(follower.look().content())
    out = make_console(sys.stdout)
    live = out.is_terminal and not out.is_dumb_terminal
    if live and not once:
        _show(follower, every)
    columns, lines = shutil.get_terminal_size(PIPED_SIZE)
    out = make_console(sys.stdout, unpadded=not live, width=max(columns, LEAST_WIDTH))
    out.print(draw(follower.look(), out, lines - 1))
    return None


def _follow(path: Path) -> Follower | SweepFollower:
    from cssl_cli.host.files import is_folder
    from cssl_cli.report.watch.members import SweepFollower, is_sweep
    from cssl_cli.report.watch.progress import Follower
    from cssl_cli.runs.run_dir import RECIPE, RunDir

    if is_folder(path) and not (path / RECIPE).exists() and is_sweep(path):
        return SweepFollower(path)
    return Follower(RunDir.open(path).path)


def _show(follower: Follower | SweepFollower, every: float) -> None:
    """Draw on a screen of its own until the run or the sweep ends."""
    from rich.live import Live

    from cssl_cli.report.console import make_console
    from cssl_cli.report.watch.screen import draw

    out = make_console(sys.stdout)
    with Live(console=out, screen=True, auto_refresh=False) as display:
        while True:
            progress = follower.look()
            next_look = time.monotonic() + every
            size = None
            while size is None or time.monotonic() < next_look:
                if size != out.size:
                    size = out.size
                    display.update(draw(progress, out, out.height), refresh=True)
                if progress.ended:
                    return
                time.sleep(min(LOOK, every))
