"""`cssl pretrain`: train an encoder, show what would be trained, or where the time of a step goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cssl_cli.cli.options import DataRoot, Device, DryRun, Json, Out, Overrides, Track, read_data_root
from cssl_cli.host.launched import require_one_process
from cssl_cli.runs.options import require_device_name

if TYPE_CHECKING:
    from cssl_cli.cli.requests import PretrainRequest
    from cssl_cli.runs.team import Team

EXAMPLES = (
    "cssl pretrain simclr-shapes",
    "cssl pretrain simclr-cifar10 train.epochs=100 encoder.width=32",
    "cssl pretrain simclr-folder data.root=path/to/images --dry-run",
    "cssl pretrain simclr-cifar10 --profile",
)


def pretrain(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that ships, by name, or a path to one.")],
    overrides: Overrides = None,
    out: Out = Path("runs"),
    device: Device = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what the run directory holds.")] = False,
    dry_run: DryRun = False,
    data_root: DataRoot = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of a step goes, and write a trace; trains nothing.")
    ] = False,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train an encoder as a recipe says.

    The same command again goes on where a stopped run was.
    """
    from cssl_cli.cli.requests import PretrainRequest, pretrain_action
    from cssl_cli.recipe import load_recipe
    from cssl_cli.tracking.mirror import require_trackers

    action = pretrain_action(dry_run=dry_run, profile=profile, restart=restart)
    if dry_run or profile:
        require_one_process(f"`cssl pretrain {'--dry-run' if dry_run else '--profile'}`")
    resolved, images = load_recipe(recipe, overrides or []), read_data_root(data_root)
    require_device_name(device)
    trackers = require_trackers(track or (), "--track")
    request = PretrainRequest(resolved, action, out, device, images, trackers)
    {"plan": _show_plan, "profile": _profile, "train": _train, "restart": _train}[action](request, as_json)


def _show_plan(request: PretrainRequest, as_json: bool) -> None:
    from cssl_cli.report.recipes import show_plan
    from cssl_cli.runs.memory import require_all
    from cssl_cli.runs.outlook import outlook

    require_all(request.recipe, request.device)
    show_plan(
        request.recipe,
        request.out,
        outlook(request.recipe, data_root=request.data_root, own=[request.out]),
        as_json,
    )


def _profile(request: PretrainRequest, as_json: bool) -> None:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch loads: silences its profiler's own messages
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.profile import show_profile
    from cssl_cli.runs.profile import profile

    with TerminalReporter() as reporter:
        profiled, content = profile(
            request.recipe,
            out=request.out,
            reporter=reporter,
            device_name=request.device,
            data_root=request.data_root,
        )
    show_profile(profiled, content, as_json)


def _train(request: PretrainRequest, as_json: bool) -> None:
    from cssl_cli.runs.team import team_of

    with team_of(request.device) as team:
        if team.leads:
            _lead(request, as_json, team)
        else:
            from cssl_cli.runs.following import follow

            follow(request.recipe, team=team, out=request.out, device_name=request.device, data_root=request.data_root)


def _lead(request: PretrainRequest, as_json: bool, team: Team) -> None:
    """Train as the one process there is, or as rank 0 of several."""
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.run import show_pretrained
    from cssl_cli.runs.pretrain import pretrain as train
    from cssl_cli.tracking.mirror import Mirrors

    with TerminalReporter() as reporter, Mirrors(request.track, reporter.notice) as mirrors:
        trained = train(
            request.recipe,
            out=request.out,
            reporter=reporter,
            device_name=request.device,
            restart=request.action == "restart",
            data_root=request.data_root,
            recorded=mirrors.update,
            team=team,
        )
        mirrors.finish(trained)
    show_pretrained(trained, as_json)
