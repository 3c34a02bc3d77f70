"""Arguments and options that several commands share, and their checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.errors import InputError
from cssl_cli.host.paths import user_path


def read_path(text: str) -> Path:
    """A path given as an argument or option."""
    try:
        return user_path(text)
    except InputError as error:
        raise typer.BadParameter(error.what) from error


def read_data_root(path: str | None) -> str | None:
    """The folder given by --data-root; `InputError` if it does not exist."""
    from cssl_cli.recipe.load import read_folder

    return None if path is None else read_folder(path, "--data-root")


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides such as train.epochs=10; ~augment.blur takes a block out."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", parser=read_path, help="Where run directories go.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; by default the best available.")]
Precision = Annotated[
    str,
    typer.Option(metavar="NAME", help="Of the features: float32, bfloat16 or tf32; the last two report their error."),
]
DataRoot = Annotated[
    str | None,
    typer.Option("--data-root", metavar="DIR", help="Where the images lie now, if not in the recipe's data.root."),
]
Accuracy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The accuracy to correlate terms with: linear, knn, nearest_center or best_knn; --json has them all.",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Mirror in tensorboard, wandb, mlflow or trackio, too. May be repeated."),
]
Correlations = Annotated[
    bool,
    typer.Option("--correlations", help="Print all rank correlations, not only those that can be told from chance."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress or remarks on stderr: errors and warnings only.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]
