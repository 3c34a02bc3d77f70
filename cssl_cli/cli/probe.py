"""`cssl probe`: the accuracies of a run's encoder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from cssl_cli.cli.options import DataRoot, Device, Json, Precision, read_data_root, read_path
from cssl_cli.host.launched import require_float32, require_one_process
from cssl_cli.host.paths import user_path
from cssl_cli.host.progress import Silent
from cssl_cli.runs.options import require_device_name, require_precision

EXAMPLES = (
    "cssl probe runs/simclr-shapes-0123456789",
    "cssl probe runs/simclr-shapes-0123456789 --json",
    "cssl probe runs/simclr-folder-0123456789 --data-root /scratch/images",
    "cssl probe runs/simclr-shapes-0123456789 probe.label_fraction='[0.01, 0.1]' probe.shots='[1, 5]'",
    "cssl probe runs/simclr-shapes-0123456789 probe.finetune={}",
    "cssl probe runs/simclr-shapes-0123456789 --data cifar10 data.root=~/data",
    "cssl probe features.npz probe.knn_k=20",
)


def probe(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN | FEATURES",
            help="The directory of a finished run, or a file of features (.npz, .safetensors); more files may follow.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides such as probe.knn_k=20.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=read_path, help="Keep the accuracies of files of features here."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE | NAME",
            help="Transfer: classify the images of this recipe, or of this data set with overrides such as data.root=.",
        ),
    ] = None,
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a run's encoder.

    Linear, k-NN and nearest-class-centre classifiers on frozen features, beside the untrained encoder and raw pixels;
    or on the features in a file, which has train_features and train_labels, too. Several files give one table.
    probe.label_fraction and probe.shots add accuracies with few labels, probe.finetune those of an encoder that is
    trained on.
    """
    from cssl_cli.cli.requests import Targets, file_of_features, require_out

    images = read_data_root(data_root)
    require_device_name(device)
    require_precision(precision)
    of_features = file_of_features(run) is not None
    require_out(out, of_features)
    if of_features:
        require_one_process("`cssl probe` of features")
        from cssl_cli.cli.features import probe_files, require_as_they_are

        targets = Targets.sort([run, *(overrides or [])])
        require_as_they_are(targets.features, data=data, data_root=data_root, precision=precision)
        probe_files(targets.features, targets.overrides, out=out, device=device, as_json=as_json)
        return
    from cssl_cli.runs.overrides import recipe_elsewhere, recipe_with

    path, elsewhere = user_path(run), None
    if data is None:
        recipe = recipe_with(overrides or [], path)
    else:
        recipe, elsewhere = recipe_elsewhere(data, overrides or [], path)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.run import show_probe
    from cssl_cli.runs.team import team_of

    options: dict[str, Any] = {"recipe": recipe, "device_name": device, "data_root": images, "precision": precision}
    if elsewhere is not None:
        require_one_process("`cssl probe --data`")
    require_float32(precision)
    with team_of(device) as team:
        with TerminalReporter() if team.leads else nullcontext(Silent()) as reporter:
            if elsewhere is None:
                from cssl_cli.runs.probe import probe as measure

                result = measure(path, reporter=reporter, team=team, **options)
            else:
                from cssl_cli.runs.transfer import transfer

                result = transfer(path, elsewhere=elsewhere, reporter=reporter, **options)
        if team.leads:
            print_json(result) if as_json else show_probe(path, result)
