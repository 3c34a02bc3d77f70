"""`cssl sweep`: run the members of a sweep, or show its plan, its results or the effect of its augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cssl_cli.cli.options import (
    Accuracy,
    Correlations,
    DataRoot,
    Device,
    DryRun,
    Html,
    Json,
    Out,
    Overrides,
    Track,
    read_data_root,
)
from cssl_cli.errors import CsslError
from cssl_cli.host.streams import print_error
from cssl_cli.runs.options import require_device_name

if TYPE_CHECKING:
    from cssl_cli.cli.requests import SweepTable
    from cssl_cli.report.compare.sweep import Written
    from cssl_cli.sweep.request import SweepRequest
    from cssl_cli.sweep.run import MemberResult

EXAMPLES = (
    "cssl sweep quickstart",
    "cssl sweep quickstart seeds=3 --out results",
    "cssl sweep my-sweep.yaml train.epochs=50 --dry-run",
    "cssl sweep paper-richness-small --concentration-only",
    "cssl sweep paper-richness-small --only 'simclr-*' --budget 1h30m",
    "cssl sweep paper-richness-small --jobs 2 --retry 2",
    "cssl sweep my-sweep.yaml num=40 --halve --eta 3 --dry-run",
    "cssl sweep my-sweep.yaml --launcher slurm launcher.time=4h launcher.gpus=1",
    "cssl sweep quickstart --report --sort -linear --versus simclr-full",
)


def sweep(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that ships, by name, or a path to one.")],
    overrides: Overrides = None,
    out: Out = Path("runs"),
    data_root: DataRoot = None,
    device: Device = None,
    concentration_only: Annotated[
        bool,
        typer.Option("--concentration-only", help="Train nothing: measure what the augmentations do to the images."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROW", help="Only these rows; * and ? match. May be repeated.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="ROW", help="Not these rows; * and ? match. May be repeated.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th run from the I-th on: machines share a sweep.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start no member after this time: 30m, 1h30m.")
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs",
            metavar="N",
            help="N members at a time, each in its own process; by default one a core on a CPU, and on a GPU 0: one "
            "after another in this process.",
        ),
    ] = None,
    retry: Annotated[
        int, typer.Option("--retry", min=0, metavar="K", help="Try a member that failed up to K times again.")
    ] = 0,
    halve: Annotated[
        bool,
        typer.Option(
            "--halve", help="Successive halving: the best rows by early k-NN accuracy go on, the others stop."
        ),
    ] = False,
    eta: Annotated[
        int | None, typer.Option("--eta", min=2, metavar="N", help="With --halve: one row in N goes on, not 2.")
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            "--launcher", metavar="NAME", help="local: here. slurm: each member as a job of a cluster's array."
        ),
    ] = "local",
    wait: Annotated[
        bool, typer.Option("--wait", help="With --launcher slurm: follow the members until they end.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="With --launcher slurm: cancel what is queued or running.")
    ] = False,
    max_members: Annotated[
        int | None,
        typer.Option("--max-members", min=1, metavar="N", help="Allow a sweep of up to N members, not 10,000."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing: print the table of what is on disk.")] = False,
    accuracy: Accuracy = "linear",
    versus: Annotated[
        str | None, typer.Option("--versus", metavar="ROW", help="Each row minus this one, over the seeds of both.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="NAME", help="Rows by a quantity of table.json; -NAME: the greatest first."),
    ] = None,
    correlations: Correlations = False,
    figures: Annotated[bool, typer.Option(help="Draw the accuracy against the terms, beside table.csv.")] = True,
    html: Html = True,
    dry_run: DryRun = False,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Run every member of a sweep, print one table, and which terms predict the accuracy.

    Each is pretrained, probed and analysed. Finished members are not repeated, half-finished ones go on.
    """
    from cssl_cli.cli.requests import cluster_action, read_eta, read_table, sweep_action

    action = sweep_action(
        concentration_only=concentration_only,
        report=report,
        dry_run=dry_run,
        runs_members=budget is not None or jobs is not None or retry > 0 or bool(track),
        halves=halve,
        shows_table=versus is not None or sort is not None or correlations,
    )
    on_cluster = cluster_action(
        launcher,
        wait=wait,
        cancel=cancel,
        action=action,
        of_one_machine={
            "--budget": budget is not None,
            "--jobs": jobs is not None,
            "--halve": halve,
            "--concentration-only": concentration_only,
        },
    )
    from cssl_cli.report.compare.named_quantities import NAMES
    from cssl_cli.sweep.cluster.settings import read_launcher
    from cssl_cli.sweep.duration import parse_duration
    from cssl_cli.sweep.jobs import choose_jobs, parse_jobs
    from cssl_cli.sweep.request import SweepRequest
    from cssl_cli.sweep.selection import select
    from cssl_cli.sweep.sweep import MAX_MEMBERS, load_sweep
    from cssl_cli.tracking.mirror import require_trackers

    given = parse_jobs(jobs)
    resolved = load_sweep(name, overrides or [], quantities=NAMES, max_members=max_members or MAX_MEMBERS)
    request = SweepRequest(
        resolved,
        out,
        select(resolved, only=only or [], skip=skip or [], shard=shard),
        device=device,
        data_root=read_data_root(data_root),
        seconds=None if budget is None else parse_duration(budget),
        jobs=given or None,
        retries=retry,
        eta=read_eta(halve=halve, eta=eta, shard=shard),
        track=require_trackers(track or (), "--track"),
    )
    require_device_name(device)
    table = read_table(request, accuracy=accuracy, versus=versus, sort=sort, every=correlations)
    if on_cluster is not None and action in ("run", "plan"):
        from cssl_cli.cli.cluster import run_on_cluster

        settings = read_launcher(resolved.given)
        finish = partial(_finish, request, table, as_json, figures=figures, html=html)
        return run_on_cluster(request, settings, "look" if action == "plan" else on_cluster, as_json, finish)
    if action == "plan":
        return _show_plan(request, as_json)
    if action == "report":
        return _report(request, table, as_json)
    if action == "concentration":
        return _measure_concentration(request, as_json)
    if given is None:
        request = replace(request, jobs=choose_jobs(request))
    if retry and request.jobs is None:
        request = replace(request, jobs=1)  # a member can be tried again only in a process of its own
    return _run(request, table, as_json, figures=figures, html=html)


def _show_plan(request: SweepRequest, as_json: bool) -> None:
    from cssl_cli.report.compare.sweep import show_sweep_plan
    from cssl_cli.sweep.halving import halving_of
    from cssl_cli.sweep.run import require_memory

    halving = None if request.eta is None else halving_of(request).in_words()
    unfinished = require_memory(request)
    show_sweep_plan(request, unfinished, as_json, halving)


def _report(request: SweepRequest, table: SweepTable, as_json: bool) -> None:
    from cssl_cli.report.compare.extract import take_numbers
    from cssl_cli.sweep.run import read_sweep

    results = read_sweep(request.sweep, request.out, take_numbers)
    _show(request, results, table, as_json)
    _end(request, results, told=not as_json)


def _measure_concentration(request: SweepRequest, as_json: bool) -> None:
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.sections.concentration import show_sweep_concentration
    from cssl_cli.sweep.concentration import concentrate_sweep

    with TerminalReporter() as reporter:
        content = concentrate_sweep(request, reporter)
    show_sweep_concentration(content, as_json)


def _run(request: SweepRequest, table: SweepTable, as_json: bool, *, figures: bool, html: bool) -> None:
    from cssl_cli.cli.live_table import SweepDisplay
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.compare.extract import take_numbers
    from cssl_cli.sweep.run import run_sweep

    with SweepDisplay() if request.jobs else TerminalReporter() as display:
        results = run_sweep(request, display, take=take_numbers)
    _finish(request, table, as_json, results, figures=figures, html=html)


def _finish(
    request: SweepRequest,
    table: SweepTable,
    as_json: bool,
    results: Sequence[MemberResult],
    *,
    figures: bool,
    html: bool,
) -> None:
    """Write the table and print it."""
    from cssl_cli.report.compare.sweep import write_sweep

    written = write_sweep(request.sweep, results, request.out, accuracy=table.accuracy, figures=figures, html=html)
    _show(request, results, table, as_json, written)
    _end(request, results, told=not as_json, failed=written.failed)


def _show(
    request: SweepRequest,
    results: Sequence[MemberResult],
    table: SweepTable,
    as_json: bool,
    written: Written | None = None,
) -> None:
    from cssl_cli.report.compare.sweep import show_sweep

    show_sweep(
        request.sweep,
        results,
        request.members,
        as_json,
        written,
        accuracy=table.accuracy,
        versus=table.versus,
        order=table.order,
        every=table.every,
    )


def _end(
    request: SweepRequest, results: Sequence[MemberResult], *, told: bool, failed: CsslError | None = None
) -> None:
    """The exit code after printing: 1 if a selected member does not count, or if `failed`.

    told: whether a table was printed, which says why; with JSON, stderr does. failed: the error of writing the table.
    """
    meant = {member.name for member in request.members}
    lacking = [result for result in results if result.member.name in meant and (result.error or result.damage)]
    sentences = [] if failed is None else [str(failed)]
    if not told:
        sentences += [f"{result.member.name} failed: {result.error}" for result in lacking if result.error]
        sentences += dict.fromkeys(damage for result in lacking for damage in result.damage)
    for sentence in sentences:
        print_error(sentence)
    if sentences or lacking:
        raise typer.Exit(1)
