"""Which weights of a file are those of an encoder, whoever wrote it, and under what names.

Files differ in what stands before a name (`module.encoder_q.`), in the names themselves where a ResNet has been cut
into a numbered sequence, and in what lies beside the encoder: classifiers, projectors, momentum copies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

COUNTER = "num_batches_tracked"  # of a batch norm; old files lack it, and no result depends on it
FITTING = 0.5  # share of an encoder's names from which on something is taken for one
SOME = 0.1  # share below which a file has nothing of the encoder, whatever few names agree
# A copy that follows the encoder slowly, by a part of its name: momentum_backbone, encoder_k, target_network, teacher.
_MOMENTUM = re.compile(r"(^|_)(momentum|target|teacher|ema)(_|$)|^(encoder_k|key_encoder)$")
# What may lie inside the encoder's part of a file without being of it, by its first name.
_CLASSIFIERS = ("fc", "linear", "classifier", "head", "heads", "head_dist", "aux1", "aux2", "AuxLogits")
_HEADS = (*_CLASSIFIERS, "projector", "projection_head", "predictor", "prediction_head", "queue", "queue_ptr")
_PROJECTORS = ("projector", "projection_head", "projection_mlp", "fc", "head", "g", "layers")
_STATISTICS = (".running_mean", ".running_var")
_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
# Places in a sequence of a ResNet's parts: all of them; without the pooling of the stem; without its ReLU, too.
_NUMBERED = [dict(zip(_STAGES, places, strict=True)) for places in ("014567", "013456", "012345")]


@dataclass(frozen=True)
class Matched:
    """What a file has of an encoder: `state` under the encoder's own names, and what does not agree.

    prefix: what stands before the names in the file. missing: names that the file lacks. unexpected: names in the file,
    within the prefix, that the encoder lacks. misfits: names of another shape, as (name, in the file, in the encoder).
    left_out: what else is in the file. same, alike: other prefixes, below which the same weights are, or other ones
    that fit as well. without_relu: whether it is a sequence of a ResNet's parts with no place for the ReLU of its stem,
    which therefore has none. num_splits: how many statistics each batch norm has, each of a part of a batch; `state`
    has their means, as such a batch norm takes when it is evaluated.
    """

    state: dict[str, Tensor]
    prefix: str
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misfits: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)
    without_relu: bool = False
    num_splits: int = 1


def match_encoder(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Matched:
    """The weights of an encoder with the state `wanted` (only shapes are read) in a file's state `found`.

    Names agree after one prefix has been taken off, the one that leaves most of them, momentum copies set aside.
    """
    readings = list(_readings(found, wanted))
    hits = [_hits(found, *reading) for reading in readings]
    prefix, names = readings[hits.index(max(hits)) if max(hits) > SOME * len(wanted) else -1]
    inside = {name[len(prefix) :]: name for name in found if name.startswith(prefix)}
    matched = Matched({}, prefix, without_relu=_called("layer1", _NUMBERED[-1]) + ".0.conv1.weight" in names.values())
    for (other, theirs), number in zip(readings, hits, strict=True):
        if number == max(hits) > FITTING * len(wanted) and other != prefix:
            agrees = _same(found, (prefix, names), (other, theirs))
            (matched.same if agrees else matched.alike).append(other)
    for name in wanted:
        if names[name] in inside:
            tensor = found[inside[names[name]]]
            if tensor.shape != wanted[name].shape:
                matched.misfits.append((inside[names[name]], tuple(tensor.shape), tuple(wanted[name].shape)))
            matched.state[name] = tensor
        elif not name.endswith(COUNTER):
            matched.missing.append(prefix + names[name])
    matched = _with_splits_joined(matched, wanted)
    known = set(names.values())
    for name in found:
        own = name[len(prefix) :] if name.startswith(prefix) else None
        if own is None or (own not in known and _is_head(own, names)):
            matched.left_out.append(name)
        elif own not in known and not own.endswith(COUNTER):
            matched.unexpected.append(name)
    return matched


def counted_parts(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Names of a file that are not of the encoder below `prefix`: how many begin alike, up to where they leave it."""
    return dict(Counter(_group(name, prefix) for name in names))


def _with_splits_joined(matched: Matched, wanted: Mapping[str, Tensor]) -> Matched:
    """The means of statistics over splits, where these alone have other shapes, multiples of the encoder's."""
    if any(not name.endswith(_STATISTICS) or len(theirs) != 1 for name, theirs, _ in matched.misfits):
        return matched
    ratios = {theirs[0] / ours[0] for _, theirs, ours in matched.misfits}
    if len(ratios) != 1 or not (ratio := ratios.pop()).is_integer():
        return matched
    splits = int(ratio)
    state = {
        name: tensor if tensor.shape == wanted[name].shape else tensor.reshape(splits, -1).mean(dim=0)
        for name, tensor in matched.state.items()
    }
    return replace(matched, state=state, misfits=[], num_splits=splits)


def match_projector(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], encoders: Sequence[str]
) -> Matched | None:
    """The weights of a projector with the state `wanted`, layer by layer in their order; None if there are none.

    encoders: prefixes of the encoder, inside or beside which authors have the projector.
    """
    layers = _layers(wanted, "")
    around = [
        before
        for encoder in encoders
        for before in (encoder, *(before for before, _ in reversed(list(_splits(encoder)))))
    ]
    for prefix in dict.fromkeys(f"{before}{name}." for before in around for name in _PROJECTORS):
        theirs = _layers(found, prefix)
        if theirs and [_shapes(layer) for layer in theirs] == [_shapes(layer) for layer in layers]:
            pairs = zip(layers, theirs, strict=True)
            return Matched({ours[part].name: their[part].tensor for ours, their in pairs for part in ours}, prefix)
    return None


# ---------------------------------------------------------------------- names
def _readings(found: Iterable[str], wanted: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Prefixes and, for each of the encoder's names, what the file calls it."""
    for names in _dialects(list(wanted)):
        ends = set(names.values())
        prefixes = dict.fromkeys(prefix for name in found for prefix, rest in _splits(name) if rest in ends)
        for prefix in sorted(prefixes, key=len):
            if not any(_MOMENTUM.search(part) for part in prefix.split(".")):
                yield prefix, names
    yield "", {name: name for name in wanted}


def _dialects(wanted: Sequence[str]) -> Iterator[dict[str, str]]:
    """What files call the encoder's names: the same, or what a ResNet's parts are called elsewhere."""
    is_resnet = {name.partition(".")[0] for name in wanted} == set(_STAGES)
    for places in ({}, *(_NUMBERED if is_resnet else ())):
        for shortcut in ("downsample", *(("shortcut",) if is_resnet else ())):
            yield {name: _called(name, places).replace(".downsample.", f".{shortcut}.") for name in wanted}


def _called(name: str, places: Mapping[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return places.get(first, first) + dot + rest


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """The name as a prefix, which is empty or ends in a dot, and the rest of it."""
    parts = name.split(".")
    for number in range(len(parts)):
        yield "".join(f"{part}." for part in parts[:number]), ".".join(parts[number:])


def _hits(found: Mapping[str, Tensor], prefix: str, names: Mapping[str, str]) -> int:
    return sum(prefix + name in found for name in names.values())


def _same(found: Mapping[str, Tensor], one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]]) -> bool:
    """Whether two readings find the same weights."""
    pairs = [[found.get(prefix + names[name]) for prefix, names in (one, other)] for name in one[1]]
    return all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _is_head(own: str, names: Mapping[str, str]) -> bool:
    """Whether a name inside the prefix is of what follows the encoder, or of a copy of it."""
    first = own.partition(".")[0]
    numbers = [int(part) for name in names.values() if (part := name.partition(".")[0]).isdigit()]
    beyond = first.isdigit() and bool(numbers) and int(first) > max(numbers)
    return first in _HEADS or beyond or bool(_MOMENTUM.search(first))


def _group(name: str, prefix: str) -> str:
    """The first names of an entry, up to where it leaves the prefix of the encoder."""
    parts, own = name.split("."), prefix.split(".")
    shared = next((number for number, (a, b) in enumerate(zip(parts, own, strict=False)) if a != b), 0)
    return ".".join(parts[: shared + 1])


# ---------------------------------------------------------------------- layers of a projector
@dataclass(frozen=True)
class _Entry:
    name: str
    tensor: Tensor


def _layers(state: Mapping[str, Tensor], prefix: str) -> list[dict[str, _Entry]]:
    """The entries of each layer below a prefix by their last names, in the order of the layers' numbers."""
    layers: dict[tuple[tuple[int, str], ...], dict[str, _Entry]] = {}
    for name, tensor in state.items():
        layer, _, part = name[len(prefix) :].rpartition(".")
        if name.startswith(prefix) and part != COUNTER:
            layers.setdefault(_natural(layer), {})[part] = _Entry(name, tensor)
    return [layers[key] for key in sorted(layers)]


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("."))


def _shapes(layer: Mapping[str, _Entry]) -> dict[str, tuple[int, ...]]:
    return {part: tuple(entry.tensor.shape) for part, entry in layer.items()}
