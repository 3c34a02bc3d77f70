"""`cssl import`: a finished run of an encoder that was trained elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cssl_cli.cli.options import DataRoot, Device, Json, Out, read_data_root
from cssl_cli.errors import InputError
from cssl_cli.host.files import exists
from cssl_cli.host.paths import is_override, user_path
from cssl_cli.runs.options import require_device_name

EXAMPLES = (
    "cssl import simclr-cifar10 checkpoint.pth --name theirs",
    "cssl import moco-cifar10 moco_v2.pth.tar 'encoder={name: resnet50, stem: imagenet}' --name moco",
    "cssl import simclr-cifar10 'encoder={name: torchvision, model: resnet18}' --name imagenet",
)


@dataclass(frozen=True)
class ImportRequest:
    """A recipe by name or path, the file of weights if one is named, and overrides of the recipe."""

    recipe: str
    weights: Path | None
    overrides: tuple[str, ...]

    @classmethod
    def sort(cls, recipe: str, arguments: Sequence[str]) -> ImportRequest:
        """Sort what follows the recipe; `InputError` if it names several files."""
        overrides = [text for text in arguments if is_override(text) and not _is_there(text)]
        files = [text for text in arguments if text not in overrides]
        if len(files) > 1:
            raise InputError(
                f"{' '.join(files)} are {len(files)} files of weights",
                remedy="Give one. An import takes the weights of one encoder.",
            )
        return cls(recipe, user_path(files[0]) if files else None, tuple(overrides))


def _is_there(text: str) -> bool:
    try:
        return exists(user_path(text))
    except InputError:
        return False


def import_(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that ships, by name, or a path to one.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WEIGHTS] [KEY=VALUE]...",
            help="The file of weights; without, those of torchvision or timm in the local cache. Overrides follow.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What the run is called.")] = None,
    allow_missing: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A name that the file may lack, * and ? match any; keeps random weights."),
    ] = None,
    allow_unexpected: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A name that the file may have although the encoder does not."),
    ] = None,
    out: Out = Path("runs"),
    data_root: DataRoot = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make a finished run of an encoder that was trained elsewhere.

    The recipe says images, augmentation, architecture and normalisation. cssl probe, cssl analyze and sweeps then
    measure the run like any other.
    """
    request, images = ImportRequest.sort(recipe, arguments or []), read_data_root(data_root)
    require_device_name(device)
    from cssl_cli.cli.terminal import TerminalReporter
    from cssl_cli.report.run import show_pretrained
    from cssl_cli.runs.import_run import import_run
    from cssl_cli.runs.weights_source import Allowances

    with TerminalReporter() as reporter:
        run = import_run(
            request.recipe,
            request.weights,
            overrides=[*request.overrides, *([f"name={json.dumps(name)}"] if name is not None else [])],
            allowed=Allowances(tuple(allow_missing or ()), tuple(allow_unexpected or ())),
            out=out,
            reporter=reporter,
            device_name=device,
            data_root=images,
        )
    show_pretrained(run, as_json)
