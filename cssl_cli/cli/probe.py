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
            help="The directory of a finished run, or a file of features (.npz, .safetensors).",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides such as probe.knn_k=20.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=read_path, help="Keep the accuracies of a file of features here."),
    ] = None,
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a run's encoder.

    Linear, k-NN and nearest-class-centre classifiers on frozen features, beside the untrained encoder and raw pixels;
    or on the features in a file, which has train_features and train_labels, too.
    """
    from cssl_cli.cli.requests import file_of_features, require_out

    images = read_data_root(data_root)
    require_device_name(device)
    require_precision(precision)
    features = file_of_features(run)
    require_out(out, features)
    if features is not None:
        from cssl_cli.cli.features import probe_file, require_as_it_is

        require_as_it_is(features, data_root=data_root, precision=precision)
        return probe_file(features, overrides or [], out=out, device=device, as_json=as_json)
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
