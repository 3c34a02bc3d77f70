"""Weights that were not made by the run that uses them: read from a file, and fitted to the recipe's encoder."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cssl_cli.errors import InputError, escaped, some
from cssl_cli.host.files import open_to_read
from cssl_cli.host.paths import UnknownPath, expand
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.methods import build_method
from cssl_cli.nn.checkpoint_names import Matched, counted_parts, match_encoder, match_projector
from cssl_cli.nn.encoder import build_encoder
from cssl_cli.recipe import Recipe
from cssl_cli.recipe.validators import file_digest
from cssl_cli.runs.run_dir import ENCODER, PROJECTOR
from cssl_cli.runs.weights_file import facts_in

_WRAPPERS = ("state_dict", "model", "net", "model_state_dict")  # under which files have the weights
_DEEPEST = 4  # of them in one another
_FIRST = 5  # names that a message lists
# What torch says where something other than tensors and plain values would be made.
_NAMES_CODE = re.compile(r"Unsupported (global|class)|GLOBAL|Trying to (call|instantiate|set)")
_SAYS_WHY = re.compile(r"WeightsUnpickler error:\s*(.+)")  # behind advice that does not fit here
_SAFETENSORS_HEADER = 100_000_000  # bytes that the format allows it
_GIT_LFS = b"version https://git-lfs"
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds: tensors by name, the top-level names around them, and the facts of a cssl run."""

    path: Path
    state: dict[str, Tensor]
    around: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_solo_learn(self) -> bool:
        """Whether it is laid out as solo-learn's: of Lightning, with an online `classifier` beside the encoder.

        The encoder is called `backbone`, and `encoder` up to version 1.0.2.
        """
        first = {name.partition(".")[0] for name in self.state}
        return (
            "pytorch-lightning_version" in self.around
            and "classifier" in first
            and not first.isdisjoint({"backbone", "encoder"})
        )


@dataclass(frozen=True)
class Allowances:
    """Names, or patterns with * and ?, that may be missing from a file, or be in it although the encoder lacks them."""

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()


EXACTLY = Allowances()


@dataclass(frozen=True)
class StartingWeights:
    """An encoder's weights by its own names, its projector's if recognised, and facts of where they are from."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor] | None
    origin: Mapping[str, Any]


def starting_weights(recipe: Recipe, allowed: Allowances, channels: int) -> StartingWeights | None:
    """The weights that `encoder.weights` names, fitted to the encoder of images of so many channels;
    None if the recipe names none.

    `InputError` if the file is not the one that the recipe has the digest of, or if names or shapes do not agree.
    """
    named = recipe.encoder.weights
    if named is None:
        return None
    path = weights_path(named)
    try:
        digest = file_digest(str(path))
    except ValueError as error:
        raise InputError(
            "there is no such file", where=f"encoder.weights={named}", remedy="Give the file where it lies now."
        ) from error
    if digest != recipe.encoder.weights_sha256:
        raise InputError(
            "the file is not the one that the recipe has the digest of (encoder.weights_sha256)",
            where=str(path),
            remedy="Give the file of then, or another recipe: encoder.weights_sha256=null takes the file as it is.",
        )
    return fitted(read_weights(path), recipe, allowed, digest, channels)


def weights_path(named: str) -> Path:
    """Where a file of weights lies; `InputError` where a variable in its path is not set."""
    try:
        return Path(expand(named))
    except UnknownPath as error:
        raise InputError(f"{named!r} {error}", where="encoder.weights", remedy="Set it, or write it out.") from error


# ---------------------------------------------------------------------- reading
def read_weights(path: Path) -> WeightsFile:
    """What a file of weights holds, of safetensors or of torch; no code in it is run. `InputError` if it holds none."""
    try:
        with open_to_read(path) as file:
            start = file.read(len(_GIT_LFS))
        if start == _GIT_LFS:
            remedy = "Fetch the file itself: git lfs pull."
            raise InputError("it is a pointer of Git LFS in place of the file", where=str(path), remedy=remedy)
        is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _SAFETENSORS_HEADER
        content, facts = _read_safetensors(path) if is_safetensors else (_read_torch(path), {})
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    state, around = _unwrapped(content, path)
    return WeightsFile(path, state, around, facts)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            facts = facts_in(file)
            if facts:  # one of ours
                SealedFolder(path.parent).verify(path.name, file, in_header=True)
        return load_file(path), facts
    except (SafetensorError, ValueError) as error:
        raise InputError(f"the file is damaged: {error}", where=str(path)) from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # options of a training, beside the weights
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling raises is undocumented
        if _NAMES_CODE.search(str(error)):
            what = "it holds more than weights, which could run code when it is read"
            remedy = (
                "If you trust it, save its weights alone: python -c \"import torch; it = torch.load('FILE', "
                "weights_only=False); torch.save(it['state_dict'] if isinstance(it, dict) else it.state_dict(), "
                "'WEIGHTS.pt')\""
            )
        else:
            what = f"it is no file of weights, of torch or of safetensors ({_first_line(error)})"
            remedy = "Give a checkpoint, or a state_dict saved by torch.save or safetensors."
        raise InputError(what, where=str(path), remedy=remedy) from error


def _unwrapped(content: Any, path: Path) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The mapping of names to tensors inside a checkpoint, and the top-level names around it."""
    around: set[str] = set()
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        inner = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            state = _tensors(content)
            if state:
                return state, frozenset(around)
            break
        filled = [name for name in inner if _tensors(content[name])]
        if len(filled) > 1:
            raise InputError(
                f"it holds weights under {' and under '.join(filled)}",
                where=str(path),
                remedy="Save those of one encoder in a file of their own.",
            )
        around |= {name for name in content if isinstance(name, str)}
        content = content[(filled or inner)[0]]
    held = f"its names are {some(sorted(map(str, content)), limit=_FIRST)}" if isinstance(content, Mapping) else ""
    raise InputError(
        f"it holds no weights{f': {held}' if held else ''}",
        where=str(path),
        remedy=f"Weights are looked for at the top, and under {', '.join(_WRAPPERS)}.",
    )


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _first_line(error: BaseException) -> str:
    if isinstance(error, EOFError | OSError):
        return "it is cut short"
    says = _SAYS_WHY.search(str(error))
    said = says[1] if says else str(error).strip().partition("\n")[0]
    return escaped(said).lower() or type(error).__name__


# ---------------------------------------------------------------------- fitting
def fitted(file: WeightsFile, recipe: Recipe, allowed: Allowances, digest: str, channels: int) -> StartingWeights:
    """The file's weights under the names of the recipe's encoder and projector; `InputError` if they do not fit."""
    with torch.device("meta"):
        method = build_method(recipe.settings("method"), build_encoder(recipe.settings("encoder"), channels))
    wanted, of_head = method.encoder.state_dict(), method.projector.state_dict()
    matched = match_encoder(file.state, wanted)
    _require_stem(_stem(file, matched), file, recipe)
    _require(matched, file, recipe, allowed)
    projector, of_projector = _projector(file, of_head, matched)
    left_out = [name for name in matched.left_out if of_projector is None or not name.startswith(f"{of_projector}.")]
    origin = {
        "file": file.path.name,
        "sha256": digest,
        "prefix": matched.prefix,
        "missing": matched.missing,
        "left_out": counted_parts(left_out, matched.prefix),
        "projector": of_projector,
        **({"num_splits": matched.num_splits} if matched.num_splits > 1 else {}),
    }
    return StartingWeights(
        _numbers(matched.state, wanted, file, matched.prefix),
        None if projector is None else _numbers(projector, of_head, file, f"{of_projector}: "),
        origin,
    )


def _numbers(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: WeightsFile, prefix: str
) -> dict[str, Tensor]:
    """The weights in the precision that is `wanted`; `InputError` for what is no weight of a network."""
    found = {}
    for name, tensor in state.items():
        fault = _fault(name, tensor, wanted[name])
        if fault is not None:
            remedy = "Save the weights as dense tensors of float32."
            raise InputError(f"{prefix}{name} {fault}", where=str(file.path), remedy=remedy)
        found[name] = tensor.detach().to(wanted[name].dtype).contiguous()
    return found


def _fault(name: str, tensor: Tensor, wanted: Tensor) -> str | None:
    """What makes a tensor no weight of a network, or None."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "without its numbers" if tensor.is_meta else "sparse"
        return f"is a tensor that is {kind}"
    if wanted.is_floating_point() and not tensor.is_floating_point():
        return f"is of {str(tensor.dtype).removeprefix('torch.')}, not of floating-point numbers"
    if not wanted.is_floating_point():
        return None
    numbers = tensor.double()
    if not bool((numbers.abs() <= _LARGEST).all()):
        return "holds numbers that are infinite or undefined in float32"
    return "holds negative variances" if name.endswith("running_var") and bool((numbers < 0).any()) else None


def _projector(
    file: WeightsFile, wanted: Mapping[str, Tensor], encoder: Matched
) -> tuple[dict[str, Tensor] | None, str | None]:
    """The projector's weights and where they are from; None where the file has none of the recipe's layers."""
    beside = file.path.with_name(PROJECTOR)
    if file.facts and file.path.name == ENCODER and beside.is_file():  # of a run of ours
        other = read_weights(beside)
        same_run = other.facts.get("fingerprint") == file.facts.get("fingerprint")
        found = match_projector(other.state, wanted, [""]) if same_run else None
        return (found.state, PROJECTOR) if found else (None, None)
    found = match_projector(file.state, wanted, [encoder.prefix, *encoder.same])
    return (found.state, found.prefix.removesuffix(".")) if found else (None, None)


def told_stem(file: WeightsFile, recipe: Recipe) -> str | None:
    """The stem that the file's encoder has, where its layout tells one of the same shapes as ours; else None."""
    encoder = build_encoder(recipe.settings("encoder"))
    return _stem(file, match_encoder(file.state, encoder.state_dict())) if hasattr(recipe.encoder, "stem") else None


def _stem(file: WeightsFile, matched: Matched) -> str | None:
    first = "0.weight" if matched.without_relu else "conv1.weight"
    weight = file.state.get(matched.prefix + first)
    if weight is None or weight.shape[2:] != (3, 3):
        return None
    return "small_without_relu" if matched.without_relu else "small_padding_2" if file.is_solo_learn else None


def _require_stem(told: str | None, file: WeightsFile, recipe: Recipe) -> None:
    given = getattr(recipe.encoder, "stem", None)
    if told is None or given in (None, told):
        return
    why = {
        "small_padding_2": "solo-learn's, whose first convolution pads by 2 pixels",
        "small_without_relu": "a numbered sequence, in which no ReLU follows the first batch norm",
    }
    raise InputError(
        f"its layout is {why[told]}: the shapes are those of encoder.stem={given}, and it is another function",
        where=str(file.path),
        remedy=f"Give encoder.stem={told}. Where that is not so, save the weights under the names of torchvision.",
    )


def _require(matched: Matched, file: WeightsFile, recipe: Recipe, allowed: Allowances) -> None:
    """`InputError`, with all that does not agree, unless it was allowed."""
    if matched.alike:
        below = ", ".join(repr(prefix) for prefix in (matched.prefix, *matched.alike))
        raise InputError(
            f"several encoders in it fit, below {below}",
            where=str(file.path),
            remedy="Save the state_dict of one of them in a file of its own.",
        )
    if not matched.state:  # whatever is allowed
        first = some([escaped(name) for name in file.state], limit=_FIRST)
        raise InputError(
            f"it has nothing of the encoder {recipe.encoder.name}, but {first}",
            where=str(file.path),
            remedy="Give the architecture as encoder={name: ..., ...}, or the file of an encoder.",
        )
    missing = _not_allowed(matched.missing, allowed.missing, "--allow-missing")
    unexpected = _not_allowed(matched.unexpected, allowed.unexpected, "--allow-unexpected")
    lines = []
    if missing:
        lines.append(f"  {_counted(len(missing))} missing: {some(missing, limit=_FIRST)}")
    if unexpected:
        lines.append(f"  {_counted(len(unexpected))} not in the encoder: {some(unexpected, limit=_FIRST)}")
    if matched.misfits:
        shown = [f"{name} {list(theirs)}, here {list(ours)}" for name, theirs, ours in matched.misfits]
        lines.append(f"  {_counted(len(shown))} of another shape: {some(shown, limit=_FIRST)}")
    if lines:
        called = getattr(recipe.encoder, "model", recipe.encoder.name)
        raise InputError(
            f"its weights do not fit the encoder {called}\n" + "\n".join(lines),
            where=str(file.path),
            remedy=_remedy(matched, recipe, bool(missing), bool(unexpected)),
        )


def _remedy(matched: Matched, recipe: Recipe, missing: bool, unexpected: bool) -> str:
    of_channels = [
        (theirs[1], ours[1]) for _, theirs, ours in matched.misfits if theirs[2:] == ours[2:] and len(ours) == 4
    ]
    if len(matched.misfits) == len(of_channels) == 1 and len(set(of_channels[0])) == 2:
        theirs, ours = of_channels[0]
        return f"It takes images of {theirs} channel{'s' if theirs > 1 else ''}, and those of the recipe have {ours}."
    kernels = {name: theirs[2:] for name, theirs, _ in matched.misfits}
    kernel = kernels.get(f"{matched.prefix}conv1.weight")
    if hasattr(recipe.encoder, "stem") and kernel in ((7, 7), (3, 3)):
        stem = "imagenet" if kernel == (7, 7) else "small"
        advice = f"Its first convolution is that of another stem: give encoder.stem={stem}."
        if len(matched.misfits) > 1 or missing or unexpected:
            advice += " The rest may be of another architecture: encoder={name: ..., ...}."
        return advice
    ways = ["Give the architecture as encoder={name: ..., ...}."]
    if missing and not matched.misfits:
        ways.append("Where names may be missing, cssl import takes --allow-missing NAME, which keeps random weights.")
    if unexpected and not matched.misfits:
        ways.append("Where what is not in the encoder changes nothing, cssl import takes --allow-unexpected NAME.")
    return " ".join(ways)


def _not_allowed(names: Iterable[str], patterns: Sequence[str], option: str) -> list[str]:
    """The names that no pattern matches; `InputError` for a pattern that matches none."""
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"no such name is concerned: {pattern!r}", where=option, remedy=f"Concerned: {some(names) or 'none'}."
            )
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _counted(number: int) -> str:
    return f"{number:,} name{'' if number == 1 else 's'}"


def described(origin: Mapping[str, Any]) -> str:
    """A sentence on what was taken of a file and what was not."""
    below = f" below {origin['prefix'].removesuffix('.')!r}" if origin["prefix"] else ""
    parts = [f"the encoder{below}"]
    parts.append(f"the projector ({origin['projector']})" if origin["projector"] else "no projector")
    left = [f"{name} ({number})" for name, number in origin["left_out"].items()]
    said = f"taken from {origin['file']}: {', '.join(parts)}"
    said += f"; left out: {some(left, limit=_FIRST)}" if left else ""
    if splits := origin.get("num_splits"):
        said += f"; means of the statistics of {splits} parts of a batch"
    return said + (f"; missing, so random: {some(origin['missing'], limit=_FIRST)}" if origin["missing"] else "")
