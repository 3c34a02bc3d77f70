"""`cssl rank`: augmentations ranked before any training, or one improved."""

from __future__ import annotations

from typing import Annotated

import typer

from cssl_cli.cli.options import DataRoot, Device, Json, read_data_root
from cssl_cli.errors import InputError
from cssl_cli.runs.options import require_device_name

EXAMPLES = (
    "cssl rank quickstart",
    "cssl rank paper-pairs --labels 10",
    "cssl rank paper-pairs --train 2",
    "cssl rank simclr-shapes barlow_twins-shapes moco-shapes",
    'cssl rank paper-richness "data={name: folder, root: images}"',
    "cssl rank simclr-shapes --optimise augment.jitter.strength,augment.crop.scale",
)


def rank(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="SWEEP|RECIPE... [KEY=VALUE]...", help="Sweeps or recipes, by name or file."),
    ],
    images: Annotated[int, typer.Option(min=2, help="Training images to measure on.")] = 4000,
    labels: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Use the labels of N images of each class only.")
    ] = None,
    train: Annotated[
        int | None,
        typer.Option(min=2, max=100, metavar="SEEDS", help="Train a tiny encoder of each set briefly, so many times."),
    ] = None,
    optimise: Annotated[
        str | None,
        typer.Option(metavar="FIELD,...", help="Search these settings of one recipe's augmentation for better values."),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="With --optimise: try at most N augmentations, 40 if not given."),
    ] = None,
    data_root: DataRoot = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Rank augmentations before any training.

    For each set of augmentations of the sweeps and recipes: what two views of an image share, and how much of it is
    about the class. It takes seconds a set. How well the order agrees with accuracies after training, and where it
    does not: docs/predictors.md. Without labels, the information that views share ranks alone.

    With --train 2, a tiny encoder of each set is trained for ten seconds, twice, and ranks by its k-NN accuracy. That
    agrees better, where small crops are among the sets above all.

    With --optimise, numbers of one recipe's augmentation are searched for a greater share, and what is found is judged
    on as many images again.
    """
    if optimise is not None:
        if train is not None:
            raise InputError("--optimise trains nothing", where="--train", remedy="Leave one of them out.")
        return _optimise(targets, optimise, images, labels, evaluations, data_root, device, as_json)
    if evaluations is not None:
        raise InputError("nothing is searched", where="--evaluations", remedy="Give --optimise too, or leave it out.")
    return _rank(targets, images, labels, train, data_root, device, as_json)


def _rank(
    targets: list[str],
    images: int,
    labels: int | None,
    train: int | None,
    data_root: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    from cssl_cli.cli.requests import read_candidates

    candidates = read_candidates(targets)
    require_device_name(device)
    root = read_data_root(data_root)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.rank import show_ranking
    from cssl_cli.runs.rank import Candidate
    from cssl_cli.runs.rank import rank as measure

    with TerminalReporter() as reporter:
        result = measure(
            [Candidate(name, recipe) for name, recipe in candidates],
            reporter=reporter,
            num_images=images,
            labels_per_class=labels,
            train_seeds=train,
            device_name=device,
            data_root=root,
        )
    show_ranking(result, as_json)


def _optimise(
    targets: list[str],
    fields: str,
    images: int,
    labels: int | None,
    evaluations: int | None,
    data_root: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    from cssl_cli.cli.requests import read_search

    request = read_search(targets, fields, labels=labels)
    require_device_name(device)
    root = read_data_root(data_root)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.optimise import show_optimised
    from cssl_cli.runs.optimise import EVALUATIONS, optimise

    with TerminalReporter() as reporter:
        result = optimise(
            request.recipe,
            request.fields,
            reporter=reporter,
            num_images=images,
            evaluations=EVALUATIONS if evaluations is None else evaluations,
            device_name=device,
            data_root=root,
        )
    elsewhere = () if data_root is None else ("--data-root", data_root)
    show_optimised(result, (*request.arguments, *elsewhere), as_json)
