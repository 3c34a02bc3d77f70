"""How features from a file are measured: the fields of a recipe that have a meaning without a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import ValidationError

from cssl_cli.errors import InputError
from cssl_cli.recipe.blocks import Analyze, Block, Probe
from cssl_cli.recipe.faults import as_error, faults_of
from cssl_cli.recipe.field_types import Seed
from cssl_cli.recipe.files import Source
from cssl_cli.recipe.merge import merge, parse_overrides
from cssl_cli.recipe.ranges import Positive

# Fields of which features from a file have no use, and why. An export has them, with the settings of its run.
_OF_RUNS = {
    ("analyze", "every"): "there is no training",
    ("probe", "every"): "there is no training",
    ("analyze", "refine_pairs"): "there are no pixels",
    ("probe", "center_views"): "the class centres are over the views that train_features has",
}


class _Method(Block):
    temperature: Positive | None = None
    """temperature of the losses; null: 0.5"""


class _Train(Block):
    batch_size: Annotated[int, Ge(2)] = 512
    """images of the batches over which NT-Xent is measured"""


class Measurement(Block):
    """How to measure features of which nothing else is known."""

    seed: Seed = 0
    """from which all random numbers of the measurement follow"""
    method: _Method = _Method()
    """what the losses take from the method"""
    train: _Train = _Train()
    """what the losses take from the training"""
    probe: Probe = Probe()
    """classifiers on the features"""
    analyze: Analyze = Analyze()
    """terms of the theory"""


def load_measurement(
    stored: Mapping[str, Any], overrides: Sequence[str], *, where: str, changes: Mapping[str, Any] | None = None
) -> Measurement:
    """The settings stored in the file `where`, with overrides `key.sub=value` and `changes` of the analyze block.

    Raises InputError that lists all faults, and for an override that would change nothing.
    """
    given = [Source(override.label, override.patch) for override in parse_overrides(overrides)]
    for (block, field), reason in _OF_RUNS.items():
        if any(_gives(source.patch.get(block), field) for source in given):
            what = f"{block}.{field} changes nothing for features: {reason}"
            raise InputError(what, where=where, remedy="Leave it out.")
    sources = [Source(where, stored), *given, *([Source("options", {"analyze": dict(changes)})] if changes else [])]
    merged: dict[str, Any] = reduce(merge, [source.patch for source in sources], {})
    try:
        return Measurement.model_validate(merged)
    except ValidationError as error:
        raise as_error([fault.line(sources, where) for fault in faults_of(error, Measurement, merged)], where) from None


def _gives(block: Any, field: str) -> bool:
    return isinstance(block, Mapping) and block.get(field) is not None
