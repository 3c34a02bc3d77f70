"""Importing: a recipe and a file of weights in, a finished run directory out.

An imported run is that of a recipe with `encoder.weights` and `train.epochs=0`: the recipe that is given, changed to
that, and filled in where the file tells what the recipe leaves open.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cssl_cli.errors import InputError
from cssl_cli.host.progress import Reporter
from cssl_cli.nn.encoders import ENCODERS
from cssl_cli.nn.encoders.cached_weights import CachedWeights
from cssl_cli.recipe import Recipe, load_recipe
from cssl_cli.runs.pretrain import pretrain
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.runs.weights_source import Allowances, read_weights, told_stem, weights_path

FROM_LIBRARIES = ("torchvision", "timm")
# No training, and nothing recorded through it.
_UNTRAINED = ("train.epochs=0", "optim.warmup_epochs=0", "analyze.every=null", "probe.every=null")


def import_run(
    recipe: str,
    weights: Path | None,
    *,
    overrides: Sequence[str],
    allowed: Allowances,
    out: Path,
    reporter: Reporter,
    device_name: str | None = None,
    data_root: str | None = None,
) -> RunDir:
    """The finished run of an encoder whose weights are in a file, that of the recipe or else of its library's cache.

    `InputError` if the weights are not those of the recipe's encoder, apart from what is `allowed`.
    """
    given = load_recipe(recipe, overrides)
    if weights is None and given.encoder.weights is not None:
        weights = weights_path(given.encoder.weights)
    if weights is None:
        cached = _cached(given)
        reporter.say(f"{cached.called}: {cached.path}")
        file, normalization = read_weights(cached.path), {"mean": cached.mean, "std": cached.std}
    else:
        file = read_weights(weights)
        normalization = {name: file.facts[name] for name in ("mean", "std") if name in file.facts}
    told = _normalization(given, normalization)
    if "stem" not in given.encoder.model_fields_set and (stem := told_stem(file, given)) is not None:
        told["encoder.stem"] = stem
    for field, value in told.items():
        reporter.say(f"{field}={_as_yaml(value)}, as the file was trained")
    changes = [f"encoder.weights={json.dumps(str(file.path))}", *_UNTRAINED]
    changes += [f"{field}={_as_yaml(value)}" for field, value in told.items()]
    return pretrain(
        load_recipe(recipe, [*overrides, *changes]),
        out=out,
        reporter=reporter,
        device_name=device_name,
        data_root=data_root,
        allowed=allowed,
    )


def _cached(recipe: Recipe) -> CachedWeights:
    """The weights of the recipe's encoder that its library has downloaded before; `InputError` if there are none."""
    name = recipe.encoder.name
    if name not in FROM_LIBRARIES:
        raise InputError(
            "no file of weights is named",
            where=f"encoder.name={name}",
            remedy="Give one after the recipe. Without, only models of torchvision and timm can be had from a cache.",
        )
    module: Any = importlib.import_module(ENCODERS[name])
    settings = recipe.settings("encoder")
    own = {key: settings[key] for key in settings if key not in ("name", "weights", "weights_sha256")}
    found: Sequence[CachedWeights] = module.cached_weights(module.Settings(**own))
    if not found:
        raise InputError(
            f"no weights of {settings['model']} are in the cache of {name}, and nothing is downloaded",
            where="encoder.model",
            remedy=f"Download them with {name}, or give a file of weights after the recipe.",
        )
    return found[0]


def _normalization(recipe: Recipe, told: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What the weights were trained with, where the recipe leaves it to the images."""
    return {f"data.{name}": list(values) for name, values in told.items() if getattr(recipe.data, name) is None}


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
