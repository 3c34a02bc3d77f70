"""Files of features (.npz, .safetensors) from other programs or from `cssl analyze --export`, read and written.

Nothing in a file is executed: no pickles are loaded. What a file claims to hold is compared with its size, and with the
memory there is, before room is made for it.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from cssl_cli.errors import InputError, did_you_mean, escaped, nearest, some
from cssl_cli.features.arrays import FeatureArrays, check_arrays
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.files import open_to_read, replacing

REMEDY = "Write it again: np.savez(FILE, features=..., labels=...)."
_OF_IMAGES = ("features", "labels", "class_names")
_TRAINING = ("train_features", "train_labels")
# What only exports have; some of it under another name than in `FeatureArrays`.
_FIELDS = {"view_continuous": "continuous", "view_states": "states", "view_discrete": "discrete"}
_EXPORTED = ("norms", "precision", "settings", "projector", "untrained", *_FIELDS)
_KNOWN = (*_OF_IMAGES, *_TRAINING, *_EXPORTED, "view_weights")


# ---------------------------------------------------------------------- writing
def write_features(path: Path, arrays: FeatureArrays, *, precision: str) -> None:
    """Write an .npz that `read_features` gives back to the last bit, for `arrays` whose features are float32.

    `features` (N, V, D) are scaled to unit norm in float64, `norms` (N, V) are their lengths, `view_weights` (V,) the
    weight of each view in a mean over views; the other arrays are as given. Raises InputError where it cannot.
    """
    double = arrays.features.double()
    num_views = double.shape[1]
    weights = np.full(num_views, 1 / max(num_views - 1, 1))
    weights[0] = 0.0 if num_views > 1 else 1.0
    content: dict[str, Any] = {
        "features": unit_norm(double).numpy(),
        "norms": double.norm(dim=2).numpy(),
        "view_weights": weights,
        "class_names": np.array(arrays.class_names),
        "precision": np.array(precision),  # of the features
        "settings": np.array(json.dumps({"settings": arrays.settings, "about": arrays.about})),
        "view_discrete": np.array(arrays.discrete, dtype=np.str_),
    }
    fields = ("labels", "projector", "untrained", "continuous", "states")
    tensors = {name: tensor for name in fields if (tensor := getattr(arrays, name)) is not None}
    in_file = {field: name for name, field in _FIELDS.items()}
    content |= {in_file.get(name, name): tensor.numpy() for name, tensor in tensors.items()}
    with replacing(path, "Give another --export FILE.npz.") as partial, partial.open("wb") as file:
        np.savez(file, **content)


# ---------------------------------------------------------------------- reading
def read_features(path: Path, *, training: bool, largest: float | None, notice: Callable[[str], None]) -> FeatureArrays:
    """What a file of features holds, checked; `training`: with the features that classifiers are fitted on, or without.

    largest: bytes that its arrays may take, None for any number. `notice` is told which arrays are not used. Raises
    InputError, naming the file and the array, where it cannot be read or measured.
    """
    wanted = {*_OF_IMAGES, "norms", "precision", *(_TRAINING if training else _EXPORTED)}
    names, arrays = _read(path, wanted, largest)
    if "features" not in names:
        found = some([escaped(name) for name in names], limit=10) or "none"
        remedy = "Give what the encoder makes of images, not its weights: np.savez(FILE, features=..., labels=...)."
        raise InputError(f"there is no array features, but {found}", where=str(path), remedy=remedy)
    for name in names:
        if name not in _KNOWN:
            guess = did_you_mean(nearest(name, [known for known in _KNOWN if known not in names]))
            notice(f"{path}: {escaped(name)} is not used{guess}")
    return check_arrays(_as_fields(arrays, str(path)), where=str(path))


def _read(path: Path, wanted: set[str], largest: float | None) -> tuple[list[str], dict[str, Any]]:
    """The names of all arrays, and those `wanted`."""
    with _explained(path), open_to_read(path) as file:
        start = file.read(9)
        file.seek(0)
        if start[8:] == b"{":
            return _from_safetensors(path, wanted, largest)
        if start.startswith(b"\x93NUMPY"):
            raise InputError("it is a single array, as np.save writes it", where=str(path), remedy=REMEDY)
        if not start.startswith(b"PK"):
            raise InputError("it is no .npz file, nor a .safetensors one", where=str(path), remedy=REMEDY)
        return _from_npz(path, file, wanted, largest)


@contextmanager
def _explained(path: Path, array: str = "") -> Iterator[None]:
    """Turn what goes wrong with a file, or with an array in it, into an error for the user."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except Exception as error:  # what zipfile, NumPy and safetensors raise for a damaged file is undocumented
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        what = f"{array} cannot be read: {escaped(reason)}".lstrip()
        raise InputError(what, where=str(path), remedy=REMEDY) from error


def _from_npz(path: Path, file: IO[bytes], wanted: set[str], largest: float | None) -> tuple[list[str], dict[str, Any]]:
    with zipfile.ZipFile(file) as archive:
        members: dict[str, str] = {}
        for stored in archive.namelist():
            if (name := stored.removesuffix(".npy")) in members and name in wanted:
                raise ValueError(f"{name} is in it twice")
            members[name] = stored
        sizes, arrays = {}, {}
        for name in [name for name in members if name in wanted]:
            with _explained(path, name):
                sizes[name] = _size(archive, members[name])
        _require_room(path, sizes, largest)
        for name in sizes:
            with _explained(path, name), archive.open(members[name]) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return list(members), arrays


def _size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes that an array takes; ValueError where its header and the size of the member do not agree."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it is of version {version} of NumPy's format")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(member)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which would have to be unpickled; give numbers, or text as str")
        size, there = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - member.tell()
    if min(shape, default=0) < 0 or size != there:
        raise ValueError(f"its header says shape {shape} of {dtype}, {size:,} bytes, and there are {there:,}")
    return size


def _from_safetensors(path: Path, wanted: set[str], largest: float | None) -> tuple[list[str], dict[str, Any]]:
    """Text cannot be in tensors: class_names and settings are JSON in the metadata."""
    from safetensors import safe_open

    _require_room(path, {"it": path.stat().st_size}, largest)
    with safe_open(path, framework="pt") as file:
        names, text = list(file.keys()), file.metadata() or {}
        arrays: dict[str, Any] = {}
        for name in names:
            if name in wanted:
                with _explained(path, name):
                    arrays[name] = file.get_tensor(name)
    for name in [name for name in ("class_names", "settings") if name in text]:
        names.append(name)
        if name in wanted:
            arrays[name] = text[name] if name == "settings" else _listed(text[name], path)
    return names, arrays


def _listed(text: str, path: Path) -> np.ndarray:
    """The names of classes in the metadata of a safetensors file."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        remedy = 'Write it as json.dumps(["cat", "dog", ...]), the name of each class in their order.'
        raise InputError("class_names in its metadata is no JSON list of text", where=str(path), remedy=remedy)
    return np.array(names, dtype=np.str_)


def _require_room(path: Path, sizes: Mapping[str, int], largest: float | None) -> None:
    total = sum(sizes.values())
    if largest is not None and total > largest:
        name = max(sizes, key=lambda name: sizes[name])
        raise InputError(
            f"does not fit in memory: {name} needs {sizes[name] / 2**30:,.1f} GiB, {largest / 2**30:,.1f} are free",
            where=str(path),
            remedy="Give fewer images or views.",
        )


# ---------------------------------------------------------------------- what an export has besides
def _as_fields(arrays: dict[str, Any], where: str) -> dict[str, Any]:
    """The arrays by the names of the fields of `FeatureArrays`; features of an export as its encoder gave them."""
    stored = _stored(arrays.pop("settings", "{}"), where)
    of_ours = arrays.pop("precision", None) is not None
    if (norms := arrays.pop("norms", None)) is not None and "features" in arrays:
        arrays["features"] = _unscaled(arrays["features"], norms, rounded=of_ours, where=where)
    if "labels" not in arrays and "train_labels" not in arrays:
        arrays.pop("class_names", None)  # an export of unlabelled images has an empty one
    return {_FIELDS.get(name, name): array for name, array in {**arrays, **stored}.items()}


def _unscaled(features: Any, norms: Any, *, rounded: bool, where: str) -> np.ndarray:
    """Features times their lengths; `rounded`: to float32, which the encoder gave them in."""
    features, norms = np.asarray(features), np.asarray(norms)
    if norms.dtype.kind != "f" or features.dtype.kind != "f" or norms.shape != features.shape[:-1]:
        remedy = f"Leave norms out, or give the length of each feature vector: {features.shape[:-1]}."
        raise InputError(f"norms has shape {norms.shape}, of {norms.dtype}", where=where, remedy=remedy)
    if (norms < 0).any():
        raise InputError(f"norms has {norms.min():g}", where=where, remedy="Give lengths, of 0 or more.")
    if features.dtype == norms.dtype == np.float64:
        features *= norms[..., np.newaxis]  # in place: there may be no room for another
    else:
        features = features * norms[..., np.newaxis]
    with np.errstate(over="ignore"):  # found and named later
        return features.astype(np.float32) if rounded else features


def _stored(text: Any, where: str) -> dict[str, dict[str, Any]]:
    """The settings and the origin that an export has in JSON."""
    try:
        content = json.loads(str(np.asarray(text).item()))
        stored = {name: content.get(name, {}) for name in ("settings", "about")}
        if not all(isinstance(part, dict) for part in stored.values()):
            raise ValueError(f"no mappings: {some(list(stored))}")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        remedy = "Leave it out: settings are given as KEY=VALUE."
        raise InputError(f"settings cannot be read: {escaped(str(error))}", where=where, remedy=remedy) from error
    return stored
