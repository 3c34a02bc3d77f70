"""`cssl probe`: the accuracies of a run's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import DataRoot, Device, Json, Precision, read_data_root, read_path
from cssl_cli.runs.options import require_device_name, require_precision

EXAMPLES = (
    "cssl probe runs/simclr-shapes-0123456789",
    "cssl probe runs/simclr-shapes-0123456789 --json",
    "cssl probe runs/simclr-folder-0123456789 --data-root /scratch/images",
)


def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=read_path, help="The directory of a finished run.")],
    data_root: DataRoot = None,
    device: Device = None,
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a run's encoder.

    Linear, k-NN and nearest-class-centre classifiers on frozen features, beside the untrained encoder and raw pixels.
    """
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.layout import print_json
    from cssl_cli.report.run import show_probe

    images = read_data_root(data_root)
    require_device_name(device)
    require_precision(precision)
    from cssl_cli.runs.probe import probe as measure

    with TerminalReporter() as reporter:
        result = measure(run, reporter=reporter, device_name=device, data_root=images, precision=precision)
    print_json(result) if as_json else show_probe(run, result)
