"""Features that another program computed: NumPy or torch arrays in, checked tensors and classes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cssl_cli.errors import InputError, escaped

LABELS = "Give one label for each image: a whole number of 0 or more, or the name of its class."
_LARGEST = torch.finfo(torch.float32).max
_SMALLEST = 2.0**-149  # float32's
_CHECKED = 2**24  # numbers looked at together


@dataclass(frozen=True)
class FeatureArrays:
    """N images in V stored views, view 0 the clean one, under an encoder whose outputs have D numbers.

    features: (N, V, D), as the encoder gives them. labels: (N,) in 0 … K − 1, or None; class_names: of the K classes.
    train_features, train_labels: (M, V′, D) and (M,), on which classifiers are fitted, or None. projector, untrained:
    (N, V, …), the same views under the projector and the untrained encoder, or None. continuous, states, discrete: the
    parameters of the augmented views as in `theory.alignment.theorem_2`, or None and (). settings: how to measure, and
    about: where the features are from, both as JSON types, from a file that `cssl analyze --export` wrote.
    """

    features: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    train_features: Tensor | None = None
    train_labels: Tensor | None = None
    projector: Tensor | None = None
    untrained: Tensor | None = None
    continuous: Tensor | None = None
    states: Tensor | None = None
    discrete: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the features and the names of the images' classes, wherever they are stored."""
        digest = hashlib.sha256(repr((tuple(self.features.shape), self.features.dtype)).encode())
        for block in self.features.split(max(1, _CHECKED // self.features[0].numel())):
            digest.update(block.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(repr([self.class_names[label] for label in self.labels.tolist()]).encode())
        return digest.hexdigest()


def check_arrays(arrays: Mapping[str, Any], *, where: str) -> FeatureArrays:
    """The arrays under the names of the fields of `FeatureArrays`, as tensors on the CPU; None counts as not given.

    Features may be of any floating-point type, (N, D) standing for a single view; half precision becomes float32.
    Labels may be whole numbers or names; without `class_names` the classes are those that occur, in ascending order.
    Raises InputError, naming `where` and the array, for what cannot be measured.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    if "features" not in given:
        raise InputError("there is no array features", where=where, remedy=f"Found: {', '.join(given) or 'none'}.")
    features = _table("features", given["features"], where)
    num_images, num_views = features.shape[:2]
    if num_images < 2:
        raise InputError("features has a single image", where=where, remedy="Give at least two, better hundreds.")
    for name in ("projector", "untrained"):
        if name in given and (found := _table(name, given[name], where)).shape[:2] != features.shape[:2]:
            raise _unlike(name, found.shape, f"({num_images}, {num_views}, width)", where)
    train = _table("train_features", given["train_features"], where) if "train_features" in given else None
    if (train is None) != ("train_labels" not in given):
        has, lacks = ("train_labels", "train_features") if train is None else ("train_features", "train_labels")
        raise InputError(f"{has} is given without {lacks}", where=where, remedy="Give both, or neither.")
    if train is not None and train.shape[2] != features.shape[2]:
        raise _unlike("train_features", train.shape, f"(images, {features.shape[2]}), the width of features", where)
    labels = _labels("labels", given.get("labels"), num_images, where)
    train_labels = _labels("train_labels", given.get("train_labels"), 0 if train is None else len(train), where)
    names = _names("class_names", given["class_names"], where) if "class_names" in given else None
    (of_images, of_training), class_names = _numbered((labels, train_labels), names, where)
    continuous, states = _parameters(given, num_images, num_views - 1, where)
    return FeatureArrays(
        features=features,
        labels=of_images,
        class_names=class_names,
        train_features=train,
        train_labels=of_training,
        **{name: _table(name, given[name], where) for name in ("projector", "untrained") if name in given},
        continuous=continuous,
        states=states,
        discrete=tuple(_names("discrete", given["discrete"], where)) if "discrete" in given else (),
        settings=given.get("settings", {}),
        about=given.get("about", {}),
    )


# ---------------------------------------------------------------------- features
def _table(name: str, array: Any, where: str) -> Tensor:
    """Features (N, V, D) in float32 or float64, finite; the array itself where it is that already."""
    tensor = _floats(name, array, where)
    if 0 in tensor.shape:
        raise InputError(f"{name} is empty: shape {tuple(tensor.shape)}", where=where, remedy=f"Write {name} again.")
    if tensor.ndim not in (2, 3):
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}",
            where=where,
            remedy="Give (images, width), or (images, views, width) with the clean image as view 0.",
        )
    largest = 0.0
    for start in range(0, len(tensor), step := max(1, _CHECKED // tensor[0].numel())):
        largest = max(largest, _largest(name, tensor[start : start + step], start, where))
    if 0 < largest < _SMALLEST:
        remedy = "Multiply them: their squares are not to vanish."
        raise InputError(f"{name} has no number above {largest:g}", where=where, remedy=remedy)
    return tensor.unsqueeze(1) if tensor.ndim == 2 else tensor


def _floats(name: str, array: Any, where: str) -> Tensor:
    if isinstance(array, Tensor):
        tensor = _dense(name, array, where)
        kind = str(tensor.dtype).removeprefix("torch.")
        if not tensor.is_floating_point():
            raise _not_floats(name, kind, where)
        try:
            return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).contiguous()
        except NotImplementedError as error:  # two numbers in a byte
            raise _not_floats(name, kind, where) from error
    array = _array(name, array, where)
    if array.dtype.kind != "f":
        raise _not_floats(name, _type(array), where)
    wanted = np.float32 if array.dtype.itemsize < 4 else np.float64 if array.dtype.itemsize > 8 else array.dtype
    array = array.astype(np.dtype(wanted).newbyteorder("="), copy=False)
    # In one order in memory, since sums in another are rounded otherwise.
    fits = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if fits else array.copy())


def _dense(name: str, tensor: Tensor, where: str) -> Tensor:
    """The numbers of a tensor, in memory of the CPU."""
    try:
        return tensor.detach().cpu().to_dense()
    except (NotImplementedError, RuntimeError) as error:  # on the meta device, quantized
        remedy = "Give a dense tensor that has its numbers."
        raise InputError(
            f"{name} is a tensor that cannot be read ({tensor.layout}, {tensor.device})", where=where, remedy=remedy
        ) from error


def _largest(name: str, block: Tensor, first: int, where: str) -> float:
    """The largest magnitude in a block of images of which the first is number `first`; InputError unless finite."""
    low, high = torch.aminmax(block)  # one pass, no copy; NaN where there is one
    if low >= -_LARGEST and high <= _LARGEST:
        return max(high.item(), -low.item())
    wrong = ~(block.abs() <= _LARGEST)
    image, *_ = wrong.nonzero()[0].tolist()
    value = block[wrong][0].item()
    said = f"{value:g}" if value not in (float("inf"), float("-inf")) else "infinite"
    raise InputError(
        f"{name} is {'NaN' if value != value else said} in image {first + image}",
        where=where,
        remedy="Leave such images out, or compute their features again; numbers must be those of float32.",
    )


def _array(name: str, array: Any, where: str) -> np.ndarray:
    if np.ma.is_masked(array):
        remedy = "Leave such images out, or fill them in."
        raise InputError(f"{name} has masked numbers", where=where, remedy=remedy)
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:  # a ragged list, or what only claims to be an array
        raise InputError(f"{name} is no array: {error}", where=where, remedy="Give a NumPy or torch array.") from error
    if array.dtype.kind == "O":
        raise InputError(f"{name} holds Python objects", where=where, remedy="Give numbers, or text as str.")
    return array


def _type(array: np.ndarray) -> str:
    return {"U": "text", "S": "bytes", "V": "a structured type"}.get(array.dtype.kind, str(array.dtype))


def _not_floats(name: str, kind: str, where: str) -> InputError:
    remedy = f"Give floating-point numbers: {name}.astype(np.float32)."
    return InputError(f"{name} is of {kind}, not of floating-point numbers", where=where, remedy=remedy)


def _unlike(name: str, shape: Sequence[int], wanted: str, where: str) -> InputError:
    return InputError(f"{name} has shape {tuple(shape)}", where=where, remedy=f"It must be {wanted}.")


def _parameters(
    given: Mapping[str, Any], num_images: int, num_augmented: int, where: str
) -> tuple[Tensor | None, Tensor | None]:
    """The parameters (N, V − 1, n) and states (N, V − 1, S) of the augmented views."""
    if "continuous" not in given or "states" not in given:
        return None, None
    continuous = _floats("view_continuous", given["continuous"], where)
    numbers = _array("view_states", given["states"], where)
    if numbers.dtype.kind not in "iu":
        remedy = "Export it again."
        raise InputError(f"view_states is of {_type(numbers)}, not of whole numbers", where=where, remedy=remedy)
    states = torch.from_numpy(numbers.astype(np.int64))
    for name, tensor in (("view_continuous", continuous), ("view_states", states)):
        if tensor.ndim != 3 or tensor.shape[:2] != (num_images, num_augmented):
            raise _unlike(name, tensor.shape, f"({num_images}, {num_augmented}, parameters)", where)
    if not continuous.isfinite().all():
        raise InputError("view_continuous has NaN or infinite numbers", where=where, remedy="Export it again.")
    return continuous, states


# ---------------------------------------------------------------------- labels
def _labels(name: str, array: Any, num_images: int, where: str) -> np.ndarray | None:
    """Labels (N,), whole numbers or str."""
    if array is None:
        return None
    if isinstance(array, Tensor):
        array = _dense(name, array, where)
        if array.is_floating_point():  # NumPy has not all of torch's
            raise InputError(f"{name} is of {str(array.dtype).removeprefix('torch.')}", where=where, remedy=LABELS)
        array = array.numpy()
    labels = _array(name, array, where)
    if labels.shape != (num_images,):
        features = "train_features" if name == "train_labels" else "features"
        what = f"{name} has shape {labels.shape}, and {features} has {num_images:,} images"
        raise InputError(what, where=where, remedy=f"{LABELS} Shape ({num_images},).")
    if labels.dtype.kind in "US":
        return np.array(_decoded(name, labels, where))
    if labels.dtype.kind not in "iub":
        raise InputError(f"{name} is of {_type(labels)}", where=where, remedy=LABELS)
    if labels.dtype.kind == "i" and (labels < 0).any():
        first = int((labels < 0).argmax())
        remedy = "Leave images without a class out. " + LABELS
        raise InputError(f"{name} is {labels[first]} for image {first}", where=where, remedy=remedy)
    return labels


def _names(name: str, array: Any, where: str) -> list[str]:
    names = _array(name, array, where)
    if names.size == 0:
        return []
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(f"{name} is of {_type(names)}, shape {names.shape}", where=where, remedy="Give a list of str.")
    found = _decoded(name, names, where)
    if twice := [text for text in set(found) if found.count(text) > 1]:
        raise InputError(f"{name} has {min(twice)!r} twice", where=where, remedy="Give each class a name of its own.")
    return found


def _decoded(name: str, array: np.ndarray, where: str) -> list[str]:
    if array.dtype.kind == "U":
        return [str(text) for text in array.tolist()]
    try:
        return [text.decode() for text in array.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{name} has bytes that are not UTF-8", where=where, remedy="Give str.") from error


def _numbered(
    both: tuple[np.ndarray | None, np.ndarray | None], names: list[str] | None, where: str
) -> tuple[list[Tensor | None], tuple[str, ...]]:
    """The labels of images and of training images as whole numbers (N,) and (M,) in 0 … K − 1, and the K names."""
    given = {name: one for name, one in zip(("labels", "train_labels"), both, strict=True) if one is not None}
    if not given:
        return [None, None], ()
    if not names:
        if len({one.dtype.kind == "U" for one in given.values()}) > 1:
            raise InputError(
                "of labels and train_labels one has names and one has numbers",
                where=where,
                remedy="Give both the same way, or class_names, which the numbers count.",
            )
        occur = np.unique(np.concatenate([np.unique(one) for one in given.values()]))
        numbered = {name: np.searchsorted(occur, one) for name, one in given.items()}
        names = [str(label) for label in (occur.astype(np.uint8) if occur.dtype.kind == "b" else occur).tolist()]
    else:
        numbered = {name: _in_names(name, one, names, where) for name, one in given.items()}
    found = {name: torch.from_numpy(one.astype(np.int64)) for name, one in numbered.items()}
    return [found.get("labels"), found.get("train_labels")], tuple(names)


def _in_names(name: str, labels: np.ndarray, names: list[str], where: str) -> np.ndarray:
    known: dict[Any, int] = {text: number for number, text in enumerate(names)}
    if labels.dtype.kind != "U":
        known = {number: number for number in range(len(names))}
    numbered = np.array([known.get(label, -1) for label in labels.tolist()], dtype=np.int64)
    if (numbered < 0).any():
        first = int((numbered < 0).argmax())
        label = escaped(str(labels[first]))
        raise InputError(
            f"{name} is {label} for image {first}, and class_names has {len(names)} names",
            where=where,
            remedy=f"Add it to class_names, or give labels of 0 to {len(names) - 1} or by name.",
        )
    return numbered
