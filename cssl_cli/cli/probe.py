"""`cssl probe`: the accuracies of a run's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import DataRoot, Device, Json, Precision, read_data_root, read_path
from cssl_cli.host.paths import user_path
from cssl_cli.runs.options import require_device_name, require_precision

EXAMPLES = (
    "cssl probe runs/simclr-shapes-0123456789",
    "cssl probe runs/simclr-shapes-0123456789 --json",
    "cssl probe runs/simclr-folder-0123456789 --data-root /scratch/images",
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
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a run's encoder.

    Linear, k-NN and nearest-class-centre classifiers on frozen features, beside the untrained encoder and raw pixels;
    or on the features in a file, which has train_features and train_labels, too. Several files give one table.
    """
    from cssl_cli.cli.requests import Targets, file_of_features, require_out

    images = read_data_root(data_root)
    require_device_name(device)
    require_precision(precision)
    of_features = file_of_features(run) is not None
    require_out(out, of_features)
    if of_features:
        from cssl_cli.cli.features import probe_files, require_as_they_are

        targets = Targets.sort([run, *(overrides or [])])
        require_as_they_are(targets.features, data_root=data_root, precision=precision)
        return probe_files(targets.features, targets.overrides, out=out, device=device, as_json=as_json)
    from cssl_cli.runs.overrides import recipe_with

    path = user_path(run)
    recipe = recipe_with(overrides or [], path)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.run import show_probe
    from cssl_cli.runs.probe import probe as measure

    with TerminalReporter() as reporter:
        result = measure(
            path, reporter=reporter, device_name=device, recipe=recipe, data_root=images, precision=precision
        )
    return print_json(result) if as_json else show_probe(path, result)
